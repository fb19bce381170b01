"""The accuracy gate: a float and an INT8 bundle of one checkpoint on the same pictures."""

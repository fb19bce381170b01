"""Parts without a defect that differ from their template as another capture of it would."""

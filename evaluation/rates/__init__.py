"""How sure a figure is: binomial bounds, resampling by board, paired tests, and the verdicts of parts."""

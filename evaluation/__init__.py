"""Data sets, scores, baseline detectors, result pages, bench."""

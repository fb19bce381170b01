"""Measure, scale, grade, limits, confidence."""

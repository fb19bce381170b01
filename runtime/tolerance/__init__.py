"""Tolerances of the standards that a recipe may name, as data."""

"""Measured from the customer's own images: ranges, choices, scale, confidence."""

"""Engines behind one Protocol, and the past that they read."""

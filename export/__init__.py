"""Workstation: checkpoint to bundle."""

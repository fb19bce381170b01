"""Triggers: what says that a part is in front of the camera."""

"""Frames: camera kinds, triggers, clock, scenes."""

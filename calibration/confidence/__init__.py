"""Confidences made honest: fitted on labelled pictures, and how far they are from it."""

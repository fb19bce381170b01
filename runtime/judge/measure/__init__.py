"""Calipers: size, shape, colour and edge of a defect inside its box, each with its uncertainty."""

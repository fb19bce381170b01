"""The device: camera frame in, defect report out."""

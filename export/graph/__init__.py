"""Checkpoint to float ONNX graphs."""

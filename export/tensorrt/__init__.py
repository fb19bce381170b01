"""The TensorRT flavour of the graphs, and what can be checked of it without a GPU."""

"""orinspect: from a Qwen3-VL checkpoint to a headless INT8 inspector on an NVIDIA Jetson Orin."""

__version__ = "0.1.0"

"""NVML: the GPUs of this node."""

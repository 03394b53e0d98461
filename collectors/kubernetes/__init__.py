"""Kubernetes: the pods of this node that hold GPUs."""

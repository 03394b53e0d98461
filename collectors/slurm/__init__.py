"""Slurm: which job held which GPU."""

"""Topology files: the site as its people commissioned it."""

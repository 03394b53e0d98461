"""Hostile input for everything that reads text or bytes from outside: `python -m tests.fuzz --inputs 1000000`."""

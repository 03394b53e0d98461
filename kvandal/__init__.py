"""The command line, the settings, and the embedded stack behind `kvandal demo` and `kvandal up`."""

__version__ = "0.1.0"

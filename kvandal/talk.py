"""Talk for people, apart from the screen: a process without one need not load what draws it."""

import sys


def say(text: str) -> None:
    """A line of talk, on stderr."""
    sys.stderr.write(text + "\n")

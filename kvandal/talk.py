"""Talk for people, apart from the screen: a process without one need not load what draws it.

What is shown may hold names and texts from outside. A control character in them could move a terminal's cursor, hide
what was said before, or begin a line that we never wrote: all are shown as what they are.
"""

import sys

import click


def say(text: str) -> None:
    """A line of talk, on stderr."""
    sys.stderr.write(printable(text) + "\n")


def show(text: str) -> None:
    """Lines for people, on stdout."""
    click.echo(printable(text))


def show_line(line: str) -> None:
    """One line for people, on stdout, whatever is in it."""
    click.echo(printable_line(line))


def printable(text: str) -> str:
    """`text` with nothing in it but what can be seen, spaces and line ends."""
    return "".join(one if one.isprintable() or one in "\n\t" else _escaped(one) for one in text)


def printable_line(text: str) -> str:
    """The same, without line ends and tabs."""
    return "".join(one if one.isprintable() else _escaped(one) for one in text)


def _escaped(one: str) -> str:
    return one.encode("unicode_escape", "backslashreplace").decode("ascii")

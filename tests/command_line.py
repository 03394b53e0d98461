"""Our command line as tests ask it: which verb some words are, and what is wrong with them."""

from collections.abc import Sequence

import click

from kvandal.cli import main


def resolve(words: Sequence[str]) -> tuple[click.Command, list[str]]:
    """The innermost verb that the first words name, and what is left of them; click.UsageError where there is none."""
    command: click.Command = main
    left = list(words)
    while isinstance(command, click.Group) and left and not left[0].startswith("-"):
        _, found, left = command.resolve_command(click.Context(command), left)
        assert found is not None
        command = found
    return command, left


def fault_of(words: Sequence[str]) -> str:
    """What our command line has against these words; empty where it has nothing."""
    try:
        command, left = resolve(words)
    except click.UsageError as error:
        return error.format_message()
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    unknown = [word for word in left if word.startswith("-") and word.partition("=")[0] not in known | {"--help"}]
    return f"{command.name} has no option {unknown[0]}" if unknown else ""

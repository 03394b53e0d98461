"""Every command that the documents show exists and takes these options; tests/docs/test_guides_run.py runs many."""

import inspect
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import pytest

from kvandal.cli import main
from tests.command_line import fault_of
from tests.docs.blocks import FENCE

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "alerts").rglob("*.md")])
INLINE = re.compile(r"`(kvandal [a-z][^`\n]*)`")
BEGINS = re.compile(r"^\s*(?:\.venv/bin/|/opt/kvandal/bin/)?kvandal ")
ELISIONS = frozenset("…|")


@dataclass(frozen=True, slots=True)
class Shown:
    """A command of ours in a document."""

    page: str
    text: str


def shown_commands() -> Iterator[Shown]:
    for page in PAGES:
        name = str(page.relative_to(ROOT))
        if name == "docs/reference/cli.md":
            continue  # --help itself, from the code
        text = page.read_text()
        fenced = (
            line
            for match in FENCE.finditer(text)
            if match["mark"] != "toml"
            for line in match["body"].replace("\\\n", " ").splitlines()
        )
        for line in [*(line for line in fenced if BEGINS.match(line)), *INLINE.findall(text)]:
            yield Shown(name, line.strip())


def words_of(text: str) -> list[str]:
    """The words up to a comment, a pipe or the end; a line that is cut is what stands before the cut."""
    words = shlex.split(text, comments=True)
    end = next((i for i, word in enumerate(words) if word in ELISIONS or word.startswith((">", "…", "|"))), len(words))
    return words[1:end]


SHOWN = list(shown_commands())


def test_the_documents_show_commands() -> None:
    assert len(SHOWN) > 60


def test_a_verb_or_an_option_that_is_not_there_would_be_found() -> None:
    assert fault_of(words_of("kvandal repord --period 2026-10")).startswith("No such command 'repord'.")
    assert fault_of(words_of("kvandal audit --month 2026-10")) == "audit has no option --month"
    assert fault_of(words_of("kvandal audit --period 2026-10  # a comment --that is not read")) == ""


@pytest.mark.parametrize("shown", SHOWN, ids=lambda shown: f"{shown.page}: {shown.text[:60]}")
def test_every_command_that_is_shown_exists(shown: Shown) -> None:
    assert fault_of(words_of(shown.text)) == ""


def every_verb(command: click.Command, name: str) -> Iterator[tuple[str, click.Command]]:
    if isinstance(command, click.Group):
        context = click.Context(command)
        for part in command.list_commands(context):
            found = command.get_command(context, part)
            assert found is not None
            yield from every_verb(found, f"{name} {part}")
    yield name, command


@pytest.mark.parametrize(
    ("name", "verb"), [*every_verb(main, "kvandal")], ids=lambda part: part if isinstance(part, str) else ""
)
def test_a_verb_is_given_all_that_its_function_asks_for(name: str, verb: click.Command) -> None:
    """An option that is asked for and not declared ends the verb with a traceback, whatever is typed."""
    assert verb.callback is not None, name
    parameters = inspect.signature(verb.callback).parameters.values()
    asked = {parameter.name for parameter in parameters if parameter.kind is inspect.Parameter.KEYWORD_ONLY}
    takes_more = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters)
    declared = {parameter.name for parameter in verb.params if parameter.expose_value}
    assert asked <= declared
    assert takes_more or declared <= asked

"""What is fuzzed: a function of bytes that raises nothing but what it documents, and whose answers can be checked."""

from collections.abc import Callable
from dataclasses import dataclass


class WrongAnswerError(AssertionError):
    """The input was accepted, and what came out cannot be right."""


@dataclass(frozen=True, slots=True)
class Target:
    """One reader of outside input.

    `read` returns for input that is accepted or refused as documented; whatever it raises is a crash. `seeds` are
    inputs that get deep: mutations start from them. `words` are what the format is made of.
    """

    name: str
    read: Callable[[bytes], None]
    seeds: tuple[bytes, ...]
    words: tuple[bytes, ...] = ()


def check(claim: bool, what: str) -> None:  # noqa: FBT001 - reads as an assertion
    if not claim:
        raise WrongAnswerError(what)

"""TOML files that say what a device's numbers mean: read, checked against a schema, made into rules, or refused."""

import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Generic, TypeVar

import msgspec

Schema = TypeVar("Schema")
Made = TypeVar("Made")


class EntryError(Exception):
    """What is wrong with an entry; the file is added by whoever reads it."""


@dataclass(frozen=True, slots=True)
class MapFormat(Generic[Schema, Made]):
    """One kind of file: what it is called, what it must look like, and what is made of it.

    `examples` is where whole ones are. Everything that is wrong with a file is an `error` of one sentence, with the
    file, the entry, and what to do.
    """

    noun: str
    schema: type[Schema]
    make: Callable[[Schema], Made]
    examples: str
    error: type[ValueError]

    def load(self, file: Path) -> Made:
        try:
            text = file.read_text(encoding="utf-8")
        except OSError as error:
            raise self.error(f"{self.noun} {file} cannot be read: {error.strerror}; give an existing file") from error
        except UnicodeDecodeError as error:
            raise self.error(f"{self.noun} {file} is not UTF-8: {error.reason}; save it as such") from error
        return self.parse(text, where=str(file))

    def parse(self, text: str, *, where: str) -> Made:
        """What is made of `text`; `where` is what errors call it."""
        try:
            found = msgspec.convert(tomllib.loads(text), self.schema)
        except tomllib.TOMLDecodeError as error:
            raise self.error(f"{self.noun} {where} is not TOML: {error}") from error
        except msgspec.ValidationError as error:
            raise self.error(f"{self.noun} {where}: {error}; {self.examples} has complete examples") from error
        try:
            return self.make(found)
        except EntryError as error:
            raise self.error(f"{self.noun} {where}: {error}") from error


def above_zero(text: str | float, what: str, say: str) -> Fraction:
    """A number as a file has it, exactly; `say` names the entry. EntryError for what is none, or not above 0."""
    try:
        value = Fraction(str(text))
    except (ValueError, ZeroDivisionError) as error:
        raise EntryError(f'{say}: {what} {text!r} is not a number; write 0.001 or "1/1000"') from error
    if value <= 0:
        raise EntryError(f"{say}: {what} is {text}; give one above 0")
    return value

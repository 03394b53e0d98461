"""Maintenance windows from a register file, kept as silences of the Alertmanager."""

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated

import msgspec

from alerts.alertmanager import Alertmanager, Matcher, Silence

MADE_BY = "kvandal maintenance"
# What is told in maintenance too, unless the window says otherwise: people stand next to it.
LOUD = "CoolantLeakCritical"
PLACES = ("hall", "rack", "cdu", "feeder", "node")

Text = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]


class RegisterError(ValueError):
    """The register of maintenance cannot be used; the message says where and what to give."""


class Window(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename={"from_": "from"}):
    """One window: its id, what for, from when until when, and where, by the names that alerts have as labels."""

    id: Text
    reason: Text
    from_: datetime
    until: datetime
    hall: Text = ""
    rack: Text = ""
    cdu: Text = ""
    feeder: Text = ""
    node: Text = ""
    leaks_too: bool = False

    def __post_init__(self) -> None:
        if self.from_.tzinfo is None or self.until.tzinfo is None:
            raise ValueError(f"window {self.id}: its times have no offset; write 2026-11-22T08:00:00Z")
        if self.until <= self.from_:
            raise ValueError(f"window {self.id} ends before it begins")
        if not any(getattr(self, place) for place in PLACES):
            raise ValueError(f"window {self.id} names no place; give one of {', '.join(PLACES)}")


class _Register(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    window: tuple[Window, ...] = ()


@dataclass(frozen=True, slots=True)
class Applied:
    """What was done to make the silences agree with the register."""

    made: int = 0
    ended: int = 0


def load_windows(file: Path) -> tuple[Window, ...]:
    """The windows of a register file; RegisterError with one sentence."""
    try:
        found = msgspec.convert(tomllib.loads(file.read_text()), _Register).window
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise RegisterError(f"register of maintenance {file}: {error}") from error
    twice = {window.id for window in found if sum(other.id == window.id for other in found) > 1}
    if twice:
        raise RegisterError(f"register of maintenance {file}: two windows have the id {min(twice)}; give each its own")
    return found


def silence_of(window: Window) -> Silence:
    places = ((name, getattr(window, name)) for name in PLACES)
    matchers = tuple(Matcher(name, value) for name, value in places if value)
    comment = f"{window.id}: {window.reason}"
    return make_silence(comment, matchers, window.from_, window.until, leaks_too=window.leaks_too)


def make_silence(
    comment: str, place: tuple[Matcher, ...], start: datetime, end: datetime, *, leaks_too: bool = False
) -> Silence:
    """A time in which a place is silent, except for leaks and for the dead man's switch, which must always be heard."""
    loud = () if leaks_too else (Matcher("alertname", LOUD, is_equal=False),)
    heartbeat = Matcher("severity", "heartbeat", is_equal=False)
    starts_ms, ends_ms = (round(moment.timestamp() * 1000) for moment in (start, end))
    return Silence(comment, (*place, *loud, heartbeat), starts_ms, ends_ms)


def apply_silences(silences: Sequence[Silence], alertmanager: Alertmanager, *, now_ms: int) -> Applied:
    """Make those that are missing, end those that are not wanted any more, or otherwise now.

    Idempotent; silences that people made are left alone. Raises AlertmanagerError.
    """
    wanted = {_meaning(silence): silence for silence in silences if silence.ends_ms > now_ms}
    present = {_meaning(silence): silence for silence in alertmanager.silences(MADE_BY)}
    missing, surplus = wanted.keys() - present.keys(), present.keys() - wanted.keys()
    for meaning in missing:
        alertmanager.silence(wanted[meaning], made_by=MADE_BY)
    for meaning in surplus:
        alertmanager.end_silence(present[meaning].id)
    return Applied(len(missing), len(surplus))


def _meaning(silence: Silence) -> tuple[str, frozenset[Matcher], int]:
    """What makes two the same. Not the start: the Alertmanager moves one that lies in the past to now."""
    return silence.comment, frozenset(silence.matchers), silence.ends_ms

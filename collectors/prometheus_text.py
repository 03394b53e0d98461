"""Prometheus' text, as exporters write it: samples of the families that are asked for.

A line that cannot be read costs that line only; lines are bounded.
"""

import math
import re
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

from collectors.mapping import Labels, Number

MAX_LINE_CHARACTERS = 4096  # the parser's time grows with the square of a line's length
EXCERPT_CHARACTERS = 120

_SAMPLE = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)[{ \t]")  # prometheus.io, "Text-based format"
_TOTAL = "_total"  # what OpenMetrics adds to a counter's name


@dataclass(frozen=True, slots=True)
class Point:
    """One sample: a whole number stays one, since a float does not hold the counters of a year."""

    labels: Labels
    value: Number
    time_s: float | None


@dataclass(frozen=True, slots=True)
class Exposition:
    """What a text says about the families that were asked for; `bad_line` is the first that could not be read."""

    points: Mapping[str, Sequence[Point]]
    types: Mapping[str, str]
    bad_lines: int = 0
    bad_line: str = ""

    def declared(self, family: str) -> str:
        """The type that the text gives a family, empty when it gives none."""
        return self.types.get(family) or self.types.get(family.removesuffix(_TOTAL), "")


def parse_text(text: str, families: Collection[str], *, openmetrics: bool = False) -> Exposition:
    """The samples of `families`; other lines are only looked at as far as to see that they are samples at all.

    A last line without its line feed was cut off, and does not count.
    """
    points: defaultdict[str, list[Point]] = defaultdict(list)
    types: dict[str, str] = {}
    bad: list[str] = []
    *lines, cut = text.split("\n")
    if cut:
        bad.append(cut)
    for line in map(str.strip, lines):
        if line.startswith("#"):
            _note_type(line, families, types)
        elif line:
            family = _family_of(line, families)
            if family is None:
                bad.append(line)
            elif family:
                _note_point(line, points[family], bad, openmetrics=openmetrics)
    found = {family: samples for family, samples in points.items() if samples}
    return Exposition(found, types, len(bad), bad[0][:EXCERPT_CHARACTERS] if bad else "")


def _note_type(line: str, families: Collection[str], types: dict[str, str]) -> None:
    words = line[:MAX_LINE_CHARACTERS].split()
    if len(words) == 4 and words[1] == "TYPE" and (words[2] in families or words[2] + _TOTAL in families):
        types[words[2]] = words[3]


def _family_of(line: str, families: Collection[str]) -> str | None:
    """The family of a sample, empty when it is none of ours; None when the line is no sample."""
    start = _SAMPLE.match(line)
    if start is None:
        return "" if line.startswith('{"') else None  # a name in quotes is legal, and never ours
    name = start[1]
    if name in families:
        return name
    return name.removesuffix(_TOTAL) if name.removesuffix(_TOTAL) in families else ""


def _note_point(line: str, points: list[Point], bad: list[str], *, openmetrics: bool) -> None:
    try:
        points.append(_parse_line(line, openmetrics=openmetrics))
    except (ValueError, IndexError, OverflowError):  # the parser's own: on blank names, on a time stamp of 300 digits
        bad.append(line)


def _parse_line(line: str, *, openmetrics: bool) -> Point:
    if len(line) > MAX_LINE_CHARACTERS:
        raise ValueError("the line is too long")
    if openmetrics:
        line = re.sub(r" # \{[^{}]*\} \S+( \S+)?$", "", line)  # an exemplar
    (family,) = text_string_to_metric_families(line)
    (sample,) = family.samples
    stamp = None if sample.timestamp is None else float(sample.timestamp)
    if stamp is not None and openmetrics:
        stamp *= 1000  # seconds there, and milliseconds in the format that the parser has in mind
    return Point(sample.labels, sample.value, stamp)


def is_number(value: Number) -> bool:
    """Whether a sample's value is finite: NaN is how an exporter says that it has none."""
    return abs(value) < 1 << 1000 if isinstance(value, int) else math.isfinite(value)

"""Policies on the catalogue: `python -m catalogue.lint` says what breaks one, where, and what to do.

Each policy is a function that yields one sentence per violation. `make check` runs them all.
"""

import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from fractions import Fraction
from itertools import pairwise, zip_longest
from pathlib import Path
from typing import TypeVar

from catalogue import units
from catalogue.layouts import Field, Layout, known_layouts, layout_of
from catalogue.metrics import Kind, Metric
from catalogue.tables import TABLES, Table
from catalogue.units import Unit

LAYOUTS_FILE = Path(__file__).with_name("layouts.json")
# Each costs two more columns in every rollup (docs/adr/0002-the-frame.md).
MAX_EXTREMES = 8
# One takes as many bytes a minute as some thirty sums.
MAX_SKETCHES = 2
# The frame log has 16 bytes for it.
MAX_TABLE_NAME_BYTES = 16

# Only amounts add up over time; a sum of levels means nothing.
EXTENSIVE = frozenset({units.BYTES, units.COUNT, units.CUBIC_METRES, units.JOULES, units.SECONDS})
# What a sensor of the unit may well show, in the unit: all of a whole, water at the boil.
REACH: Mapping[Unit, int] = {units.RATIO: 1, units.CELSIUS: 100}
# Kinds without a unit, and the word that their names end in instead.
_UNITLESS: Mapping[Kind, Unit] = {Kind.STATE: units.STATE, Kind.BITS: units.REASONS}

_SNAKE_CASE = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
_PROMETHEUS_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")  # prometheus.io, "Data model"

Layouts = Mapping[str, Sequence[Layout]]
Value = TypeVar("Value", str, int)


def name_is_snake_case(table: Table, metric: Metric) -> Iterator[str]:
    if not _SNAKE_CASE.fullmatch(metric.name):
        yield f"{_at(table, metric)}: a name is lower-case words joined by single underscores; rename it"


def name_ends_in_unit(table: Table, metric: Metric) -> Iterator[str]:
    if not metric.name.endswith(f"_{metric.unit.suffix}"):
        yield f"{_at(table, metric)}: its unit is not in its name; let the name end in _{metric.unit.suffix}"


def unit_fits_kind(table: Table, metric: Metric) -> Iterator[str]:
    wanted = _UNITLESS.get(metric.kind)
    if wanted and metric.unit != wanted:
        yield f"{_at(table, metric)}: a metric of kind {metric.kind} has no unit; give it the unit {wanted.suffix}"
    if not wanted and metric.unit in _UNITLESS.values():
        yield f"{_at(table, metric)}: the unit {metric.unit.suffix} is not for a {metric.kind}; give it a unit or kind"
    if metric.kind in (Kind.DELTA, Kind.REGISTER) and metric.unit not in EXTENSIVE:
        yield f"{_at(table, metric)}: {metric.unit.suffix} do not add up over time; make it a gauge"


def brief_is_a_phrase(table: Table, metric: Metric) -> Iterator[str]:
    brief = metric.brief
    if not brief[:1].isupper():
        yield f"{_at(table, metric)}: the brief starts without a capital; write it as a sentence"
    if brief.endswith(".") or ". " in brief or "\n" in brief or brief != brief.strip():
        yield f"{_at(table, metric)}: the brief is to be one sentence without a full stop; shorten it"


def metric_has_an_origin(table: Table, metric: Metric) -> Iterator[str]:
    if not metric.origins:
        yield f"{_at(table, metric)}: nothing says where it comes from; give it an origin"


def resolution_is_positive(table: Table, metric: Metric) -> Iterator[str]:
    if metric.resolution <= 0:
        yield f"{_at(table, metric)}: its resolution is {metric.resolution}; give one above 0"


def stored_range_reaches_far_enough(table: Table, metric: Metric) -> Iterator[str]:
    reach = REACH.get(metric.unit, 0)
    highest = metric.stored.highest * metric.resolution
    if highest < reach:
        yield (
            f"{_at(table, metric)}: {metric.stored.clickhouse} in steps of {metric.resolution} ends at "
            f"{_decimal(highest)} {metric.unit.suffix}, below {reach}; take a wider type or a coarser resolution"
        )


def rollups_are_of_numbers(table: Table, metric: Metric) -> Iterator[str]:
    if (metric.extremes or metric.sketch) and metric.kind not in (Kind.GAUGE, Kind.DELTA):
        yield f"{_at(table, metric)}: a {metric.kind} is rolled up by its kind; drop `extremes` and `sketch`"


def states_are_storable(table: Table, metric: Metric) -> Iterator[str]:
    if metric.states and metric.kind not in _UNITLESS:
        yield f"{_at(table, metric)}: only states and masks have named values; drop `states`"
    for value, name in metric.states:
        if value == metric.stored.absent:
            yield f"{_at(table, metric)}: state {name!r} is {value}, which stands for absent; take another value"
        elif not metric.stored.lowest <= value <= metric.stored.highest:
            yield f"{_at(table, metric)}: state {name!r} is {value}, outside {metric.stored.clickhouse}; take another"
    for value in _twice([value for value, _ in metric.states]):
        yield f"{_at(table, metric)}: two states are stored as {value}; tell them apart"
    for name in _twice([name for _, name in metric.states]):
        yield f"{_at(table, metric)}: two states are called {name!r}; tell them apart"


def mask_is_of_single_bits(table: Table, metric: Metric) -> Iterator[str]:
    if metric.kind is not Kind.BITS:
        return
    if metric.stored.signed:
        yield f"{_at(table, metric)}: a mask in a signed type has no bit for its sign; take an unsigned type"
    for value, name in metric.states:
        if value <= 0 or value & (value - 1):
            yield f"{_at(table, metric)}: reason {name!r} is {value:#x}, not a single bit; give it one bit"
    if sum(value for value, _ in metric.states) == metric.stored.absent:
        yield f"{_at(table, metric)}: all reasons together are {metric.stored.absent}, which is absent; widen it"


def names_are_unique(table: Table) -> Iterator[str]:
    for name in _twice([metric.name for metric in table.metrics]):
        yield f"{table.name}.{name}: the table has two metrics of this name; rename one"


def briefs_are_unique(table: Table) -> Iterator[str]:
    for brief in _twice([metric.brief for metric in table.metrics]):
        yield f"{table.name}: two metrics are described as {brief!r}; say what tells them apart"


def rollups_stay_small(table: Table) -> Iterator[str]:
    extremes = sum(metric.extremes for metric in table.metrics)
    sketches = sum(metric.sketch for metric in table.metrics)
    if extremes > MAX_EXTREMES:
        yield f"{table.name}: {extremes} metrics keep extremes, at most {MAX_EXTREMES} may; drop some"
    if sketches > MAX_SKETCHES:
        yield f"{table.name}: {sketches} metrics keep a sketch, at most {MAX_SKETCHES} may; drop some"


def table_is_named_and_timed(table: Table) -> Iterator[str]:
    if not _SNAKE_CASE.fullmatch(table.name) or len(table.name) > MAX_TABLE_NAME_BYTES:
        yield f"{table.name}: a table's name is snake_case of at most {MAX_TABLE_NAME_BYTES} bytes; rename it"
    if table.cadence_s <= 0:
        yield f"{table.name}: its cadence is {table.cadence_s} s; give one above 0"
    if not table.resources:
        yield f"{table.name}: it has rows of no kind of resource; name one"


def coarse_tiers_outlive_fine_ones(table: Table) -> Iterator[str]:
    keep = table.retention
    if not timedelta(0) < keep.raw <= keep.minute <= keep.hour:
        yield (
            f"{table.name}: kept {keep.raw.days} days raw, {keep.minute.days} by minute and {keep.hour.days} by hour; "
            "keep coarser tiers at least as long as finer ones"
        )


def table_names_are_unique(tables: Sequence[Table]) -> Iterator[str]:
    for name in _twice([table.name for table in tables]):
        yield f"{name}: there are two tables of this name; rename one"


def prometheus_names_are_valid_and_unique(tables: Sequence[Table]) -> Iterator[str]:
    names = [table.prometheus_name(metric) for table in tables for metric in table.metrics]
    for name in names:
        if not _PROMETHEUS_NAME.fullmatch(name):
            yield f"{name}: not a name that Prometheus takes; rename the metric or its table"
    for name in _twice(names):
        yield f"{name}: two metrics have this name on /metrics; rename one"


def layouts_only_grow(tables: Sequence[Table], known: Layouts) -> Iterator[str]:
    """A metric is never removed, re-typed or moved: each layout begins with all fields of the one before."""
    for table in tables:
        layouts = known.get(table.name, ())
        for before, after in pairwise(layouts):
            yield from _departures(before, after)
        if not layouts or layouts[-1] != layout_of(table):
            if layouts:
                yield from _departures(layouts[-1], layout_of(table))
            yield f"{table.name}: layouts.json does not end with today's layout; run `make render` and commit it"
    for name in sorted(known.keys() - {table.name for table in tables}):
        yield f"{name}: layouts.json knows this table, the catalogue does not; a table is never removed, bring it back"


METRIC_POLICIES: tuple[Callable[[Table, Metric], Iterator[str]], ...] = (
    name_is_snake_case,
    name_ends_in_unit,
    unit_fits_kind,
    brief_is_a_phrase,
    metric_has_an_origin,
    resolution_is_positive,
    stored_range_reaches_far_enough,
    rollups_are_of_numbers,
    states_are_storable,
    mask_is_of_single_bits,
)
TABLE_POLICIES: tuple[Callable[[Table], Iterator[str]], ...] = (
    names_are_unique,
    briefs_are_unique,
    rollups_stay_small,
    table_is_named_and_timed,
    coarse_tiers_outlive_fine_ones,
)
CATALOGUE_POLICIES: tuple[Callable[[Sequence[Table]], Iterator[str]], ...] = (
    table_names_are_unique,
    prometheus_names_are_valid_and_unique,
)


def lint(tables: Sequence[Table] = TABLES) -> list[str]:
    """Every violation of every policy, one sentence each; empty when there is none."""
    metrics = [(table, metric) for table in tables for metric in table.metrics]
    return [
        *(sentence for policy in METRIC_POLICIES for pair in metrics for sentence in policy(*pair)),
        *(sentence for policy in TABLE_POLICIES for table in tables for sentence in policy(table)),
        *(sentence for policy in CATALOGUE_POLICIES for sentence in policy(tables)),
        *layouts_only_grow(tables, known_layouts()),
    ]


def dropped_layouts(committed_text: str, base_text: str) -> list[str]:
    """What `committed_text` of layouts.json no longer has of `base_text`, an earlier one: it may only grow."""
    committed, base = _parse(committed_text), _parse(base_text)
    dropped = []
    for table, layouts in base.items():
        for now, before in zip_longest(committed.get(table, ()), layouts):
            if before is not None and now != before:
                dropped.append(
                    f"layout {before.fingerprint:016x} of {table} is no longer in its place in layouts.json; "
                    "frames of it may still be read: bring it back"
                )
    return dropped


def _parse(text: str) -> dict[str, list[Layout]]:
    parsed: dict[str, list[Layout]] = {}
    for entry in json.loads(text)["layouts"]:
        layout = Layout(entry["table"], tuple(Field(*field) for field in entry["fields"]))
        parsed.setdefault(layout.table, []).append(layout)
    return parsed


def _departures(before: Layout, after: Layout) -> Iterator[str]:
    """The first field of `before` that `after` does not have in its place."""
    for field, successor in zip_longest(before.fields, after.fields):
        if field is not None and field != successor:
            yield (
                f"{before.table}.{field.name}: it was {field.type} in steps of {field.resolution} and is now "
                f"{_describe(successor)}; bring it back in its place and add a new metric at the end"
            )
            return


def _describe(field: Field | None) -> str:
    return "gone" if field is None else f"{field.name}, {field.type} in steps of {field.resolution}"


def _at(table: Table, metric: Metric) -> str:
    return f"{table.name}.{metric.name}"


def _decimal(value: Fraction) -> str:
    return f"{float(value):g}"


def _twice(values: Sequence[Value]) -> list[Value]:
    return [value for value, count in Counter(values).items() if count > 1]


def layouts_before(layouts_file: Path) -> str | None:
    """The file as the commit before has it; None where that cannot be told: no clone, no such commit, no git."""
    shown = ["git", "-C", str(layouts_file.parent), "show", f"HEAD~1:./{layouts_file.name}"]
    try:
        done = subprocess.run(shown, capture_output=True, check=False, encoding="utf-8")  # noqa: S603 - our own words
    except OSError:
        return None
    return done.stdout if done.returncode == 0 else None


def main() -> int:
    violations = lint()
    before = layouts_before(LAYOUTS_FILE)
    if before is None:
        sys.stderr.write("layouts.json is not compared with the commit before: there is none here\n")
    else:
        violations += dropped_layouts(LAYOUTS_FILE.read_text(), before)
    sys.stdout.writelines(f"{sentence}\n" for sentence in violations)
    return 1 if violations else 0


if __name__ == "__main__":
    raise SystemExit(main())

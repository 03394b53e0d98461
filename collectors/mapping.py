"""What an exporter's text means, as a TOML file says it: which family is which metric of the catalogue, in which unit.

A mapping is checked as a whole when it is loaded, so that an agent does not start with one that would store nonsense.
"""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from catalogue import Kind, Metric, ResourceKind, Table, table
from collectors.counters import CounterRule
from collectors.map_file import EntryError, MapFormat, above_zero

MAX_IDENTITY_CHARACTERS = 256  # of an inventory message

Number = int | float
Labels = Mapping[str, str]


class MappingError(ValueError):
    """A mapping file is wrong; the message says in which file and entry, and what to do."""


class Repeats(StrEnum):
    """What several samples of one resource in one family mean.

    A sample with one of the mapping's `part` labels is of a part of the resource. Where a sample of the whole is there
    too, the parts do not count.
    """

    SAME = "same"  # copies of one number: when they differ, nobody knows
    MAX = "max"  # copies of one number, taken at slightly different times: the largest
    SUM = "sum"  # the parts add up to the whole
    WHOLE = "whole"  # a part says nothing about the whole


Name = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
Names = Annotated[tuple[Name, ...], msgspec.Meta(min_length=1)]


class _Entry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class Sentinel(_Entry, frozen=True, kw_only=True):
    """Numbers that stand for "no value": from `at_least` on, up to `at_most` where that is given."""

    at_least: Number
    at_most: Number | None = None

    def covers(self, value: Number) -> bool:
        return value >= self.at_least and (self.at_most is None or value <= self.at_most)


class Flag(_Entry, frozen=True, kw_only=True):
    """A bit that is set when the `width` bits at `shift` of the exporter's number are one of `values`."""

    shift: Annotated[int, msgspec.Meta(ge=0, lt=64)]
    width: Annotated[int, msgspec.Meta(ge=1, le=64)]
    values: tuple[int, ...]
    flag: Annotated[int, msgspec.Meta(ge=1)]


class _MetricEntry(_Entry, frozen=True, kw_only=True):
    """One [[metrics]] of a mapping file."""

    families: Names
    table: Name
    metric: Name
    kind: Literal["gauge", "counter"] = "gauge"
    scale: str | Number = 1
    step: str | Number = 1
    ceiling_per_s: str | Number = 0
    repeats: Repeats = Repeats.SAME
    drop: dict[Name, Names] = {}
    blank: tuple[Name, ...] | None = None
    states: dict[str, int] = {}
    shift: Annotated[int, msgspec.Meta(ge=0, lt=64)] = 0
    width: Annotated[int, msgspec.Meta(ge=0, le=64)] = 0
    flags: tuple[Flag, ...] = ()


class _MappingFile(_Entry, frozen=True, kw_only=True):
    name: Annotated[str, msgspec.Meta(pattern="^[a-z][a-z0-9_]{0,31}$")]
    resource: ResourceKind
    identity: Annotated[tuple[Names, ...], msgspec.Meta(min_length=1)]
    title: Name = "{identity}"
    attributes: dict[Name, Names] = {}
    part: tuple[Name, ...] = ()
    epoch: tuple[Name, ...] = ()
    drop: dict[Name, Names] = {}
    trust_types: bool = True
    max_age_s: Annotated[int, msgspec.Meta(ge=1)] = 300  # as long as Prometheus itself looks back
    max_resources: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 1024
    sentinels: dict[Name, Sentinel] = {}
    blank: tuple[Name, ...] = ()
    metrics: Annotated[tuple[_MetricEntry, ...], msgspec.Meta(min_length=1)]
    ignored: dict[Name, str] = {}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MetricRule:
    """How one metric of the catalogue is read; `families` are aliases, the first that has a value counts.

    A number is taken apart (`shift` and `width`, then `flags` or `states`), then multiplied by `scale`. `counter` is
    there when the metric is what was added since the previous tick: one count is `step` of the exporter's number.
    """

    families: tuple[str, ...]
    table: Table
    metric: Metric
    type: str
    scale: Fraction
    step: Fraction
    repeats: Repeats
    drop: Mapping[str, Collection[str]]
    blank: tuple[Sentinel, ...]
    states: Mapping[int, int]
    shift: int
    width: int
    flags: tuple[Flag, ...]
    counter: CounterRule | None

    def code(self, number: Number) -> Number:
        """The part of the exporter's number that this metric is about."""
        return _bits(number, self.shift, self.width) if self.width else number

    def value(self, number: Number) -> float | None:
        """The exporter's number in the metric's base unit; None for a state that the mapping does not list."""
        code = self.code(number)
        if self.flags:
            return float(sum(one.flag for one in self.flags if _bits(code, one.shift, one.width) in one.values))
        if self.states:
            return self.states.get(int(code)) if code == int(code) else None
        return code * self.scale.numerator / self.scale.denominator


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ExporterMapping:
    """What an exporter's text means: read by `load_mapping` or `parse_mapping`.

    `identity` lists the labels that tell a resource, each under all its names. `title` is the name of a resource in
    words, made of `attributes`. A counter starts a new life when its `epoch` label, under the first of its names that
    is there, changes. `ignored` names the families that are left alone on purpose, with the reason.
    """

    name: str
    resource: ResourceKind
    identity: tuple[tuple[str, ...], ...]
    title: str
    attributes: Mapping[str, tuple[str, ...]]
    part: tuple[str, ...]
    epoch: tuple[str, ...]
    drop: Mapping[str, Collection[str]]
    trust_types: bool
    max_age_s: int
    max_resources: int
    rules: tuple[MetricRule, ...]
    ignored: Mapping[str, str]

    @property
    def families(self) -> frozenset[str]:
        """Every name under which the text may have something for us."""
        return frozenset(chain.from_iterable(rule.families for rule in self.rules))

    def identity_of(self, labels: Labels) -> str:
        """The resource that a sample is about; empty when a label is missing or too long."""
        parts = [_first(labels, names) for names in self.identity]
        identity = "/".join(parts)
        return identity if all(parts) and len(identity) <= MAX_IDENTITY_CHARACTERS else ""

    def part_of(self, labels: Labels) -> tuple[str, ...]:
        """Which part of the resource a sample is about; all empty for the whole."""
        return tuple(labels.get(label, "") for label in self.part)

    def epoch_of(self, labels: Labels) -> str:
        """The life of the device's driver in which its counters run on, as far as a label tells."""
        return _first(labels, self.epoch)

    def facts_of(self, identity: str, labels: Labels) -> dict[str, str]:
        found = {name: _first(labels, names)[:MAX_IDENTITY_CHARACTERS] for name, names in self.attributes.items()}
        return {"identity": identity} | {name: fact for name, fact in found.items() if fact}


def _compile(file: _MappingFile) -> ExporterMapping:
    rules = tuple(_compile_metric(file, entry) for entry in file.metrics)
    _refuse_rivals(rules)
    try:
        file.title.format_map(dict.fromkeys([*file.attributes, "identity"], ""))
    except (KeyError, ValueError, IndexError, AttributeError) as error:
        raise EntryError(f"title {file.title!r} names {error}; use the names in [attributes], or identity") from error
    return ExporterMapping(
        name=file.name,
        resource=file.resource,
        identity=file.identity,
        title=file.title,
        attributes=file.attributes,
        part=file.part,
        epoch=file.epoch,
        drop=file.drop,
        trust_types=file.trust_types,
        max_age_s=file.max_age_s,
        max_resources=file.max_resources,
        rules=rules,
        ignored=file.ignored,
    )


_FORMAT = MapFormat("mapping", _MappingFile, _compile, "collectors/mappings", MappingError)


def load_mapping(file: Path) -> ExporterMapping:
    """The mapping in a TOML file. Raises MappingError with one sentence."""
    return _FORMAT.load(file)


def parse_mapping(text: str, *, where: str) -> ExporterMapping:
    """The mapping in `text`; `where` is what errors call it. Raises MappingError with one sentence."""
    return _FORMAT.parse(text, where=where)


def _compile_metric(file: _MappingFile, entry: _MetricEntry) -> MetricRule:
    say = f"metric {entry.table}.{entry.metric} ({entry.families[0]})"
    target, metric = _find(file, entry, say)
    scale, step = above_zero(entry.scale, "scale", say), above_zero(entry.step, "step", say)
    needed = "counter" if metric.kind in (Kind.DELTA, Kind.REGISTER) else "gauge"
    if entry.kind != needed:
        raise EntryError(f'{say} is a {metric.kind}, which needs a {needed}; say kind = "{needed}" if it is one')
    ceiling = above_zero(entry.ceiling_per_s, "ceiling_per_s", say) if entry.ceiling_per_s else Fraction(0)
    return MetricRule(
        families=entry.families,
        table=target,
        metric=metric,
        type=entry.kind,
        scale=scale,
        step=step,
        repeats=entry.repeats,
        drop=entry.drop,
        blank=_sentinels(file, entry, say),
        states=_states(entry.states, say),
        shift=entry.shift,
        width=entry.width,
        flags=entry.flags,
        counter=CounterRule.of(metric, scale * step, ceiling_per_s=math.ceil(ceiling / scale / step))
        if metric.kind is Kind.DELTA
        else None,
    )


def _find(file: _MappingFile, entry: _MetricEntry, say: str) -> tuple[Table, Metric]:
    try:
        target = table(entry.table)
        metric = target.metric(entry.metric)
    except KeyError as error:
        raise EntryError(f"{say} is not in the catalogue: {error.args[0]}") from error
    if file.resource not in target.resources:
        kinds = ", ".join(target.resources)
        raise EntryError(f"{say}: table {target.name} has rows of {kinds}, not of {file.resource}; change resource")
    return target, metric


def _sentinels(file: _MappingFile, entry: _MetricEntry, say: str) -> tuple[Sentinel, ...]:
    names = file.blank if entry.blank is None else entry.blank
    unknown = [name for name in names if name not in file.sentinels]
    if unknown:
        raise EntryError(f"{say}: there is no sentinel {unknown[0]!r}; write a [sentinels.{unknown[0]}]")
    return tuple(file.sentinels[name] for name in names)


def _states(states: Mapping[str, int], say: str) -> dict[int, int]:
    try:
        return {int(theirs): ours for theirs, ours in states.items()}
    except ValueError as error:
        raise EntryError(
            f"{say}: states has a key that is no whole number ({error}); write them as in 3 = 1"
        ) from error


def _refuse_rivals(rules: Sequence[MetricRule]) -> None:
    """Several entries of one metric are its terms, which are added: that makes sense for amounts only."""
    seen: set[Metric] = set()
    for rule in rules:
        if rule.metric in seen and rule.counter is None:
            raise EntryError(
                f"metric {rule.table.name}.{rule.metric.name} has two entries; put {rule.families[0]} into the "
                "families of the first"
            )
        seen.add(rule.metric)


def _bits(number: Number, shift: int, width: int) -> int:
    return int(number) >> shift & (1 << width) - 1


def _first(labels: Labels, names: Iterable[str]) -> str:
    """The label's value under the first of its names that has one."""
    return next((labels[name] for name in names if labels.get(name)), "")

"""Outages of units: what shows each, how long detection, draining, repair and validation took, and its evidence."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Any

import polars as pl

from reports.efficiency_hours import RESTORED, Health
from reports.ledger import TIME
from reports.sla_account import Counts, Made
from reports.sweep import cut, joined, milliseconds
from storage.reader import Schema

# What shows an outage of a unit. `at` is when it was first so, `until` when no longer, absent for an instant.
SHOWN: Schema = {
    "unit": pl.UInt64(),
    "out_start": TIME,
    "at": TIME,
    "until": TIME,
    "source": pl.String(),
    "resource": pl.UInt64(),
    "what": pl.String(),
    "code": pl.Int64(),
    "xid_class": pl.String(),
    "text": pl.String(),
    "reference": pl.String(),
}
EVENTS, READINGS, HEALTH_READINGS = "events", "gpu readings", "gpu_health readings"
SILENCE, REGISTERS = "absence of readings", "registers"
_OUTAGE = ("unit", "out_start")


@dataclass(frozen=True, slots=True, eq=False)
class Witnesses:
    """All that can show an outage, of GPUs or of what they are part of.

    `ended`: openings with their ends; `events`: EVIDENCE; `members`: MEMBERS; `dark`: SEEN; `troubles`: TROUBLES;
    `silent`: GPU, start, end without readings; `excluded`: gpu, start, end, cause, reference; `holds`: HELD.
    """

    ended: pl.DataFrame
    events: pl.DataFrame
    members: pl.DataFrame
    dark: pl.DataFrame
    troubles: pl.DataFrame
    silent: pl.DataFrame
    excluded: pl.DataFrame
    holds: pl.DataFrame


@dataclass(frozen=True, slots=True)
class Phases:
    """How long each step from failure to service took. `validate` is absent where nothing tells it from repair."""

    detect: timedelta
    drain: timedelta
    repair: timedelta
    validate: timedelta | None

    @property
    def total(self) -> timedelta:
        return self.detect + self.drain + self.repair + (self.validate or timedelta(0))


@dataclass(frozen=True, slots=True, kw_only=True)
class EvidenceRow:
    """One thing that shows an outage. Times are RFC 3339 in UTC, empty for none."""

    at: str
    until: str
    source: str
    resource_kind: str
    resource: str
    what: str
    code: int | None
    xid_class: str
    text: str
    reference: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Outage:
    """One outage of a unit, as far as it lies in the period and under the contract.

    `began_before` and `goes_on`: it reaches over an end of that. `phases` only of a failure that was seen whole.
    """

    key: str
    unit_id: int
    unit: str
    start: datetime
    end: datetime
    began_before: bool
    goes_on: bool
    down_ms: int
    unknown_ms: int
    excluded_ms: int
    counted_ms: int
    reasons: tuple[str, ...]
    phases: Phases | None
    evidence: tuple[EvidenceRow, ...]

    @property
    def is_failure(self) -> bool:
        """Whether it counts for MTBF: something failed, here and in this period."""
        return self.down_ms > 0 and not self.began_before

    @property
    def evidence_sha256(self) -> str:
        return sha256_of(self.evidence)


def canonical(rows: Sequence[EvidenceRow]) -> str:
    """Rows as the one JSON text that is hashed: sorted keys, no spaces, UTF-8."""
    plain = [{name: getattr(row, name) for name in EvidenceRow.__dataclass_fields__} for row in rows]
    return json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def sha256_of(rows: Sequence[EvidenceRow]) -> str:
    return hashlib.sha256(canonical(rows).encode()).hexdigest()


def outages_in(
    account: pl.DataFrame, covered: pl.DataFrame, made: Made, witnesses: Witnesses, names: Mapping[int, tuple[str, str]]
) -> tuple[Outage, ...]:
    """The outages of an ACCOUNT, in order of time. `names`: kind and name of resources by id."""
    found = _listed(account, covered)
    if found.is_empty():
        return ()
    gpus = _gpus(found, made.only(found))
    shown = _shown(found, gpus, witnesses)
    phases = _phases(found, gpus, shown, witnesses)
    evidence = {key: tuple(rows) for key, rows in _evidence(shown, names)}
    return tuple(
        _outage(row, names, phases.get((row["unit"], row["out_start"])), evidence.get(_key(row), ()))
        for row in found.sort("start", "unit").iter_rows(named=True)
    )


def _listed(account: pl.DataFrame, covered: pl.DataFrame) -> pl.DataFrame:
    """A row an outage: unit, bounds of the whole and of what is in the account, milliseconds, since when covered."""
    of = {
        "down_ms": pl.col("health") == Health.DOWN,
        "unknown_ms": pl.col("health") == Health.UNKNOWN,
        "excluded_ms": pl.col("counts") == Counts.EXCLUDED,
        "counted_ms": pl.col("counts") == Counts.DOWN,
    }
    outages = (
        account.filter(pl.col("out_start").is_not_null())
        .group_by(*_OUTAGE, "out_end")
        .agg(
            pl.col("start").min(),
            pl.col("end").max(),
            *(milliseconds().filter(claim).sum().alias(name) for name, claim in of.items()),
        )
        .sort("start")
    )
    since = covered.select("unit", covered_from="start", start="start").sort("start")
    return outages.join_asof(since, on="start", by="unit", strategy="backward", check_sortedness=False)


def _gpus(found: pl.DataFrame, made: Made) -> pl.DataFrame:
    """The GPUs of each outage's unit while it lasted: unit, out_start, gpu, start, end."""
    whole = found.select(*_OUTAGE, "covered_from", start="out_start", end="out_end")
    parts = made.gpus.select("unit", gpu="part", since="start", until="end")
    return cut(whole.join(parts, on="unit"), pl.col("since"), pl.col("until")).drop("since", "until")


def _shown(found: pl.DataFrame, gpus: pl.DataFrame, witnesses: Witnesses) -> pl.DataFrame:
    """SHOWN of all outages, without what happened before the contract covered the unit."""
    rows = [
        *_events(gpus, witnesses),
        _spans(gpus, joined(witnesses.dark, ["resource"], ["tick_s"]), READINGS, "unreadable"),
        _spans(gpus, witnesses.troubles, HEALTH_READINGS, pl.col("condition")),
        _spans(gpus, witnesses.silent, SILENCE, "no readings"),
        _spans(gpus, witnesses.excluded.rename({"gpu": "resource"}), REGISTERS, pl.col("cause"), pl.col("reference")),
    ]
    told = pl.concat([row.select(pl.col(name).cast(kind) for name, kind in SHOWN.items()) for row in rows]).unique()
    covered = told.join(found.select(*_OUTAGE, "covered_from"), on=_OUTAGE)
    ordered = ("at", "source", "resource", "what", "code", "reference", "until")
    return covered.filter(pl.col("at") >= pl.col("covered_from")).drop("covered_from").sort(*_OUTAGE, *ordered)


def _events(gpus: pl.DataFrame, witnesses: Witnesses) -> list[pl.DataFrame]:
    """The events that opened each outage, and those that say that it is over."""
    ancestors = gpus.join(witnesses.members, on="gpu").select(
        *_OUTAGE, "start", "end", "valid_from", "valid_to", resource="ancestor"
    )
    opened = witnesses.events.join(witnesses.ended.select("resource", "time", "kind", "code", over="end").unique(),
                                   on=["resource", "time", "kind", "code"])  # fmt: skip
    restored = witnesses.events.filter(pl.col("kind") == RESTORED).with_columns(over=pl.col("time"))
    when = pl.col("time").is_between("valid_from", "valid_to", closed="left")
    opening = opened.join(ancestors, on="resource").filter(
        when, pl.col("time") < pl.col("end"), pl.col("over") > pl.col("start")
    )
    closing = restored.join(ancestors, on="resource").filter(
        when, pl.col("time") > pl.col("start"), pl.col("time") <= pl.col("end")
    )
    told = {"at": pl.col("time"), "source": pl.lit(EVENTS), "what": pl.col("kind"), "reference": pl.col("id")}
    return [
        opening.with_columns(**told, until=pl.lit(None, TIME)),
        closing.with_columns(**told, until=pl.lit(None, TIME)),
    ]


def _spans(
    gpus: pl.DataFrame, intervals: pl.DataFrame, source: str, what: str | pl.Expr, reference: pl.Expr | None = None
) -> pl.DataFrame:
    """Intervals of GPUs as far as they lie in an outage and are covered."""
    known = intervals.rename({"start": "at", "end": "until"}).with_columns(
        source=pl.lit(source),
        what=pl.lit(what) if isinstance(what, str) else what,
        reference=pl.lit("") if reference is None else reference,
    )
    met = gpus.join(known, left_on="gpu", right_on="resource").with_columns(
        at=pl.max_horizontal("at", "start", "covered_from"), until=pl.min_horizontal("until", "end")
    )
    return met.filter(pl.col("at") < pl.col("until")).with_columns(
        resource="gpu", code=pl.lit(None, pl.Int64), xid_class=pl.lit(""), text=pl.lit("")
    )


_Key = tuple[int, datetime]
_Row = Mapping[str, Any]  # a row of a frame, whose types Polars holds and Python does not see


def _phases(found: pl.DataFrame, gpus: pl.DataFrame, shown: pl.DataFrame, witnesses: Witnesses) -> dict[_Key, Phases]:
    """Phases of failures that began and ended in the account."""
    whole = found.filter(
        pl.col("down_ms") > 0, pl.col("start") == pl.col("out_start"), pl.col("end") == pl.col("out_end")
    ).select(*_OUTAGE, "out_end")
    ticks = witnesses.dark.group_by("resource").agg(pl.col("tick_s").max())
    # What a reading shows is known when the tick is over, an event at once.
    told = shown.join(ticks, on="resource", how="left").with_columns(
        known_at=pl.col("at")
        + pl.when(pl.col("source") == READINGS)
        .then(pl.duration(milliseconds=(pl.col("tick_s").fill_null(0) * 1000).cast(pl.Int64)))
        .otherwise(pl.duration(milliseconds=0))
    )
    broken = pl.col("source").is_in([EVENTS, READINGS, HEALTH_READINGS]) & (pl.col("what") != RESTORED)
    is_dark = pl.col("source").is_in([READINGS, HEALTH_READINGS])
    seen = told.group_by(_OUTAGE).agg(
        detected=pl.col("known_at").filter(broken).min(),
        readable=pl.col("until").filter(is_dark).max(),
        restored=pl.col("at").filter(pl.col("what") == RESTORED).max(),
    )
    held = (
        gpus.join(witnesses.holds.rename({"start": "since", "end": "until"}), left_on="gpu", right_on="resource")
        .filter(pl.col("since") <= pl.col("start"), pl.col("until").is_null() | (pl.col("until") > pl.col("start")))
        .group_by(_OUTAGE)
        .agg(let_go=pl.coalesce("until", "end").max())
    )
    start, end = pl.col("out_start"), pl.col("out_end")
    steps = (
        whole.join(seen, on=_OUTAGE, how="left")
        .join(held, on=_OUTAGE, how="left")
        .with_columns(detected=pl.coalesce("detected", "out_start").clip(start, end))
        .with_columns(drained=pl.coalesce("let_go", "detected").clip(pl.col("detected"), end))
        .with_columns(
            repaired=pl.when((pl.col("restored") == end) & (pl.col("readable") < end)).then(
                pl.max_horizontal("readable", "drained")
            )
        )
    )
    return {
        (row["unit"], row["out_start"]): Phases(
            row["detected"] - row["out_start"],
            row["drained"] - row["detected"],
            (row["repaired"] or row["out_end"]) - row["drained"],
            None if row["repaired"] is None else row["out_end"] - row["repaired"],
        )
        for row in steps.iter_rows(named=True)
    }


def _evidence(shown: pl.DataFrame, names: Mapping[int, tuple[str, str]]) -> list[tuple[_Key, list[EvidenceRow]]]:
    rows = groupby(shown.iter_rows(named=True), _key)
    return [(key, [_evidence_row(row, names) for row in some]) for key, some in rows]


def _key(row: _Row) -> _Key:
    return row["unit"], row["out_start"]


def _evidence_row(row: _Row, names: Mapping[int, tuple[str, str]]) -> EvidenceRow:
    kind, name = names.get(row["resource"], ("", f"{row['resource']:016x}"))
    return EvidenceRow(
        at=_time(row["at"]),
        until=_time(row["until"]),
        source=row["source"],
        resource_kind=kind,
        resource=name,
        what=row["what"],
        code=row["code"] if row["what"] == "xid" else None,
        xid_class=row["xid_class"] or "",
        text=row["text"] or "",
        reference=row["reference"] or "",
    )


def _time(moment: datetime | None) -> str:
    if moment is None:
        return ""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _outage(
    row: _Row, names: Mapping[int, tuple[str, str]], phases: Phases | None, evidence: tuple[EvidenceRow, ...]
) -> Outage:
    unit, out_start = _key(row)
    return Outage(
        key=hashlib.sha256(f"{unit} {_time(row['start'])}".encode()).hexdigest()[:16],
        unit_id=unit,
        unit=names.get(unit, ("", f"{unit:016x}"))[1],
        start=row["start"],
        end=row["end"],
        began_before=row["start"] > out_start,
        goes_on=row["out_end"] != row["end"],
        down_ms=row["down_ms"],
        unknown_ms=row["unknown_ms"],
        excluded_ms=row["excluded_ms"],
        counted_ms=row["counted_ms"],
        reasons=_reasons(evidence),
        phases=phases,
        evidence=evidence,
    )


def _reasons(evidence: Sequence[EvidenceRow]) -> tuple[str, ...]:
    """In words, each once, the first first."""
    told = (_reason(row) for row in evidence if row.source != REGISTERS and row.what != RESTORED)
    return tuple(dict.fromkeys(told))


def _reason(row: EvidenceRow) -> str:
    if row.what == "xid":
        return f"XID {row.code}"
    return row.what.replace("_", " ")

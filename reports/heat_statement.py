"""The statement of heat for an off-taker: what was handed over, and each meter's evidence for it.

Units: energy in J inside, MWh in records for people; times aware.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime

import polars as pl

from reports.figures import JOULES_PER_MWH, Evidence, Quality, quality_of
from reports.ledger import Flag
from reports.period import Period
from reports.readings import TIME

# What changes a register by something else than the heat that flowed.
_EVENTS = (Flag.RESET, Flag.ROLLOVER, Flag.EXCHANGED, Flag.IMPLAUSIBLE, Flag.FROZEN)
_MISSING = (Flag.GAP, Flag.EDGE, Flag.MISSING)


@dataclass(frozen=True, slots=True)
class Span:
    """What happened to a register, or a time without readings; `mwh` is what was booked for it."""

    flag: str
    start: datetime
    end: datetime
    mwh: float


@dataclass(frozen=True, slots=True)
class Shown:
    """What a register showed, and when."""

    time: datetime
    mwh: float


@dataclass(frozen=True, slots=True, kw_only=True)
class MeterEvidence:
    """One heat meter's part of a statement. Empty texts: the inventory does not say.

    `opening` and `closing` are the last readings up to the period's start and end, else the first and last within it.
    `adjustment_mwh` = energy - (closing - opening): what events and the way to the exact bounds account for.
    """

    name: str
    identity: str
    serial: str
    accuracy_class: str
    class_assumed: bool
    calibrated_at: str
    calibration_due: str
    certificate: str
    opening: Shown | None
    closing: Shown | None
    mwh: float | None
    adjustment_mwh: float | None
    plus_minus_mwh: float | None
    coverage: float
    share_estimated: float
    events: tuple[Span, ...]
    missing: tuple[Span, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """What one off-taker was given. `objections` says why it should not be billed as it is; empty where it may be.

    `mwh` is absent where a meter is silent. Temperatures are weighted by energy.
    """

    off_taker: str
    mwh: float | None
    plus_minus_mwh: float | None
    evidence: Evidence | None
    supply_celsius: float | None
    return_celsius: float | None
    meters: tuple[MeterEvidence, ...]
    objections: tuple[str, ...]

    @property
    def quality(self) -> Quality:
        return Quality.BLANK if self.mwh is None or self.evidence is None else quality_of(self.evidence.coverage)


def statements(
    meters: pl.DataFrame, registers: pl.DataFrame, flags: pl.DataFrame, period: Period
) -> tuple[Statement, ...]:
    """A statement for each off-taker that heat was handed over to.

    `meters`: those that hand over, with METER_FACTS and joules, coverage, share_estimated, uncertainty_joules (k = 2),
    class_used, class_assumed, supply_celsius, return_celsius; `registers`: READINGS; `flags` as `ledger.flags` gives.
    """
    named = meters.with_columns(
        off_taker=pl.when(pl.col("off_taker") == "").then(pl.lit("off-taker not named")).otherwise("off_taker")
    )
    parts = named.sort("off_taker", "name").partition_by("off_taker", maintain_order=True)
    return tuple(_statement(part, registers, flags, period) for part in parts)


def _statement(meters: pl.DataFrame, registers: pl.DataFrame, flags: pl.DataFrame, period: Period) -> Statement:
    evidence = tuple(_evidence(row, registers, flags, period) for row in meters.iter_rows(named=True))
    whole = meters["joules"].null_count() == 0
    joules = float(meters["joules"].sum())
    estimated = float((meters["joules"] * meters["share_estimated"].fill_null(0.0)).sum())
    # They are of one make and err together: their margins add up.
    margin = float(meters["uncertainty_joules"].fill_null(0.0).sum())
    rests_on = Evidence(
        coverage=min(meter.coverage for meter in evidence),
        share_estimated=estimated / joules if joules else 0.0,
        uncertainty=margin / joules if joules else None,
    )
    return Statement(
        off_taker=meters["off_taker"].item(0),
        mwh=joules / JOULES_PER_MWH if whole else None,
        plus_minus_mwh=margin / JOULES_PER_MWH if whole else None,
        evidence=rests_on if whole else None,
        supply_celsius=_weighted(meters, "supply_celsius"),
        return_celsius=_weighted(meters, "return_celsius"),
        meters=evidence,
        objections=tuple(_objections(evidence, period)),
    )


def _weighted(meters: pl.DataFrame, name: str) -> float | None:
    """T = sum(T_i Q_i) / sum(Q_i) over the meters of which both are known."""
    known = meters.filter(pl.col(name).is_not_null(), pl.col("joules") > 0)
    return float((known[name] * known["joules"]).sum()) / float(known["joules"].sum()) if known.height else None


def _evidence(meter: dict[str, object], registers: pl.DataFrame, flags: pl.DataFrame, period: Period) -> MeterEvidence:
    own = registers.filter(pl.col("resource") == meter["resource"]).drop_nulls("register_joules").sort("time")
    opening, closing = _shown(own, period.start, period), _shown(own, period.end, period)
    mwh = _in_mwh(meter["joules"])
    told = flags.filter(pl.col("resource") == meter["resource"]).sort("start")
    between = closing.mwh - opening.mwh if opening and closing else None
    return MeterEvidence(
        name=str(meter["name"]),
        identity=str(meter["identity"]),
        serial=str(meter["serial"]),
        accuracy_class=str(meter["class_used"]),
        class_assumed=bool(meter["class_assumed"]),
        calibrated_at=str(meter["calibrated_at"]),
        calibration_due=str(meter["calibration_due"]),
        certificate=str(meter["calibration_certificate"]),
        opening=opening,
        closing=closing,
        mwh=mwh,
        adjustment_mwh=None if mwh is None or between is None else mwh - between,
        plus_minus_mwh=_in_mwh(meter["uncertainty_joules"]) if mwh is not None else None,
        coverage=float(str(meter["coverage"])),
        share_estimated=float(str(meter["share_estimated"] or 0.0)),
        events=tuple(_spans(told, _EVENTS, period)),
        missing=tuple(_spans(told, _MISSING, period)),
    )


def _in_mwh(joules: object) -> float | None:
    return joules / JOULES_PER_MWH if isinstance(joules, float) else None


def _shown(own: pl.DataFrame, at: datetime, period: Period) -> Shown | None:
    """The last reading up to `at`; before the first one, the first."""
    until = own.filter(pl.col("time") <= pl.lit(at, TIME))
    row = until.tail(1) if until.height else own.head(1)
    if row.is_empty():
        return None
    time, joules = row.select("time", "register_joules").row(0)
    return Shown(period.local(time), joules / JOULES_PER_MWH)


def _spans(flags: pl.DataFrame, kinds: tuple[Flag, ...], period: Period) -> Iterator[Span]:
    for row in flags.filter(pl.col("flag").is_in([kind.value for kind in kinds])).iter_rows(named=True):
        yield Span(row["flag"], period.local(row["start"]), period.local(row["time"]), row["joules"] / JOULES_PER_MWH)


def _objections(meters: tuple[MeterEvidence, ...], period: Period) -> Iterator[str]:
    for meter in meters:
        if meter.mwh is None:
            yield f"{meter.name}: no readings in this period."
            continue
        if quality_of(meter.coverage) is not Quality.MEASURED:
            yield f"{meter.name}: {100 * meter.coverage:.2f} % of the period was observed; 99 % is measured."
        if meter.share_estimated > 0:
            yield f"{meter.name}: {100 * meter.share_estimated:.3f} % of its energy is estimated."
        if meter.class_assumed:
            yield f"{meter.name}: its accuracy class is not in the inventory."
        yield from _objections_to_events(meter)
        yield from _objections_to_calibration(meter, period)


def _objections_to_events(meter: MeterEvidence) -> Iterator[str]:
    """Events after which a register need not tell all that flowed; roll-overs and exchanges with both registers do."""
    for event in meter.events:
        if event.flag in (Flag.RESET, Flag.IMPLAUSIBLE, Flag.FROZEN):
            yield f"{meter.name}: {event.flag} at {event.start:%-d %b %H:%M}; heat may have been lost."


def _objections_to_calibration(meter: MeterEvidence, period: Period) -> Iterator[str]:
    if not meter.calibrated_at:
        yield f"{meter.name}: its calibration is not known."
    due = _day(meter.calibration_due)
    if due is not None and due < period.end.astimezone(UTC).date():
        yield f"{meter.name}: its calibration was due on {meter.calibration_due}."


def _day(text: str) -> date | None:
    """The day that a text states; nothing where it states none: it is free text of an inventory."""
    try:
        return date.fromisoformat(text[:10])
    except ValueError:
        return None

"""The account of a contract: rules worked out by hand on small fleets, and what must hold for any input."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from fractions import Fraction

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from reports.efficiency_hours import OUTAGES, Health
from reports.efficiency_queries import Window
from reports.ledger import TIME
from reports.sla_account import ACCOUNT, Counts, Made, Sums, account_of, sums
from reports.sla_readings import SEEN, gpu_states
from reports.sla_terms import Cause, Terms, Tier, UnitKind, UnknownCounts
from reports.sla_units import COVERED, PARTS, rivals
from reports.sweep import joined

START = datetime(2026, 10, 5, tzinfo=UTC)
HOUR = timedelta(hours=1)
HOUR_MS = 3_600_000
LAST = 12
WIDE = Window(START - HOUR, START + (LAST + 1) * HOUR)
DAY = Window(START, START + LAST * HOUR)
ALWAYS = (datetime(1970, 1, 1, tzinfo=UTC), datetime(2299, 1, 1, tzinfo=UTC))
Span = tuple[int, float, float]


def at(hour: float) -> datetime:
    return START + hour * HOUR


def terms(
    *,
    unit: UnitKind = UnitKind.GPU,
    minimum_s: float = 0,
    unknown: UnknownCounts = UnknownCounts.DOWN,
    cap_h: float | None = None,
    trays: int | None = None,
) -> Terms:
    return Terms(
        contract="SLA-1",
        party="Aurora",
        unit=unit,
        start=ALWAYS[0],
        end=ALWAYS[1],
        target=Fraction(995, 1000),
        minimum_outage=timedelta(seconds=minimum_s),
        tiers=(Tier(Fraction(995, 1000), Fraction(1, 10)),),
        credit_cap=Fraction(1),
        exclusions=frozenset(Cause),
        notice=timedelta(0),
        maintenance_cap=None if cap_h is None else cap_h * HOUR,
        unknown=unknown,
        minimum_trays=trays,
        unit_price=None,
        currency="",
        registered="",
    )


def states(*rows: tuple[int, float, float, Health], gpus: Sequence[int] = (1,)) -> pl.DataFrame:
    """STATES over WIDE: what is not said is healthy."""
    none = pl.DataFrame(schema=dict(OUTAGES))
    bad = [row for row in rows if row[3] is not Health.UNKNOWN]
    outages = pl.DataFrame([(g, at(a), at(b), str(h)) for g, a, b, h in bad], schema=dict(OUTAGES), orient="row")
    silent = [(g, a, b) for g, a, b, h in rows if h is Health.UNKNOWN]
    return told_states(seen_but(gpus, silent), outages if rows else none, gpus)


def told_states(seen: pl.DataFrame, outages: pl.DataFrame, gpus: Sequence[int]) -> pl.DataFrame:
    return gpu_states(pl.DataFrame({"resource": gpus}, schema={"resource": pl.UInt64}), seen, outages, WIDE)


def seen_but(gpus: Sequence[int], silent: Sequence[Span], dark: Sequence[Span] = ()) -> pl.DataFrame:
    """SEEN by the quarter hour, without the quarters that begin within a silent span, dark within a dark one."""

    def lies_in(spans: Sequence[Span], gpu: int, quarter: float) -> bool:
        return any(one == gpu and first <= quarter < last for one, first, last in spans)

    quarters = [quarter / 4 for quarter in range(-4, 4 * (LAST + 1))]
    rows = [
        (gpu, at(quarter), at(quarter + 0.25), 1, int(lies_in(dark, gpu, quarter)), 0, 10.0)
        for gpu in gpus
        for quarter in quarters
        if not lies_in(silent, gpu, quarter)
    ]
    return pl.DataFrame(rows, schema=dict(SEEN), orient="row")


def excluded(*rows: tuple[int, float, float, Cause]) -> pl.DataFrame:
    schema = {"gpu": pl.UInt64(), "start": TIME, "end": TIME, "cause": pl.String()}
    return pl.DataFrame([(g, at(a), at(b), str(c)) for g, a, b, c in rows], schema=schema, orient="row")


def covered(*rows: Span) -> pl.DataFrame:
    return pl.DataFrame([(unit, at(a), at(b)) for unit, a, b in rows], schema=dict(COVERED), orient="row")


def made(kind: UnitKind = UnitKind.GPU, **of: Sequence[int]) -> Made:
    """A unit of each GPU; or unit 10 of these GPUs; or unit 100 of trays 10, 20, … of these GPUs."""
    if kind is UnitKind.GPU:
        return Made(kind, parts(*((gpu, gpu) for gpu in of["gpus"])))
    if kind is UnitKind.NODE:
        return Made(kind, parts(*((10, gpu) for gpu in of["gpus"])))
    in_trays = [(10 * (place + 1), gpu) for place, gpu in enumerate(of["gpus"])]
    return Made(kind, parts(*((100, gpu) for gpu in of["gpus"])), parts(*in_trays))


def parts(*rows: tuple[int, int]) -> pl.DataFrame:
    return pl.DataFrame([(unit, part, *ALWAYS) for unit, part in rows], schema=dict(PARTS), orient="row")


def hours(found: Sums) -> dict[str, float]:
    every = {str(state): ms for state, ms in found.health_ms.items()}
    every |= {f"counts {word}": ms for word, ms in found.counts_ms.items()}
    return {name: ms / HOUR_MS for name, ms in every.items() if ms}


ONE = made(gpus=[1])
WHOLE = covered((1, 0, LAST))
NOTHING = excluded()


def account(agreed: Terms, told: pl.DataFrame, left_out: pl.DataFrame = NOTHING, window: Window = DAY) -> pl.DataFrame:
    return account_of(agreed, WHOLE, ONE, told, left_out, window)


def test_technical_and_contractual_availability_side_by_side() -> None:
    """12 h: 1 h down, 1 h degraded, 2 h maintenance of which 1 h is left out, 1 h unknown."""
    told = states((1, 1, 2, Health.DOWN), (1, 3, 4, Health.DEGRADED), (1, 5, 7, Health.MAINTENANCE),
                  (1, 8, 9, Health.UNKNOWN))  # fmt: skip
    found = sums(account(terms(), told, excluded((1, 5, 6, Cause.MAINTENANCE))))
    assert hours(found) == {
        "healthy": 7.0, "degraded": 1.0, "down": 1.0, "maintenance": 2.0, "unknown": 1.0,
        "counts up": 8.0, "counts down": 3.0, "counts excluded": 1.0,
    }  # fmt: skip
    assert (found.technical, found.technical_at_most) == (Fraction(8, 10), Fraction(9, 10))
    assert found.contractual == Fraction(8, 11)
    assert found.seen_share == Fraction(11, 12)


@pytest.mark.parametrize(
    ("unknown", "available"),
    [(UnknownCounts.UP, Fraction(1)), (UnknownCounts.DOWN, Fraction(9, 12)), (UnknownCounts.EXCLUDED, Fraction(1))],
)
def test_unknown_counts_as_the_contract_says(unknown: UnknownCounts, available: Fraction) -> None:
    found = sums(account(terms(unknown=unknown), states((1, 2, 5, Health.UNKNOWN))))
    assert found.contractual == available
    assert found.technical == Fraction(9, 12)
    assert found.total_ms == LAST * HOUR_MS


def test_outages_shorter_than_the_minimum_do_not_count() -> None:
    told = states((1, 1, 1 + 59 / 3600, Health.DOWN), (1, 2, 2 + 60 / 3600, Health.DOWN))
    found = account(terms(minimum_s=60), told)
    assert sums(found).down_ms == 60_000
    assert sums(found).counts_ms[Counts.SHORT] == 59_000
    assert sums(account(terms(), told)).down_ms == 119_000


def test_an_outage_over_the_periods_end_is_judged_by_its_whole_length() -> None:
    """Of 90 s, 30 are in this period: with a minimum of 60 s they count."""
    found = account(terms(minimum_s=60), states((1, LAST - 30 / 3600, LAST + 60 / 3600, Health.DOWN)))
    assert sums(found).down_ms == 30_000


def test_down_and_unknown_that_meet_are_one_outage() -> None:
    told = states((1, 1.75, 2, Health.DOWN), (1, 2, 2.25, Health.UNKNOWN))
    found = account(terms(minimum_s=1500), told)
    assert sums(found).down_ms == HOUR_MS / 2
    assert found["out_start"].drop_nulls().unique().to_list() == [at(1.75)]


def test_a_failure_in_excluded_time_is_left_out() -> None:
    found = sums(account(terms(), states((1, 1, 3, Health.DOWN)), excluded((1, 0, 2, Cause.FORCE_MAJEURE))))
    assert hours(found)["counts down"] == 1.0
    assert found.contractual == Fraction(9, 10)


def test_maintenance_is_left_out_up_to_the_cap_the_first_first() -> None:
    left_out = excluded((1, 1, 3, Cause.MAINTENANCE), (1, 5, 8, Cause.MAINTENANCE))
    told = states((1, 1, 3, Health.MAINTENANCE), (1, 5, 8, Health.MAINTENANCE))
    found = account(terms(cap_h=3), told, left_out)
    assert hours(sums(found)) == {"healthy": 7.0, "maintenance": 5.0, "counts up": 7.0, "counts excluded": 3.0,
                                  "counts down": 2.0}  # fmt: skip
    counted = joined(found.filter(pl.col("counts") == Counts.DOWN), ["unit"], [])
    assert counted.rows() == [(1, at(6), at(8))]


def test_the_cap_is_for_maintenance_alone() -> None:
    left_out = excluded((1, 1, 3, Cause.FORCE_MAJEURE), (1, 5, 8, Cause.MAINTENANCE))
    found = sums(account(terms(cap_h=2), states((1, 5, 8, Health.MAINTENANCE)), left_out))
    assert hours(found)["counts excluded"] == 4.0


def test_only_covered_time_is_in_the_account() -> None:
    found = account_of(terms(), covered((1, 2, 4), (1, 6, 7)), ONE, states((1, 3, 6.5, Health.DOWN)), NOTHING, DAY)
    assert hours(sums(found)) == {"healthy": 1.5, "down": 1.5, "counts up": 1.5, "counts down": 1.5}


def test_a_node_is_up_when_all_its_gpus_are() -> None:
    node, gpus = made(UnitKind.NODE, gpus=[1, 2, 3, 4]), (1, 2, 3, 4)
    told = states((1, 1, 2, Health.DOWN), (2, 1.5, 3, Health.DOWN), (3, 4, 5, Health.DEGRADED), gpus=gpus)
    found = sums(account_of(terms(unit=UnitKind.NODE), covered((10, 0, LAST)), node, told, NOTHING, DAY))
    assert hours(found) == {"healthy": 9.0, "degraded": 1.0, "down": 2.0, "counts up": 10.0, "counts down": 2.0}


def test_a_rack_is_up_with_as_many_trays_as_agreed() -> None:
    rack, gpus = made(UnitKind.RACK, gpus=[1, 2, 3]), (1, 2, 3)
    agreed = terms(unit=UnitKind.RACK, trays=2)
    told = states((1, 1, 4, Health.DOWN), (2, 2, 3, Health.DOWN), (2, 3, 4, Health.UNKNOWN), gpus=gpus)
    found = sums(account_of(agreed, covered((100, 0, LAST)), rack, told, NOTHING, DAY))
    assert hours(found) == {"healthy": 9.0, "degraded": 1.0, "down": 1.0, "unknown": 1.0, "counts up": 10.0,
                            "counts down": 2.0}  # fmt: skip


def test_trays_that_the_topology_lacks_are_unknown_not_up() -> None:
    rack = made(UnitKind.RACK, gpus=[1, 2])
    agreed = terms(unit=UnitKind.RACK, trays=3)
    found = sums(account_of(agreed, covered((100, 0, LAST)), rack, states(gpus=(1, 2)), NOTHING, DAY))
    assert hours(found) == {"unknown": 12.0, "counts down": 12.0}


def test_maintenance_of_a_part_excuses_the_unit_only_for_what_it_is_the_cause_of() -> None:
    """GPU 1 of a node is maintained for two hours; GPU 2 fails in the second of them."""
    node = made(UnitKind.NODE, gpus=[1, 2])
    told = states((1, 1, 3, Health.MAINTENANCE), (2, 2, 4, Health.DOWN), gpus=(1, 2))
    left_out = excluded((1, 1, 3, Cause.MAINTENANCE))
    found = sums(account_of(terms(unit=UnitKind.NODE), covered((10, 0, LAST)), node, told, left_out, DAY))
    assert hours(found) == {"healthy": 9.0, "maintenance": 1.0, "down": 2.0, "counts up": 9.0, "counts excluded": 1.0,
                            "counts down": 2.0}  # fmt: skip


def test_dark_ticks_at_the_ends_of_maintenance_are_no_failure() -> None:
    seen = pl.DataFrame(
        [(1, at(-1), at(1), 1, 0, 0, 60.0), (1, at(1), at(3), 1, 1, 0, 60.0), (1, at(3), at(13), 1, 0, 0, 60.0)],
        schema=dict(SEEN), orient="row",
    )  # fmt: skip
    kept = pl.DataFrame([(1, at(1 + 50 / 3600), at(3 - 50 / 3600), "maintenance")], schema=dict(OUTAGES), orient="row")
    assert "down" not in told_states(seen, kept, [1])["health"].to_list()
    late = kept.with_columns(end=pl.lit(at(2)).cast(TIME))
    failed = told_states(seen, late, [1]).filter(pl.col("health") == "down")
    assert failed.select("start", "end").rows() == [(at(2 + 60 / 3600), at(3))]


def test_a_gpu_of_two_contracts_at_a_time_is_found() -> None:
    rows = [(1, "A", at(0), at(2)), (1, "A", at(1), at(3)), (1, "B", at(2.5), at(4)), (2, "B", at(0), at(9))]
    schema = {"gpu": pl.UInt64(), "contract": pl.String(), "start": TIME, "end": TIME}
    assert rivals(pl.DataFrame(rows, schema=schema, orient="row")).rows() == [(1, at(2.5), at(3))]


# What must hold for any input

GPUS = (1, 2, 3, 4)
QUARTER = st.integers(-4, 4 * LAST + 3)


@st.composite
def spans(draw: st.DrawFn) -> Span:
    first = draw(QUARTER)
    return draw(st.sampled_from(GPUS)), first / 4, (first + draw(st.integers(1, 10))) / 4


BAD = st.lists(st.tuples(spans(), st.sampled_from([Health.DOWN, Health.MAINTENANCE, Health.DEGRADED])), max_size=6)
SILENT = st.lists(spans(), max_size=6)
LEFT_OUT = st.lists(st.tuples(spans(), st.sampled_from(list(Cause))), max_size=4)
KINDS = st.sampled_from(list(UnitKind))
AGREED = st.builds(terms, minimum_s=st.sampled_from([0, 1000, 3000]), unknown=st.sampled_from(list(UnknownCounts)))


def of(kind: UnitKind) -> tuple[Made, pl.DataFrame, int | None]:
    unit = {UnitKind.NODE: 10, UnitKind.RACK: 100}.get(kind)
    units = GPUS if unit is None else (unit,)
    return made(kind, gpus=GPUS), covered(*((one, 0, LAST) for one in units)), 3 if kind is UnitKind.RACK else None


def outages(bad: Sequence[tuple[Span, Health]]) -> pl.DataFrame:
    rows = [(gpu, at(first), at(last), str(health)) for (gpu, first, last), health in bad]
    return pl.DataFrame(rows, schema=dict(OUTAGES), orient="row")


@settings(max_examples=25, deadline=None)
@given(agreed=AGREED, kind=KINDS, bad=BAD, silent=SILENT, out=LEFT_OUT, where=st.integers(1, 4 * LAST - 1))
def test_a_split_period_adds_up(
    agreed: Terms, kind: UnitKind, bad: list[tuple[Span, Health]], silent: list[Span],
    out: list[tuple[Span, Cause]], where: int,
) -> None:  # fmt: skip
    told = told_states(seen_but(GPUS, silent), outages(bad), GPUS)
    left_out = excluded(*((*span, cause) for span, cause in out))
    units, cover, _ = of(kind)
    windows = (DAY, Window(START, at(where / 4)), Window(at(where / 4), DAY.end))
    whole, first, second = (sums(account_of(agreed, cover, units, told, left_out, window)) for window in windows)
    for state in Health:
        assert whole.health_ms[state] == first.health_ms[state] + second.health_ms[state], state
    for word in Counts:
        assert whole.counts_ms[word] == first.counts_ms[word] + second.counts_ms[word], word
    assert whole.total_ms == cover.height * LAST * HOUR_MS == sum(whole.counts_ms.values())


@settings(max_examples=25, deadline=None)
@given(agreed=AGREED, kind=KINDS, bad=BAD, silent=SILENT, out=LEFT_OUT, seed=st.integers(0, 100))
def test_order_and_repetition_of_input_change_nothing(
    agreed: Terms, kind: UnitKind, bad: list[tuple[Span, Health]], silent: list[Span],
    out: list[tuple[Span, Cause]], seed: int,
) -> None:  # fmt: skip
    def twice(frame: pl.DataFrame) -> pl.DataFrame:
        return pl.concat([frame, frame]).sample(fraction=1, shuffle=True, seed=seed)

    seen, broken = seen_but(GPUS, silent), outages(bad)
    left_out = excluded(*((*span, cause) for span, cause in out))
    units, cover, _ = of(kind)
    once = account_of(agreed, cover, units, told_states(seen, broken, GPUS), left_out, DAY)
    again = told_states(twice(seen), twice(broken), GPUS[::-1])
    repeated = Made(units.kind, twice(units.gpus).unique(), units.trays)
    assert_frame_equal(once, account_of(agreed, cover, repeated, twice(again), twice(left_out), DAY))
    assert dict(once.schema) == dict(ACCOUNT)


@settings(max_examples=25, deadline=None)
@given(kind=KINDS, bad=BAD, dark=SILENT, silent=SILENT, out=LEFT_OUT, more=spans())
def test_missing_readings_lower_coverage_and_never_raise_availability(
    kind: UnitKind, bad: list[tuple[Span, Health]], dark: list[Span], silent: list[Span],
    out: list[tuple[Span, Cause]], more: Span,
) -> None:  # fmt: skip
    units, cover, trays = of(kind)
    agreed, left_out = terms(unit=kind, trays=trays), excluded(*((*span, cause) for span, cause in out))
    found = [
        sums(
            account_of(agreed, cover, units, told_states(seen_but(GPUS, some, dark), outages(bad), GPUS), left_out, DAY)
        )
        for some in (silent, [*silent, more])
    ]
    before, after = found
    assert (after.seen_share or 0) <= (before.seen_share or 0)
    assert (after.technical or 0) <= (before.technical or 0)
    assert (after.contractual or 0) <= (before.contractual or 0)
    # And what might be true lies within what might have been true before.
    assert (after.technical_at_most or 1) >= (before.technical_at_most or 0)

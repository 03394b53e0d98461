"""What must hold of ITUE, TUE and CER from meters' readings on: sums, order, and that whatever is missing shows."""

from dataclasses import dataclass, replace
from datetime import timedelta

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reports.efficiency import account_of
from reports.efficiency_definitions import definitions
from reports.efficiency_energy import cer, itue, tue
from reports.efficiency_figures import PARTS
from reports.figures import Account, Kpi, Quality, Role, ratio, total_of
from reports.ledger import READINGS
from reports.period import Period
from reports.queries import Stock
from reports.site import ReportSettings, SiteData
from tests.unit.test_reports_site import METER_COLUMNS

WORDS = definitions()
DAY = Period.parse("2026-10-05")
READ_EVERY_S = 300
HOURS, GPUS = 24, 100
METERS = (
    ("grid", Role.SITE, 1.3), ("hall 1", Role.IT, 0.6), ("hall 2", Role.IT, 0.4), ("plant", Role.COOLING, 0.05),
    ("hand-over", Role.HEAT_HANDED_OVER, 0.5), ("dry cooler", Role.HEAT_REJECTED, 0.4),
)  # fmt: skip
NAMES = st.sampled_from([name for name, _, _ in METERS])
FEW = settings(max_examples=10, deadline=None)


@dataclass(frozen=True)
class Given:
    """What a day's figures are computed from: the readings of meters, and of the fleet by the hour."""

    readings: pl.DataFrame
    parts: pl.DataFrame


@st.composite
def days(draw: st.DrawFn) -> Given:
    """IT load by the hour; each meter has its share of it, in a proportion that changes by the hour."""
    load = st.integers(200, 1000)
    watts = {name: [share * 1e3 * draw(load) for _ in range(HOURS)] for name, _, share in METERS}
    it = [one + other for one, other in zip(watts["hall 1"], watts["hall 2"], strict=True)]
    return Given(pl.concat([registers(number, watts[name]) for number, (name, _, _) in enumerate(METERS)]), fleet(it))


def registers(resource: int, watts: list[float]) -> pl.DataFrame:
    """A register that is read every five minutes, an hour longer than the day at either end."""
    levels = [watts[0], *watts, watts[-1]]
    joules, rows = 1e9, []
    for number in range((HOURS + 2) * 3600 // READ_EVERY_S):
        rows.append((resource, DAY.start + timedelta(seconds=number * READ_EVERY_S - 3600), joules, 1))
        joules += levels[number * READ_EVERY_S // 3600] * READ_EVERY_S
    schema = {name: READINGS[name] for name in ("resource", "time", "register_joules")} | {"quality_state": pl.UInt8()}
    return pl.DataFrame(rows, schema=schema, orient="row")


def fleet(it: list[float]) -> pl.DataFrame:
    rows = [
        {"time": DAY.start + timedelta(hours=hour), "seconds": 3600.0, "gpu_s": GPUS * 3600.0, "seen_s": GPUS * 3600.0,
         "joules": 0.8 * watts * 3600, "processor_watts": 0.1 * watts, "trays": GPUS // 4}
        for hour, watts in enumerate(it)
    ]  # fmt: skip
    return pl.DataFrame(rows, schema=dict(PARTS))


def drawn_up(found: Given, period: Period = DAY) -> Account:
    meters = [
        (number, "meter", name, role.value, "", "UPS output", "", None, None, float(READ_EVERY_S))
        for number, (name, role, _) in enumerate(METERS)
    ]
    data = SiteData(
        meters=pl.DataFrame(meters, schema=METER_COLUMNS, orient="row"),
        stock=Stock(site_name="Kvandal", gpus=GPUS, installed_watts=None),
        registers=found.readings,
        temperatures=pl.DataFrame(),
        gpus=pl.DataFrame({"gpus": [GPUS]}),
    )
    return account_of(data, period, ReportSettings())


def figures(found: Given) -> tuple[Kpi, ...]:
    """ITUE, TUE, CER of the day."""
    account = drawn_up(found)
    of_it = itue(WORDS["itue"], account, found.parts)
    ipue = ratio(WORDS["itue"], account, Role.SITE, Role.IT)
    return of_it, tue(WORDS["tue"], of_it, ipue), cer(WORDS["cer"], account)


def coverage(kpi: Kpi) -> float:
    return kpi.evidence.coverage if kpi.evidence else 0.0


def estimated(kpi: Kpi) -> float:
    return kpi.evidence.share_estimated if kpi.evidence else 1.0


def assert_no_more_sure(kpi: Kpi, whole: Kpi) -> None:
    """Nothing looks better than it did; and a value that moved says that something is missing."""
    assert coverage(kpi) <= coverage(whole) + 1e-9, kpi
    assert [*Quality].index(kpi.quality) >= [*Quality].index(whole.quality), kpi
    if kpi.value is None:
        assert kpi.reason
    elif kpi.value != pytest.approx(whole.value, rel=1e-9):
        assert coverage(kpi) < coverage(whole) or estimated(kpi) > estimated(whole), kpi


@FEW
@given(found=days(), hour=st.integers(1, HOURS - 1))
def test_a_split_day_adds_up_to_the_whole(found: Given, hour: int) -> None:
    """Energies add up, and ratios are those of the sums: neither of them is a mean of ratios."""
    middle = DAY.start + timedelta(hours=hour)
    pieces = [replace(DAY, end=middle), replace(DAY, start=middle)]
    accounts = [drawn_up(found, piece) for piece in pieces]
    whole = drawn_up(found)
    for role in (Role.SITE, Role.IT, Role.COOLING):
        energies = [total_of(account, role).joules for account in accounts]
        assert None not in energies
        assert sum(filter(None, energies)) == pytest.approx(total_of(whole, role).joules)
    first = pl.col("time") < pl.lit(middle).cast(PARTS["time"])
    halves = [found.parts.filter(first), found.parts.filter(~first)]
    of_pieces = [itue(WORDS["itue"], account, half) for account, half in zip(accounts, halves, strict=True)]
    for told, of_whole, role in (
        (of_pieces, itue(WORDS["itue"], whole, found.parts), Role.IT),
        ([cer(WORDS["cer"], account) for account in accounts], cer(WORDS["cer"], whole), Role.COOLING),
    ):
        weights = [total_of(account, role).joules or 0.0 for account in accounts]
        values = [kpi.value or 0.0 for kpi in told]
        if role is Role.IT:  # IT energy is above the line, cooling energy is below it
            expected = sum(weights) / sum(weight / value for weight, value in zip(weights, values, strict=True))
        else:
            expected = sum(weight * value for weight, value in zip(weights, values, strict=True)) / sum(weights)
        assert of_whole.value == pytest.approx(expected)


@FEW
@given(found=days(), seed=st.integers(0, 99), share=st.floats(0.01, 1))
def test_order_and_duplicates_of_readings_change_nothing(found: Given, seed: int, share: float) -> None:
    twice = pl.concat([found.readings, found.readings.sample(fraction=share, seed=seed)])
    again = Given(
        twice.sample(fraction=1, shuffle=True, seed=seed), found.parts.sample(fraction=1, shuffle=True, seed=seed)
    )
    for one, other in zip(figures(found), figures(again), strict=True):
        assert other.value == pytest.approx(one.value)
        assert (coverage(other), estimated(other)) == pytest.approx((coverage(one), estimated(one)))
        assert other.plus_minus == pytest.approx(one.plus_minus)


@FEW
@given(found=days(), name=NAMES, first=st.integers(0, 23 * 12), length=st.integers(1, 96))
def test_missing_readings_lower_the_coverage_and_move_nothing_silently(
    found: Given, name: str, first: int, length: int
) -> None:
    resource = [meter for meter, _, _ in METERS].index(name)
    since = DAY.start + timedelta(seconds=first * READ_EVERY_S)
    until = since + timedelta(seconds=length * READ_EVERY_S)
    lost = (pl.col("resource") == resource) & pl.col("time").is_between(pl.lit(since), pl.lit(until), closed="left")
    for kpi, whole in zip(figures(replace(found, readings=found.readings.filter(~lost))), figures(found), strict=True):
        assert_no_more_sure(kpi, whole)


@FEW
@given(found=days(), name=NAMES)
def test_a_meter_that_is_gone_never_raises_confidence(found: Given, name: str) -> None:
    """Without one of its meters a figure is a blank: a sum that lacks one would be too low."""
    resource = [meter for meter, _, _ in METERS].index(name)
    needs = {"itue": {Role.IT}, "tue": {Role.SITE, Role.IT},
             "cer": {Role.COOLING, Role.HEAT_HANDED_OVER, Role.HEAT_REJECTED}}  # fmt: skip
    gone = replace(found, readings=found.readings.filter(pl.col("resource") != resource))
    for kpi, whole in zip(figures(gone), figures(found), strict=True):
        assert_no_more_sure(kpi, whole)
        assert (kpi.value is None) == (METERS[resource][1] in needs[whole.definition.key])


@FEW
@given(found=days(), hours=st.sets(st.integers(0, HOURS - 1), min_size=1), seen=st.floats(0, 1))
def test_gpus_and_processors_that_are_not_seen_never_raise_confidence(
    found: Given, hours: set[int], seen: float
) -> None:
    some = pl.int_range(pl.len()).is_in([*hours])
    dim = found.parts.with_columns(
        pl.when(some).then(pl.col("seen_s", "joules") * seen).otherwise(pl.col("seen_s", "joules"))
    )
    dark = found.parts.with_columns(processor_watts=pl.when(~some).then("processor_watts"))
    whole = figures(found)
    for parts in (dim, dark):
        less = figures(replace(found, parts=parts))
        for kpi, before in zip(less, whole, strict=True):
            assert_no_more_sure(kpi, before)
        assert less[2] == whole[2]

"""The grid company's settlement against our meters: hand-computed residuals, days with other hours, what is missing."""

import math
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from random import Random

import polars as pl
import pytest

from reports.ledger import METERS, READINGS, TIME, quarters, steps
from reports.period import Period
from reports.settlement import GRID_METERS, LINKS, SETTLEMENT, SETTLEMENT_MAY_HAVE, Agreement, Reconciliation, reconcile

DAY = Period.parse("2026-10-05")
QUARTER = timedelta(minutes=15)
GRID = "707057500000000001"
OURS, SECOND = 11, 12
KWH = 3.6e6


def starts(period: Period) -> list[datetime]:
    return [period.start + number * QUARTER for number in range(int(period.seconds // 900))]


def settlement(
    values: Mapping[datetime, float], *, meter: str = GRID, direction: str = "import", quality: str | None = None
) -> pl.DataFrame:
    rows = [(meter, start.replace(tzinfo=None), kwh, direction, quality) for start, kwh in values.items()]
    schema = {**SETTLEMENT, **SETTLEMENT_MAY_HAVE, "start": pl.Datetime("ms")}
    frame = pl.DataFrame(rows, schema=schema, orient="row")
    return frame.with_columns(pl.col("start").dt.replace_time_zone("UTC"))


def our_quarters(
    values: Mapping[datetime, float | None], *, resource: int = OURS, step_joules: float | None = None
) -> pl.DataFrame:
    """What the ledger would give: a quarter hour without a value is not known."""
    rows = [
        (
            resource,
            start.replace(tzinfo=None),
            None if kwh is None else kwh * KWH,
            kwh is not None,
            0.0 if kwh is None else 900.0,
            0.0,
            step_joules,
        )
        for start, kwh in values.items()
    ]
    schema = {
        "resource": pl.UInt64(),
        "time": pl.Datetime("ms"),
        "joules": pl.Float64(),
        "whole": pl.Boolean(),
        "observed_s": pl.Float64(),
        "estimated_joules": pl.Float64(),
        "quantisation_joules": pl.Float64(),
    }
    frame = pl.DataFrame(rows, schema=schema, orient="row")
    return frame.with_columns(pl.col("time").dt.replace_time_zone("UTC"))


def run(
    settled: pl.DataFrame,
    ours: pl.DataFrame,
    period: Period = DAY,
    *,
    links: Sequence[tuple[str, int, float]] = ((GRID, OURS, 0.005),),
    grid_limit: float = 0.002,
) -> Reconciliation:
    linked = pl.DataFrame(list(links), schema=dict(LINKS), orient="row")
    grid = pl.DataFrame([(GRID, grid_limit)], schema=dict(GRID_METERS), orient="row")
    return reconcile(settled.lazy(), ours.lazy(), linked.lazy(), grid.lazy(), period)


def figures(result: Reconciliation) -> dict[str, object]:
    (row,) = result.meters.iter_rows(named=True)
    return row


# Residuals


def test_the_residual_is_what_we_metered_less_what_was_settled() -> None:
    """96 quarter hours of 1000 kWh settled and 1002 kWh metered: 192 kWh, 0.2 %, within 0.5 % and 0.2 % meters.

    By hand: U = 2/sqrt(3) * sqrt((0.005 * 96192)^2 + (0.002 * 96000)^2) = 2/sqrt(3) * sqrt(480.96^2 + 192^2) kWh.
    """
    result = run(settlement(dict.fromkeys(starts(DAY), 1000.0)), our_quarters(dict.fromkeys(starts(DAY), 1002.0)))
    told = figures(result)
    assert told["settled_kwh"] == pytest.approx(96_000.0)
    assert told["metered_kwh"] == pytest.approx(96_192.0)
    assert told["residual_kwh"] == pytest.approx(192.0)
    assert told["share"] == pytest.approx(0.002)
    assert told["uncertainty_kwh"] == pytest.approx(2 / math.sqrt(3) * math.hypot(480.96, 192.0))
    assert told["agreement"] == Agreement.WITHIN
    assert (told["coverage"], told["share_estimated"]) == (1.0, 0.0)
    assert result.quarters["residual_kwh"].to_list() == pytest.approx([2.0] * 96)


@pytest.mark.parametrize(
    ("metered", "agreement"),
    [
        (1006.2, Agreement.WITHIN),
        (1006.3, Agreement.APART),
        (993.85, Agreement.WITHIN),
        (993.78, Agreement.APART),
    ],
)
def test_the_verdict_turns_where_the_residual_exceeds_the_uncertainty(metered: float, agreement: Agreement) -> None:
    """By hand, 2/sqrt(3) * hypot(0.005 m, 2): 6.250 for 1006.2, 6.251 for 1006.3, 6.185 for 993.85 and 993.78 kWh."""
    settled = settlement(dict.fromkeys(starts(DAY), 1000.0))
    assert figures(run(settled, our_quarters(dict.fromkeys(starts(DAY), metered))))["agreement"] == agreement


def test_a_coarse_register_widens_the_uncertainty_once_for_each_unbroken_run() -> None:
    """Standard uncertainty 10 kWh of a difference of readings; two runs: sqrt(U^2 + 2 * 20^2)."""
    ours: dict[datetime, float | None] = dict.fromkeys(starts(DAY), 1000.0)
    settled = settlement(dict.fromkeys(starts(DAY), 1000.0))
    whole = figures(run(settled, our_quarters(ours, step_joules=10 * KWH)))["uncertainty_kwh"]
    assert whole == pytest.approx(math.hypot(2 / math.sqrt(3) * math.hypot(480, 192), 20))
    ours[starts(DAY)[40]] = None
    broken = figures(run(settled, our_quarters(ours, step_joules=10 * KWH)))["uncertainty_kwh"]
    assert broken == pytest.approx(math.sqrt((2 / math.sqrt(3)) ** 2 * (475**2 + 190**2) + 2 * 20**2))


def test_our_meters_of_one_grid_meter_add_up_and_err_together() -> None:
    quarter = dict.fromkeys(starts(DAY), 600.0)
    other = dict.fromkeys(starts(DAY), 400.0)
    ours = pl.concat([our_quarters(quarter), our_quarters(other, resource=SECOND)])
    links = [(GRID, OURS, 0.005), (GRID, SECOND, 0.01)]
    told = figures(run(settlement(dict.fromkeys(starts(DAY), 1000.0)), ours, links=links))
    assert told["residual_kwh"] == pytest.approx(0.0, abs=1e-6)
    assert told["uncertainty_kwh"] == pytest.approx(2 / math.sqrt(3) * math.hypot(96 * (3 + 4), 192))


def test_the_largest_differences_come_first() -> None:
    ours: dict[datetime, float | None] = dict.fromkeys(starts(DAY), 1000.0)
    for number in range(15):
        ours[starts(DAY)[number]] = 1000.0 - number
    largest = run(settlement(dict.fromkeys(starts(DAY), 1000.0)), our_quarters(ours)).largest
    assert largest["residual_kwh"].to_list() == pytest.approx([-float(number) for number in range(14, 4, -1)])
    assert largest["time"][0] == starts(DAY)[14]


# What is missing


def test_a_quarter_hour_that_one_side_lacks_lowers_coverage_and_moves_no_residual() -> None:
    settled = dict.fromkeys(starts(DAY), 1000.0)
    ours: dict[datetime, float | None] = dict.fromkeys(starts(DAY), 1001.0)
    del settled[starts(DAY)[0]]
    ours[starts(DAY)[1]] = None
    told = figures(run(settlement(settled), our_quarters(ours)))
    assert (told["quarters"], told["settled_quarters"], told["metered_quarters"]) == (96, 95, 95)
    assert told["paired_quarters"] == 94
    assert told["coverage"] == pytest.approx(94 / 96)
    assert told["residual_kwh"] == pytest.approx(94.0)
    assert (told["unpaired_settled_kwh"], told["unpaired_metered_kwh"]) == pytest.approx((1000.0, 1001.0))


def test_a_sum_that_lacks_a_meter_is_no_sum() -> None:
    ours = pl.concat([our_quarters(dict.fromkeys(starts(DAY), 600.0)), our_quarters({}, resource=SECOND)])
    links = [(GRID, OURS, 0.005), (GRID, SECOND, 0.005)]
    told = figures(run(settlement(dict.fromkeys(starts(DAY), 1000.0)), ours, links=links))
    assert told["agreement"] == Agreement.NOT_COMPARABLE
    assert (told["residual_kwh"], told["uncertainty_kwh"], told["coverage"]) == (None, None, 0.0)
    assert told["unpaired_settled_kwh"] == 96_000.0


def test_without_a_settlement_nothing_is_comparable() -> None:
    told = figures(run(settlement({}), our_quarters(dict.fromkeys(starts(DAY), 1000.0))))
    assert told["agreement"] == Agreement.NOT_COMPARABLE
    assert (told["settled_quarters"], told["metered_quarters"], told["share"]) == (0, 96, None)


def test_what_is_exported_other_meters_and_other_days_do_not_count() -> None:
    inside = settlement(dict.fromkeys(starts(DAY), 1000.0))
    exported = settlement(dict.fromkeys(starts(DAY), 7.0), direction="export")
    foreign = settlement(dict.fromkeys(starts(DAY), 7.0), meter="another")
    outside = settlement({DAY.end: 7.0, DAY.start - QUARTER: 7.0})
    ours = our_quarters(dict.fromkeys([DAY.start - QUARTER, *starts(DAY), DAY.end], 1000.0))
    told = figures(run(pl.concat([inside, exported, foreign, outside]), ours))
    assert (told["settled_kwh"], told["metered_kwh"]) == pytest.approx((96_000.0, 96_000.0))
    assert told["unpaired_settled_kwh"] == 0.0


def test_what_the_grid_company_estimated_is_counted() -> None:
    half = len(starts(DAY)) // 2
    settled = pl.concat(
        [
            settlement(dict.fromkeys(starts(DAY)[:half], 1000.0), quality="measured"),
            settlement(dict.fromkeys(starts(DAY)[half:], 1000.0), quality="estimated"),
        ]
    )
    ours = our_quarters(dict.fromkeys(starts(DAY), 1000.0))
    assert figures(run(settled, ours))["estimated_quarters"] == 48


def test_a_quarter_hour_that_is_settled_twice_is_refused() -> None:
    settled = settlement(dict.fromkeys(starts(DAY), 1000.0))
    with pytest.raises(ValueError, match="is settled twice at 2026-10-04 22:00Z"):
        run(pl.concat([settled, settled.head(1)]), our_quarters({}))


def test_a_meter_that_is_linked_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="linked twice"):
        run(settlement({}), our_quarters({}), links=[(GRID, OURS, 0.005), (GRID, OURS, 0.01)])


def test_order_does_not_matter() -> None:
    settled = settlement({start: 1000.0 + number for number, start in enumerate(starts(DAY))})
    ours = our_quarters({start: 1003.0 + number for number, start in enumerate(starts(DAY))})
    plain = run(settled, ours)
    shuffled = run(settled.sample(fraction=1.0, shuffle=True, seed=3), ours.reverse())
    assert shuffled.meters.equals(plain.meters)
    assert shuffled.quarters.equals(plain.quarters)


# Clocks


@pytest.mark.parametrize(("text", "hours"), [("2026-03-29", 23), ("2026-10-25", 25), ("2026-10-26", 24)])
def test_a_day_on_which_clocks_change_has_its_own_number_of_quarter_hours(text: str, hours: int) -> None:
    day = Period.parse(text)
    result = run(settlement(dict.fromkeys(starts(day), 1000.0)), our_quarters(dict.fromkeys(starts(day), 1001.0)), day)
    assert result.days["quarters"].to_list() == [4 * hours]
    assert result.days["residual_kwh"].to_list() == pytest.approx([4.0 * hours])
    assert figures(result)["coverage"] == 1.0


def test_a_month_with_a_change_of_clocks_counts_each_local_day() -> None:
    month = Period.parse("2026-10")
    result = run(settlement({}), our_quarters(dict.fromkeys(starts(month), 1.0)), month)
    counts = dict(result.days.select("day", "metered_quarters").iter_rows())
    assert sum(counts.values()) == 31 * 96 + 4
    assert [day.day for day, count in counts.items() if count != 96] == [25]


def test_a_settlement_that_lacks_the_repeated_hour_shows_it() -> None:
    """A file in local time without offsets has 96 quarter hours on a day of 100."""
    day = Period.parse("2026-10-25")
    settled = {start: 1000.0 for number, start in enumerate(starts(day)) if not 8 <= number < 12}
    (row,) = run(settlement(settled), our_quarters(dict.fromkeys(starts(day), 1000.0)), day).days.iter_rows(named=True)
    assert (row["quarters"], row["settled_quarters"], row["metered_quarters"]) == (100, 96, 100)


def wave(number: int) -> float:
    return 1000.0 + 200.0 * math.sin(number / 5) + 37.0 * math.sin(number / 1.7)


@pytest.mark.parametrize("late", [1, 4, -4, 8])
def test_a_file_that_is_stamped_late_is_told_by_how_much(late: int) -> None:
    """Stamped at the ends of its quarter hours it is one late, in the wrong zone four or eight."""
    settled = {start + late * QUARTER: wave(number) for number, start in enumerate(starts(DAY))}
    ours = our_quarters({start: wave(number) for number, start in enumerate(starts(DAY))})
    assert figures(run(settlement(settled), ours))["shift_quarters"] == late


@pytest.mark.parametrize("share", [0.0, 0.004, -0.02])
def test_a_file_in_its_place_is_not_said_to_be_late(share: float) -> None:
    settled = {start: wave(number) for number, start in enumerate(starts(DAY))}
    ours = our_quarters({start: wave(number) * (1 + share) for number, start in enumerate(starts(DAY))})
    assert figures(run(settlement(settled), ours))["shift_quarters"] is None


def test_constant_power_tells_nothing_about_lateness() -> None:
    settled = settlement(dict.fromkeys(starts(DAY), 1000.0))
    assert figures(run(settled, our_quarters(dict.fromkeys(starts(DAY), 1002.0))))["shift_quarters"] is None


def test_a_file_that_fits_a_little_better_elsewhere_is_not_said_to_be_late() -> None:
    """Two noises that have nothing to do with each other fit best at some shift, by chance."""
    chance = Random(7)  # noqa: S311 - no secret
    settled = {start: 1000.0 + chance.gauss(0, 10) for start in starts(DAY)}
    ours: dict[datetime, float | None] = {start: 1000.0 + chance.gauss(0, 10) for start in starts(DAY)}
    assert figures(run(settlement(settled), our_quarters(ours)))["shift_quarters"] is None


# With the ledger


def test_quarter_hours_of_the_ledger_are_what_is_reconciled() -> None:
    """3.6 MW for a day by a register read every minute: 900 kWh a quarter hour, settled as 899 kWh."""
    times = [DAY.start + timedelta(minutes=number) for number in range(-60, 25 * 60)]
    readings = pl.DataFrame(
        {
            "resource": [OURS] * len(times),
            "time": [time.replace(tzinfo=None) for time in times],
            "register_joules": [1e12 + 3.6e6 * 60 * number for number in range(len(times))],
            "quality_state": [1] * len(times),
        },
        schema={**READINGS, "time": pl.Datetime("ms")},
    ).with_columns(pl.col("time").dt.replace_time_zone("UTC").cast(TIME))
    meters = pl.DataFrame([(OURS, None, None, 60.0)], schema=dict(METERS), orient="row")
    counted = quarters(steps(readings.lazy(), meters.lazy()), meters.lazy(), DAY).collect()
    told = figures(run(settlement(dict.fromkeys(starts(DAY), 899.0)), counted))
    assert told["metered_kwh"] == pytest.approx(24 * 3600.0)
    assert told["residual_kwh"] == pytest.approx(96.0)
    assert told["agreement"] == Agreement.WITHIN

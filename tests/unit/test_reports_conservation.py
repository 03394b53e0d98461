"""Conservation: worked balances by hand, places that move, and exact trees with injected losses."""

import math
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from random import Random

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reports.conservation import (
    ENERGIES,
    EXPECTED,
    TERMS,
    TREE,
    Side,
    Verdict,
    balances,
    quarter_balances,
    terms_of_tree,
)
from reports.period import Period, Span

START = Period.parse("2026-10-05").start
QUARTER = timedelta(minutes=15)
QUARTERS = 4

SITE, HALL, RACK, OTHER_RACK, TRAY, OTHER_TRAY = range(1, 7)


def hours(count: float = 1.0, *, first_h: float = 0.0) -> Period:
    start = START + timedelta(hours=first_h)
    return Period("hours", Span.DAY, "Europe/Oslo", start, start + timedelta(hours=count))


def moment(hour: float | None) -> datetime | None:
    return None if hour is None else (START + timedelta(hours=hour)).replace(tzinfo=None)


def frame(rows: Sequence[tuple[object, ...]], schema: Mapping[str, pl.DataType]) -> pl.DataFrame:
    plain = {name: pl.Datetime("ms") if kind == pl.Datetime else kind for name, kind in schema.items()}
    built = pl.DataFrame(rows, schema=plain, orient="row")
    return built.with_columns(
        pl.col(name).dt.replace_time_zone("UTC") for name, kind in plain.items() if kind != schema[name]
    )


Place = tuple[int, int, float, float | None, bool]  # resource, parent, from hour, to hour, metered


def tree(*places: Place) -> pl.DataFrame:
    return frame([(r, p, moment(since), moment(until), metered) for r, p, since, until, metered in places], TREE)


def always(resource: int, parent: int, *, metered: bool = True) -> Place:
    return resource, parent, -24.0, None, metered


def energies(
    joules: Mapping[int, Sequence[float | None]], *, uncertainty: float = 0.0, observed_s: float = 900.0
) -> pl.DataFrame:
    """Energies of each resource by quarter hour; `uncertainty` is relative."""
    rows = [
        (resource, moment(index / 4), value, observed_s, abs(value or 0.0) * uncertainty)
        for resource, values in joules.items()
        for index, value in enumerate(values)
    ]
    return frame(rows, ENERGIES)


def judged(
    places: pl.DataFrame,
    counted: pl.DataFrame,
    *,
    period: Period | None = None,
    expected: pl.DataFrame | None = None,
) -> dict[int, dict[str, object]]:
    terms = terms_of_tree(places.lazy())
    return by_balance(terms, counted, period=period, expected=expected)


def by_balance(
    terms: pl.LazyFrame, counted: pl.DataFrame, *, period: Period | None = None, expected: pl.DataFrame | None = None
) -> dict[int, dict[str, object]]:
    by_quarter = quarter_balances(terms, counted.lazy(), period or hours())
    found = balances(by_quarter, None if expected is None else expected.lazy()).collect()
    return {int(row["balance"]): row for row in found.iter_rows(named=True)}


SIMPLE = tree(always(SITE, 0), always(RACK, SITE), always(OTHER_RACK, SITE))


def test_residual_is_what_enters_less_what_leaves() -> None:
    # Four quarter hours: 1000 J enter, 600 J and 350 J leave.
    found = judged(SIMPLE, energies({SITE: [1e3] * 4, RACK: [600.0] * 4, OTHER_RACK: [350.0] * 4}))[SITE]
    assert found["in_joules"] == pytest.approx(4_000)
    assert found["out_joules"] == pytest.approx(3_800)
    assert found["residual_joules"] == pytest.approx(200)
    assert found["residual_share"] == pytest.approx(0.05)
    assert found["coverage"] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("relative", "margin", "verdict"),
    [
        # Racks err together: 4 % of 3800 J = 152 J; the site 4 % of 4000 J = 160 J; sqrt(152² + 160²) = 220.7 J.
        (0.04, 220.69, Verdict.HOLDS),
        (0.03, 165.52, Verdict.UNEXPLAINED),
    ],
)
def test_residual_holds_within_the_uncertainty_of_both_sides(relative: float, margin: float, verdict: str) -> None:
    counted = energies({SITE: [1e3] * 4, RACK: [600.0] * 4, OTHER_RACK: [350.0] * 4}, uncertainty=relative)
    found = judged(SIMPLE, counted)[SITE]
    assert found["uncertainty_joules"] == pytest.approx(margin, abs=0.01)
    assert found["verdict"] == verdict


def test_more_leaving_than_entering_is_unexplained_with_its_sign() -> None:
    found = judged(SIMPLE, energies({SITE: [1e3] * 4, RACK: [700.0] * 4, OTHER_RACK: [350.0] * 4}))[SITE]
    assert found["residual_joules"] == pytest.approx(-200)
    assert found["verdict"] == Verdict.UNEXPLAINED


@pytest.mark.parametrize(("low", "high", "verdict"), [(0.02, 0.06, Verdict.HOLDS), (0.0, 0.04, Verdict.UNEXPLAINED)])
def test_losses_that_are_expected_are_explained(low: float, high: float, verdict: str) -> None:
    counted = energies({SITE: [1e3] * 4, RACK: [600.0] * 4, OTHER_RACK: [350.0] * 4})
    expected = pl.DataFrame([(SITE, low, high)], schema=dict(EXPECTED), orient="row")
    assert judged(SIMPLE, counted, expected=expected)[SITE]["verdict"] == verdict


def test_meters_in_series_count_once() -> None:
    # The site counts its racks and not the trays below them; the rack counts its trays.
    places = tree(always(SITE, 0), always(RACK, SITE), always(TRAY, RACK), always(OTHER_TRAY, RACK))
    found = judged(places, energies({SITE: [100.0] * 4, RACK: [100.0] * 4, TRAY: [60.0] * 4, OTHER_TRAY: [40.0] * 4}))
    assert found.keys() == {SITE, RACK}
    assert found[SITE]["out_joules"] == pytest.approx(400)
    assert found[RACK]["out_joules"] == pytest.approx(400)


def test_parts_of_a_place_without_a_meter_count_in_its_stead() -> None:
    # The hall has no meter; one of its racks has none either, but both of its trays have.
    places = tree(
        always(SITE, 0),
        always(HALL, SITE, metered=False),
        always(RACK, HALL),
        always(OTHER_RACK, HALL, metered=False),
        always(TRAY, OTHER_RACK),
        always(OTHER_TRAY, OTHER_RACK),
    )
    found = judged(places, energies({SITE: [100.0] * 4, RACK: [50.0] * 4, TRAY: [30.0] * 4, OTHER_TRAY: [20.0] * 4}))
    assert found.keys() == {SITE}
    assert found[SITE]["residual_joules"] == pytest.approx(0.0)
    assert found[SITE]["verdict"] == Verdict.HOLDS


def test_metered_place_that_is_silent_is_not_replaced_by_its_parts() -> None:
    places = tree(always(SITE, 0), always(RACK, SITE), always(TRAY, RACK))
    found = judged(places, energies({SITE: [100.0] * 4, TRAY: [100.0] * 4}))
    assert found[SITE]["verdict"] == Verdict.NOT_COMPARABLE
    assert found[SITE]["residual_joules"] is None
    assert found[SITE]["coverage"] == 0.0


def test_place_that_moved_counts_to_each_parent_for_its_time() -> None:
    # A tray of 90 J a quarter hour moves from one rack to the other at 00:20: 20 and 40 of 60 minutes.
    places = tree(
        always(RACK, 0), always(OTHER_RACK, 0), (TRAY, RACK, -24.0, 1 / 3, True), (TRAY, OTHER_RACK, 1 / 3, None, True)
    )
    counted = energies({RACK: [90.0, 30.0, 0.0, 0.0], OTHER_RACK: [0.0, 60.0, 90.0, 90.0], TRAY: [90.0] * 4})
    by_quarter = quarter_balances(terms_of_tree(places.lazy()), counted.lazy(), hours()).collect()
    assert by_quarter.filter(pl.col("balance") == RACK)["out_joules"].to_list() == pytest.approx([90.0, 30.0])
    other = by_quarter.filter(pl.col("balance") == OTHER_RACK)["out_joules"].to_list()
    assert other == pytest.approx([60.0, 90.0, 90.0])
    assert by_quarter["residual_joules"].to_list() == pytest.approx([0.0] * 5)


def test_place_that_is_stated_twice_counts_once() -> None:
    places = tree(always(SITE, 0), (RACK, SITE, -24.0, None, True), (RACK, SITE, -12.0, None, True))
    assert judged(places, energies({SITE: [100.0] * 4, RACK: [100.0] * 4}))[SITE]["residual_joules"] == pytest.approx(0)


def test_move_of_a_place_above_moves_what_is_below_it() -> None:
    # The tray's rack, without a meter, moves from one feeder to another after half an hour.
    first, second = 11, 12
    places = tree(
        always(first, 0),
        always(second, 0),
        (RACK, first, -24.0, 0.5, False),
        (RACK, second, 0.5, None, False),
        always(TRAY, RACK),
    )
    counted = energies({first: [100.0, 100.0, 0.0, 0.0], second: [0.0, 0.0, 100.0, 100.0], TRAY: [100.0] * 4})
    found = judged(places, counted)
    assert [found[feeder]["out_joules"] for feeder in (first, second)] == pytest.approx([200.0, 200.0])
    assert [found[feeder]["residual_joules"] for feeder in (first, second)] == pytest.approx([0.0, 0.0])


def test_only_time_that_both_sides_know_is_compared() -> None:
    # One rack is not known in the first of 100 quarter hours.
    counted = energies({SITE: [1e3] * 100, RACK: [600.0] * 100, OTHER_RACK: [None, *[400.0] * 99]})
    found = judged(SIMPLE, counted, period=hours(25))[SITE]
    assert found["coverage"] == pytest.approx(0.99)
    assert found["in_joules"] == pytest.approx(99e3)
    assert found["residual_joules"] == pytest.approx(0.0)
    assert found["verdict"] == Verdict.HOLDS


@pytest.mark.parametrize(("silent", "verdict"), [(5, Verdict.HOLDS), (6, Verdict.NOT_COMPARABLE)])
def test_balance_with_too_little_compared_time_is_not_judged(silent: int, verdict: str) -> None:
    counted = energies(
        {SITE: [1e3] * 100, RACK: [600.0] * 100, OTHER_RACK: [*[None] * silent, *[400.0] * (100 - silent)]}
    )
    assert judged(SIMPLE, counted, period=hours(25))[SITE]["verdict"] == verdict


def test_quarter_hour_without_a_row_is_not_known() -> None:
    counted = energies({SITE: [1e3] * 4, RACK: [600.0] * 4, OTHER_RACK: [400.0] * 3})
    assert judged(SIMPLE, counted)[SITE]["coverage"] == pytest.approx(0.75)


def test_what_is_missing_of_many_widens_the_margin() -> None:
    # 200 trays of 10 J, one of them silent: 199/200 observed; 1990 J may lack 1990 / 199 = 10 J a quarter hour.
    trays = range(100, 300)
    places = tree(always(SITE, 0), *(always(tray, SITE) for tray in trays))
    counted = energies({SITE: [2e3] * 4, **{tray: [10.0] * 4 for tray in trays if tray != 100}})
    found = judged(places, counted)[SITE]
    assert found["residual_joules"] == pytest.approx(40.0)
    assert found["uncertainty_joules"] == pytest.approx(40.0)
    assert found["verdict"] == Verdict.HOLDS


def test_rounding_of_registers_counts_once_for_each_stretch() -> None:
    # Each of three registers rounds by 10 J: 2 * sqrt(3 * 10²) for one stretch, and sqrt(2) times that for two.
    whole = energies({SITE: [1e3] * 100, RACK: [600.0] * 100, OTHER_RACK: [400.0] * 100})
    broken = energies({SITE: [1e3] * 100, RACK: [600.0] * 100, OTHER_RACK: [*[400.0] * 50, None, *[400.0] * 49]})
    for counted, stretches in ((whole, 1), (broken, 2)):
        rounded = counted.with_columns(quantisation_joules=pl.lit(10.0))
        found = judged(SIMPLE, rounded, period=hours(25))[SITE]
        assert found["uncertainty_joules"] == pytest.approx(2 * math.sqrt(3 * 100 * stretches))


def test_share_estimated_is_of_both_sides() -> None:
    counted = energies({SITE: [1e3] * 4, RACK: [600.0] * 4, OTHER_RACK: [400.0] * 4})
    half = counted.with_columns(estimated_joules=pl.when(pl.col("resource") == RACK).then(300.0).otherwise(0.0))
    assert judged(SIMPLE, half)[SITE]["share_estimated"] == pytest.approx(300 / 2000)


def test_heat_taken_up_is_balanced_against_heat_handed_over_and_rejected() -> None:
    # available = handed over + rejected + own use ± residual: 70 + 30 = 60 + 25 + 5 + 10.
    plant, loops, meters = 50, (51, 52), (61, 62, 63)
    rows = [(plant, loop, Side.IN.value, None, None) for loop in loops]
    rows += [(plant, meter, Side.OUT.value, None, None) for meter in meters]
    counted = energies({51: [70.0] * 4, 52: [30.0] * 4, 61: [60.0] * 4, 62: [25.0] * 4, 63: [5.0] * 4}, uncertainty=0.1)
    found = by_balance(frame(rows, TERMS).lazy(), counted)[plant]
    assert found["residual_joules"] == pytest.approx(40.0)
    # sqrt((10 % of 400)² + (10 % of 360)²) = 53.8 J
    assert found["uncertainty_joules"] == pytest.approx(math.hypot(40, 36))
    assert found["verdict"] == Verdict.HOLDS


@pytest.mark.parametrize(
    "places",
    [
        tree(always(SITE, SITE)),
        tree(always(HALL, RACK, metered=False), always(RACK, HALL, metered=False), always(TRAY, HALL)),
        tree(always(SITE, 0)),
    ],
)
def test_tree_that_is_none_gives_no_balance_and_no_endless_loop(places: pl.DataFrame) -> None:
    assert judged(places, energies({SITE: [1.0] * 4, TRAY: [1.0] * 4})) == {}


def test_frame_of_other_types_is_refused() -> None:
    with pytest.raises(TypeError, match="metered"):
        terms_of_tree(SIMPLE.drop("metered").lazy())
    with pytest.raises(TypeError, match="joules"):
        quarter_balances(terms_of_tree(SIMPLE.lazy()), energies({}).drop("joules").lazy(), hours())


# A tree of up to 20 places: the parent of place n is one before it. A place without parts has a meter.
SHAPES = st.lists(st.tuples(st.integers(0, 100), st.booleans(), st.integers(0, 10_000)), min_size=2, max_size=20)
FEW = settings(deadline=None, max_examples=25)
Shape = list[tuple[int, bool, int]]


def grown(shape: Shape, losses: Mapping[int, float]) -> tuple[list[Place], dict[int, list[float | None]], set[int]]:
    """Places, the energies of each quarter hour, and which places have a meter and parts: exact but for the losses."""
    count = len(shape)
    parents = {index + 1: shape[index][0] % index + 1 if index else 0 for index in range(count)}
    inner = set(parents.values()) - {0}
    metered = {place for place in parents if place not in inner or place == 1 or shape[place - 1][1]}
    joules = {place: 0.0 if place in inner else float(shape[place - 1][2]) for place in parents}
    for place in range(count, 0, -1):
        joules[place] += losses.get(place, 0.0)
        if parents[place]:
            joules[parents[place]] += joules[place]
    places = [always(place, parent, metered=place in metered) for place, parent in parents.items()]
    return places, {place: [joules[place]] * QUARTERS for place in metered}, inner & metered


@FEW
@given(SHAPES)
def test_exact_tree_has_no_residual(shape: Shape) -> None:
    places, joules, judgeable = grown(shape, {})
    found = judged(tree(*places), energies(joules))
    assert found.keys() == judgeable
    for row in found.values():
        assert row["residual_joules"] == pytest.approx(0.0, abs=1e-6)
        assert row["verdict"] == Verdict.HOLDS


@FEW
@given(SHAPES, st.integers(0, 19), st.floats(1, 1e6))
def test_injected_loss_is_the_residual_of_the_place_above_it(shape: Shape, at: int, loss: float) -> None:
    _, _, judgeable = grown(shape, {})
    if not judgeable:
        return
    place = sorted(judgeable)[at % len(judgeable)]
    places, joules, _ = grown(shape, {place: loss})
    found = judged(tree(*places), energies(joules))
    for balance, row in found.items():
        lost = QUARTERS * loss if balance == place else 0.0
        assert row["residual_joules"] == pytest.approx(lost, abs=1e-5)
    assert found[place]["verdict"] == Verdict.UNEXPLAINED


@FEW
@given(SHAPES, st.randoms(use_true_random=False))
def test_order_and_repeats_of_rows_change_nothing(shape: Shape, random: Random) -> None:
    places, joules, _ = grown(shape, {1: 5.0})
    counted = energies(joules)
    muddled = [*places, *places[::2]]
    random.shuffle(muddled)
    order = [*range(counted.height), *range(counted.height // 2)]
    random.shuffle(order)
    plain, other = judged(tree(*places), counted), judged(tree(*muddled), counted[order])
    assert plain.keys() == other.keys()
    for balance, row in plain.items():
        assert [other[balance][name] for name in ("in_joules", "out_joules")] == pytest.approx(
            [row[name] for name in ("in_joules", "out_joules")]
        )
        assert other[balance]["verdict"] == row["verdict"]


@FEW
@given(SHAPES, st.sets(st.tuples(st.integers(1, 20), st.integers(0, 3)), max_size=10))
def test_two_halves_add_up_and_missing_rows_never_raise_the_coverage(shape: Shape, gone: set[tuple[int, int]]) -> None:
    places, joules, _ = grown(shape, {1: 5.0})
    left = {
        place: [None if (place, index) in gone else value for index, value in enumerate(values)]
        for place, values in joules.items()
    }
    whole = judged(tree(*places), energies(left))
    complete = judged(tree(*places), energies(joules))
    halves = [judged(tree(*places), energies(left), period=hours(0.5, first_h=hour)) for hour in (0.0, 0.5)]
    for balance, row in whole.items():
        for name in ("in_joules", "out_joules", "residual_joules"):
            parts = [half[balance][name] for half in halves]
            assert sum(float(str(part)) for part in parts if part is not None) == pytest.approx(
                row[name] or 0.0, abs=1e-6
            )
        assert float(str(row["coverage"])) <= float(str(complete[balance]["coverage"]))

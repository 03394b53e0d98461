"""GPU time on two axes: worked by hand, and held to its sums whatever comes in."""

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from reports.efficiency_hours import (
    EVENTS,
    MEMBERS,
    OUTAGES,
    PLACES,
    SEGMENTS,
    WORKED,
    Activity,
    Allocation,
    Health,
    gpu_hours,
    members_of,
    openings,
    outages_of,
    unresolved,
)
from reports.efficiency_queries import FEEDS, HOLDS, Window

START = datetime(2026, 10, 5, tzinfo=UTC)
WINDOW = Window(START, START + timedelta(hours=4))
HOUR_MS = 3_600_000


def at(hours: float) -> datetime:
    return START + timedelta(hours=hours)


def gpus(*ids: int) -> pl.DataFrame:
    return pl.DataFrame({"resource": ids}, schema={"resource": pl.UInt64})


def seen(
    gpu: int, first: float, last: float, *, watts: float = 0.0, activity: int = 2, **flags: int
) -> dict[str, object]:
    joules = watts * (last - first) * 3600
    return {"resource": gpu, "start": at(first), "end": at(last), "dark": 0, "throttled": 0, "activity": activity,
            "readings": 1, "joules": joules, **flags}  # fmt: skip


def segments(*rows: dict[str, object]) -> pl.DataFrame:
    return (
        pl.DataFrame(list(rows), schema={name: SEGMENTS[name] for name in SEGMENTS})
        if rows
        else pl.DataFrame(schema=dict(SEGMENTS))
    )


def outages(*rows: tuple[int, float, float, Health]) -> pl.DataFrame:
    told = [(gpu, at(first), at(last), state.value) for gpu, first, last, state in rows]
    return pl.DataFrame(told, schema=dict(OUTAGES), orient="row")


def holds(*rows: tuple[int, float, float | None]) -> pl.DataFrame:
    told = [("job", gpu, at(first), None if last is None else at(last), "", "") for gpu, first, last in rows]
    return pl.DataFrame(told, schema=dict(HOLDS), orient="row")


def hours_by(frame: pl.DataFrame, axis: str) -> dict[str, float]:
    return {state: ms / HOUR_MS for state, ms in frame.group_by(axis).agg(pl.col("milliseconds").sum()).iter_rows()}


def test_each_gpu_second_has_one_state_on_each_axis() -> None:
    """Two GPUs for four hours, by hand: the first works, idles and is let go; the second is down, then not seen."""
    told = segments(
        seen(1, 0, 2, watts=1000), seen(1, 2, 3, watts=150, activity=Activity.IDLE),
        seen(1, 3, 4, watts=150, activity=Activity.IDLE), seen(2, 0, 3, watts=200, activity=Activity.IDLE),
    )  # fmt: skip
    found = gpu_hours(gpus(1, 2), told, outages((2, 0, 2.5, Health.DOWN)), holds((1, 0, 3), (2, 3.5, None)), WINDOW)
    assert hours_by(found, "health") == {"healthy": 4.5, "down": 2.5, "unknown": 1.0}
    assert hours_by(found, "allocation") == {
        "busy": 2.0, "idle": 1.0, "unallocated": 4.5, "held, activity unknown": 0.5,
    }  # fmt: skip
    joules = dict(found.group_by("allocation").agg(pl.col("joules").sum()).iter_rows())
    assert joules[Allocation.BUSY] == pytest.approx(2 * 3600 * 1000)
    assert joules[Allocation.IDLE] == pytest.approx(3600 * 150)
    assert joules[Allocation.UNALLOCATED] == pytest.approx(3600 * 150 + 3 * 3600 * 200)


@pytest.mark.parametrize(
    ("states", "wanted"),
    [
        ((Health.DOWN, Health.MAINTENANCE, Health.DEGRADED), Health.DOWN),
        ((Health.MAINTENANCE, Health.DEGRADED), Health.MAINTENANCE),
        ((Health.DEGRADED,), Health.DEGRADED),
        ((), Health.HEALTHY),
    ],
)
def test_first_of_down_maintenance_unknown_degraded_counts(states: tuple[Health, ...], wanted: Health) -> None:
    overlapping = outages(*((1, 0.0, 4.0, state) for state in states))
    found = gpu_hours(gpus(1), segments(seen(1, 0, 4)), overlapping, None, WINDOW)
    assert hours_by(found, "health") == {wanted.value: 4.0}


def test_unknown_outranks_degraded_and_yields_to_maintenance() -> None:
    found = gpu_hours(
        gpus(1, 2), segments(), outages((1, 0, 4, Health.DEGRADED), (2, 0, 4, Health.MAINTENANCE)), None, WINDOW
    )
    assert hours_by(found, "health") == {"unknown": 4.0, "maintenance": 4.0}


def test_dark_gpu_is_down_unless_its_node_is_under_maintenance() -> None:
    dark = segments(seen(1, 0, 4, activity=0, dark=1), seen(2, 0, 4, activity=0, dark=1))
    found = gpu_hours(gpus(1, 2), dark, outages((2, 0, 4, Health.MAINTENANCE)), None, WINDOW)
    assert hours_by(found, "health") == {"down": 4.0, "maintenance": 4.0}


def test_throttled_gpu_is_degraded() -> None:
    found = gpu_hours(gpus(1), segments(seen(1, 0, 1, throttled=1), seen(1, 1, 4)), outages(), None, WINDOW)
    assert hours_by(found, "health") == {"degraded": 1.0, "healthy": 3.0}


def test_without_a_scheduler_nothing_counts_as_unallocated() -> None:
    found = gpu_hours(gpus(1), segments(seen(1, 0, 4)), outages(), None, WINDOW)
    assert hours_by(found, "allocation") == {"not told": 4.0}


def test_hourly_parts_start_on_the_hour_and_add_up() -> None:
    found = gpu_hours(
        gpus(1), segments(seen(1, 0.5, 2.25, watts=100)), outages(), holds((1, 0, 2)), WINDOW, hourly=True
    )
    by_hour = dict(found.group_by("time").agg(pl.col("milliseconds").sum()).iter_rows())
    assert by_hour == {at(hour): HOUR_MS for hour in range(4)}
    seen_ms = dict(
        found.filter(pl.col("health") == "healthy").group_by("time").agg(pl.col("milliseconds").sum()).iter_rows()
    )
    assert seen_ms == {at(0): HOUR_MS / 2, at(1): HOUR_MS, at(2): HOUR_MS / 4}
    assert found["joules"].sum() == pytest.approx(100 * 1.75 * 3600)


GPU = st.integers(1, 3)
QUARTERS = st.integers(-4, 20)


@st.composite
def interval(draw: st.DrawFn) -> tuple[int, float, float]:
    first, length = draw(QUARTERS), draw(st.integers(1, 12))
    return draw(GPU), first / 4, (first + length) / 4


@st.composite
def slots(draw: st.DrawFn) -> pl.DataFrame:
    """Slots of an hour that do not overlap, as the store answers them."""
    places = draw(st.sets(st.tuples(GPU, st.integers(0, 3)), max_size=12))
    rows = [
        seen(gpu, hour, hour + 1, watts=draw(st.integers(0, 1400)), activity=draw(st.integers(0, 2)),
             dark=draw(st.integers(0, 1)), throttled=draw(st.integers(0, 1)))
        for gpu, hour in sorted(places)
    ]  # fmt: skip
    return segments(*rows)


OPENED = st.sampled_from([Health.DOWN, Health.MAINTENANCE, Health.DEGRADED])
OUTAGE_LIST = st.lists(st.tuples(interval(), OPENED), max_size=6).map(
    lambda rows: outages(*((*one, state) for one, state in rows))
)
HOLD_LIST = st.lists(interval(), max_size=6).map(lambda rows: holds(*rows))


@settings(max_examples=60, deadline=None)
@given(told=slots(), broken=OUTAGE_LIST, held=HOLD_LIST)
def test_both_axes_add_up_to_all_of_the_time(told: pl.DataFrame, broken: pl.DataFrame, held: pl.DataFrame) -> None:
    found = gpu_hours(gpus(1, 2, 3), told, broken, held, WINDOW)
    assert found["milliseconds"].sum() == 3 * 4 * HOUR_MS
    assert set(found["health"]) <= set(Health)
    assert set(found["allocation"]) <= set(Allocation)
    assert found["joules"].sum() == pytest.approx(told["joules"].sum())


@settings(max_examples=40, deadline=None)
@given(told=slots(), broken=OUTAGE_LIST, held=HOLD_LIST, seed=st.integers(0, 100))
def test_order_and_repetition_of_input_change_nothing(
    told: pl.DataFrame, broken: pl.DataFrame, held: pl.DataFrame, seed: int
) -> None:
    once = gpu_hours(gpus(1, 2, 3), told, broken, held, WINDOW)
    shuffled = [pl.concat([some, some]).sample(fraction=1, shuffle=True, seed=seed) for some in (told, broken, held)]
    again = gpu_hours(gpus(3, 1, 2, 3), shuffled[0], shuffled[1], shuffled[2], WINDOW)
    assert_frame_equal(once, again)


@settings(max_examples=20, deadline=None)
@given(told=slots(), broken=OUTAGE_LIST, held=HOLD_LIST, cut=st.integers(1, 3))
def test_a_split_window_and_its_hours_add_up_to_the_whole(
    told: pl.DataFrame, broken: pl.DataFrame, held: pl.DataFrame, cut: int
) -> None:
    """Each window is read for itself, with the slots that begin in it."""
    state = ["health", "allocation"]

    def summed(*parts: pl.DataFrame) -> pl.DataFrame:
        sums = pl.concat(parts).group_by(state).agg(pl.col("milliseconds", "joules").sum())
        return sums.filter(pl.col("milliseconds") > 0).sort(state)

    fleet, at_cut = gpus(1, 2, 3), at(cut)
    whole = gpu_hours(fleet, told, broken, held, WINDOW)
    before, after = told.filter(pl.col("start") < at_cut), told.filter(pl.col("start") >= at_cut)
    halves = (
        gpu_hours(fleet, before, broken, held, Window(WINDOW.start, at_cut)),
        gpu_hours(fleet, after, broken, held, Window(at_cut, WINDOW.end)),
    )
    hourly = gpu_hours(fleet, told, broken, held, WINDOW, hourly=True)
    assert_frame_equal(summed(*halves), summed(whole))
    assert_frame_equal(summed(hourly), summed(whole))
    assert hourly.group_by("time").agg(pl.col("milliseconds").sum())["milliseconds"].to_list() == [3 * HOUR_MS] * 4


@settings(max_examples=40, deadline=None)
@given(told=slots().filter(lambda frame: frame.height > 0), broken=OUTAGE_LIST, held=HOLD_LIST)
def test_a_missing_reading_never_makes_a_gpu_healthier(
    told: pl.DataFrame, broken: pl.DataFrame, held: pl.DataFrame
) -> None:
    whole = hours_by(gpu_hours(gpus(1, 2, 3), told, broken, held, WINDOW), "health")
    less = hours_by(gpu_hours(gpus(1, 2, 3), told.slice(1), broken, held, WINDOW), "health")
    assert less.get("unknown", 0.0) >= whole.get("unknown", 0.0)
    assert less.get("healthy", 0.0) <= whole.get("healthy", 0.0)


# Outages from events


def events(*rows: tuple[int, float, str, int]) -> pl.DataFrame:
    return pl.DataFrame(
        [(gpu, at(time), kind, code, "", "") for gpu, time, kind, code in rows], schema=dict(EVENTS), orient="row"
    )


def itself(*ids: int) -> pl.DataFrame:
    long_ago, never = datetime(1970, 1, 1, tzinfo=UTC), datetime(2299, 12, 31, tzinfo=UTC)
    return pl.DataFrame([(one, one, long_ago, never) for one in ids], schema=dict(MEMBERS), orient="row")


def worked(*rows: tuple[int, float]) -> pl.DataFrame:
    return pl.DataFrame([(gpu, at(time)) for gpu, time in rows], schema=dict(WORKED), orient="row")


def spans(found: pl.DataFrame) -> list[tuple[int, float, float, str]]:
    hour = timedelta(hours=1)
    return [
        (gpu, (first - START) / hour, (last - START) / hour, state) for gpu, first, last, state in found.iter_rows()
    ]


def test_fatal_xid_lasts_until_the_gpu_is_restored() -> None:
    opened = openings(events((1, 1, "xid", 79), (1, 2, "restored", 0)))
    assert unresolved(opened) == []
    assert spans(outages_of(opened, worked((1, 1.5)), itself(1), WINDOW)) == [(1, 1, 2, "down")]


def test_fatal_xid_that_nobody_closes_ends_when_the_gpu_works_again() -> None:
    opened = openings(events((1, 1, "xid", 79)))
    assert unresolved(opened) == [1]
    # What it did a minute later may still be the job that dies.
    again = worked((1, 1 + 1 / 60), (1, 3))
    assert spans(outages_of(opened, again, itself(1), WINDOW)) == [(1, 1, 3, "down")]
    assert spans(outages_of(opened, worked(), itself(1), WINDOW)) == [(1, 1, 4, "down")]


@pytest.mark.parametrize(("kind", "code"), [("xid", 31), ("xid", 94), ("leak", 0), ("nccl_watchdog", 0)])
def test_what_only_may_be_an_outage_is_none_unless_it_was_restored(kind: str, code: int) -> None:
    opened = openings(events((1, 1, kind, code)))
    assert spans(outages_of(opened, worked(), itself(1), WINDOW)) == []


@pytest.mark.parametrize(
    ("kind", "code", "state"), [("xid", 94, "down"), ("leak", 0, "down"), ("network", 0, "degraded")]
)
def test_what_was_restored_had_been_out_of_service(kind: str, code: int, state: str) -> None:
    opened = openings(events((1, 1, kind, code), (1, 2.5, "restored", 0)))
    assert spans(outages_of(opened, worked(), itself(1), WINDOW)) == [(1, 1, 2.5, state)]


def test_mending_one_of_two_faults_does_not_close_the_other() -> None:
    told = [
        (1, at(0), "thermal_interface", 0, "", "Thermal interface failed"),
        (1, at(1), "network", 0, "", "Cable failed"),
        (1, at(2), "restored", 0, "", "Back in service after cable failed"),
        (1, at(3), "restored", 0, "", "Back in service after thermal interface failed"),
    ]
    opened = openings(pl.DataFrame(told, schema=dict(EVENTS), orient="row"))
    assert spans(outages_of(opened, worked(), itself(1), WINDOW)) == [(1, 0, 3, "degraded"), (1, 1, 2, "degraded")]


def test_outage_of_a_rack_hits_the_gpus_that_it_had_at_the_time() -> None:
    """GPU 1 moves from rack 10 to rack 20 at two o'clock; CDU 99 serves rack 10."""
    never = datetime(2299, 12, 31, tzinfo=UTC)
    rows = [
        (1, at(0), at(2), "gpu", "", 5, "", 10, "", 0, "", [1, 5, 10]),
        (1, at(2), never, "gpu", "", 6, "", 20, "", 0, "", [1, 6, 20]),
        (2, at(0), never, "gpu", "", 5, "", 10, "", 0, "", [2, 5, 10]),
    ]
    places = pl.DataFrame(rows, schema=dict(PLACES), orient="row")
    feeds = pl.DataFrame([(99, 10, at(-1), never), (98, 99, at(-1), never)], schema=dict(FEEDS), orient="row")
    members = members_of(places, feeds)
    opened = openings(events((10, 1, "leak", 0), (10, 3, "restored", 0), (99, 3, "cdu", 0), (98, 3.5, "memory", 0)))
    assert spans(outages_of(opened, worked(), members, WINDOW)) == [
        (1, 1, 2, "down"),
        (2, 1, 3, "down"),
        (2, 3, 4, "degraded"),
        (2, 3.5, 4, "down"),
    ]

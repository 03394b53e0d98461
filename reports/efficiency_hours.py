"""What every GPU-second of a period was: an account on two axes, each of which adds up to all of it.

Intervals of all kinds (what was seen, outages, maintenance, holds of jobs) are laid over each other by a
sweep: between two neighbouring bounds nothing changes, so each piece of time has one state on each axis.
Time is counted in whole milliseconds, so that sums are exact. All functions are pure.
"""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from enum import StrEnum

import polars as pl

from catalogue.xid import XIDS, XidClass
from reports.efficiency_queries import EVENTS, PLACES, SEGMENTS, TROUBLES, WORKED, Window
from reports.ledger import TIME
from reports.sweep import cut, milliseconds, overlay
from storage.reader import Schema


class Health(StrEnum):
    """What a GPU was good for. Where several hold, the first of down, maintenance, unknown, degraded counts."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    DOWN = "down"
    MAINTENANCE = "maintenance"
    UNKNOWN = "unknown"


class Allocation(StrEnum):
    """What a GPU was held for. `HELD` is held with its activity unknown, `UNTOLD` that no scheduler tells of jobs."""

    BUSY = "busy"
    IDLE = "idle"
    HELD = "held, activity unknown"
    UNALLOCATED = "unallocated"
    UNTOLD = "not told"


class Activity:
    """Values of the column `activity` of segments."""

    UNKNOWN, IDLE, BUSY = 0, 1, 2


INTERVALS: Schema = {"resource": pl.UInt64(), "start": TIME, "end": TIME}
OUTAGES: Schema = {**INTERVALS, "condition": pl.String()}
MEMBERS: Schema = {"ancestor": pl.UInt64(), "gpu": pl.UInt64(), "valid_from": TIME, "valid_to": TIME}
HOURS: Schema = {
    "time": TIME,
    "health": pl.String(),
    "allocation": pl.String(),
    "milliseconds": pl.Int64(),
    "joules": pl.Float64(),
}

# What an event means for whatever it happened to, from the event until it is restored. Kinds that are not named here
# open nothing: that a job's software failed says nothing about the GPU.
CONDITIONS: Mapping[str, Health] = {
    "host_maintenance": Health.MAINTENANCE,
    "maintenance": Health.MAINTENANCE,
    "network": Health.DEGRADED,
    "nic": Health.DEGRADED,
    "silent_data_corruption": Health.DEGRADED,
    "thermal_interface": Health.DEGRADED,
    "cdu": Health.DEGRADED,
    "power_shelf": Health.DEGRADED,
    "ssd": Health.DOWN,
    "power_supply": Health.DOWN,
    "chassis": Health.DOWN,
    "io_board": Health.DOWN,
    "processor": Health.DOWN,
    "memory": Health.DOWN,
    "leak": Health.DOWN,
}
RESTORED = "restored"
# A detector's warning is a leak, too: only what somebody put back into service was out of it.
_ONLY_WHEN_RESTORED = ("leak",)
# A GPU that works so long after a fatal XID was reset, even if nobody says so.
WORKS_AGAIN_AFTER = timedelta(minutes=5)

_HEALTH_MARKS = ("seen", "dark", "throttled", "down", "maintenance", "degraded")


def openings(events: pl.DataFrame) -> pl.DataFrame:
    """Events that may open an outage: resource, time, condition, fatal (an XID of class page), surely.

    `surely` is False where only a later "restored" shows that something was out of service. When it
    was restored is in `restored_at`, absent if it was not. Input EVENTS, repeats allowed.
    """
    events = events.unique()
    classes = {number: entry.xid_class.value for number, entry in XIDS.items()}
    listed = pl.col("code").replace_strict(classes, default=XidClass.TICKET.value, return_dtype=pl.String)
    is_xid = pl.col("kind") == "xid"
    said = pl.when(pl.col("xid_class") != "").then("xid_class").otherwise(listed)
    hardware = is_xid & said.is_in([XidClass.PAGE.value, XidClass.TICKET.value])
    named = pl.col("kind").replace_strict(
        {kind: state.value for kind, state in CONDITIONS.items()}, default=None, return_dtype=pl.String
    )
    found = events.with_columns(
        condition=pl.when(hardware).then(pl.lit(Health.DOWN.value)).when(~is_xid).then(named),
        fatal=is_xid & (said == XidClass.PAGE.value),
        surely=(is_xid & (said == XidClass.PAGE.value)) | (~is_xid & ~pl.col("kind").is_in(_ONLY_WHEN_RESTORED)),
    ).filter(pl.col("condition").is_not_null())
    restored = events.filter(pl.col("kind") == RESTORED).select("resource", restored_at="time", said="text").unique()
    return found.join(_closed(found, restored), on=_OPENING, how="left", nulls_equal=True).select(
        *_OPENING, "condition", "fatal", "surely", "restored_at"
    )


_OPENING = ("resource", "time", "kind", "code")


def _closed(found: pl.DataFrame, restored: pl.DataFrame) -> pl.DataFrame:
    """When each opening was restored: by the first such event that names it in its text, or that names nothing.

    A GPU may have two things wrong with it: that one of them was mended does not close the other.
    """
    text = pl.col("text").str.to_lowercase()
    names = (text != "") & pl.col("said").str.to_lowercase().str.contains(text, literal=True)
    pairs = found.join(restored, on="resource").filter(pl.col("restored_at") > pl.col("time")).with_columns(names=names)
    named = pl.col("names").any().over("resource", "restored_at", "said")
    closing = pairs.filter(pl.col("names") | ~named)
    return closing.group_by(_OPENING).agg(pl.col("restored_at").min())


def unresolved(opened: pl.DataFrame) -> list[int]:
    """GPUs with a fatal XID of which nobody said that they are back."""
    return opened.filter(pl.col("fatal"), pl.col("restored_at").is_null())["resource"].unique().sort().to_list()


def outages_of(opened: pl.DataFrame, worked: pl.DataFrame, members: pl.DataFrame, window: Window) -> pl.DataFrame:
    """OUTAGES of GPUs: of `openings`, each for all the GPUs that the resource had at the time; see `endings`."""
    closed = endings(opened, worked, window).select("condition", "end", ancestor="resource", start="time")
    return (
        closed.join(members, on="ancestor")
        .select(
            pl.col("gpu").alias("resource"),
            start=pl.max_horizontal("start", "valid_from"),
            end=pl.min_horizontal("end", "valid_to"),
            condition="condition",
        )
        .filter(pl.col("start") < pl.col("end"))
        .unique()
        .sort("resource", "start", "end", "condition")
    )


def endings(opened: pl.DataFrame, worked: pl.DataFrame, window: Window) -> pl.DataFrame:
    """Those of `openings` that are outages, with the `end` of each.

    An outage ends when it is restored; a fatal XID without that when its GPU is seen to work again
    (WORKED, five minutes later or more); what is open still, at the window's end.
    """
    again = worked.select("resource", works_at="time", _time=pl.col("time")).unique().sort("_time")
    still = pl.when("surely").then(pl.lit(window.end).cast(TIME))
    return (
        opened.with_columns(_after=pl.col("time") + WORKS_AGAIN_AFTER)
        .sort("_after")
        .join_asof(again, left_on="_after", right_on="_time", by="resource", strategy="forward", check_sortedness=False)
        .with_columns(end=pl.coalesce("restored_at", pl.when("fatal").then("works_at"), still))
        .filter(pl.col("end").is_not_null())
        .select(*opened.columns, "end")
    )


def maintained(maintenance: pl.DataFrame | None, members: pl.DataFrame) -> pl.DataFrame:
    """OUTAGES of the GPUs of what is under maintenance: resource, start, end; None where nothing says so."""
    if maintenance is None:
        return pl.DataFrame(schema=dict(OUTAGES))
    named = maintenance.select(pl.col("resource").cast(pl.UInt64), pl.col("start", "end").cast(TIME))
    return named.join(members, left_on="resource", right_on="ancestor").select(
        resource="gpu", start="start", end="end", condition=pl.lit(Health.MAINTENANCE.value)
    )


def members_of(places: pl.DataFrame, feeds: pl.DataFrame) -> pl.DataFrame:
    """MEMBERS: which GPUs each resource had and when: by the tree, by what it serves, and by what that serves.

    A meter may serve a CDU which serves racks. The first place of a GPU counts for all time before
    it, too. Input PLACES and FEEDS.
    """
    long_ago = pl.lit(0).cast(TIME)
    first = pl.col("valid_from") == pl.col("valid_from").min().over("resource")
    gpus = places.filter(pl.col("kind") == "gpu").with_columns(
        valid_from=pl.when(first).then(long_ago).otherwise("valid_from")
    )
    tree = gpus.select("valid_from", "valid_to", gpu="resource", ancestor="path").explode("ancestor")
    through = feeds.join(feeds, left_on="served", right_on="resource").select(
        "resource",
        served="served_right",
        valid_from=pl.max_horizontal("valid_from", "valid_from_right"),
        valid_to=pl.min_horizontal("valid_to", "valid_to_right"),
    )
    reached = pl.concat([feeds.select(through.columns), through])
    served = reached.join(tree, left_on="served", right_on="ancestor").select(
        ancestor="resource",
        gpu="gpu",
        # A word about what something serves also holds for the time before it.
        valid_from="valid_from_right",
        valid_to=pl.min_horizontal("valid_to", "valid_to_right"),
    )
    columns = [pl.col(name).cast(kind) for name, kind in MEMBERS.items()]
    return pl.concat([tree.select(columns), served.select(columns)]).unique().drop_nulls("ancestor")


def gpu_hours(
    gpus: pl.DataFrame,
    segments: pl.DataFrame,
    outages: pl.DataFrame,
    holds: pl.DataFrame | None,
    window: Window,
    *,
    hourly: bool = False,
) -> pl.DataFrame:
    """HOURS: the time of all `gpus` in the window by health and allocation, and the energy they told of.

    `gpus`: resource. Input SEGMENTS, OUTAGES or TROUBLES, and holds as INTERVALS (`end` absent while
    it runs), in any order, repeats allowed; None for `holds` where no scheduler tells of jobs. Things
    that are not among `gpus` are left out. For each health and for each allocation the milliseconds
    add up to GPUs x window. A GPU that is only dark while under maintenance is in maintenance.
    `time` is the start of the window, or of each of its hours.
    """
    held = pl.DataFrame(schema=dict(INTERVALS)) if holds is None else holds
    held = held.with_columns(pl.col("end").fill_null(pl.lit(window.end).cast(TIME)))
    pieces = gpu_pieces(gpus, seen_layer(segments), outages, window, more=[marked(held, "held")])
    states = pieces.with_columns(health=health(), allocation=_allocation(told=holds is not None))
    summed = _by_hour(states, window) if hourly else _in_all(states, window)
    return summed.select(pl.col(name).cast(kind) for name, kind in HOURS.items()).sort("time", "health", "allocation")


def _in_all(pieces: pl.DataFrame, window: Window) -> pl.DataFrame:
    """Time and energy of the pieces by state."""
    return (
        pieces.group_by("health", "allocation")
        .agg(milliseconds=milliseconds().sum(), joules=(pl.col("watts") * milliseconds() / 1000).sum())
        .with_columns(time=pl.lit(window.start).cast(TIME))
    )


def _by_hour(pieces: pl.DataFrame, window: Window) -> pl.DataFrame:
    """The same by hour. How many GPUs are in a state, and what they draw, changes at the pieces' bounds: one course
    for each state is cut at the hours, not every piece."""
    state = ["health", "allocation"]
    begins = pieces.select(*state, "watts", time="start", gpus=pl.lit(1))
    ends = pieces.select(*state, -pl.col("watts"), time="end", gpus=pl.lit(-1))
    changes = pl.concat([begins, ends])
    first = window.start.replace(minute=0, second=0, microsecond=0)
    hours = pl.datetime_range(first, window.end, "1h", time_unit="ms", eager=True).dt.convert_time_zone("UTC")
    marks = changes.select(state).unique().join(hours.alias("time").to_frame(), how="cross")
    still = marks.select(*state, "time", watts=pl.lit(0.0), gpus=pl.lit(0)).select(changes.columns)
    course = (
        pl.concat([changes, still])
        .group_by("time", *state)
        .agg(pl.col("watts", "gpus").sum())
        .sort(*state, "time")
        .with_columns(
            pl.col("watts", "gpus").cum_sum().over(state),
            milliseconds=(pl.col("time").shift(-1).over(state) - pl.col("time")).dt.total_milliseconds(),
        )
        .drop_nulls("milliseconds")
        # Rounding is no power: without a GPU there is none.
        .filter(pl.col("gpus") > 0)
    )
    return course.group_by(pl.col("time").dt.truncate("1h"), *state).agg(
        joules=(pl.col("watts") * pl.col("milliseconds") / 1000).sum(),
        milliseconds=(pl.col("gpus") * pl.col("milliseconds")).sum(),
    )


def gpu_pieces(
    gpus: pl.DataFrame,
    seen: pl.DataFrame,
    outages: pl.DataFrame,
    window: Window,
    *,
    more: Sequence[pl.DataFrame] = (),
) -> pl.DataFrame:
    """The window of each of `gpus` in pieces in which nothing changes, with all marks that `health` reads.

    `seen`: intervals with the marks seen, dark and throttled; outages as OUTAGES; `more` layers go along.
    Things that are not among `gpus` are left out.
    """
    gpus = gpus.select(pl.col("resource").cast(pl.UInt64)).unique()
    layers = [seen, *more, *(marked(outages.filter(pl.col("condition") == state), state.value) for state in _OPENED)]
    bounds = (pl.lit(window.start), pl.lit(window.end))
    inside = [cut(layer.with_columns(pl.col("resource").cast(pl.UInt64)), *bounds) for layer in layers]
    known = [layer.join(gpus, on="resource", how="semi") for layer in inside]
    return overlay([_frame(gpus, window), *known])


_OPENED = (Health.DOWN, Health.MAINTENANCE, Health.DEGRADED)


def health() -> pl.Expr:
    """The Health of a piece by its marks: the first that holds of down, maintenance, unknown, degraded, healthy."""
    on = {name: pl.col(name) > 0 for name in _HEALTH_MARKS}
    down = on["down"] | (on["dark"] & ~on["maintenance"])
    states = (
        (down, Health.DOWN),
        (on["maintenance"], Health.MAINTENANCE),
        (~on["seen"], Health.UNKNOWN),
        (on["throttled"] | on["degraded"], Health.DEGRADED),
    )
    return pl.coalesce(
        *(pl.when(is_so).then(pl.lit(state.value)) for is_so, state in states), pl.lit(Health.HEALTHY.value)
    )


def _allocation(*, told: bool) -> pl.Expr:
    if not told:
        return pl.lit(Allocation.UNTOLD.value)
    states = (
        (pl.col("held") <= 0, Allocation.UNALLOCATED),
        (pl.col("busy") > 0, Allocation.BUSY),
        (pl.col("idle") > 0, Allocation.IDLE),
    )
    return pl.coalesce(
        *(pl.when(is_so).then(pl.lit(state.value)) for is_so, state in states), pl.lit(Allocation.HELD.value)
    )


def _frame(gpus: pl.DataFrame, window: Window) -> pl.DataFrame:
    """The window itself for each GPU."""
    return gpus.select("resource", start=pl.lit(window.start).cast(TIME), end=pl.lit(window.end).cast(TIME))


def seen_layer(segments: pl.DataFrame) -> pl.DataFrame:
    """SEGMENTS as a layer of marks; slots that come twice count once."""
    seconds = (pl.col("end") - pl.col("start")).dt.total_milliseconds() / 1000
    return segments.unique(["resource", "start", "end"]).select(
        "resource",
        "start",
        "end",
        seen=pl.lit(1),
        dark=pl.col("dark").cast(pl.Int32),
        throttled=pl.col("throttled").cast(pl.Int32),
        idle=(pl.col("activity") == Activity.IDLE).cast(pl.Int32),
        busy=(pl.col("activity") == Activity.BUSY).cast(pl.Int32),
        watts=pl.col("joules").fill_null(0.0) / seconds,
    )


def marked(intervals: pl.DataFrame, mark: str) -> pl.DataFrame:
    """Intervals as a layer with one mark."""
    return intervals.select("resource", "start", "end").unique().with_columns(pl.lit(1).alias(mark))


__all__ = [
    "CONDITIONS",
    "EVENTS",
    "HOURS",
    "INTERVALS",
    "MEMBERS",
    "OUTAGES",
    "PLACES",
    "SEGMENTS",
    "TROUBLES",
    "WORKED",
    "Activity",
    "Allocation",
    "Health",
    "Window",
    "endings",
    "gpu_hours",
    "gpu_pieces",
    "health",
    "maintained",
    "marked",
    "members_of",
    "openings",
    "outages_of",
    "seen_layer",
    "unresolved",
]

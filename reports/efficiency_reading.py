"""What an efficiency report reads of a period: the fleet window by window, so that memory stays bounded."""

from dataclasses import dataclass
from datetime import datetime

import polars as pl

from catalogue import POWER
from reports import efficiency_queries as queries
from reports import fleet_days
from reports import site as site_page
from reports.efficiency_figures import PARTS
from reports.efficiency_hours import HOURS, OUTAGES, gpu_hours, maintained, members_of, openings, outages_of, unresolved
from reports.efficiency_queries import Window
from reports.fleet_days import KeptDays, KeptTable
from reports.period import Period
from reports.queries import holds_raw
from reports.readings import TIME
from storage.reader import Reader, Schema

_GPU_TOTALS: Schema = {
    "resource": pl.UInt64(),
    "throttled_s": pl.Float64(),
    "celsius_sum": pl.Float64(),
    "celsius_count": pl.UInt64(),
}


@dataclass(frozen=True, slots=True, eq=False)
class EfficiencyData:
    """What was read for one report. `hours`: HOURS of all windows; `parts`: PARTS; `gpus`: totals of each GPU."""

    site: site_page.SiteData
    hours: pl.DataFrame
    parts: pl.DataFrame
    gpus: pl.DataFrame
    places: pl.DataFrame
    members: pl.DataFrame
    opened: pl.DataFrame
    holds: pl.DataFrame
    jobs: pl.DataFrame
    outlying: pl.DataFrame
    job_windows: pl.DataFrame
    coolant: pl.DataFrame
    rack_facts: pl.DataFrame
    minute_power: pl.DataFrame
    raw_power: pl.DataFrame | None


def read_efficiency(
    reader: Reader,
    period: Period,
    now: datetime,
    *,
    maintenance: pl.DataFrame | None = None,
    hourly: bool = False,
) -> EfficiencyData:
    """Everything that an efficiency report needs; the fleet window by window, so that memory stays bounded.

    `hourly` cuts the fleet's energy at every hour, as prices do; it is so anyway where the store has prices.
    """
    of_site = site_page.read_site(reader, period, now)
    maintenance = of_site.facts.maintenance if maintenance is None else maintenance
    hourly = hourly or of_site.facts.prices is not None
    places, feeds = queries.read_places(reader, period), queries.read_feeds(reader, period)
    members = members_of(places, feeds)
    opened = openings(queries.read_events(reader, period, now)).filter(pl.col("time") < pl.lit(period.end).cast(TIME))
    worked = queries.read_first_work(reader, unresolved(opened), period)
    window = Window(period.start, min(period.end, max(now, period.start)))
    outages = pl.concat([outages_of(opened, worked, members, window), maintained(maintenance, members)])
    holds = queries.read_holds(reader, period)
    kept = fleet_days.read_kept_days(reader, period)
    sweep = _Sweep(reader, period, now, places, outages, holds if holds.height else None, kept, hourly=hourly)
    feeds_of_site = queries.site_meters(of_site.meters)
    raw = holds_raw(POWER, period, now)
    return EfficiencyData(
        site=of_site,
        hours=pl.concat(sweep.hours),
        parts=pl.concat(sweep.parts),
        gpus=_added_up(sweep.gpus),
        places=places,
        members=members,
        opened=opened.filter(pl.col("time") >= pl.lit(period.start).cast(TIME)),
        holds=holds,
        jobs=queries.read_job_energy(reader, period),
        outlying=pl.concat(sweep.outlying),
        job_windows=pl.concat(sweep.job_windows),
        coolant=fleet_days.read_coolant(reader, kept, period, now),
        rack_facts=queries.read_rack_facts(reader, period),
        minute_power=queries.read_site_power(reader, feeds_of_site, period, raw=False),
        raw_power=queries.read_site_power(reader, feeds_of_site, period, raw=True) if raw else None,
    )


class _Sweep:
    """Reads the windows of a period one after the other, and keeps only what is left of each."""

    def __init__(
        self,
        reader: Reader,
        period: Period,
        now: datetime,
        places: pl.DataFrame,
        outages: pl.DataFrame,
        holds: pl.DataFrame | None,
        kept: KeptDays,
        *,
        hourly: bool,
    ) -> None:
        self._reader, self._outages, self._holds, self._kept = reader, outages, holds, kept
        self._gpus = places.filter(pl.col("kind") == "gpu").select("resource").unique()
        self._minutes, self._hourly = queries.reads_minutes(period, now), hourly
        self.hours = [pl.DataFrame(schema=dict(HOURS))]
        self.parts = [pl.DataFrame(schema=dict(PARTS))]
        self.gpus = [pl.DataFrame(schema=dict(_GPU_TOTALS))]
        self.outlying = [pl.DataFrame(schema=dict(queries.WINDOWS))]
        self.job_windows = [pl.DataFrame(schema=dict(queries.JOB_WINDOWS))]
        for window in queries.windows_of(period):
            self._read(window, over=window.start < now)

    def _read(self, window: Window, *, over: bool) -> None:
        segments = pl.DataFrame(schema=dict(queries.SEGMENTS))
        outages, watts = self._touching(self._outages, window), pl.DataFrame(schema=dict(queries.COMPONENTS))
        if over:
            segments, troubles, watts = self._states(window)
            outages = pl.concat([outages, troubles.select(*OUTAGES)])
        holds = None if self._holds is None else self._touching(self._holds, window)
        segments = segments.join(self._gpus, on="resource", how="semi")
        self.hours.append(gpu_hours(self._gpus, segments, outages, holds, window, hourly=self._hourly))
        self.parts.append(part_of(segments, watts, window, self._gpus.height))
        self.gpus.append(gpu_totals(segments))
        if over and holds is not None:
            self._compare_jobs(window)

    def _states(self, window: Window) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
        """SEGMENTS, TROUBLES and COMPONENTS of a window, kept or grouped now."""
        if self._kept.holds(window):
            return (
                self._kept_of(fleet_days.SEGMENTS, window, queries.SEGMENTS),
                self._kept_of(fleet_days.TROUBLES, window, queries.TROUBLES),
                fleet_days.read_components(self._kept, window),
            )
        return (
            queries.read_segments(self._reader, window, minutes=self._minutes),
            queries.read_troubles(self._reader, window, minutes=self._minutes),
            queries.read_components(self._reader, window, minutes=self._minutes),
        )

    def _compare_jobs(self, window: Window) -> None:
        if self._kept.holds(window):
            self.outlying.append(self._kept_of(fleet_days.OUTLIERS, window, queries.WINDOWS))
            self.job_windows.append(self._kept_of(fleet_days.COMPARED, window, queries.JOB_WINDOWS))
        elif self._minutes:
            self.outlying.append(queries.read_outlying_windows(self._reader, window))
            self.job_windows.append(queries.read_job_windows(self._reader, window))

    def _kept_of(self, table: KeptTable, window: Window, schema: Schema) -> pl.DataFrame:
        return fleet_days.read_kept(self._reader, table, self._kept, window, schema)

    @staticmethod
    def _touching(intervals: pl.DataFrame, window: Window) -> pl.DataFrame:
        first, last = (pl.lit(bound).cast(TIME) for bound in (window.start, window.end))
        return intervals.filter(pl.col("start") < last, pl.col("end").is_null() | (pl.col("end") > first))


def part_of(segments: pl.DataFrame, components: pl.DataFrame, window: Window, gpus: int) -> pl.DataFrame:
    """PARTS: one row, the fleet in one window. Activity is weighted by time, whatever the agents' intervals."""
    seconds = (window.end - window.start).total_seconds()
    lasted = (pl.col("end") - pl.col("start")).dt.total_milliseconds() / 1000
    row = segments.unique(["resource", "start", "end"]).select(
        time=pl.lit(window.start).cast(TIME),
        seconds=pl.lit(seconds),
        gpu_s=pl.lit(seconds * gpus),
        seen_s=lasted.sum(),
        joules=pl.when(pl.col("joules").count() > 0).then(pl.col("joules").sum()),
        **{f"{cause}_s": pl.col(f"{cause}_s").sum() for cause in queries.THROTTLE_CAUSES},
        **{
            f"{name}_weight": (
                pl.when(pl.col(f"{name}_count") > 0).then(pl.col(f"{name}_sum") / pl.col(f"{name}_count") * lasted)
            ).sum()
            for name in queries.ACTIVITIES
        },
        **{f"{name}_s": lasted.filter(pl.col(f"{name}_count") > 0).sum() for name in queries.ACTIVITIES},
    )
    watts = components["processor_watts"].sum() if components.height and components["trays"].sum() else None
    return row.with_columns(
        processor_watts=pl.lit(watts, pl.Float64), trays=pl.lit(int(components["trays"].sum()), pl.UInt64)
    ).select(pl.col(name).cast(kind) for name, kind in PARTS.items())


def gpu_totals(segments: pl.DataFrame) -> pl.DataFrame:
    """Of each GPU: seconds held down by anything but the power cap, and its temperature while it worked."""
    held = pl.sum_horizontal(f"{cause}_s" for cause in queries.THROTTLE_CAUSES[1:])
    works = pl.col("activity") == 2
    return (
        segments.unique(["resource", "start", "end"])
        .group_by("resource")
        .agg(
            throttled_s=held.sum(),
            celsius_sum=pl.col("celsius_sum").filter(works).sum(),
            celsius_count=pl.col("celsius_count").filter(works).sum(),
        )
        .select(pl.col(name).cast(kind) for name, kind in _GPU_TOTALS.items())
    )


def _added_up(totals: list[pl.DataFrame]) -> pl.DataFrame:
    return pl.concat(totals).group_by("resource").agg(pl.all().sum()).sort("resource")

"""What the books say about a period: water, fuels, refrigerants, guarantees of origin, factors, weather, facts.

Pure functions over the registers' frames. A book that was never imported, or that does not cover the period, gives no
figure but a reason: nothing is ever taken for zero because nobody wrote it down.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import polars as pl

from reports.period import Period
from reports.sustainability.calendar import Days, days_of
from reports.sustainability.inputs import SustainabilityData
from storage.register_kinds import RegisterKind

# A machine or meter that has a line so near to the period is expected to have one for the period.
_EXPECTED_WITHIN = timedelta(days=92)
CDD_BASE_CELSIUS = 21.0
# A day's mean outside temperature needs so many of its hours.
_HOURS_OF_A_DAY = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What a book says. `value` is absent when it cannot be told; `reason` then says why.

    `share_estimated`: of the value, what was divided by days. `lines`: (version, line) of the rows that it rests on.
    """

    value: float | None
    reason: str = ""
    share_estimated: float = 0.0
    note: str = ""
    lines: tuple[tuple[str, int], ...] = ()


def missing(kind: RegisterKind) -> Entry:
    return Entry(value=None, reason=f"The register {kind.value} was not imported.")


@dataclass(frozen=True, slots=True)
class _Part:
    """A row's share in a period."""

    who: str
    amount: float
    days: int
    whole: bool
    line: tuple[str, int]


def _parts(rows: pl.DataFrame, who: str, amount: Callable[[dict[str, object]], float], period: Period) -> list[_Part]:
    days = days_of(period)
    found = []
    for row in rows.iter_rows(named=True):
        own = Days(row["first_day"], row["last_day"])
        shared = own.shared(days)
        if shared:
            share = shared / own.count
            line = (row["import_version"], row["import_line"])
            found.append(_Part(row[who], amount(row) * share, shared, share == 1.0, line))
    return found


def covered_sum(
    rows: pl.DataFrame, who: str, amount: Callable[[dict[str, object]], float], period: Period, what: str
) -> Entry:
    """The sum over lines with first_day and last_day, of which those that reach out of the period count by days.

    Each of `who` must have lines for every day, or there is no sum: it would be too low.
    """
    days = days_of(period)
    near = Days(days.first - _EXPECTED_WITHIN, days.last + _EXPECTED_WITHIN)
    parts = _parts(rows, who, amount, period)
    seen = {name: sum(part.days for part in parts if part.who == name) for name in {part.who for part in parts}}
    expected = {row[who] for row in rows.iter_rows(named=True) if Days(row["first_day"], row["last_day"]).shared(near)}
    if not expected:
        return Entry(value=None, reason=f"The register {what} has no line for this period.")
    short = sorted(name for name in expected if seen.get(name, 0) < days.count)
    if short:
        lacking = days.count - seen.get(short[0], 0)
        return Entry(value=None, reason=f"The register {what} lacks {lacking} of {days.count} days of {short[0]}.")
    total = sum(part.amount for part in parts)
    divided = sum(part.amount for part in parts if not part.whole)
    return Entry(
        value=total,
        share_estimated=divided / total if total else 0.0,
        note="Divided by days, where a line reaches beyond the period." if divided else "",
        lines=tuple(part.line for part in parts),
    )


# Water ----------------------------------------------------------------------------------------------------------------


def water(data: SustainabilityData, period: Period, *, potable_only: bool = False) -> Entry:
    """W_IN in m³: all water that crossed the boundary; or its drinking water."""
    kind = RegisterKind.WATER
    if not data.is_imported(kind):
        return missing(kind)

    def volume(row: dict[str, object]) -> float:
        counts = row["potable"] or not potable_only
        return float(str(row["volume_cubic_metres"])) if counts else 0.0

    return covered_sum(data.books[kind], "meter", volume, period, kind.value)


# Scope 1 --------------------------------------------------------------------------------------------------------------


def fuel(data: SustainabilityData, period: Period, column: str) -> Entry:
    """Of the fuels: `energy_kwh`, `electricity_kwh`, or `co2e_kg`, their direct emissions."""
    kind = RegisterKind.FUELS
    if not data.is_imported(kind):
        return missing(kind)
    rows = data.books[kind].with_columns(
        pl.col("electricity_kwh").fill_null(0.0), co2e_kg=pl.col("energy_kwh") * pl.col("co2e_kg_per_kwh")
    )
    return covered_sum(rows, "equipment", lambda row: float(str(row[column])), period, kind.value)


def refrigerant_leaks(data: SustainabilityData, period: Period) -> Entry:
    """kg CO2e = sum(leaked kg x GWP) of the checks in the period: a leak is booked when it is found."""
    kind = RegisterKind.REFRIGERANTS
    if not data.is_imported(kind):
        return missing(kind)
    days = days_of(period)
    found = data.books[kind].filter(pl.col("measured_on").is_between(days.first, days.last))
    if found.is_empty():
        return Entry(value=None, reason="No check of refrigerants fell in this period.")
    total = float((found["leaked_kg"] * found["gwp"]).sum())
    return Entry(value=total, note="Leaks are booked when a check finds them.", lines=lines_of(found))


def refrigerants_in_use(data: SustainabilityData, period: Period) -> pl.DataFrame:
    """The latest check of each machine up to the period's end: the register's columns."""
    last = days_of(period).last
    checks = data.books[RegisterKind.REFRIGERANTS].filter(pl.col("measured_on") <= last)
    return checks.sort("measured_on").unique(["equipment", "refrigerant"], keep="last", maintain_order=True)


# Renewables -----------------------------------------------------------------------------------------------------------

RENEWABLE = frozenset({"hydro", "wind", "solar", "biomass", "geothermal", "marine", "other_renewable"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """A line of the ledger of guarantees: what of it counts in the period, and where it does not, why."""

    number: str
    instrument: str
    technology: str
    country: str
    mwh: float
    generated: Days
    cancellation: str
    cancelled_on: date | None
    counted_mwh: float
    verdict: str
    line: tuple[str, int]


def certificates(data: SustainabilityData, period: Period, site: str, known_on: date) -> tuple[Certificate, ...]:
    """Every certificate that is about the period, in the order of their numbers.

    It counts by the share of its consumption's days that fall in the period, when it is renewable, was cancelled up to
    `known_on`, and for this site.
    """
    days = days_of(period)
    rows = data.books[RegisterKind.GUARANTEES_OF_ORIGIN].sort("certificate_id")
    found = []
    for row in rows.iter_rows(named=True):
        consumed = Days(row["consumed_first_day"] or row["first_day"], row["consumed_last_day"] or row["last_day"])
        shared = consumed.shared(days)
        if not shared:
            continue
        verdict = _verdict(row, site, known_on)
        mwh = row["energy_mwh"] * shared / consumed.count
        found.append(
            Certificate(
                number=row["certificate_id"],
                instrument=row["instrument"],
                technology=row["technology"],
                country=row["country"],
                mwh=row["energy_mwh"],
                generated=Days(row["first_day"], row["last_day"]),
                cancellation=row["cancellation_id"] or "",
                cancelled_on=row["cancelled_on"],
                counted_mwh=mwh if verdict == "counts" else 0.0,
                verdict=verdict,
                line=(row["import_version"], row["import_line"]),
            )
        )
    return tuple(found)


def _verdict(row: dict[str, object], site: str, known_on: date) -> str:
    if row["technology"] not in RENEWABLE:
        return "not renewable"
    cancelled_on = row["cancelled_on"]
    if not isinstance(cancelled_on, date) or cancelled_on > known_on:
        return "not cancelled"
    if str(row["beneficiary"] or "").casefold() != site.casefold():
        return "cancelled for somebody else"
    return "counts"


def hourly_matching(hours: pl.DataFrame, counted: Sequence[Certificate], period: Period) -> float | None:
    """sum(min(E_h, G_h)) / sum(E_h) over the hours whose energy is known; None where none is.

    `hours`: time (local, aware), joules. G_h is what was generated in the hour: certificates are dated by days, so each
    one's energy is spread evenly over the days of its generation. What was generated outside of the period matches none
    of its hours.
    """
    known = hours.drop_nulls("joules")
    total = float(known["joules"].sum())
    if not total:
        return None
    per_day: dict[date, float] = dict.fromkeys(days_of(period).each(), 0.0)
    for one in counted:
        for day in one.generated.each():
            if day in per_day:
                per_day[day] += one.counted_mwh * 3.6e9 / one.generated.count
    generated = pl.DataFrame({"day": list(per_day), "day_joules": list(per_day.values())})
    by_hour = known.with_columns(day=pl.col("time").dt.date()).join(generated, on="day", how="left")
    hour_joules = pl.col("day_joules").fill_null(0.0) / pl.len().over("day")
    matched = by_hour.select(pl.min_horizontal("joules", hour_joules).sum()).item()
    return float(matched) / total


# Emission factors -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Factor:
    """Grams of CO2e (or CO2, as `gases` says) of a kWh."""

    grams_per_kwh: float
    gases: str
    publisher: str
    version: str
    year: int
    line: tuple[str, int]

    @property
    def text(self) -> str:
        return f"{self.publisher}, {self.version}: {self.grams_per_kwh:g} g {self.gases}/kWh for {self.year}"


def factor(data: SustainabilityData, period: Period, method: str, *, country: str, zone: str) -> Factor | None:
    """The latest factor of a method up to the period's year: of the zone before the country, of CO2e before CO2."""
    year = period.local(period.start).year
    own = data.books[RegisterKind.EMISSION_FACTORS].filter(
        pl.col("method") == method,
        pl.col("country") == country,
        pl.col("year") <= year,
        pl.col("zone").is_null() | (pl.col("zone") == zone),
    )
    if own.is_empty():
        return None
    ranked = own.sort(
        pl.col("year"), pl.col("zone").is_not_null(), pl.col("gases") == "co2e", pl.col("published_on"),
        descending=True,
    )  # fmt: skip
    row = ranked.row(0, named=True)
    return Factor(
        grams_per_kwh=row["factor_grams_per_kwh"],
        gases="CO2e" if row["gases"] == "co2e" else "CO2",
        publisher=row["publisher"],
        version=row["version"],
        year=row["year"],
        line=(row["import_version"], row["import_line"]),
    )


# Weather --------------------------------------------------------------------------------------------------------------


def cooling_degree_days(data: SustainabilityData, period: Period) -> Entry:
    """sum over days of max(0, mean outside temperature - 21 °C), K·d."""
    kind = RegisterKind.WEATHER
    if not data.is_imported(kind):
        return missing(kind)
    days = days_of(period)
    hours = data.books[kind].with_columns(day=pl.col("start").dt.convert_time_zone(period.zone).dt.date())
    of_period = hours.filter(pl.col("day").is_between(days.first, days.last))
    by_day = of_period.group_by("day").agg(celsius=pl.col("outside_celsius").mean(), hours=pl.col("start").n_unique())
    whole = by_day.filter(pl.col("hours") >= _HOURS_OF_A_DAY)
    if whole.height < days.count:
        short = days.count - whole.height
        return Entry(value=None, reason=f"The register weather lacks {short} of {days.count} days.")
    value = float((whole["celsius"] - CDD_BASE_CELSIUS).clip(lower_bound=0.0).sum())
    return Entry(value=value, lines=lines_of(of_period.head(1)))


# Facts ----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Fact:
    value: float | str
    line: tuple[str, int]


def site_facts(data: SustainabilityData, period: Period) -> dict[str, Fact]:
    """The facts that held on the period's last day."""
    last = days_of(period).last
    rows = data.books[RegisterKind.SITE_FACTS].filter(
        pl.col("first_day") <= last, pl.col("last_day").is_null() | (pl.col("last_day") >= last)
    )
    return {
        row["fact"]: Fact(
            row["words"] if row["number"] is None else row["number"], (row["import_version"], row["import_line"])
        )
        for row in rows.sort("first_day").iter_rows(named=True)
    }


# Where a line is from -------------------------------------------------------------------------------------------------


def lines_of(rows: pl.DataFrame) -> tuple[tuple[str, int], ...]:
    return tuple(rows.select("import_version", "import_line").iter_rows())


def origins(data: SustainabilityData, lines: Sequence[tuple[str, int]]) -> Iterator[str]:
    """For each import that lines came with: register, number, file, and the hash of the evidence."""
    for version in dict.fromkeys(version for version, _ in lines):
        for row in data.versions.filter(pl.col("version") == version).iter_rows(named=True):
            numbers = sorted({line for held, line in lines if held == version})
            shown = ", ".join(str(number) for number in numbers[:5]) + (" …" if len(numbers) > 5 else "")
            yield (
                f"register {row['kind']}, version {row['number']}, line {shown}; evidence SHA-256 "
                f"{row['evidence_sha256'][:12]}"
            )

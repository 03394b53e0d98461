"""A site and its books, written down by hand, from which the sustainability report is worked out on paper."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import polars as pl

from reports.figures import Role
from reports.heat_queries import METER_FACTS
from reports.ledger import READINGS, SERIALS
from reports.period import Period
from reports.readings import TIME
from reports.sustainability.inputs import USED_REGISTERS, SustainabilityData, trailing
from storage.register_kinds import DECLARATIONS, RegisterKind
from storage.registers import VERSIONS

MONTH = Period.parse("2026-10")
HOURS = 745  # the clocks go back
NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
GRID, IT, HAND_OVER = 1, 2, 3
# Watts of each meter, all the time.
WATTS = {GRID: 1_100e3, IT: 1_000e3, HAND_OVER: 440e3}
ROLES = {GRID: Role.SITE, IT: Role.IT, HAND_OVER: Role.HEAT_HANDED_OVER}
CLASSES = {GRID: "0.5S", IT: "0.5S", HAND_OVER: "EN 1434 class 2"}
SITE_MWH, IT_MWH, HEAT_MWH = 1.1 * HOURS, 1.0 * HOURS, 0.44 * HOURS

GO = {
    "certificate_id": "GO-1", "instrument": "go", "technology": "hydro", "country": "NO",
    "first_day": date(2026, 10, 1), "last_day": date(2026, 10, 31), "energy_mwh": 409.75,
    "issued_on": date(2026, 11, 2), "cancelled_on": date(2026, 11, 5), "cancellation_id": "C-1",
    "beneficiary": "Kvandal", "consumed_first_day": date(2026, 10, 1), "consumed_last_day": date(2026, 10, 31),
}  # fmt: skip
FACTORS = [
    {"country": "NO", "year": 2022, "method": "location", "factor_grams_per_kwh": 20.0, "gases": "co2e",
     "publisher": "NVE", "version": "2022", "published_on": date(2023, 6, 30)},
    {"country": "NO", "year": 2020, "method": "residual", "factor_grams_per_kwh": 400.0, "gases": "co2e",
     "publisher": "NVE", "version": "2020", "published_on": date(2021, 6, 30)},
]  # fmt: skip
WATER = [
    {"meter": "W-1", "first_day": date(2026, 10, 1), "last_day": date(2026, 10, 31),
     "volume_cubic_metres": 400.0, "potable": True},
    {"meter": "W-2", "first_day": date(2026, 10, 1), "last_day": date(2026, 12, 1),
     "volume_cubic_metres": 690.0, "potable": False},
]  # fmt: skip
FUELS = [
    {"equipment": "generator 1", "fuel": "diesel", "first_day": date(2026, 10, 1), "last_day": date(2026, 10, 31),
     "energy_kwh": 2000.0, "electricity_kwh": 745.0, "co2e_kg_per_kwh": 0.25},
]  # fmt: skip
REFRIGERANTS = [
    {"equipment": "chiller 1", "refrigerant": "R-513A", "charge_kg": 90.0, "gwp": 630.0, "leaked_kg": 0.5,
     "measured_on": date(2026, 10, 15)},
]  # fmt: skip
FACTS = [
    {"fact": "floor_area_total_m2", "number": 48000.0, "first_day": date(2026, 1, 1)},
    {"fact": "operator", "words": "Example Operator AS", "first_day": date(2026, 1, 1)},
]  # fmt: skip
Lines = Mapping[RegisterKind, Sequence[Mapping[str, Any]]]
BOOKS: dict[RegisterKind, Sequence[Mapping[str, Any]]] = {
    RegisterKind.GUARANTEES_OF_ORIGIN: [GO],
    RegisterKind.EMISSION_FACTORS: FACTORS,
    RegisterKind.WATER: WATER,
    RegisterKind.FUELS: FUELS,
    RegisterKind.REFRIGERANTS: REFRIGERANTS,
    RegisterKind.SITE_FACTS: FACTS,
}


def book(kind: RegisterKind, rows: Sequence[Mapping[str, Any]]) -> pl.DataFrame:
    told = [
        {**dict.fromkeys(DECLARATIONS[kind].schema), **row, "import_version": kind.value, "import_line": line}
        for line, row in enumerate(rows, start=2)
    ]
    return pl.DataFrame(told, schema=dict(DECLARATIONS[kind].schema))


def version_row(kind: RegisterKind) -> dict[str, object]:
    imported = datetime(2026, 11, 1, tzinfo=UTC)
    return {
        "version": kind.value, "kind": kind.value, "imported_at": imported, "valid_from": imported,
        "imported_by": "Sustainability Officer", "file_name": f"{kind}.csv", "file_sha256": "f" * 64,
        "evidence_name": "letter.pdf", "evidence_sha256": "e" * 64, "schema_version": 1, "row_count": 1, "number": 1,
    }  # fmt: skip


def sustainable(
    books: Lines = BOOKS,
    watts: Mapping[int, float] = WATTS,
    period: Period = MONTH,
) -> SustainabilityData:
    """What would have been read: constant power since September, and the books."""
    return SustainabilityData(
        site_name="Kvandal",
        meters=pl.DataFrame([facts(meter) for meter in WATTS], schema=dict(METER_FACTS)),
        registers=readings(watts, period),
        history=readings(watts, replace(period, start=max(trailing(period).start, datetime(2026, 9, 1, tzinfo=UTC)))),
        serials=pl.DataFrame(schema=dict(SERIALS)),
        warmth=warmth(period),
        installed_it_watts=1_250e3,
        books={kind: book(kind, books.get(kind, [])) for kind in USED_REGISTERS},
        versions=pl.DataFrame([version_row(kind) for kind in books], schema={**VERSIONS, "number": pl.UInt32()}),
    )


def facts(meter: int) -> dict[str, object]:
    row: dict[str, object] = dict.fromkeys(METER_FACTS, "")
    row |= {"modulus_joules": None, "rated_watts": None, "interval_s": None, "resolution_joules": None}
    row |= {"resource": meter, "kind": "meter", "identity": f"M{meter}", "name": f"meter {meter}"}
    return row | {"role": ROLES[meter].value, "accuracy_class": CLASSES[meter], "measured_at": "UPS output"}


def readings(watts: Mapping[int, float], period: Period) -> pl.DataFrame:
    frames = [pl.DataFrame(schema=dict(READINGS) | {"power_watts": pl.Float64()})]
    for meter, power in watts.items():
        at = pl.datetime_range(
            period.start - timedelta(hours=1), period.end + timedelta(hours=1), "15m", time_unit="ms", eager=True
        )  # fmt: skip
        frames.append(
            at.alias("time").to_frame().select(
                resource=pl.lit(meter, pl.UInt64), time=pl.col("time").cast(TIME),
                register_joules=1e9 + pl.int_range(0, pl.len()) * 900.0 * power,
                quality_state=pl.lit(1, pl.UInt8), power_watts=pl.lit(None, pl.Float64),
            )
        )  # fmt: skip
    return pl.concat(frames)


def warmth(period: Period) -> pl.DataFrame:
    edges = period.edges().collect()
    return edges.select(
        resource=pl.lit(HAND_OVER, pl.UInt64), time="time", supply_celsius=pl.lit(51.0), return_celsius=pl.lit(38.0)
    )

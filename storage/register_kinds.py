"""What each register holds: its columns, what tells its rows apart, and what its rows must keep.

The one declaration from which the JSON Schemas, the import's checks, the frames and the guide follow.
A register is a table that people bring in as CSV because no sensor gives it; energy registers of
meters are something else.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

import polars as pl

from catalogue import ResourceKind
from storage.reader import TIME


class RegisterKind(StrEnum):
    """The registers, by the names that `kvandal import` takes."""

    GUARANTEES_OF_ORIGIN = "guarantees_of_origin"
    EMISSION_FACTORS = "emission_factors"
    POWER_PRICES = "power_prices"
    WEATHER = "weather"
    WATER = "water"
    REFRIGERANTS = "refrigerants"
    CONTRACTS = "contracts"
    METER_CALIBRATIONS = "meter_calibrations"
    MAINTENANCE = "maintenance"
    ALLOCATIONS = "allocations"
    EXCLUSIONS = "exclusions"
    COMMISSIONING = "commissioning"
    SETTLEMENT = "settlement"
    JOB_TOKENS = "job_tokens"
    SITE_FACTS = "site_facts"
    FUELS = "fuels"


class CellKind(StrEnum):
    """How a cell is written."""

    TEXT = "text"
    WORD = "word"  # one of a closed set
    NUMBER = "number"
    WHOLE = "whole number"
    DAY = "date"
    MOMENT = "time"
    CLAIM = "yes or no"


_FRAME_TYPES: Mapping[CellKind, pl.DataType] = MappingProxyType(
    {
        CellKind.TEXT: pl.String(),
        CellKind.WORD: pl.String(),
        CellKind.NUMBER: pl.Float64(),
        CellKind.WHOLE: pl.Int64(),
        CellKind.DAY: pl.Date(),
        CellKind.MOMENT: TIME,
        CellKind.CLAIM: pl.Boolean(),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column of a register. `example` is a cell that is right; a cell of a column not `required` may be empty."""

    name: str
    kind: CellKind
    brief: str
    example: str
    required: bool = True
    words: tuple[str, ...] = ()  # all that it may be
    lowest: float | None = None
    above: float | None = None
    highest: float | None = None
    pattern: str = ""  # of the cell as the JSON document has it: times in UTC
    form: str = ""  # the pattern in words

    @property
    def frame_type(self) -> pl.DataType:
        return _FRAME_TYPES[self.kind]


@dataclass(frozen=True, slots=True)
class Span:
    """The time that a row is about: from column `start` to `end` (a last day counts whole), or so many minutes long.

    `minutes` is a number, or the name of a column. `alike` names the columns within which spans must not overlap.
    """

    start: str
    alike: tuple[str, ...]
    end: str = ""
    minutes: int | str = 0


@dataclass(frozen=True, slots=True)
class Condition:
    """Columns that a row needs when `column` is `word`; or when it has `column` at all, for an empty `word`."""

    column: str
    needs: tuple[str, ...]
    word: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Declaration:
    """One register: of rows with the same `key` that of the version that counts holds.

    `ordered` names pairs of columns of which the first must not exceed the second; of two times it must be before it.
    A new column must not be required, and raises `version`.
    """

    kind: RegisterKind
    brief: str
    evidence: str  # what proves such rows
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    span: Span | None = None
    conditions: tuple[Condition, ...] = ()
    ordered: tuple[tuple[str, str], ...] = ()
    version: int = 1

    @property
    def all_columns(self) -> tuple[Column, ...]:
        return (*self.columns, WITHDRAWN)

    @property
    def schema(self) -> dict[str, pl.DataType]:
        """The frame that `read_register` gives; columns that are not required may be absent in a row."""
        return {column.name: column.frame_type for column in self.columns} | dict(PROVENANCE)

    def column(self, name: str) -> Column:
        return next(column for column in self.all_columns if column.name == name)


# Where a row came from, in every frame of a register.
PROVENANCE: Mapping[str, pl.DataType] = MappingProxyType({"import_version": pl.String(), "import_line": pl.UInt32()})

# In the file only: a frame has no withdrawn rows.
WITHDRAWN = Column(
    name="withdrawn",
    kind=CellKind.CLAIM,
    required=False,
    brief="yes takes back the earlier row with the same key; the other cells repeat it",
    example="no",
)

_QUARTERS = "on a quarter hour"
_ON_A_QUARTER = r":(00|15|30|45):00\.000Z$"
_ON_AN_HOUR = r":00:00\.000Z$"
_COUNTRY = "^[A-Z]{2}$"
_CURRENCY = "^[A-Z]{3}$"
ACCURACY_CLASSES = (
    "0.2S", "0.5S", "1", "2", "EN 1434 class 1", "EN 1434 class 2", "EN 1434 class 3",
)  # fmt: skip
EXCLUSIONS = ("maintenance", "customer", "force_majeure", "upstream", "suspension")
# What a contract can be about; a larger one stands for all its parts.
_ALLOCATED = (
    ResourceKind.SITE,
    ResourceKind.HALL,
    ResourceKind.ROW,
    ResourceKind.RACK,
    ResourceKind.TRAY,
    ResourceKind.GPU,
)


def _text(name: str, brief: str, example: str, *, required: bool = True, pattern: str = "", form: str = "") -> Column:
    return Column(
        name=name, kind=CellKind.TEXT, brief=brief, example=example, required=required, pattern=pattern, form=form
    )


def _word(name: str, brief: str, words: Sequence[str], example: str, *, required: bool = True) -> Column:
    return Column(name=name, kind=CellKind.WORD, brief=brief, words=tuple(words), example=example, required=required)


def _number(
    name: str,
    brief: str,
    example: str,
    *,
    required: bool = True,
    lowest: float | None = None,
    above: float | None = None,
    highest: float | None = None,
) -> Column:
    return Column(
        name=name,
        kind=CellKind.NUMBER,
        brief=brief,
        example=example,
        required=required,
        lowest=lowest,
        above=above,
        highest=highest,
    )


def _whole(
    name: str,
    brief: str,
    example: str,
    *,
    required: bool = True,
    words: Sequence[str] = (),
    lowest: float | None = None,
    highest: float | None = None,
) -> Column:
    return Column(
        name=name,
        kind=CellKind.WHOLE,
        brief=brief,
        example=example,
        required=required,
        words=tuple(words),
        lowest=lowest,
        highest=highest,
    )


def _day(name: str, brief: str, example: str, *, required: bool = True) -> Column:
    return Column(name=name, kind=CellKind.DAY, brief=brief, example=example, required=required)


def _moment(name: str, brief: str, example: str, *, required: bool = True, pattern: str = "", form: str = "") -> Column:
    return Column(
        name=name, kind=CellKind.MOMENT, brief=brief, example=example, required=required, pattern=pattern, form=form
    )


def _claim(name: str, brief: str, example: str) -> Column:
    return Column(name=name, kind=CellKind.CLAIM, brief=brief, example=example)


_RESOURCE = (
    _word("resource_kind", "Kind of resource", [kind.value for kind in ResourceKind], "rack"),
    _text("resource", "Its identity in the topology", "R14"),
)

_GUARANTEES = Declaration(
    kind=RegisterKind.GUARANTEES_OF_ORIGIN,
    brief="Proof of renewable energy: guarantees of origin, power purchase agreements, on-site generation",
    evidence="the registry's cancellation statement",
    columns=(
        _text("certificate_id", "Number of the certificate, or first and last number of a bundle", "GO-2026-000001"),
        _word("instrument", "What it is: bought (go), from a power purchase agreement, or on-site",
              ("go", "ppa", "onsite"), "go"),
        _word("technology", "What generated it", ("hydro", "wind", "solar", "biomass", "geothermal", "marine",
              "other_renewable", "nuclear", "fossil"), "hydro"),
        _text("country", "Where it was generated, ISO 3166-1 alpha-2", "NO", pattern=_COUNTRY,
              form="two capital letters"),
        _day("first_day", "First day of generation", "2026-01-01"),
        _day("last_day", "Last day of generation", "2026-01-31"),
        _number("energy_mwh", "MWh", "1500", above=0),
        _day("issued_on", "When it was issued", "2026-02-10"),
        _day("cancelled_on", "When it was cancelled; empty while it is not, and then it proves nothing",
             "2026-11-05", required=False),
        _text("cancellation_id", "Number of the cancellation", "CAN-7781", required=False),
        _text("beneficiary", "For whom it was cancelled: a kWh serves one data centre", "Kvandal", required=False),
        _day("consumed_first_day", "First day of the consumption that it covers", "2026-01-01", required=False),
        _day("consumed_last_day", "Last day of that", "2026-12-31", required=False),
    ),
    key=("certificate_id",),
    conditions=(
        Condition("cancelled_on", ("cancellation_id", "beneficiary")),
        Condition("cancellation_id", ("cancelled_on",)),
        Condition("consumed_first_day", ("consumed_last_day",)),
        Condition("consumed_last_day", ("consumed_first_day",)),
    ),
    ordered=(
        ("first_day", "last_day"),
        ("first_day", "issued_on"),
        ("issued_on", "cancelled_on"),
        ("consumed_first_day", "consumed_last_day"),
    ),
)  # fmt: skip

_FACTORS = Declaration(
    kind=RegisterKind.EMISSION_FACTORS,
    brief="Emissions of a kWh of electricity, by publisher and vintage; none ships with Kvandal",
    evidence="the publication",
    columns=(
        _text("country", "ISO 3166-1 alpha-2", "NO", pattern=_COUNTRY, form="two capital letters"),
        _text("zone", "Bidding zone, where the factor is of one", "NO4", required=False),
        _whole("year", "Year that the factor is of", "2022", lowest=1990, highest=2200),
        _word("method", "location: the grid's mix; market: of a contract; residual: market-based without guarantees",
              ("location", "market", "residual"), "location"),
        _number("factor_grams_per_kwh", "g/kWh", "19", lowest=0),
        _word("gases", "co2e, or co2 where the publisher counts only that", ("co2e", "co2"), "co2e"),
        _text("publisher", "Who publishes it", "NVE"),
        _text("version", "The publisher's own version or title", "klimadeklarasjon 2022"),
        _day("published_on", "When it was published", "2023-06-30"),
    ),
    key=("country", "zone", "year", "method", "publisher", "version"),
)  # fmt: skip

_PRICES = Declaration(
    kind=RegisterKind.POWER_PRICES,
    brief="Day-ahead power prices",
    evidence="the power exchange's file",
    columns=(
        _text("zone", "Bidding zone", "NO4"),
        _moment("start", "Begin of the price's time", "2026-10-25T02:00+01:00", pattern=_ON_A_QUARTER, form=_QUARTERS),
        _whole("duration_minutes", "Length", "15", words=("15", "60")),
        _number("price_per_mwh", "Currency per MWh; may be negative", "312.5", lowest=-1e6, highest=1e6),
        _text("currency", "ISO 4217", "NOK", pattern=_CURRENCY, form="three capital letters"),
    ),
    key=("zone", "currency", "start"),
    span=Span("start", ("zone", "currency"), minutes="duration_minutes"),
)

_WEATHER = Declaration(
    kind=RegisterKind.WEATHER,
    brief="Outside air by the hour",
    evidence="the weather service's file",
    columns=(
        _text("station", "Weather station", "SN84700"),
        _moment("start", "Begin of the hour", "2026-10-25T00:00Z", pattern=_ON_AN_HOUR, form="on an hour of UTC"),
        _number("outside_celsius", "Dry-bulb temperature, °C", "3.4", lowest=-90, highest=60),
        _number("wet_bulb_celsius", "Wet-bulb temperature, °C", "2.1", required=False, lowest=-90, highest=60),
    ),
    key=("station", "start"),
    span=Span("start", ("station",), minutes=60),
    ordered=(("wet_bulb_celsius", "outside_celsius"),),
)

_WATER = Declaration(
    kind=RegisterKind.WATER,
    brief="Water that crossed the boundary for the data centre's functions",
    evidence="the water works' invoice, or a photo of the meter",
    columns=(
        _text("meter", "Water meter", "W-1"),
        _day("first_day", "First day", "2026-10-01"),
        _day("last_day", "Last day, itself included", "2026-10-31"),
        _number("volume_cubic_metres", "m³", "412.7", lowest=0),
        _claim("potable", "Whether it is drinking water: WUE category 1", "yes"),
    ),
    key=("meter", "first_day"),
    span=Span("first_day", ("meter",), end="last_day"),
    ordered=(("first_day", "last_day"),),
)

_REFRIGERANTS = Declaration(
    kind=RegisterKind.REFRIGERANTS,
    brief="Refrigerant charges and leaks",
    evidence="the service report of the refrigeration technician",
    columns=(
        _text("equipment", "Machine", "chiller 2"),
        _text("refrigerant", "Type", "R-1234ze(E)"),
        _number("charge_kg", "Charge, kg", "180", lowest=0),
        _number("gwp", "Global warming potential over 100 years, kg CO2e per kg, as the report is to use it", "1.4",
                lowest=0, highest=30_000),
        _number("leaked_kg", "Leaked since the line before, kg", "0.6", lowest=0),
        _day("measured_on", "When the charge was checked", "2026-10-14"),
    ),
    key=("equipment", "refrigerant", "measured_on"),
)  # fmt: skip

_CONTRACTS = Declaration(
    kind=RegisterKind.CONTRACTS,
    brief="What was agreed with customers (sla), heat off-takers (heat) and the grid company (grid), as data",
    evidence="the signed contract",
    columns=(
        _text("contract", "Number of the contract; of one with several phases, with the phase", "SLA-2026-07"),
        _word("contract_kind", "sla, heat or grid", ("sla", "heat", "grid"), "sla"),
        _text("party", "The customer, the off-taker, or the grid company", "customer A"),
        _day("first_day", "First day", "2026-07-01"),
        _day("last_day", "Last day; empty while it runs on", "2027-06-30", required=False),
        _word("unit", "sla: what has an availability", ("gpu", "node", "rack"), "node", required=False),
        _number("target_percent", "sla: agreed availability of a month", "99.5", required=False, above=0, highest=100),
        _number("minimum_outage_s", "sla: shorter outages do not count", "60", required=False, lowest=0),
        _text("credit_tiers", "sla: `below availability : credit`, both in percent, from best to worst",
              "99.5:10;99:25;95:100", required=False,
              pattern=r"^[0-9.]+:[0-9.]+(;[0-9.]+:[0-9.]+)*$", form="such as 99.5:10;99:25;95:100"),
        _number("credit_cap_percent", "sla: most credit of a month's price", "100", required=False, lowest=0,
                highest=100),
        _text("exclusions", f"sla: what does not count, of {', '.join(EXCLUSIONS)}", "maintenance;force_majeure",
              required=False, pattern=f"^({'|'.join(EXCLUSIONS)})(;({'|'.join(EXCLUSIONS)}))*$",
              form=f"of {', '.join(EXCLUSIONS)}, separated by ;"),
        _number("notice_hours", "sla: maintenance counts as excluded when announced so long before", "72",
                required=False, lowest=0),
        _number("exclusion_cap_hours", "sla: most hours of maintenance of a unit and month that are excluded", "8",
                required=False, lowest=0),
        _word("unknown_counts_as", "sla: what time without telemetry is", ("up", "down", "excluded"), "down",
              required=False),
        _whole("rack_minimum_trays", "sla by rack: trays that must be up, such as 17 of 18", "", required=False,
               lowest=1),
        _number("agreed_celsius", "heat: lowest supply temperature, °C", "", required=False, lowest=0, highest=150),
        _number("heat_price_per_mwh", "heat: currency per MWh of heat; may be negative", "", required=False),
        _text("currency", "ISO 4217, of whichever price there is", "NOK", required=False, pattern=_CURRENCY,
              form="three capital letters"),
        _number("price_per_unit_month", "sla: currency per unit and whole month; empty: credits in percent only",
                "180000", required=False, lowest=0),
        _number("agreed_megawatts", "heat: power that the off-taker takes, MW; empty where none was agreed", "",
                required=False, above=0),
        _text("phase", "grid: phase of the site", "", required=False),
        _number("contracted_megawatts", "grid: power that may be drawn in all from the first day on, MW", "",
                required=False, above=0),
    ),
    key=("contract", "first_day"),
    span=Span("first_day", ("contract",), end="last_day"),
    conditions=(
        Condition("contract_kind", ("unit", "target_percent", "minimum_outage_s", "credit_tiers", "unknown_counts_as"),
                  "sla"),
        Condition("contract_kind", ("agreed_celsius", "heat_price_per_mwh", "currency"), "heat"),
        Condition("contract_kind", ("phase", "contracted_megawatts"), "grid"),
        Condition("unit", ("rack_minimum_trays",), "rack"),
        Condition("price_per_unit_month", ("currency",)),
    ),
    ordered=(("first_day", "last_day"),),
    version=3,
)  # fmt: skip

_CALIBRATIONS = Declaration(
    kind=RegisterKind.METER_CALIBRATIONS,
    brief="When each meter was calibrated, and how good it is",
    evidence="the calibration certificate",
    columns=(
        _text("meter", "Identity of the meter in the topology", "METER-0001"),
        _day("calibrated_on", "When", "2026-03-02"),
        _word("accuracy_class", "Class: IEC 62053-21/-22 for electricity, EN 1434 for heat", ACCURACY_CLASSES, "0.5S"),
        _text("certificate", "Number of the certificate", "CAL-2026-118"),
        _text("ct_ratio", "Ratio of the current transformer", "4000/5", required=False,
              pattern=r"^[1-9][0-9]*/[1-9][0-9]*$", form="such as 4000/5"),
        _day("next_due", "When the next calibration is due", "2031-03-02", required=False),
    ),
    key=("meter", "calibrated_on"),
    ordered=(("calibrated_on", "next_due"),),
)  # fmt: skip

_MAINTENANCE = Declaration(
    kind=RegisterKind.MAINTENANCE,
    brief="When something was taken out of service on purpose",
    evidence="the announcement, or the work order",
    columns=(
        *_RESOURCE,
        _moment("start", "From", "2026-10-14T08:00+02:00"),
        _moment("end", "To, itself excluded", "2026-10-14T12:00+02:00"),
        _word("maintenance_kind", "Why", ("planned", "emergency", "customer_request", "upgrade"), "planned"),
        _moment("announced_at", "When it was announced", "2026-10-01T09:00+02:00", required=False),
        _claim("counts_as_exclusion", "Whether it may be left out of contractual availability", "yes"),
    ),
    key=("resource_kind", "resource", "start"),
    span=Span("start", ("resource_kind", "resource"), end="end"),
    ordered=(("start", "end"),),
)

_ALLOCATIONS = Declaration(
    kind=RegisterKind.ALLOCATIONS,
    brief="Which resources a contract is about, and since when: what is under no contract is nobody's",
    evidence="the handover protocol, or the order",
    columns=(
        _text("contract", "Number of the contract", "SLA-2026-07"),
        _word("resource_kind", "Kind of resource; a rack stands for its trays, a tray for its GPUs",
              [kind.value for kind in _ALLOCATED], "rack"),
        _text("resource", "Its identity in the topology", "R14"),
        _moment("start", "From", "2026-07-01T00:00+02:00"),
        _moment("end", "To, itself excluded; empty while it lasts", "2027-07-01T00:00+02:00", required=False),
    ),
    key=("resource_kind", "resource", "start"),
    span=Span("start", ("resource_kind", "resource"), end="end"),
    ordered=(("start", "end"),),
)  # fmt: skip

_EXCLUSIONS = Declaration(
    kind=RegisterKind.EXCLUSIONS,
    brief="Time that a contract may leave out of availability, other than maintenance",
    evidence="the record of what happened: the ticket, the notice, the authority's order",
    columns=(
        _word("cause", "Why", [cause for cause in EXCLUSIONS if cause != "maintenance"], "force_majeure"),
        *_RESOURCE,
        _moment("start", "From", "2026-10-19T03:12+02:00"),
        _moment("end", "To, itself excluded", "2026-10-19T05:40+02:00"),
        _text("reference", "Number of the ticket or notice; customers read it", "INC-2026-311"),
    ),
    key=("cause", "resource_kind", "resource", "start"),
    span=Span("start", ("cause", "resource_kind", "resource"), end="end"),
    ordered=(("start", "end"),),
)

_COMMISSIONING = Declaration(
    kind=RegisterKind.COMMISSIONING,
    brief="When what was being put into operation: its load stays out of PUE",
    evidence="the handover protocol",
    columns=(
        *_RESOURCE,
        _text("phase", "Phase of the site", "230 MW"),
        _moment("start", "From", "2026-06-01T00:00+02:00"),
        _moment("end", "To, itself excluded; empty while it lasts", "2026-09-01T00:00+02:00", required=False),
        _text("boundary_version", "Version of the boundary that leaves it out", "2026-1"),
    ),
    key=("resource_kind", "resource", "start"),
    span=Span("start", ("resource_kind", "resource"), end="end"),
    ordered=(("start", "end"),),
)

_SETTLEMENT = Declaration(
    kind=RegisterKind.SETTLEMENT,
    brief="What the grid company settled, by quarter hour",
    evidence="the grid company's or Elhub's own file",
    columns=(
        _text("meter", "Grid meter, as the grid company calls it", "707057500000000001"),
        _moment("start", "Begin (not end) of the quarter hour", "2026-10-25T02:00+02:00", pattern=_ON_A_QUARTER,
                form=_QUARTERS),
        _number("energy_kwh", "kWh in the quarter hour", "57512.5", lowest=0),
        _word("direction", "import from the grid or export to it", ("import", "export"), "import"),
        _word("quality", "What the grid company says of it; empty where it says nothing",
              ("measured", "estimated", "temporary"), "measured", required=False),
    ),
    key=("meter", "direction", "start"),
    span=Span("start", ("meter", "direction"), minutes=15),
)  # fmt: skip

_TOKENS = Declaration(
    kind=RegisterKind.JOB_TOKENS,
    brief="Tokens that a job processed, where jobs report them",
    evidence="the job's log",
    columns=(
        _text("job", "Id that the scheduler gave", "481516"),
        _whole("tokens", "Tokens trained on, or generated", "2300000000", lowest=0),
    ),
    key=("job",),
)

# Facts that are numbers, in the unit that their name ends with; all others are words.
NUMBER_FACTS = (
    "installed_it_power_kw", "floor_area_total_m2", "floor_area_computer_room_m2", "battery_capacity_kw",
    "it_intake_setpoint_celsius", "tcs_supply_setpoint_celsius", "ict_capacity_servers", "ict_capacity_storage_pb",
    "bandwidth_in_gbps", "bandwidth_out_gbps", "traffic_in_eb", "traffic_out_eb", "crypto_mining_percent",
)  # fmt: skip
WORD_FACTS = (
    "data_centre_name", "owner", "operator", "organisation_number", "contact", "municipality", "country",
    "bidding_zone", "data_centre_type", "entry_into_operation", "electrical_redundancy", "cooling_redundancy",
    "services", "grid_functions", "legal_status",
)  # fmt: skip

_SITE_FACTS = Declaration(
    kind=RegisterKind.SITE_FACTS,
    brief="What the site is, as it reports it to authorities: owner, areas, set points, capacities",
    evidence="the drawing, the protocol or the letter that says so",
    columns=(
        _word("fact", "Which fact", (*NUMBER_FACTS, *WORD_FACTS), "floor_area_total_m2"),
        _number("number", "A number, in the unit that the fact's name ends with", "48000", required=False, lowest=0),
        _text("words", "Words, where the fact is no number", "", required=False),
        _day("first_day", "Since when it holds", "2026-01-01"),
        _day("last_day", "Until when, itself included; empty while it holds", "2026-12-31", required=False),
    ),
    key=("fact", "first_day"),
    span=Span("first_day", ("fact",), end="last_day"),
    conditions=(
        *(Condition("fact", ("number",), fact) for fact in NUMBER_FACTS),
        *(Condition("fact", ("words",), fact) for fact in WORD_FACTS),
    ),
    ordered=(("first_day", "last_day"),),
)

_FUELS = Declaration(
    kind=RegisterKind.FUELS,
    brief="Fuel that the site burnt, such as in backup generators; a line with 0 says that none was",
    evidence="the tank's log, or the supplier's invoice",
    columns=(
        _text("equipment", "What burnt it", "generator 1"),
        _word("fuel", "Which fuel", ("diesel", "hvo", "natural_gas", "biogas", "hydrogen", "other"), "diesel"),
        _day("first_day", "First day", "2026-10-01"),
        _day("last_day", "Last day, itself included", "2026-10-31"),
        _number("energy_kwh", "Energy of the fuel, lower heating value, kWh", "1930", lowest=0),
        _number("electricity_kwh", "Electricity that was made of it, kWh", "720", required=False, lowest=0),
        _number("co2e_kg_per_kwh", "Direct emissions of the fuel, kg CO2e per kWh of it", "0.267", lowest=0,
                highest=10),
    ),
    key=("equipment", "fuel", "first_day"),
    span=Span("first_day", ("equipment", "fuel"), end="last_day"),
    ordered=(("first_day", "last_day"),),
)  # fmt: skip

DECLARATIONS: Mapping[RegisterKind, Declaration] = MappingProxyType(
    {
        declaration.kind: declaration
        for declaration in (
            _GUARANTEES,
            _FACTORS,
            _PRICES,
            _WEATHER,
            _WATER,
            _REFRIGERANTS,
            _CONTRACTS,
            _CALIBRATIONS,
            _MAINTENANCE,
            _ALLOCATIONS,
            _EXCLUSIONS,
            _COMMISSIONING,
            _SETTLEMENT,
            _TOKENS,
            _SITE_FACTS,
            _FUELS,
        )
    }
)

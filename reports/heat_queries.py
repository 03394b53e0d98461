"""What a heat report asks of the store about meters, loops, and the fleet's own energy counters.

Names, attributes and places come from the topology's views, as of the period: the sources' agreed word.
"""

from collections.abc import Iterator
from datetime import datetime, timedelta

import polars as pl

from catalogue import COOLING, GPU, TRAY, Metric, Table
from reports.figures import ROLES, Role
from reports.heat import LOOP_READINGS, OLDEST_S
from reports.period import Period
from reports.readings import TIME
from storage.reader import Parameter, Reader, Schema

METER_ROLES = (*ROLES, Role.HEAT_OWN_USE)
# The loop whose heat is what the chips gave off: technology cooling system. Facility water carries it a second time.
TCS = "TCS"

METER_FACTS: Schema = {
    "resource": pl.UInt64(),
    "kind": pl.String(),
    "identity": pl.String(),
    "name": pl.String(),
    "role": pl.String(),
    "accuracy_class": pl.String(),
    "measured_at": pl.String(),
    "off_taker": pl.String(),
    "serial": pl.String(),
    "calibrated_at": pl.String(),
    "calibration_due": pl.String(),
    "calibration_certificate": pl.String(),
    "modulus_joules": pl.Float64(),
    "rated_watts": pl.Float64(),
    "interval_s": pl.Float64(),
    "resolution_joules": pl.Float64(),
}
LOOP_FACTS: Schema = {
    "resource": pl.UInt64(),
    "kind": pl.String(),
    "name": pl.String(),
    "fluid": pl.String(),
    "flow_meter_at": pl.String(),
    "loop_type": pl.String(),
}
FLEET_QUARTERS: Schema = {
    "rack": pl.UInt64(),
    "time": TIME,
    "joules": pl.Float64(),
    "members": pl.UInt64(),  # how many were heard
    "readings": pl.UInt64(),  # of all of them
    "most": pl.UInt64(),  # of the one that was heard most often
}
MEMBERS: Schema = {"rack": pl.UInt64(), "members": pl.UInt64()}

# The word that held when the period ended; the first version of a resource counts for all time before it.
_AS_OF = """
SELECT
    resource,
    argMax(toString(kind), valid_from) AS kind,
    argMax(identity, valid_from) AS identity,
    argMax(name, valid_from) AS name,
    argMax(attributes, valid_from) AS facts
FROM resources
WHERE valid_from < {last:DateTime('UTC')}
GROUP BY resource
"""


def read_meters(reader: Reader, period: Period) -> pl.DataFrame:
    """The meters of heat and electricity that have a role, as METER_FACTS."""
    texts = ", ".join(
        f"facts['{attribute}'] AS {name}"
        for name, attribute in {
            "role": "role",
            "accuracy_class": "class",
            "measured_at": "measured_at",
            "off_taker": "off_taker",
            "serial": "serial",
            "calibrated_at": "calibrated_at",
            "calibration_due": "calibration_due",
            "calibration_certificate": "calibration_certificate",
        }.items()
    )
    sql = f"""
SELECT
    resource, kind, identity, name, {texts},
    toFloat64OrNull(facts['register_modulus_joules']) AS modulus_joules,
    toFloat64OrNull(facts['nominal_power_watts']) AS rated_watts,
    toFloat64OrNull(facts['interval_s']) AS interval_s,
    toFloat64OrNull(facts['register_resolution_joules']) AS resolution_joules
FROM ({_AS_OF})
WHERE kind IN ('feeder', 'meter', 'heat_meter') AND role IN {{roles:Array(String)}}
ORDER BY role, name, resource
"""  # noqa: S608 - constants of this module; values are bound
    roles = [role.value for role in METER_ROLES]
    return reader.query(sql, {"last": bound(period.end), "roles": roles}, METER_FACTS)


def read_site_name(reader: Reader, period: Period) -> str | None:
    """The name of the first site; absent where the inventory has none."""
    sql = f"SELECT name FROM ({_AS_OF}) WHERE kind = 'site' ORDER BY name"  # noqa: S608 - constants of this module
    found = reader.query(sql, {"last": bound(period.end)}, {"name": pl.String()})
    return found["name"].item(0) if found.height else None


def read_loops(reader: Reader, period: Period) -> pl.DataFrame:
    """The loops that take up the chips' heat, as LOOP_FACTS: TCS loops, else cooling units, whose rack side is one."""
    sql = f"""
SELECT
    resource, kind, name,
    facts['fluid'] AS fluid, facts['flow_meter_at'] AS flow_meter_at, facts['loop_type'] AS loop_type
FROM ({_AS_OF})
WHERE kind IN ('loop', 'cdu')
ORDER BY name, resource
"""  # noqa: S608 - constants of this module
    found = reader.query(sql, {"last": bound(period.end)}, LOOP_FACTS)
    loops = found.filter(pl.col("kind") == "loop", pl.col("loop_type").is_in(["", TCS]))
    return loops if loops.height else found.filter(pl.col("kind") == "cdu")


def read_loop_days(reader: Reader, loops: list[int], period: Period) -> Iterator[tuple[Period, pl.DataFrame]]:
    """The readings of the loops' rack side, as LOOP_READINGS, one day of 24 hours after the other."""
    columns = {
        "flow_cubic_metres_per_second": "secondary_flow_cubic_metres_per_second",
        "supply_celsius": "secondary_supply_temperature_celsius",
        "return_celsius": "secondary_return_temperature_celsius",
    }
    known = ", ".join(f"{COOLING.metric(metric).name} AS {name}" for name, metric in columns.items())
    sql = f"""
SELECT resource, time, {known}, quality_state
FROM {COOLING.name}
WHERE time BETWEEN {{first:DateTime('UTC')}} AND {{last:DateTime('UTC')}} AND resource IN {{loops:Array(UInt64)}}
"""  # noqa: S608 - names from the catalogue; values are bound
    for day in days_of(period) if loops else ():
        before = day.start - timedelta(seconds=10 * OLDEST_S)
        bounds: dict[str, Parameter] = {"first": bound(before), "last": bound(day.end), "loops": loops}
        yield day, reader.query(sql, bounds, LOOP_READINGS)


def days_of(period: Period) -> Iterator[Period]:
    """The period in pieces of at most 24 hours, whose energies add up to it."""
    start = period.start
    while start < period.end:
        end = min(start + timedelta(days=1), period.end)
        yield Period(period.text, period.span, period.zone, start, end)
        start = end


def read_fleet_quarters(reader: Reader, table: Table, first: datetime, last: datetime) -> pl.DataFrame:
    """What trays or GPUs counted in each rack and quarter hour, as FLEET_QUARTERS: grouped in ClickHouse, by the place
    at which each was then.

    A reading holds the energy since the one before. A minute with a single reading is counted to the minute
    before, so that a backfill of five minutes' pace stays within its quarter hours.
    """
    every: dict[str, Parameter] = {"lowest": 0, "highest": 2**64 - 1}
    bounds: dict[str, Parameter] = {"first": bound(first), "last": bound(last)}
    return reader.query(fleet_quarters_sql(table), bounds | every, FLEET_QUARTERS)


def fleet_quarters_sql(table: Table) -> str:
    """FLEET_QUARTERS between `first` and `last`, of members whose ids lie between `lowest` and `highest`."""
    energy = table.metric("energy_joules")
    lone = f"tier.{energy.name}_count = 1"
    return f"""
SELECT rack, time, sum(spent) AS joules, count() AS members, sum(heard) AS readings, max(heard) AS most
FROM
(
    SELECT
        place.rack AS rack,
        toStartOfFifteenMinutes(tier.time - if({lone}, 60, 0)) AS time,
        {_scaled(f"sum(tier.{energy.name}_sum_raw)", energy)} AS spent,
        toUInt64(sum(tier.{energy.name}_count)) AS heard
    FROM {table.name}_1m AS tier
    ASOF JOIN places AS place ON place.resource = tier.resource AND tier.time >= place.valid_from
    WHERE tier.time BETWEEN {{first:DateTime('UTC')}} AND {{last:DateTime('UTC')}}
        AND tier.resource BETWEEN {{lowest:UInt64}} AND {{highest:UInt64}}
    GROUP BY tier.resource, rack, time
    HAVING heard > 0
)
WHERE rack != 0 AND time >= {{first:DateTime('UTC')}} AND time < {{last:DateTime('UTC')}}
GROUP BY rack, time
"""  # noqa: S608 - names from the catalogue; values are bound


def read_members(reader: Reader, kind: str, period: Period) -> pl.DataFrame:
    """How many trays or GPUs each rack had at the most, as MEMBERS."""
    sql = """
SELECT rack, uniqExact(resource) AS members
FROM places
WHERE kind = {kind:String} AND same_as = resource AND rack != 0
    AND valid_from < {last:DateTime('UTC')} AND valid_to > {first:DateTime('UTC')}
GROUP BY rack
"""
    return reader.query(sql, {"kind": kind, "first": bound(period.start), "last": bound(period.end)}, MEMBERS)


FLEET_TABLES = ((TRAY, "tray"), (GPU, "gpu"))


def bound(moment: datetime) -> str:
    """A moment as ClickHouse takes it for a bound DateTime('UTC')."""
    return f"{moment:%Y-%m-%d %H:%M:%S}"


def _scaled(expression: str, metric: Metric) -> str:
    return f"{expression} * {metric.resolution.numerator} / {metric.resolution.denominator}"

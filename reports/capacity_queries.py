"""What capacity and conservation ask of the store: where racks were and when, what feeds them, their registers."""

import polars as pl

from catalogue import RACK
from reports import queries
from reports.heat_queries import bound
from reports.period import Period
from reports.readings import TIME
from storage.reader import Reader, Schema

PLACES: Schema = {
    "resource": pl.UInt64(),
    "kind": pl.String(),
    "name": pl.String(),
    "parent": pl.UInt64(),
    "hall": pl.UInt64(),
    "hall_name": pl.String(),
    "start": TIME,
    "end": TIME,
}
FEEDS: Schema = {
    "resource": pl.UInt64(),  # what feeds
    "served": pl.UInt64(),
    "start": TIME,
    "end": TIME,
}
RATINGS: Schema = {"resource": pl.UInt64(), "kind": pl.String(), "rated_watts": pl.Float64()}

RACK_REGISTER = RACK.metric("energy_register_joules")


def read_places(reader: Reader, period: Period) -> pl.DataFrame:
    """Where racks, loops, cooling units and meters were within the period, as PLACES: a row for each place and time."""
    sql = """
SELECT
    resource, toString(kind) AS kind, name, parent, hall, toString(hall_name) AS hall_name,
    valid_from AS start, valid_to AS end
FROM places
WHERE kind IN ('rack', 'loop', 'cdu', 'meter', 'feeder', 'heat_meter') AND same_as = resource
    AND valid_from < {last:DateTime('UTC')} AND valid_to > {first:DateTime('UTC')}
ORDER BY name, resource, start
"""
    return reader.query(sql, {"first": bound(period.start), "last": bound(period.end)}, PLACES)


def read_feeds(reader: Reader, period: Period) -> pl.DataFrame:
    """What fed what within the period, as FEEDS."""
    sql = """
SELECT resource, served, valid_from AS start, valid_to AS end
FROM feeds
WHERE valid_from < {last:DateTime('UTC')} AND valid_to > {first:DateTime('UTC')}
ORDER BY resource, served, start
"""
    return reader.query(sql, {"first": bound(period.start), "last": bound(period.end)}, FEEDS)


def read_ratings(reader: Reader, period: Period) -> pl.DataFrame:
    """The rated power of halls, racks and feeders, as RATINGS; absent where nobody states it."""
    sql = """
SELECT resource, toString(kind) AS kind, toFloat64OrNull(attributes['nominal_power_watts']) AS rated_watts
FROM resources
WHERE valid_from < {last:DateTime('UTC')} AND kind IN ('hall', 'rack', 'feeder', 'meter')
ORDER BY resource, valid_from DESC
LIMIT 1 BY resource
"""
    return reader.query(sql, {"last": bound(period.end)}, RATINGS)


def read_rack_registers(reader: Reader, racks: list[int], period: Period) -> pl.DataFrame:
    """The racks' registers at each quarter hour's first minute, as the ledger's READINGS.

    A full site has 1,400 racks: every reading of a month would be 360 million rows.
    """
    return queries.read_registers(reader, RACK, RACK_REGISTER, racks, period, exact=False)

"""Forgets persons: takes everything that is stored under given pseudonyms out of the tables.

A row that has an owner is about a person's work, and goes: its job's number leads back to the person in the scheduler's
own books. What was computed of such a job goes with it, though it names nobody. Every other row is about a machine, and
only the pseudonym goes: from attributes and from text. Which tables have such columns is asked of the store, so that
one that a later version adds is not left out.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from time import monotonic, sleep

from clickhouse_connect.driver.client import Client

from storage.client import StoreUnavailableError, store_errors

# Columns in which a pseudonym may stand alone; a job's name may have it before an "@".
_PLAIN = ("owner", "job", "name", "customer")
_PREFIXED = "job"
_MAP, _TEXT = "attributes", "text"
_PSEUDONYM = re.compile(r"k[1-9][0-9]{0,3}-[a-z2-7]{26}")
_PARTITION = re.compile(r"[0-9A-Za-z_-]{1,128}")
LONGEST_WAIT_S = 3600.0
_LOOK_S = 0.2
_JOBS_AT_ONCE = 5000  # of which one statement speaks
_BLANKED = {
    _MAP: f"mapFilter((name, value) -> NOT has({{names:Array(String)}}, value), `{_MAP}`)",
    _TEXT: f"replaceRegexpAll(`{_TEXT}`, arrayStringConcat({{names:Array(String)}}, '|'), '')",
}


@dataclass(frozen=True, slots=True)
class Place:
    """A table in which a person may be found, and the columns that say so."""

    table: str
    columns: frozenset[str]

    @property
    def is_of_persons(self) -> bool:
        """Whether a row is about somebody's work, and goes as a whole."""
        return "owner" in self.columns

    @property
    def is_of_jobs(self) -> bool:
        """Whether a row is what was computed of a job, which only its number leads back to somebody."""
        return _PREFIXED in self.columns and not self.is_of_persons


@dataclass(frozen=True, slots=True)
class Found:
    """How many rows of a table name the person."""

    table: str
    rows: int
    goes: bool  # the row as a whole, or only the pseudonym in it


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What was found, and what is left: nothing, unless it was a trial or more came in meanwhile."""

    found: tuple[Found, ...]
    left: tuple[Found, ...] = field(default=())

    @property
    def rows_found(self) -> int:
        return sum(found.rows for found in self.found)

    @property
    def rows_left(self) -> int:
        return sum(found.rows for found in self.left)


def find(client: Client, pseudonyms: Sequence[str]) -> tuple[Found, ...]:
    """The rows that name one of `pseudonyms`, by table; changes nothing. Raises as `forget` does."""
    places = list(_places(client))
    return _count_all(client, places, _Sought(_checked(pseudonyms), _jobs_of(client, places, pseudonyms)))


def forget(client: Client, pseudonyms: Sequence[str], *, wait_s: float = LONGEST_WAIT_S) -> Forgotten:
    """Take `pseudonyms` out of every table, and look again.

    Returns when the store has rewritten what held them. Raises ValueError for text that is no pseudonym, and
    StoreUnavailableError or StoreRefusedError: no answer, not done within `wait_s`, or a user that may not change
    tables. The call may be repeated, and goes on where it was. What comes in meanwhile may be missed, and is counted
    in what is left.
    """
    names = _checked(pseudonyms)
    places = list(_places(client))
    sought = _Sought(names, _jobs_of(client, places, names))
    found = _count_all(client, places, sought)
    with_rows = {one.table for one in found if one.rows}
    # What only a job's number leads to goes first: once the jobs are gone, nothing leads there any more.
    for place in sorted(places, key=lambda place: not place.is_of_jobs):
        if place.table in with_rows:
            _remove(client, place, sought)
            _wait_for_mutations(client, place.table, wait_s)
    left = _count_all(client, list(_places(client)), _Sought(names, sought.jobs))
    return Forgotten(found, tuple(one for one in left if one.rows))


@dataclass(frozen=True, slots=True)
class _Sought:
    """A person's pseudonyms, and the numbers of the jobs that are stored under them."""

    names: Sequence[str]
    jobs: Sequence[str]

    def parts(self, place: Place) -> Iterator[dict[str, list[str]]]:
        """Parameters of the statements about a place: one for all names, or several for many jobs."""
        if not place.is_of_jobs:
            yield {"names": list(self.names)}
            return
        for start in range(0, max(len(self.jobs), 1), _JOBS_AT_ONCE):
            yield {"names": list(self.names), "jobs": list(self.jobs[start : start + _JOBS_AT_ONCE])}


def _jobs_of(client: Client, places: Sequence[Place], pseudonyms: Sequence[str]) -> list[str]:
    jobs: set[str] = set()
    for place in places:
        if place.is_of_persons and _PREFIXED in place.columns:
            with store_errors(f"looking for jobs in {place.table}"):
                rows = client.query(
                    f"SELECT DISTINCT job FROM `{place.table}` WHERE {_any(_conditions(place))}",  # noqa: S608
                    parameters={"names": _checked(pseudonyms)},
                ).result_rows
            jobs.update(str(job) for (job,) in rows)
    return sorted(jobs)


def _count_all(client: Client, places: Sequence[Place], sought: _Sought) -> tuple[Found, ...]:
    return tuple(_count(client, place, sought) for place in places)


def _checked(pseudonyms: Sequence[str]) -> list[str]:
    """They become part of statements that change tables: nothing but pseudonyms is let through."""
    wrong = [text for text in pseudonyms if not _PSEUDONYM.fullmatch(text)]
    if wrong or not pseudonyms:
        raise ValueError(f"{len(wrong)} of {len(pseudonyms)} texts are no pseudonyms, such as k1-...; give some")
    return list(pseudonyms)


def _places(client: Client) -> Iterator[Place]:
    """The tables with columns of the names and types that a pseudonym can be in."""
    with store_errors("looking for tables that name persons"):
        rows = client.query(
            "SELECT table, groupArray(name) FROM system.columns "
            "WHERE database = currentDatabase() AND default_kind NOT IN ('ALIAS', 'MATERIALIZED') AND ("
            "(name IN {plain:Array(String)} AND type IN ('String', 'LowCardinality(String)')) "
            "OR (name = {map:String} AND type LIKE 'Map(%String%, String)') "
            "OR (name = {text:String} AND type = 'String')) "
            "AND table IN (SELECT name FROM system.tables WHERE database = currentDatabase() "
            "AND engine LIKE '%MergeTree' AND NOT is_temporary) "
            "GROUP BY table ORDER BY table",
            parameters={"plain": list(_PLAIN), "map": _MAP, "text": _TEXT},
        ).result_rows
    for table, columns in rows:
        place = Place(str(table), frozenset(columns))
        if place.is_of_persons or place.is_of_jobs or place.columns & {_MAP, _TEXT}:
            yield place


def _conditions(place: Place) -> Mapping[str, str]:
    """By column what is true of a row that names a person; `names` is bound to the pseudonyms."""
    names = "{names:Array(String)}"
    conditions = {column: f"has({names}, `{column}`)" for column in _PLAIN if column in place.columns}
    if place.is_of_jobs:
        conditions = {_PREFIXED: f"`{_PREFIXED}` IN {{jobs:Array(String)}} OR {_named_job(names)}"}
    elif not place.is_of_persons:
        conditions = {}
    elif _PREFIXED in conditions:
        conditions[_PREFIXED] = _named_job(names)
    if _MAP in place.columns:
        conditions[_MAP] = f"hasAny({names}, mapValues(`{_MAP}`))"
    if _TEXT in place.columns:
        conditions[_TEXT] = f"multiSearchAny(`{_TEXT}`, {names})"
    return conditions


def _named_job(names: str) -> str:
    """True of a job whose own name is a pseudonym."""
    return f"has({names}, splitByChar('@', `{_PREFIXED}`)[1])"


def _count(client: Client, place: Place, sought: _Sought) -> Found:
    anywhere, rows = _any(_conditions(place)), 0
    for parameters in sought.parts(place):
        with store_errors(f"looking into {place.table}"):
            row = client.query(
                f"SELECT count() FROM `{place.table}` WHERE {anywhere}",  # noqa: S608 - names of the store's own
                parameters=parameters,
            ).first_row
        rows += int(row[0]) if row else 0
    return Found(place.table, rows, place.is_of_persons or place.is_of_jobs)


def _remove(client: Client, place: Place, sought: _Sought) -> None:
    conditions = _conditions(place)
    for parameters in sought.parts(place):
        with store_errors(f"forgetting in {place.table}"):
            if place.is_of_persons or place.is_of_jobs:
                # An older version of a row that does not name the person would come to light when the newer is gone.
                for partition in _partitions(client, place, parameters):
                    client.command(f"OPTIMIZE TABLE `{place.table}` PARTITION ID '{partition}' FINAL")
                client.command(f"ALTER TABLE `{place.table}` DELETE WHERE {_any(conditions)}", parameters=parameters)
                continue
            for column, condition in conditions.items():
                update = f"ALTER TABLE `{place.table}` UPDATE `{column}` = {_BLANKED[column]} WHERE {condition}"
                client.command(update, parameters=parameters)


def _partitions(client: Client, place: Place, parameters: dict[str, list[str]]) -> list[str]:
    """The partitions in which the person is found."""
    rows = client.query(
        f"SELECT DISTINCT _partition_id FROM `{place.table}` WHERE {_any(_conditions(place))}",  # noqa: S608
        parameters=parameters,
    ).result_rows
    return [str(partition) for (partition,) in rows if _PARTITION.fullmatch(str(partition))]


def _wait_for_mutations(client: Client, table: str, wait_s: float) -> None:
    """Return when nothing of the table is being rewritten any more.

    A statement that waits by itself (mutations_sync) would run into the time-outs of everything in between: to rewrite
    years of a large table takes longer.
    """
    deadline_s = monotonic() + wait_s
    while True:
        with store_errors(f"waiting for {table} to be rewritten"):
            rows = client.query(
                "SELECT latest_fail_reason FROM system.mutations "
                "WHERE database = currentDatabase() AND table = {table:String} AND NOT is_done",
                parameters={"table": table},
            ).result_rows
        if not rows:
            return
        if monotonic() > deadline_s:
            reasons = "; ".join(sorted({str(reason)[:200] for (reason,) in rows if reason}))
            raise StoreUnavailableError(
                f"{table} is still being rewritten after {wait_s:g} s{f' ({reasons})' if reasons else ''}; "
                "look at system.mutations, and repeat the call"
            )
        sleep(_LOOK_S)


def _any(conditions: Mapping[str, str]) -> str:
    return " OR ".join(conditions.values())

"""The steps of an outage and its evidence, by hand: a GPU falls off the bus while a job holds it, and is validated."""

import json
from datetime import UTC, datetime, timedelta
from hashlib import sha256

import polars as pl

from reports.efficiency_hours import EVENTS, MEMBERS, OUTAGES, endings, openings, outages_of
from reports.efficiency_queries import TROUBLES, WORKED, Window
from reports.ledger import TIME
from reports.sla_account import Made, account_of
from reports.sla_outages import Outage, Witnesses, outages_in
from reports.sla_queries import EVIDENCE, HELD
from reports.sla_readings import SEEN, gpu_states
from reports.sla_terms import Terms, UnitKind
from reports.sla_units import COVERED, PARTS
from tests.unit.test_reports_sla_account import terms

GPU, RACK = 2**63 + 5, 77
START = datetime(2026, 10, 5, tzinfo=UTC)
ALWAYS = (datetime(1970, 1, 1, tzinfo=UTC), datetime(2299, 1, 1, tzinfo=UTC))
WIDE = Window(START - timedelta(hours=1), START + timedelta(hours=13))
DAY = Window(START, START + timedelta(hours=12))
NAMES = {GPU: ("gpu", "tray 1 / gpu 0"), RACK: ("rack", "rack 1")}


def at(minute: float) -> datetime:
    return START + timedelta(minutes=minute)


def found(covered_from: float = -60.0, agreed: Terms | None = None) -> tuple[Outage, ...]:
    """Dark from minute 61 to 90 after an XID 79 at 60.5; a job let go at 62; restored at 100."""
    told = [
        ("e1", GPU, at(60.5), "xid", 79, "page", "GPU has fallen off the bus"),
        ("e2", GPU, at(100), "restored", 0, "", "Back in service after gpu has fallen off the bus"),
    ]
    events = pl.DataFrame([row[1:] for row in told], schema=dict(EVENTS), orient="row")
    evidence = pl.DataFrame(
        [(gpu, when, key, kind, code, level, text, 9) for key, gpu, when, kind, code, level, text in told],
        schema=dict(EVIDENCE), orient="row",
    )  # fmt: skip
    ticks = [(-60, 61, 0), (61, 90, 1), (90, 780, 0)]
    rows = [(GPU, at(first), at(last), 1, dark, 0, 10.0) for first, last, dark in ticks]
    seen = pl.DataFrame(rows, schema=dict(SEEN), orient="row")
    members = pl.DataFrame([(GPU, GPU, *ALWAYS), (RACK, GPU, *ALWAYS)], schema=dict(MEMBERS), orient="row")
    worked = pl.DataFrame(schema=dict(WORKED))
    opened = openings(events)
    outages = outages_of(opened, worked, members, WIDE)
    gpus = pl.DataFrame({"resource": [GPU]}, schema={"resource": pl.UInt64})
    states = gpu_states(gpus, seen, outages.select(*OUTAGES), WIDE)
    spans = {"start": TIME, "end": TIME}
    none = pl.DataFrame(schema={"gpu": pl.UInt64(), **spans, "cause": pl.String(), "reference": pl.String()})
    made = Made(UnitKind.GPU, pl.DataFrame([(GPU, GPU, *ALWAYS)], schema=dict(PARTS), orient="row"))
    covered = pl.DataFrame([(GPU, at(covered_from), at(720))], schema=dict(COVERED), orient="row")
    witnesses = Witnesses(
        ended=endings(opened, worked, WIDE),
        events=evidence,
        members=members,
        dark=seen.filter(pl.col("dark") > 0),
        troubles=pl.DataFrame(schema=dict(TROUBLES)),
        silent=pl.DataFrame(schema={"resource": pl.UInt64(), **spans}),
        excluded=none,
        holds=pl.DataFrame([(GPU, at(-30), at(62)), (GPU, at(110), None)], schema=dict(HELD), orient="row"),
    )
    account = account_of(agreed or terms(), covered, made, states, none.drop("reference"), DAY)
    return outages_in(account, covered, made, witnesses, NAMES)


def test_detect_drain_repair_and_validate_add_up_to_the_outage() -> None:
    (outage,) = found()
    assert (outage.start, outage.end, outage.down_ms) == (at(60.5), at(100), 39.5 * 60_000)
    steps = outage.phases
    assert steps is not None
    minutes = [step / timedelta(minutes=1) for step in (steps.detect, steps.drain, steps.repair)]
    assert minutes == [0.0, 1.5, 28.0]
    assert steps.validate == timedelta(minutes=10)
    assert steps.total == outage.end - outage.start


def test_evidence_has_times_sources_and_the_hash_of_its_canonical_json() -> None:
    (outage,) = found()
    told = [(row.at, row.until, row.source, row.what, row.code, row.reference) for row in outage.evidence]
    assert told == [
        ("2026-10-05T01:00:30.000Z", "", "events", "xid", 79, "e1"),
        ("2026-10-05T01:01:00.000Z", "2026-10-05T01:30:00.000Z", "gpu readings", "unreadable", None, ""),
        ("2026-10-05T01:40:00.000Z", "", "events", "restored", None, "e2"),
    ]
    rows = [{name: getattr(row, name) for name in type(row).__dataclass_fields__} for row in outage.evidence]
    text = json.dumps(rows, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert outage.evidence_sha256 == sha256(text.encode()).hexdigest()
    assert outage.reasons == ("XID 79", "unreadable")


def test_what_happened_before_a_contract_covered_the_unit_is_nobody_elses_to_read() -> None:
    (outage,) = found(covered_from=70)
    assert outage.began_before
    assert not outage.is_failure
    assert outage.phases is None
    assert outage.start == at(70)
    assert [(row.at, row.what) for row in outage.evidence] == [
        ("2026-10-05T01:10:00.000Z", "unreadable"),
        ("2026-10-05T01:40:00.000Z", "restored"),
    ]

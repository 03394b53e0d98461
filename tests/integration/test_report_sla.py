"""SLA reports over hours of a simulated site in the real engine, judged by what really happened there."""

import json
import re
import shutil
import subprocess
import zipfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from catalogue import GPU
from kvandal.frozen_chain import FrozenChain, frozen_lines
from kvandal.publishing import (
    Format,
    FreezeRequest,
    FrozenMonthError,
    PublishRequest,
    publish,
    verify,
    write_files,
)
from reports.efficiency_hours import Health
from reports.period import Period
from reports.publishing.freezing import ForgedError
from reports.publishing.keys import make_key, read_private_key, read_public_key
from reports.publishing.schemas import document_problems
from reports.sla import SlaData, build_sla, read_sla
from reports.sla_documents import folder_name
from reports.sla_publication import sla_reading
from reports.sla_readings import gpu_states, read_seen
from reports.sweep import milliseconds
from simulation.truth import GpuCondition
from storage.client import connect
from storage.ddl import hour_insert
from storage.reader import TIME, Reader
from storage.register_kinds import RegisterKind
from storage.schema import apply
from tests.conftest import DoorUnderTest
from tests.servers.sla_registers import CONTRACT, bring
from tests.servers.sla_site import Rows, TickedSite, fill_hours

pytest.importorskip("chdb")

TICK_S = 10
HOSTILE = '<img src=x onerror=alert(1)>/../../"Ærø"\u202e'


def with_gaps(rows: Rows) -> Rows:
    """What is left when every fifth GPU is not read for eleven minutes of each hour, and now and then for a tick."""
    every_fifth = rows["resource"] % 5 == 0
    time_s = rows["time"].astype(np.int64)
    kept: Rows = rows[~(every_fifth & ((time_s % 3600 < 660) | (time_s % 1010 == 0)))]
    return kept


@pytest.fixture(scope="module")
def filled(door: DoorUnderTest) -> Iterator[tuple[TickedSite, Reader]]:
    """Four hours of 72 GPUs with faults 4,000 times as frequent as in the field."""
    door.empty()
    with closing(connect(door.address())) as client:
        apply(client)
        site = fill_hours(client, gpus=72, hours=4, tick_s=TICK_S, seed=3, fault_rate=4000.0, keep=with_gaps)
        trays = [tray.identity for tray in site.simulation.site.resources() if tray.kind == "tray"]
        bring(
            client,
            RegisterKind.CONTRACTS,
            [
                {
                    **CONTRACT,
                    "contract": "SLA-A",
                    "party": "Aurora",
                    "unit": "node",
                    "minimum_outage_s": "60",
                    "exclusions": "force_majeure",
                },
                {**CONTRACT, "contract": "SLA-B", "party": HOSTILE, "unit": "gpu"},
            ],
        )
        start = site.window.start.isoformat()
        bring(
            client,
            RegisterKind.ALLOCATIONS,
            [
                {"contract": owner, "resource_kind": "tray", "resource": tray, "start": start}
                for owner, some in (("SLA-A", trays[:9]), ("SLA-B", trays[9:]))
                for tray in some
            ]
            + [{"contract": "SLA-A", "resource_kind": "rack", "resource": "no such rack", "start": start}],
        )
        yield site, Reader(client)
    door.empty()


@pytest.fixture(scope="module")
def data(filled: tuple[TickedSite, Reader]) -> SlaData:
    site, reader = filled
    return read_sla(reader, day_of(site), site.window.end)


def day_of(site: TickedSite) -> Period:
    return Period.parse(f"{site.window.start:%Y-%m-%d}", "UTC")


@pytest.fixture(scope="module")
def folder(filled: tuple[TickedSite, Reader], tmp_path_factory: pytest.TempPathFactory) -> Path:
    site, reader = filled
    out = tmp_path_factory.mktemp("report")
    paths = write_drafts(reader, site, out)
    assert out / f"sla-{day_of(site).text}" / f"sla-summary-{day_of(site).text}.html" in paths
    return out / f"sla-{day_of(site).text}"


def write_drafts(reader: Reader, site: TickedSite, out: Path, customer: str | None = None) -> list[Path]:
    """All reports, or one customer's, as `kvandal report sla` writes them."""
    request = PublishRequest(out=out, formats=tuple(Format))
    found = sla_reading(customer)(reader, day_of(site), site.window.end)
    return [path for one in found for path in write_files(one, replace(request, out=out / one.folder))]


def told(site: TickedSite, data: SlaData) -> pl.DataFrame:
    """Seconds of each GPU by health in the window that was filled."""
    first, last = (pl.lit(bound).cast(TIME) for bound in (site.window.start, site.window.end))
    inside = data.states.with_columns(pl.col("start", "end").clip(first, last)).filter(pl.col("start") < pl.col("end"))
    by_health = inside.group_by("resource", "health").agg(seconds=milliseconds().sum() / 1000)
    return by_health.pivot("health", index="resource", values="seconds").with_columns(pl.col(pl.Float64).fill_null(0.0))


def truly_down(site: TickedSite, data: SlaData) -> dict[int, tuple[float, int]]:
    """Of each GPU the seconds for which it truly was down, as the union of its outages; and the number of outages.

    Without contained memory errors that nobody closed: nobody can tell that such a GPU is out of service.
    """
    start_s, end_s = site.window.start.timestamp(), site.window.end.timestamp()
    contained = data.witnesses.events.filter(pl.col("code") == 94).select("resource", pl.col("time").dt.epoch("ms"))
    doubtful = set(contained.iter_rows())
    members = data.tree.select("ancestor", "gpu").unique()
    spans: dict[int, list[tuple[float, float]]] = {}
    for outage in site.simulation.outages(start_s, end_s):
        if outage.condition is not GpuCondition.DOWN or (
            outage.end_s is None and (outage.resource, round(outage.start_s * 1000)) in doubtful
        ):
            continue
        span = max(outage.start_s, start_s), min(outage.end_s or end_s, end_s)
        for gpu in members.filter(pl.col("ancestor") == outage.resource)["gpu"]:
            spans.setdefault(gpu, []).append(span)
    return {gpu: (length_of_union(some), len(some)) for gpu, some in spans.items()}


def length_of_union(spans: list[tuple[float, float]]) -> float:
    length, reached = 0.0, 0.0
    for first, last in sorted(spans):
        length += max(0.0, last - max(first, reached))
        reached = max(reached, last)
    return length


def test_downtime_is_exact_to_one_tick_where_observed_and_else_within_what_is_unknown(
    filled: tuple[TickedSite, Reader], data: SlaData
) -> None:
    site, _ = filled
    truth, seen_whole, seen_in_part = truly_down(site, data), 0, 0
    for row in told(site, data).iter_rows(named=True):
        down_s, outages = truth.get(row["resource"], (0.0, 0))
        slack_s = TICK_S * outages + 0.01
        assert row["down"] - slack_s <= down_s <= row["down"] + row["unknown"] + slack_s, row
        seen_whole += outages > 0 and row["unknown"] == 0
        seen_in_part += outages > 0 and row["unknown"] > 0
    assert seen_whole >= 5
    assert seen_in_part >= 1


def test_without_events_dark_time_alone_is_exact_to_one_tick(filled: tuple[TickedSite, Reader], data: SlaData) -> None:
    """Only outages in which a GPU cannot be read are seen by readings alone: those of the simulation's XID 79."""
    site, reader = filled
    fallen = set(data.witnesses.events.filter(pl.col("code") == 79)["resource"])
    gpus = pl.DataFrame({"resource": site.gpus}, schema={"resource": pl.UInt64})
    seen = read_seen(reader, site.window, site.gpus)
    none = pl.DataFrame(schema={"resource": pl.UInt64, "start": TIME, "end": TIME, "condition": pl.String})
    states = gpu_states(gpus, seen, none, site.window)
    dark = dict(
        states.filter(pl.col("health") == Health.DOWN).group_by("resource").agg(milliseconds().sum()).iter_rows()
    )
    silent = set(states.filter(pl.col("health") == Health.UNKNOWN)["resource"])
    start_s, end_s = site.window.start.timestamp(), site.window.end.timestamp()
    judged = 0
    for outage in site.simulation.outages(start_s, end_s):
        alone = sum(other.resource == outage.resource for other in site.simulation.outages(start_s, end_s)) == 1
        if outage.resource in fallen - silent and alone and outage.condition is GpuCondition.DOWN:
            true_s = min(outage.end_s or end_s, end_s) - max(outage.start_s, start_s)
            assert abs(dark[outage.resource] / 1000 - true_s) <= TICK_S
            judged += 1
    assert judged >= 1


def test_maintenance_makes_no_failure_at_its_ends(filled: tuple[TickedSite, Reader], data: SlaData) -> None:
    site, _ = filled
    start_s, end_s = site.window.start.timestamp(), site.window.end.timestamp()
    kept = [o for o in site.simulation.outages(start_s, end_s) if o.condition is GpuCondition.MAINTENANCE]
    assert kept
    truth = truly_down(site, data)
    for outage in kept:
        for gpu in data.tree.filter(pl.col("ancestor") == outage.resource)["gpu"].unique():
            if gpu not in truth:
                assert data.states.filter(pl.col("resource") == gpu, pl.col("health") == Health.DOWN).is_empty()


def test_each_outage_has_its_evidence_and_the_hash_of_it(folder: Path) -> None:
    checked = 0
    for page in folder.glob("*/sla-*.json"):
        document = json.loads(page.read_text())
        assert not [*document_problems("sla", document)]
        named = {outage["evidence_file"] for one in document["contracts"] for outage in one["outage_lines"]}
        assert named == {f"evidence/{path.name}" for path in (page.parent / "evidence").iterdir()}
        for contract in document["contracts"]:
            for outage in contract["outage_lines"]:
                evidence = json.loads((page.parent / outage["evidence_file"]).read_text())
                assert not [*document_problems("sla-evidence", evidence)]
                text = json.dumps(evidence["rows"], sort_keys=True, separators=(",", ":"), ensure_ascii=False)
                assert sha256(text.encode()).hexdigest() == evidence["sha256"] == outage["evidence_sha256"]
                assert evidence["rows"], outage
                assert outage["down_s"] + outage["unknown_s"] + outage["counted_s"] > 0
                checked += 1
    assert checked >= 10


def test_a_failure_is_restored_in_steps_that_add_up(folder: Path) -> None:
    outages = [outage for contract in contracts(folder) for outage in contract["outage_lines"] if outage["phases"]]
    assert outages
    for outage in outages:
        lasted_s = (datetime.fromisoformat(outage["end"]) - datetime.fromisoformat(outage["start"])).total_seconds()
        assert sum(length or 0 for length in outage["phases"].values()) == pytest.approx(lasted_s)
        assert min(length or 0 for length in outage["phases"].values()) >= 0


def contracts(folder: Path) -> list[dict[str, Any]]:
    return [one for page in folder.glob("*/sla-*.json") for one in json.loads(page.read_text())["contracts"]]


def text_of(file: Path) -> str:
    """All that a file says: of a workbook its parts, of a PDF the texts that it holds beside what it draws."""
    if file.suffix == ".xlsx":
        with zipfile.ZipFile(file) as book:
            return "\n".join(book.read(name).decode() for name in book.namelist())
    return file.read_bytes().decode("utf-8", "replace")


def test_a_customers_export_holds_nothing_of_another(filled: tuple[TickedSite, Reader], folder: Path) -> None:
    site, _ = filled
    resources = site.simulation.site.resources()
    trays = [tray for tray in resources if tray.kind == "tray"]
    gpus = {tray.id: [one for one in resources if one.kind == "gpu" and one.parent == tray.id] for tray in trays}
    for own, foreign, others in (("Aurora", trays[9:], (HOSTILE, "SLA-B")), (HOSTILE, trays[:9], ("Aurora", "SLA-A"))):
        files = [file for file in (folder / folder_name(own)).rglob("*") if file.is_file()]
        assert {file.suffix for file in files} == {".html", ".pdf", ".csv", ".xlsx", ".json"}
        text = "\n".join(text_of(file) for file in files)
        words = set(re.findall(r"[\w.-]+", text))
        names = {one.name for tray in foreign for one in (tray, *gpus[tray.id])}
        assert not names & words
        assert not [name for name in names if f'"{name}"' in text]
        assert not [other for other in others if other in text]


def test_hostile_names_stay_text_in_pages_and_inside_the_folder(folder: Path) -> None:
    inside = {path.relative_to(folder).parts[0] for path in folder.rglob("*")}
    assert inside == {
        *(f"{folder.name.replace('sla', 'sla-summary')}.{ending}" for ending in Format),
        folder_name("Aurora"), folder_name(HOSTILE),
    }  # fmt: skip
    assert list(folder.parent.iterdir()) == [folder]
    for page in (next(folder.glob("*.html")), next((folder / folder_name(HOSTILE)).glob("*.html"))):
        text = page.read_text()
        assert "<img" not in text
        assert "&lt;img src=x" in text
        assert "\u202e" not in text


def test_what_cannot_be_used_of_the_registers_is_told_to_the_operator_alone(folder: Path) -> None:
    document = json.loads(next(folder.glob("*.json")).read_text())
    assert not [*document_problems("sla-summary", document)]
    problems = document["problems"]
    assert [problem for problem in problems if "'no such rack' is not in the topology" in problem]
    assert "no such rack" not in "".join(text_of(page) for page in folder.glob("*/sla-*"))


def test_one_customer_alone_is_written_alone(filled: tuple[TickedSite, Reader], tmp_path: Path) -> None:
    site, reader = filled
    paths = write_drafts(reader, site, tmp_path, "Aurora")
    assert {path.parent.name for path in paths} == {folder_name("Aurora")}
    assert list(paths[0].parent.parent.iterdir()) == [paths[0].parent]
    with pytest.raises(ValueError, match=r"no SLA contract with 'Nobody'.*'Aurora'"):
        write_drafts(reader, site, tmp_path, "Nobody")


def test_a_gpu_of_two_contracts_is_refused(filled: tuple[TickedSite, Reader], data: SlaData) -> None:
    site, _ = filled
    twice = data.allocations.with_columns(contract=pl.lit("SLA-B"))
    both = replace(data, allocations=pl.concat([data.allocations, twice]))
    with pytest.raises(ValueError, match=r"allocated to two contracts from .* correct the register allocations"):
        build_sla(both, day_of(site), now=site.window.end)


def test_the_hour_tier_saves_reading_and_changes_nothing(
    filled: tuple[TickedSite, Reader], data: SlaData, door: DoorUnderTest
) -> None:
    """Written here for the hours of the window, as the keeper does; every state stays the same."""
    site, reader = filled
    first, last = site.window.start - timedelta(hours=2), site.window.end
    bounds = {"first": first, "last": last, "computed_at": datetime.now(UTC)}
    with closing(connect(door.address())) as client:
        client.command(hour_insert(GPU), parameters=bounds)
    again = read_sla(reader, day_of(site), site.window.end)
    assert again.states.equals(data.states)


def test_pages_are_html(folder: Path) -> None:
    tidy = shutil.which("xmllint")
    for page in folder.rglob("*.html"):
        text = page.read_text()
        assert text.startswith("<!doctype html>")
        assert "None" not in re.sub(r"<[^>]*>", "", text).replace("None.", "")
        if tidy:
            checked = subprocess.run([tidy, "--html", "--noout", page], capture_output=True, text=True, check=False)
            assert "error" not in checked.stderr.replace("Tag", "") or "invalid" in checked.stderr


def test_each_customers_report_is_frozen_and_restated_by_itself(
    filled: tuple[TickedSite, Reader], door: DoorUnderTest, tmp_path: Path
) -> None:
    """An exclusion that is registered late moves one customer's report, which says so, and nobody else's."""
    site, _ = filled
    period = day_of(site)
    now = period.end + timedelta(hours=1)
    make_key(tmp_path / "officer.key")
    public = read_public_key(tmp_path / "officer.key.pub")
    freezing = FreezeRequest(approver="Service Officer", key=read_private_key(tmp_path / "officer.key"))
    request = PublishRequest(out=tmp_path, formats=(Format.JSON, Format.HTML), freezing=freezing)
    with closing(connect(door.address())) as client:
        read = partial(sla_reading(None), Reader(client), period, now)
        chain = FrozenChain(client)
        first = [publish(chain, one, request, now=now) for one in read()]
        assert [one.frozen.record["report"] for one in first if one.frozen] == [
            "sla " + HOSTILE, "sla Aurora", "sla-summary",
        ]  # fmt: skip
        own = tmp_path / f"sla-{period.text}" / folder_name("Aurora")
        outage = longest_outage(own / f"sla-{period.text}-r1.json")
        bring(client, RegisterKind.EXCLUSIONS, [excluded(outage, site)])
        of_other, of_aurora, _ = read()
        assert publish(chain, of_other, request, now=now).sentences[0].startswith("nothing moved")
        with pytest.raises(FrozenMonthError, match="exclusion force majeure left out of SLA-A: nothing to"):
            publish(chain, of_aurora, request, now=now)
        assert verify(own / outage["evidence_file"], trusted=[public], client=client)
        again = replace(request, freezing=replace(freezing, reason="The grid company confirmed its fault."))
        second = publish(chain, of_aurora, again, now=now)
        assert len(frozen_lines(client, trusted=[public])) == 4
        replaced = verify(own / f"sla-{period.text}-r1.frozen.json", trusted=[public], client=client)
    assert second.frozen is not None
    moved = {(change["key"].split(" ")[0], change["title"]) for change in second.frozen.record["changes"]}
    assert ("exclusion", "force majeure left out of SLA-A") in moved
    assert ("SLA-A", "Contractual availability, SLA-A") in moved
    assert {kind for kind, _ in moved} == {"exclusion", "outage", "evidence", "SLA-A"}
    assert not [text for text in (HOSTILE, "SLA-B") if text in json.dumps(second.frozen.document())]
    assert replaced[-1].endswith("sla Aurora " + period.text + " restatement 2 replaces it")
    page = (own / f"sla-{period.text}-r2.html").read_text()
    assert "This report replaces restatement 1 of the same period." in page
    assert "The grid company confirmed its fault." in page
    forged = own / outage["evidence_file"]
    forged.chmod(0o644)
    forged.write_text(forged.read_text().replace('"source"', '"Source"'))
    with pytest.raises(ForgedError, match=r"evidence/outage-.* was altered"):
        verify(own / f"sla-{period.text}-r1.frozen.json", trusted=[public])


def longest_outage(document: Path) -> dict[str, Any]:
    (contract,) = json.loads(document.read_text())["contracts"]
    found: dict[str, Any] = max(contract["outage_lines"], key=lambda outage: outage["counted_s"])
    assert found["counted_s"] > 0
    return found


def excluded(outage: dict[str, Any], site: TickedSite) -> dict[str, str]:
    """The row of the register exclusions that leaves an outage out."""
    tray = next(one for one in site.simulation.site.resources() if one.name == outage["unit"])
    return {
        "reference": "GRID-1", "cause": "force_majeure", "resource_kind": "tray", "resource": tray.identity,
        "start": outage["start"], "end": outage["end"],
    }  # fmt: skip

"""The demo as a user runs it: its account holds, and one frame lost or doubled on purpose is found to the row."""

import json
import re
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from catalogue import TABLES, TRAY
from storage.client import connect
from tests.servers.stack import Finished, StoreServer, run

GPUS = 64
DAYS = 3  # of history; a newcomer's whole month is simulated in tests/docs/test_guides_run.py
DEMO_TIMEOUT_S = 240.0
ROW_COUNTS = ("produced", "stored", "lost", "duplicated")


@dataclass(frozen=True, slots=True)
class DemoRun:
    """A demo that has ended: what it said, what it wrote. Any is the summary's JSON."""

    finished: Finished
    summary: dict[str, Any]
    out: Path


def demo(folder: Path, *arguments: str) -> DemoRun:
    out, summary = folder / "demo", folder / "summary.json"
    finished = run("demo", "--once", "--out", str(out), "--summary", str(summary), *arguments, timeout_s=DEMO_TIMEOUT_S)
    assert "Traceback" not in finished.err
    assert summary.exists(), finished.err
    return DemoRun(finished, json.loads(summary.read_text()), out)


def simulated_demo(folder: Path, *arguments: str) -> DemoRun:
    return demo(folder, "--source", "simulator", "--gpus", str(GPUS), "--days", str(DAYS), "--seconds", "5", *arguments)


def test_the_account_of_an_undisturbed_demo_holds(tmp_path: Path) -> None:
    ran = simulated_demo(tmp_path)

    summary = ran.summary
    assert ran.finished.code == 0
    assert summary["lost"] == summary["duplicated"] == 0
    assert summary["stored"] == summary["produced"] > 0
    assert "every row that was produced is stored, once" in ran.finished.out
    assert_summary_is_whole(summary)
    assert_page_needs_nothing_else(Path(summary["report"]))
    assert_store_agrees(ran)


def test_a_frame_dropped_on_purpose_is_found_to_the_row(tmp_path: Path) -> None:
    ran = simulated_demo(tmp_path, "--fault", "drop")

    rows = assert_store_agrees(ran)
    assert ran.finished.code == 1
    assert ran.summary["lost"] == rows
    assert ran.summary["duplicated"] == 0
    assert ran.summary["stored"] == ran.summary["produced"] - rows
    assert ran.summary["tables"]["gpu"]["lost"] == rows
    assert f"THE ACCOUNT DOES NOT HOLD: {rows:,} rows of gpu lost\n" in ran.finished.out
    assert_summary_is_whole(ran.summary)


def test_a_frame_doubled_on_purpose_is_found_to_the_row(tmp_path: Path) -> None:
    ran = simulated_demo(tmp_path, "--fault", "double")

    rows = assert_store_agrees(ran)
    assert ran.finished.code == 1
    assert ran.summary["lost"] == 0
    assert ran.summary["duplicated"] == rows
    assert ran.summary["stored"] == ran.summary["produced"] + rows
    assert ran.summary["tables"]["gpu"]["duplicated"] == rows
    assert f"THE ACCOUNT DOES NOT HOLD: {rows:,} rows of gpu duplicated\n" in ran.finished.out


def test_the_demo_of_this_machine_prints_its_readings_with_units(tmp_path: Path) -> None:
    ran = demo(tmp_path, "--source", "host", "--seconds", "8")

    assert ran.finished.code == 0
    assert ran.summary["report"] is None
    assert ran.summary["stored"] == ran.summary["produced"] > 0
    assert re.search(r"^tray [0-9a-f]{16} at 20\d\d-\d\d-\d\d \d\d:\d\d:\d\d UTC$", ran.finished.out, re.MULTILINE)
    symbols = {metric.name: metric.unit.symbol for metric in TRAY.metrics}
    shown = re.findall(r"^  ([a-z_0-9]+) +(-?[\d,.e+-]+) (\S+)  ", ran.finished.out, re.MULTILINE)
    assert "memory_used_bytes" in {name for name, _, _ in shown}
    assert all(symbols[name] == symbol for name, _, symbol in shown)


# --- what is checked


def assert_summary_is_whole(summary: dict[str, Any]) -> None:
    """Every part is there and adds up, table by table and source by source."""
    assert set(summary) == {
        *ROW_COUNTS,
        "rows_per_second",
        "seconds",
        "tables",
        "produced_by_source",
        "report",
        "clickhouse",
        "dashboards",
    }
    assert set(summary["seconds"]) == {"start", "month", "live", "count", "report"}
    assert all(seconds > 0 for seconds in summary["seconds"].values())
    assert summary["rows_per_second"] > 0
    assert set(summary["tables"]) <= {table.name for table in TABLES}
    for part in ROW_COUNTS:
        assert sum(table[part] for table in summary["tables"].values()) == summary[part]
    for table, counted in summary["tables"].items():
        assert counted["stored"] == counted["produced"] - counted["lost"] + counted["duplicated"]
        assert sum(summary["produced_by_source"][table].values()) == counted["produced"]


def assert_store_agrees(ran: DemoRun) -> int:
    """The demo's folder, asked by itself afterwards, says the same; returns the rows of the frame a fault is about."""
    with StoreServer.start(ran.out / "clickhouse") as server:
        client = connect(server.address())
        for table, counted in ran.summary["tables"].items():
            ((rows, keys),) = client.query(f"SELECT count(), uniqExact(resource, time) FROM {table}").result_rows  # noqa: S608
            assert rows == counted["stored"]
            assert rows - keys == counted["duplicated"]
            sent = client.query(
                "SELECT sum(rows) FROM frames WHERE table_name = {table:String} AND outcome = 'stored'",
                parameters={"table": table},
            )
            assert sent.result_rows[0][0] == counted["produced"]
        first = client.query("SELECT rows FROM frames WHERE table_name = 'gpu' ORDER BY checked_at, partition, offset")
        return int(first.result_rows[0][0])


class _References(HTMLParser):
    """Collects what a page would have to load."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        names = ("src", "srcset", "data", "poster") + (("href",) if tag in ("link", "use", "image") else ())
        self.found += [value for name, value in attributes if name in names and value]


def assert_page_needs_nothing_else(page: Path) -> None:
    text = page.read_text()
    references = _References()
    references.feed(text)
    assert text.lstrip().lower().startswith("<!doctype html>")
    assert [found for found in references.found if not found.startswith(("data:", "#"))] == []
    assert not re.search(r"@import|url\(\s*['\"]?(?!data:|#)", text)
    assert len(text) > 10_000

"""The table of goals, and the page that is written of what was measured."""

import json
from pathlib import Path

import pytest

from benchmarks import page
from benchmarks.__main__ import BASELINE
from benchmarks.goals import GOALS, Goal, reached
from benchmarks.growth import COLUMNS, widened
from benchmarks.kafka_race import read_frames, write_frames
from benchmarks.soak import Series
from benchmarks.suite import BENCHMARKS, machine, names
from benchmarks.tables import SECTIONS
from catalogue import layout_of
from storage.ddl import raw_table

AGENT = {
    "agent": {"processor_percent_of_a_core": 0.4, "resident_mb": 61.0, "processor_ms_per_tick": 4.0},
    "bare_loop_of_the_same_reads": {"processor_ms_per_tick": 2.5},
}


def goal(key: str) -> Goal:
    return next(one for one in GOALS if one.key == key)


def test_every_goal_is_of_a_benchmark_and_has_a_key_of_its_own() -> None:
    assert {one.benchmark for one in GOALS} <= set(BENCHMARKS)
    assert len({one.key for one in GOALS}) == len(GOALS)


def test_the_page_is_what_was_measured() -> None:
    measured = json.loads(page.MEASURED.read_text())
    for path, text in page.files(measured).items():
        assert (page.ROOT / path).read_text() == text, f"{path} is not what benchmarks/measured.json says: make bench"


def test_a_quick_run_has_something_to_be_held_against() -> None:
    of_quick = {one.key for one in GOALS if one.is_ratio and one.benchmark in names(quick=True)}
    assert set(json.loads(BASELINE.read_text())) <= of_quick


def test_what_was_not_measured_or_failed_is_said_and_what_is_not_reached_has_its_reason() -> None:
    measurements = {
        "agent": {"date": "2026-11-29", "load_before": 0.2, "document": AGENT},
        "gateway": {"date": "2026-11-29", "load_before": 0.2, "failed": "took longer than 5 s"},
    }
    text = page.files({"machine": machine(), "measurements": measurements})[page.PAGE]
    lines = {one.what: next(line for line in text.splitlines() if line.startswith(f"| {one.what} |")) for one in GOALS}
    assert "| 61 MB | ≤ 60 MB | **not reached** |" in lines[goal("agent_memory").what]
    assert f"* {goal('agent_memory').what}: {goal('agent_memory').why}." in text
    assert "| 4 ms | ≤ 5 ms | reached |" in lines[goal("agent_tick").what]
    assert "| not measured |" in lines[goal("gateway").what]
    assert "Failed: took longer than 5 s." in text


@pytest.mark.parametrize(
    ("key", "before", "within", "beyond"), [("drain_40", 0.6, 0.41, 0.39), ("agent_beside", 1.5, 1.9, 2.1)]
)
def test_a_ratio_has_regressed_when_it_is_worse_by_more_than_a_third(
    key: str, before: float, within: float, beyond: float
) -> None:
    assert not goal(key).has_regressed(within, before)
    assert goal(key).has_regressed(beyond, before)


def test_a_smaller_run_leaves_out_what_it_does_not_measure() -> None:
    small = {"rows_per_message": 40, "drained": [{"what": "embedded broker", "ratio_to_ready_blocks": 0.7}]}
    found = {one.key: value for one, value in reached({"ingest_drain": {"document": [small]}})}
    assert (found["drain_40_embedded"], found["drain_40"], found["drain_80"]) == (0.7, None, None)


def test_every_section_is_of_a_benchmark() -> None:
    assert set(SECTIONS) <= set(BENCHMARKS)


@pytest.mark.parametrize("columns", COLUMNS)
def test_a_widened_table_has_its_columns_under_names_of_their_own(columns: int) -> None:
    table = widened(columns)
    names_of_columns = {metric.column for metric in table.metrics}
    assert len(names_of_columns) == columns
    assert all(f" {name} " in raw_table(table) for name in names_of_columns)
    assert len(layout_of(table).fields) == columns + 2


def test_a_series_that_rises_after_its_warm_up_is_told_by_its_mean() -> None:
    # A third of warm-up does not count; from there it goes from 90 to 110, which is a fifth of its mean.
    at_s = [float(second) for second in range(31)]
    values = [0.0 if second < 10 else 80.0 + second for second in range(31)]
    assert Series(at_s, values).grew_percent() == pytest.approx(20.0)
    assert Series(at_s, [5.0] * 31).grew_percent() == pytest.approx(0.0)


def test_frames_go_to_another_client_by_way_of_a_file(tmp_path: Path) -> None:
    frames = [(b"eight by", b"x" * size) for size in (1, 300, 70_000)]
    write_frames(tmp_path / "frames", iter(frames))
    assert read_frames(tmp_path / "frames") == frames

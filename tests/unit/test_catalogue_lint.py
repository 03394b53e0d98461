"""Lint: every policy catches what it is there for, and today's catalogue breaks none."""

import json
import subprocess
from collections.abc import Callable
from dataclasses import astuple, replace
from datetime import timedelta
from fractions import Fraction
from pathlib import Path

import pytest

from catalogue import GPU, Field, Kind, Layout, Metric, ResourceKind, Retention, Table, layout_of, units
from catalogue.lint import (
    MAX_EXTREMES,
    MAX_SKETCHES,
    METRIC_POLICIES,
    TABLE_POLICIES,
    dropped_layouts,
    layouts_before,
    layouts_only_grow,
    lint,
    main,
    prometheus_names_are_valid_and_unique,
    table_names_are_unique,
)
from catalogue.origins import NvmlField
from catalogue.types import I16, U8, U16

DAY = timedelta(days=1)
MILLI = Fraction(1, 1000)
GOOD = Metric(
    name="power_watts",
    unit=units.WATTS,
    kind=Kind.GAUGE,
    stored=U16,
    brief="Power draw of the board",
    origins=(NvmlField(186),),
)
STATE = replace(GOOD, name="leak_state", unit=units.STATE, kind=Kind.STATE, stored=U8, states=((1, "dry"), (2, "wet")))
MASK = replace(
    GOOD, name="slow_reasons", unit=units.REASONS, kind=Kind.BITS, stored=U8, states=((1, "hot"), (2, "cap"))
)
ALL_BITS = tuple((1 << bit, f"bit {bit}") for bit in range(8))

BAD_METRICS = [
    (replace(GOOD, name="Power_watts"), "lower-case words"),
    (replace(GOOD, name="power__watts"), "lower-case words"),
    (replace(GOOD, name="power"), "let the name end in _watts"),
    (replace(GOOD, name="megawatts"), "let the name end in _watts"),
    (replace(STATE, name="leak"), "let the name end in _state"),
    (replace(STATE, name="leak_watts", unit=units.WATTS), "give it the unit state"),
    (replace(MASK, name="slow_state", unit=units.STATE), "give it the unit reasons"),
    (replace(GOOD, name="power_state", unit=units.STATE), "not for a gauge"),
    (replace(GOOD, kind=Kind.DELTA), "do not add up"),
    (replace(GOOD, name="flow_celsius", unit=units.CELSIUS, kind=Kind.REGISTER), "do not add up"),
    (replace(GOOD, brief="power draw"), "without a capital"),
    (replace(GOOD, brief=""), "without a capital"),
    (replace(GOOD, brief="Power draw."), "without a full stop"),
    (replace(GOOD, brief="Power draw. Of the board"), "without a full stop"),
    (replace(GOOD, brief="Power draw "), "without a full stop"),
    (replace(GOOD, origins=()), "give it an origin"),
    (replace(GOOD, resolution=Fraction(0)), "resolution is 0"),
    (replace(GOOD, resolution=Fraction(-1, 10)), "resolution is -1/10"),
    (
        replace(GOOD, name="load_ratio", unit=units.RATIO, stored=U8, resolution=Fraction(1, 1000)),
        "ends at 0.254 ratio",
    ),
    (replace(GOOD, name="inlet_celsius", unit=units.CELSIUS, resolution=MILLI), "ends at 65.534 celsius"),
    (replace(STATE, extremes=True), "drop `extremes`"),
    (replace(MASK, sketch=True), "and `sketch`"),
    (replace(GOOD, states=((1, "on"),)), "only states and masks"),
    (replace(STATE, states=((255, "wet"),)), "stands for absent"),
    (replace(STATE, states=((256, "wet"),)), "outside UInt8"),
    (replace(STATE, states=((-1, "wet"),)), "outside UInt8"),
    (replace(STATE, states=((1, "dry"), (1, "wet"))), "stored as 1"),
    (replace(STATE, states=((1, "dry"), (2, "dry"))), "called 'dry'"),
    (replace(MASK, states=((3, "both"),)), "not a single bit"),
    (replace(MASK, states=((0, "none"),)), "not a single bit"),
    (replace(MASK, states=ALL_BITS), "which is absent"),
    (replace(MASK, stored=I16), "no bit for its sign"),
]


def table(
    *metrics: Metric, name: str = "board", cadence_s: int = 1, keep: tuple[int, int, int] = (7, 90, 365)
) -> Table:
    raw, minute, hour = keep
    return Table(
        name, (ResourceKind.GPU,), "Boards", cadence_s, Retention(raw * DAY, minute * DAY, hour * DAY), metrics
    )


def many(count: int, change: Callable[[Metric], Metric]) -> tuple[Metric, ...]:
    return tuple(change(replace(GOOD, name=f"power{n}_watts", brief=f"Power draw {n}")) for n in range(count))


BAD_TABLES = [
    (table(GOOD, replace(GOOD, brief="Another")), "board.power_watts: the table has two metrics"),
    (table(GOOD, replace(GOOD, name="heat_watts")), "two metrics are described as 'Power draw of the board'"),
    (table(*many(MAX_EXTREMES + 1, lambda m: replace(m, extremes=True))), "9 metrics keep extremes"),
    (table(*many(MAX_SKETCHES + 1, lambda m: replace(m, sketch=True))), "3 metrics keep a sketch"),
    (table(GOOD, cadence_s=0), "cadence is 0 s"),
    (table(GOOD, keep=(0, 90, 365)), "keep coarser tiers"),
    (table(GOOD, keep=(91, 90, 365)), "kept 91 days raw, 90 by minute"),
    (table(GOOD, keep=(7, 366, 365)), "366 by minute and 365 by hour"),
    (table(GOOD, name="Board"), "snake_case of at most 16 bytes"),
    (table(GOOD, name="a_name_of_seventeen"), "snake_case of at most 16 bytes"),
    (Table("board", (), "Boards", 1, GPU.retention, (GOOD,)), "no kind of resource"),
]


def test_todays_catalogue_breaks_no_policy(capsys: pytest.CaptureFixture[str]) -> None:
    assert lint() == []
    assert main() == 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("metric", "sentence"), BAD_METRICS, ids=lambda case: case if isinstance(case, str) else None)
def test_metric_policy_catches(metric: Metric, sentence: str) -> None:
    found = [said for policy in METRIC_POLICIES for said in policy(table(metric), metric)]
    assert [said for said in found if sentence in said] != []
    assert all(said.startswith(f"board.{metric.name}: ") for said in found)


@pytest.mark.parametrize("metric", [GOOD, STATE, MASK])
def test_metric_policies_leave_good_metrics_alone(metric: Metric) -> None:
    assert [said for policy in METRIC_POLICIES for said in policy(table(metric), metric)] == []


@pytest.mark.parametrize(("bad", "sentence"), BAD_TABLES, ids=lambda case: case if isinstance(case, str) else None)
def test_table_policy_catches(bad: Table, sentence: str) -> None:
    found = [said for policy in TABLE_POLICIES for said in policy(bad)]
    assert [said for said in found if sentence in said] != []


def test_as_many_extremes_and_sketches_as_allowed_are_fine() -> None:
    full = many(MAX_EXTREMES, lambda m: replace(m, extremes=True, sketch=m.name in ("power0_watts", "power1_watts")))
    assert [said for policy in TABLE_POLICIES for said in policy(table(*full))] == []


def test_names_that_meet_on_the_metrics_page_are_caught() -> None:
    # The table's name is said once, so these two become one.
    twins = table(STATE, replace(STATE, name="board_leak_state", brief="Another"))
    assert list(prometheus_names_are_valid_and_unique([twins])) == [
        "kvandal_board_leak_state: two metrics have this name on /metrics; rename one"
    ]


def test_name_that_prometheus_does_not_take_is_caught() -> None:
    (said,) = prometheus_names_are_valid_and_unique([table(replace(GOOD, name="power-watts"))])
    assert "not a name that Prometheus takes" in said


def test_two_tables_of_one_name_are_caught() -> None:
    assert list(table_names_are_unique([table(GOOD), table(STATE)])) == [
        "board: there are two tables of this name; rename one"
    ]


def test_lint_reports_and_fails_on_a_bad_catalogue() -> None:
    sentences = lint([table(replace(GOOD, brief="power draw"))])
    assert any("without a capital" in said for said in sentences)
    assert any("layouts.json does not end with today's layout" in said for said in sentences)


# Layouts


def grown(*metrics: Metric) -> tuple[Layout, ...]:
    """One layout for each number of metrics, as a table that grew one by one would have."""
    return tuple(layout_of(table(*metrics[: n + 1])) for n in range(len(metrics)))


def test_a_table_that_only_grew_is_fine() -> None:
    assert list(layouts_only_grow([table(GOOD, STATE, MASK)], {"board": grown(GOOD, STATE, MASK)})) == []


@pytest.mark.parametrize(
    ("today", "sentence"),
    [
        (table(GOOD), "board.leak_state_raw: it was <u1 in steps of 1 and is now gone"),
        (table(STATE, GOOD), "board.power_watts_raw: it was <u2 in steps of 1 and is now leak_state_raw, <u1"),
        (table(replace(GOOD, stored=I16), STATE), "is now power_watts_raw, <i2 in steps of 1"),
        (table(replace(GOOD, resolution=Fraction(1, 10)), STATE), "is now power_watts_raw, <u2 in steps of 1/10"),
        (table(replace(GOOD, name="draw_watts"), STATE), "is now draw_watts_raw"),
    ],
)
def test_removed_moved_retyped_rescaled_and_renamed_metrics_are_caught(today: Table, sentence: str) -> None:
    found = list(layouts_only_grow([today], {"board": grown(GOOD, STATE)}))
    assert any(sentence in said for said in found)


def test_a_break_between_old_layouts_is_caught() -> None:
    broken = (layout_of(table(STATE)), layout_of(table(GOOD, STATE)))
    found = list(layouts_only_grow([table(GOOD, STATE)], {"board": broken}))
    assert len(found) == 1
    assert "board.leak_state_raw: it was <u1" in found[0]


def test_todays_layout_must_be_the_last() -> None:
    older_last = tuple(reversed(grown(GOOD, STATE)))
    assert any(
        "does not end with today's" in said for said in layouts_only_grow([table(GOOD, STATE)], {"board": older_last})
    )


def test_a_removed_table_is_caught() -> None:
    (said,) = layouts_only_grow([], {"board": grown(GOOD)})
    assert said.startswith("board: layouts.json knows this table, the catalogue does not")


def text_of(*layouts: Layout) -> str:
    entries = [{"table": layout.table, "fields": [astuple(field) for field in layout.fields]} for layout in layouts]
    return json.dumps({"note": "", "layouts": entries})


OLD, NEW = grown(GOOD, STATE)
OTHER = Layout("other", (Field("resource", "<u8", "1"),))


def test_a_file_that_only_grew_has_dropped_nothing() -> None:
    assert dropped_layouts(text_of(OLD, NEW, OTHER), text_of(OLD)) == []
    assert dropped_layouts(text_of(OTHER, OLD), text_of(OLD)) == []


@pytest.mark.parametrize("committed", [(), (NEW,), (NEW, OLD), (OTHER, NEW)])
def test_a_layout_that_has_gone_or_moved_back_is_named(committed: tuple[Layout, ...]) -> None:
    (said,) = dropped_layouts(text_of(*committed), text_of(OLD))
    assert f"layout {OLD.fingerprint:016x} of board" in said


def test_an_entry_edited_in_place_counts_as_dropped() -> None:
    edited = text_of(OLD).replace('"<u2"', '"<u4"')
    assert len(dropped_layouts(edited, text_of(OLD))) == 1


def test_layouts_are_compared_with_the_commit_before(tmp_path: Path) -> None:
    file = tmp_path / "layouts.json"
    assert layouts_before(file) is None  # no clone

    def commit(text: str) -> None:
        file.write_text(text)
        who = ["-c", "user.name=nobody", "-c", "user.email=nobody@example.org"]
        subprocess.run(["git", "add", file.name], cwd=tmp_path, check=True)
        subprocess.run(["git", *who, "commit", "--quiet", "--message", "layouts"], cwd=tmp_path, check=True)

    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    commit(text_of(OLD))
    assert layouts_before(file) is None  # the first commit has none before it
    commit(text_of(NEW))
    assert layouts_before(file) == text_of(OLD)

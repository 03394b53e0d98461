"""What an import would change: held against the rows that hold already."""

from collections.abc import Sequence

import polars as pl

from reports.registers_import.changes import Changes, bounds_of, compare, overlap_problems, withdrawal_problems
from reports.registers_import.rows import read_rows
from storage.register_kinds import RegisterKind
from storage.registers import ROWS, RegisterRow

HEADER = "meter,first_day,last_day,volume_cubic_metres,potable,withdrawn\n"
VERSION = "0b0e7a3c-0000-4000-8000-000000000000"


def water(*lines: str) -> tuple[RegisterRow, ...]:
    return read_rows("water.csv", (HEADER + "\n".join(lines) + "\n").encode(), RegisterKind.WATER)


def stored(rows: Sequence[RegisterRow]) -> pl.DataFrame:
    """The rows as `storage.registers.read_rows` gives them."""
    cells = [
        (
            str(row.key_id),
            VERSION,
            row.line,
            row.text,
            row.begins_at.replace(tzinfo=None),
            row.ends_at.replace(tzinfo=None),
        )
        for row in rows
    ]
    plain = {**ROWS, "begins_at": pl.Datetime("ms"), "ends_at": pl.Datetime("ms")}
    frame = pl.DataFrame(cells, schema=plain, orient="row")
    return frame.with_columns(pl.col("begins_at", "ends_at").dt.replace_time_zone("UTC"))


OCTOBER = "W,2026-10-01,2026-10-31,412.7,yes,"
NOTHING = stored(())


def test_rows_are_new_corrected_withdrawn_or_as_before() -> None:
    held = stored(water(OCTOBER, "V,2026-10-01,2026-10-31,5,no,", "U,2026-10-01,2026-10-31,5,no,"))
    file = water(
        OCTOBER,
        "V,2026-10-01,2026-10-31,6,no,",
        "U,2026-10-01,2026-10-31,5,no,yes",
        "T,2026-10-01,2026-10-31,5,no,",
        "S,2026-10-01,2026-10-31,5,no,",
    )
    changes = compare(file, held)
    assert changes == Changes(added=2, corrected=1, withdrawn=1, repeated=1)
    assert changes.sentence() == "2 new, 1 corrected, 1 withdrawn, 1 as before"


def test_what_holds_already_changes_nothing() -> None:
    assert compare(water(OCTOBER), stored(water(OCTOBER))).is_none
    assert compare(water(OCTOBER + "yes"), NOTHING).is_none
    assert not compare(water(OCTOBER), NOTHING).is_none


def test_to_withdraw_what_does_not_hold_is_a_slip() -> None:
    slip = water("W,2026-10-02,2026-10-31,412.7,yes,yes")
    (problem,) = withdrawal_problems(slip, stored(water(OCTOBER)))
    assert problem.startswith("line 2: withdraws a row that does not hold")
    assert list(withdrawal_problems(water(OCTOBER + "yes"), stored(water(OCTOBER)))) == []


def test_a_meter_cannot_count_one_day_twice() -> None:
    rows = water("W,2026-10-01,2026-10-31,1,no,", "V,2026-10-31,2026-11-30,1,no,", "W,2026-10-31,2026-11-30,1,no,")
    (problem,) = overlap_problems(RegisterKind.WATER, rows, NOTHING)
    assert problem == (
        "line 4: meter W from 2026-10-31T00:00Z overlaps line 2, which lasts until 2026-11-01T00:00Z; "
        "correct one of them, or withdraw it"
    )


def test_times_that_touch_do_not_overlap() -> None:
    rows = water("W,2026-10-01,2026-10-31,1,no,", "W,2026-11-01,2026-11-30,1,no,", "W,2026-09-01,2026-09-30,1,no,")
    assert overlap_problems(RegisterKind.WATER, rows, NOTHING) == []


def test_a_long_row_overlaps_all_that_begin_within_it() -> None:
    rows = water("W,2026-01-01,2026-12-31,1,no,", "W,2026-02-01,2026-02-28,1,no,", "W,2026-03-01,2026-03-31,1,no,")
    problems = overlap_problems(RegisterKind.WATER, rows, NOTHING)
    assert [problem.partition(":")[0] for problem in problems] == ["line 3", "line 4"]
    assert all("overlaps line 2," in problem for problem in problems)


def test_a_row_overlaps_what_an_earlier_version_says() -> None:
    (problem,) = overlap_problems(RegisterKind.WATER, water("W,2026-10-15,2026-11-14,1,no,"), stored(water(OCTOBER)))
    assert problem.startswith("line 2: meter W from 2026-10-15T00:00Z overlaps line 2 of version 0b0e7a3c, ")


def test_a_row_that_the_same_file_corrects_or_withdraws_is_not_overlapped() -> None:
    held = stored(water(OCTOBER))
    halves = ("W,2026-10-01,2026-10-15,200,yes,", "W,2026-10-16,2026-10-31,212.7,yes,")
    assert overlap_problems(RegisterKind.WATER, water(*halves), held) == []
    moved = (OCTOBER + "yes", "W,2026-10-02,2026-10-31,412.7,yes,")
    assert overlap_problems(RegisterKind.WATER, water(*moved), held) == []
    assert len(overlap_problems(RegisterKind.WATER, water(moved[1]), held)) == 1


def test_overlaps_among_stored_rows_are_not_this_files_problem() -> None:
    held = stored(water(OCTOBER, "W,2026-10-05,2026-10-06,1,no,"))
    assert overlap_problems(RegisterKind.WATER, water("W,2026-12-01,2026-12-31,1,no,"), held) == []


def test_registers_about_no_time_cannot_overlap() -> None:
    rows = read_rows("t.csv", b"job,tokens\n1,2\n2,3\n", RegisterKind.JOB_TOKENS)
    assert overlap_problems(RegisterKind.JOB_TOKENS, rows, NOTHING) == []


def test_an_open_contract_overlaps_its_successor() -> None:
    header = "contract,contract_kind,party,first_day,last_day,agreed_celsius,heat_price_per_mwh,currency\n"
    text = header + "C,heat,A,2026-07-01,,45,120,NOK\nC,heat,A,2027-01-01,,47,120,NOK\n"
    (problem,) = overlap_problems(
        RegisterKind.CONTRACTS, read_rows("c.csv", text.encode(), RegisterKind.CONTRACTS), NOTHING
    )
    assert problem.startswith("line 3: contract C from 2027-01-01T00:00Z overlaps line 2")


def test_the_bounds_of_a_file_are_those_of_all_its_rows() -> None:
    rows = water("W,2026-10-01,2026-10-31,1,no,", "V,2026-09-01,2026-12-31,1,no,")
    begin, end = bounds_of(rows)
    assert (begin.isoformat(), end.isoformat()) == ("2026-09-01T00:00:00+00:00", "2027-01-01T00:00:00+00:00")

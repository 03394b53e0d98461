"""A register's CSV: what is read from it, and every sentence about what is wrong with it."""

import json
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reports.registers_import.cells import LONGEST_TEXT
from reports.registers_import.problems import SHOWN, RegisterFileError
from reports.registers_import.rows import read_rows
from reports.registers_import.terms import CreditTier, parse_credit_tiers
from storage.register_kinds import RegisterKind
from storage.registers import ALWAYS, FOREVER, RegisterRow, typed

WATER = "meter,first_day,last_day,volume_cubic_metres,potable\n"
SETTLED = "meter,start,energy_kwh,direction\n"
GUARANTEE = (
    "certificate_id,instrument,technology,country,first_day,last_day,energy_mwh,issued_on,"
    "cancelled_on,cancellation_id,beneficiary\n"
)
CONTRACT = "contract,contract_kind,party,first_day,last_day,unit,target_percent,minimum_outage_s,credit_tiers,"
CONTRACT += "unknown_counts_as,rack_minimum_trays,agreed_celsius,heat_price_per_mwh,currency\n"


def rows_of(kind: RegisterKind, text: str | bytes) -> tuple[RegisterRow, ...]:
    return read_rows("file.csv", text if isinstance(text, bytes) else text.encode(), kind)


def problems_of(kind: RegisterKind, text: str | bytes) -> tuple[str, ...]:
    with pytest.raises(RegisterFileError) as caught:
        rows_of(kind, text)
    return caught.value.problems


def frame_of(kind: RegisterKind, text: str) -> pl.DataFrame:
    """The frame that reports would get, without a store between."""
    rows = [("v", row.line, row.text) for row in rows_of(kind, text)]
    schema = {"version": pl.String(), "line": pl.UInt32(), "text": pl.String()}
    return typed(pl.DataFrame(rows, schema=schema, orient="row"), kind)


# What is read


def test_cells_become_values_of_their_kind_and_empty_cells_are_absent() -> None:
    frame = frame_of(
        RegisterKind.GUARANTEES_OF_ORIGIN,
        GUARANTEE + 'A-1,go,hydro,NO,2026-01-01,2026-01-31,1500.25,2026-02-10,2026-11-05,C-1,"Kvandal, site 1"\n'
        "A-2,ppa,wind,SE,2026-01-01,2026-01-31,7e2,2026-02-10,,,\n",
    )
    first, second = frame.iter_rows(named=True)
    assert first["energy_mwh"] == 1500.25
    assert first["first_day"].isoformat() == "2026-01-01"
    assert first["beneficiary"] == "Kvandal, site 1"
    assert (second["energy_mwh"], second["cancelled_on"], second["beneficiary"]) == (700.0, None, None)
    assert frame["import_line"].to_list() == [2, 3]


def test_times_are_told_apart_by_their_offset_when_clocks_go_back() -> None:
    """25 October 2026: 02:00 comes twice in Norway, an hour apart."""
    frame = frame_of(
        RegisterKind.SETTLEMENT,
        SETTLED + "M,2026-10-25T02:00+02:00,1,import\nM,2026-10-25T02:00+01:00,2,import\n",
    )
    assert frame["start"].to_list() == [datetime(2026, 10, 25, 0, tzinfo=UTC), datetime(2026, 10, 25, 1, tzinfo=UTC)]


def test_a_byte_order_mark_and_windows_line_ends_change_nothing() -> None:
    plain = WATER + "W,2026-10-01,2026-10-31,12.5,yes\n"
    dressed = b"\xef\xbb\xbf" + plain.replace("\n", "\r\n").encode()
    assert rows_of(RegisterKind.WATER, dressed) == rows_of(RegisterKind.WATER, plain)


def test_columns_may_come_in_any_order_and_blank_lines_do_not_count() -> None:
    shuffled = "potable,volume_cubic_metres,meter,last_day,first_day\n\nyes,12.5,W,2026-10-31,2026-10-01\n,,,,\n"
    (row,) = rows_of(RegisterKind.WATER, shuffled)
    (plain,) = rows_of(RegisterKind.WATER, WATER + "W,2026-10-01,2026-10-31,12.5,yes\n")
    assert (row.text, row.key_id) == (plain.text, plain.key_id)
    assert (row.line, plain.line) == (3, 2)


def test_equal_values_written_differently_are_equal_rows() -> None:
    """Or a file saved by another program would look like a correction."""
    one = rows_of(RegisterKind.SETTLEMENT, SETTLED + "M,2026-10-05T02:00+02:00,57512.5,import\n")
    other = rows_of(RegisterKind.SETTLEMENT, SETTLED + "M,2026-10-05 00:00:00.000Z,5.75125e4,import\n")
    assert one == other


def test_days_last_until_the_end_of_their_last_day() -> None:
    (row,) = rows_of(RegisterKind.WATER, WATER + "W,2026-10-01,2026-10-31,1,no\n")
    assert (row.begins_at, row.ends_at) == (datetime(2026, 10, 1, tzinfo=UTC), datetime(2026, 11, 1, tzinfo=UTC))


def test_what_is_about_no_time_is_about_all_of_it() -> None:
    (row,) = rows_of(RegisterKind.JOB_TOKENS, "job,tokens\n7,12\n")
    assert (row.begins_at, row.ends_at) == (ALWAYS, FOREVER)


def test_a_price_lasts_as_long_as_it_says() -> None:
    header = "zone,start,duration_minutes,price_per_mwh,currency\n"
    rows = rows_of(
        RegisterKind.POWER_PRICES, header + "NO4,2026-10-05T00:00Z,60,-3,NOK\nNO4,2026-10-05T01:00Z,15,4,NOK\n"
    )
    assert [row.ends_at - row.begins_at for row in rows] == [timedelta(minutes=60), timedelta(minutes=15)]


def test_a_row_may_withdraw_and_says_so_outside_its_text() -> None:
    header = WATER.replace("\n", ",withdrawn\n")
    rows = rows_of(RegisterKind.WATER, header + "W,2026-10-01,2026-10-31,1,no,yes\nW,2026-11-01,2026-11-30,1,no,\n")
    assert [row.withdrawn for row in rows] == [True, False]
    assert all("withdrawn" not in json.loads(row.text) for row in rows)


# What is wrong with a file


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "the file is empty"),
        (WATER.encode(), "there is no row below the header"),
        (WATER.encode("utf-16"), "the file is UTF-16; save it as UTF-8"),
        (WATER.encode() + b"W\n" + b"Sm\xf8rg\xe5s,2026-10-01,2026-10-31,1,no\n", "line 3: byte 0xf8 is not UTF-8"),
        (WATER.replace(",", ";").encode() + b"W;2026-10-01;2026-10-31;1,5;no\n", "semicolons or tabs"),
        (WATER.replace("volume", "volum").encode() + b"W,1,2,3,4\n", "did you mean volume_cubic_metres?"),
        (WATER.replace("meter,", "meter,meter,").encode(), "column meter is there more than once"),
        (WATER.replace("first_day", "").encode(), "column 2 has no name"),
        (b"meter,first_day\nW,2026-10-01\n", "columns are missing: last_day, volume_cubic_metres, potable"),
        (WATER.encode() + b'W,2026-10-01,"2026-10-31,1,no\n', "is a quotation mark missing?"),
    ],
)
def test_a_file_that_is_no_table_of_the_register_is_told_once(content: bytes, sentence: str) -> None:
    problems = " | ".join(problems_of(RegisterKind.WATER, content))
    assert sentence in problems


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ('W,2026-10-01,2026-10-31,"12,5",no', "volume_cubic_metres is '12,5', which has a comma"),
        ("W,2026-10-01,2026-10-31,12,5,no", "6 cells under 5 columns; is there a decimal comma"),
        ("W,2026-10-01,2026-10-31,12", "4 cells under 5 columns"),
        ("W,2026-10-01,2026-10-31,12 m3,no", "volume_cubic_metres is '12 m3', which is no number"),
        ("W,2026-10-01,2026-10-31,NaN,no", "'NaN', which is no number"),
        ("W,2026-10-01,2026-10-31,\u0661\u0662,no", "which is no number"),
        ("W,2026-10-01,2026-10-31,1e999,no", "larger than any number that can be stored"),
        ("W,2026-10-01,2026-10-31,-1,no", "volume_cubic_metres is -1.0; give 0 or more"),
        ("W,2026-10-01,2026-10-31,,no", "volume_cubic_metres is empty; give it in every row"),
        ("W,2026-10-01,2026-10-31,1,maybe", "potable is 'maybe'; give yes or no"),
        ("W,01.10.2026,2026-10-31,1,no", "first_day is '01.10.2026', which is no date; write it as 2026-10-25"),
        ("W,2026-02-29,2026-10-31,1,no", "first_day is '2026-02-29', which is not in the calendar"),
        ("W,0026-10-01,2026-10-31,1,no", "give a year from 1970 to 2200"),
        ("W,2026-11-01,2026-10-31,1,no", "first_day must not exceed last_day"),
        (f"{'W' * (LONGEST_TEXT + 1)},2026-10-01,2026-10-31,1,no", f"give at most {LONGEST_TEXT}"),
        ('"W\nX",2026-10-01,2026-10-31,1,no', "meter has a line break"),
    ],
)
def test_a_row_that_is_wrong_is_told_with_its_line_and_column(row: str, sentence: str) -> None:
    (problem,) = problems_of(RegisterKind.WATER, WATER + "V,2026-10-01,2026-10-31,1,no\n" + row + "\n")
    assert problem.startswith("line 3: ")
    assert sentence in problem


@pytest.mark.parametrize(
    ("start", "sentence"),
    [
        ("2026-10-25T02:00", "has no time zone"),
        ("2026-10-25", "is no time"),
        ("2026-10-25T02:07+02:00", "give on a quarter hour"),
        ("2026-10-25T02:00:30Z", "give on a quarter hour"),
        ("2026-10-25T24:00Z", "is not in the calendar"),
        ("25.10.2026 02:00Z", "is no time"),
        ("2026-10-25T02:00:00.0001Z", "give at most milliseconds"),
    ],
)
def test_a_quarter_hour_needs_its_zone_and_its_place_on_the_clock(start: str, sentence: str) -> None:
    (problem,) = problems_of(RegisterKind.SETTLEMENT, SETTLED + f"M,{start},1,import\n")
    assert problem.startswith("line 2: start is")
    assert sentence in problem


def test_every_problem_is_told_at_once_in_the_order_of_lines() -> None:
    good, bad = "W{0},2026-10-01,2026-10-31,1,no\n", "W{0},2026-10-01,2026-10-31,x,perhaps\n"
    text = WATER + "".join((bad if number % 2 else good).format(number) for number in range(60))
    problems = problems_of(RegisterKind.WATER, text)
    assert len(problems) == 60  # thirty rows with two wrong cells each
    lines = [int(problem.split()[1].rstrip(":")) for problem in problems]
    assert lines == sorted(lines)


def test_a_person_is_shown_the_first_problems_and_how_many_more_there_are() -> None:
    error = RegisterFileError("file.csv", [f"line {number}: wrong" for number in range(SHOWN + 5)])
    assert str(error).startswith("file.csv cannot be imported:\n  line 0: wrong\n")
    assert str(error).endswith("and 5 more")
    assert str(error).count("wrong") == SHOWN


def test_a_row_that_says_what_another_says_already_is_refused() -> None:
    row = "W,2026-10-01,2026-10-31,{},no\n"
    (problem,) = problems_of(RegisterKind.WATER, WATER + row.format(1) + row.format(2))
    assert problem == "line 3: the same meter W, first_day 2026-10-01 as in line 2; one row may say it"


def test_one_time_in_two_zones_is_one_time() -> None:
    text = SETTLED + "M,2026-10-05T02:00+02:00,1,import\nM,2026-10-05T00:00Z,1,import\nM,2026-10-05T00:00Z,1,export\n"
    (problem,) = problems_of(RegisterKind.SETTLEMENT, text)
    assert problem.startswith("line 3: the same meter M, direction import, start 2026-10-05T00:00:00.000Z as in line 2")


def test_a_cancelled_guarantee_needs_the_number_of_its_cancellation_and_a_beneficiary() -> None:
    row = "A-1,go,hydro,NO,2026-01-01,2026-01-31,1500,2026-02-10,2026-11-05,,\n"
    assert problems_of(RegisterKind.GUARANTEES_OF_ORIGIN, GUARANTEE + row) == (
        "line 2: cancellation_id is empty; a row with cancelled_on needs it",
        "line 2: beneficiary is empty; a row with cancelled_on needs it",
    )


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ("A,go,coal,NO,2026-01-01,2026-01-31,1,2026-02-10,,,", "technology is 'coal'; give one of hydro, wind"),
        ("A,go,hydro,Norway,2026-01-01,2026-01-31,1,2026-02-10,,,", "country is 'Norway'; give two capital letters"),
        ("A,go,hydro,NO,2026-01-01,2026-01-31,0,2026-02-10,,,", "energy_mwh is 0.0; give more than 0"),
        ("A,go,hydro,NO,2026-01-01,2026-01-31,1,2026-02-10,2026-02-09,C,K", "issued_on must not exceed cancelled_on"),
    ],
)
def test_a_guarantee_that_cannot_be_is_refused(row: str, sentence: str) -> None:
    (problem,) = problems_of(RegisterKind.GUARANTEES_OF_ORIGIN, GUARANTEE + row + "\n")
    assert sentence in problem


def test_maintenance_that_takes_no_time_is_refused() -> None:
    text = "resource_kind,resource,start,end,maintenance_kind,counts_as_exclusion\n"
    text += "rack,R1,2026-10-05T08:00Z,2026-10-05T10:00+02:00,planned,yes\n"
    (problem,) = problems_of(RegisterKind.MAINTENANCE, text)
    assert "start must be before end" in problem


# Contracts


@pytest.mark.parametrize(
    ("row", "missing"),
    [
        ("C,sla,A,2026-07-01,,rack,99.5,60,99.5:10,down,,,,",
         "rack_minimum_trays is empty; a row with unit rack needs it"),
        ("C,sla,A,2026-07-01,,gpu,99.5,60,99.5:10,,,,,",
         "unknown_counts_as is empty; a row with contract_kind sla needs it"),
        ("C,heat,A,2026-07-01,,,,,,,,45,,NOK",
         "heat_price_per_mwh is empty; a row with contract_kind heat needs it"),
    ],
)  # fmt: skip
def test_a_contract_needs_what_its_kind_of_contract_settles(row: str, missing: str) -> None:
    assert problems_of(RegisterKind.CONTRACTS, CONTRACT + row + "\n") == (f"line 2: {missing}",)


@pytest.mark.parametrize("tiers", ["99:10;99.5:25", "99.5:25;99:10", "101:10", "99.5:0", "99.5:10;99.5:20", "1.2.3:4"])
def test_credit_tiers_that_cannot_be_meant_so_are_refused(tiers: str) -> None:
    row = f"C,sla,A,2026-07-01,,gpu,99.5,60,{tiers},down,,,,\n"
    (problem,) = problems_of(RegisterKind.CONTRACTS, CONTRACT + row)
    assert problem.startswith("line 2: credit_tiers ")


def test_the_terms_of_a_contract_become_records() -> None:
    assert parse_credit_tiers("99.5:10;99:25;95:100") == (
        CreditTier(99.5, 10.0),
        CreditTier(99.0, 25.0),
        CreditTier(95.0, 100.0),
    )


# Whatever a file holds


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_are_rows_or_sentences(content: bytes) -> None:
    with suppress(RegisterFileError):
        assert rows_of(RegisterKind.WATER, WATER.encode() + content)


@settings(max_examples=200, deadline=None)
@given(st.floats(0, 1e12), st.integers(0, 2**63 - 1))
def test_numbers_come_out_as_they_went_in(volume: float, tokens: int) -> None:
    water = frame_of(RegisterKind.WATER, WATER + f"W,2026-10-01,2026-10-31,{volume!r},no\n")
    assert water["volume_cubic_metres"].to_list() == [volume]
    assert frame_of(RegisterKind.JOB_TOKENS, f"job,tokens\n1,{tokens}\n")["tokens"].to_list() == [tokens]

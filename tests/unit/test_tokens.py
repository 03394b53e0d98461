"""Deduplication logs are mended after a kill: the last token goes when its part is not there, and no other does."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from storage.tokens import ForgottenToken, forget_tokens_without_parts

ADDED, DROPPED = 1, 2


def log_of(data: Path, *records: tuple[int, str], parts: Sequence[str], number: int = 1) -> Path:
    """A table's folder with these parts, and a log of these operations on parts; returns the log."""
    table = data / "store" / "abc" / "abc-uuid"
    for part in parts:
        (table / part).mkdir(parents=True, exist_ok=True)
    log = table / "deduplication_logs" / f"deduplication_log_{number}.txt"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text("".join(f"{operation}\t{part}\ttoken_{n}\n" for n, (operation, part) in enumerate(records)))
    return log


def test_the_last_token_goes_when_its_part_never_came(tmp_path: Path) -> None:
    log = log_of(tmp_path, (ADDED, "20261129_1_1_0"), (ADDED, "20261129_2_2_0"), parts=["20261129_1_1_0"])
    assert forget_tokens_without_parts(tmp_path) == [ForgottenToken(log.parents[1], "20261129_2_2_0")]
    assert log.read_text() == "1\t20261129_1_1_0\ttoken_0\n"
    assert forget_tokens_without_parts(tmp_path) == []


@pytest.mark.parametrize(
    "parts",
    [
        ["20261129_2_2_0"],
        ["20261129_1_2_1"],  # merged with the one before it
        ["20261129_2_2_0_7"],  # mutated since
        ["20261129_1_1_0", "20261129_1_3_2"],
    ],
)
def test_a_token_whose_part_is_there_in_whatever_form_stays(tmp_path: Path, parts: list[str]) -> None:
    log = log_of(tmp_path, (ADDED, "20261129_1_1_0"), (ADDED, "20261129_2_2_0"), parts=parts)
    before = log.read_text()
    assert forget_tokens_without_parts(tmp_path) == []
    assert log.read_text() == before


@pytest.mark.parametrize("part", ["tmp_insert_20261129_2_2_0", "20261130_2_2_0", "20261129_22_22_0"])
def test_neither_a_part_under_way_nor_another_days_is_taken_for_it(tmp_path: Path, part: str) -> None:
    log_of(tmp_path, (ADDED, "20261129_2_2_0"), parts=[part])
    assert [token.part for token in forget_tokens_without_parts(tmp_path)] == ["20261129_2_2_0"]


def test_all_tokens_of_that_part_go(tmp_path: Path) -> None:
    """An insert may carry several."""
    records = [(ADDED, "all_1_1_0"), (ADDED, "all_2_2_0"), (ADDED, "all_2_2_0")]
    log = log_of(tmp_path, *records, parts=["all_1_1_0"])
    assert len(forget_tokens_without_parts(tmp_path)) == 1
    assert log.read_text() == "1\tall_1_1_0\ttoken_0\n"


def test_an_older_part_that_has_gone_is_none_of_our_business(tmp_path: Path) -> None:
    """It expired, or its rows were deleted: only the last one can have been cut off."""
    log_of(tmp_path, (ADDED, "all_1_1_0"), (ADDED, "all_2_2_0"), parts=["all_2_2_0"])
    assert forget_tokens_without_parts(tmp_path) == []


def test_a_token_that_was_taken_back_stays_so(tmp_path: Path) -> None:
    log = log_of(tmp_path, (ADDED, "all_1_1_0"), (DROPPED, "all_1_1_0"), parts=[])
    assert forget_tokens_without_parts(tmp_path) == []
    assert log.read_text().count("\n") == 2


def test_the_last_record_may_be_in_the_log_before_an_empty_one(tmp_path: Path) -> None:
    older = log_of(tmp_path, (ADDED, "all_1_1_0"), parts=[], number=9)
    log_of(tmp_path, parts=[], number=10)
    assert [token.part for token in forget_tokens_without_parts(tmp_path)] == ["all_1_1_0"]
    assert older.read_text() == ""


def test_a_record_that_was_cut_off_is_taken_away(tmp_path: Path) -> None:
    """Or the next one would be glued to it, and no token after it be read."""
    log = log_of(tmp_path, (ADDED, "all_1_1_0"), parts=["all_1_1_0"])
    whole = log.read_text()
    log.write_text(whole + "1\tall_2_")
    assert forget_tokens_without_parts(tmp_path) == []
    assert log.read_text() == whole


def test_tables_without_logs_and_new_directories_are_fine(tmp_path: Path) -> None:
    (tmp_path / "store" / "abc" / "abc-uuid" / "deduplication_logs").mkdir(parents=True)
    assert forget_tokens_without_parts(tmp_path) == []
    assert forget_tokens_without_parts(tmp_path / "new") == []

"""The tables of tries in docs/security.md are those that the tests perform.

KVANDAL_REWRITE_GOLDEN=1 writes them anew; the diff is the review.
"""

import os
import re
from pathlib import Path

from tests.servers.kafka_guard import PRINCIPAL_RULES
from tests.tries import TURNED_AWAY, store_table, topic_table

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "security.md"


def test_the_tables_of_tries_are_those_that_are_performed() -> None:
    written = DOCUMENT.read_text()
    meant = _with_table(_with_table(written, "topics", list(topic_table())), "store", list(store_table()))

    if os.environ.get("KVANDAL_REWRITE_GOLDEN") == "1":
        DOCUMENT.write_text(meant)
    assert DOCUMENT.read_text() == meant


def test_who_is_turned_away_is_written_as_it_is_tried() -> None:
    told = " ".join(DOCUMENT.read_text().split())
    assert f"Not let in at all: a client {'; '.join(TURNED_AWAY)}." in told


def test_the_rules_for_certificates_are_those_that_the_tests_brokers_have() -> None:
    assert f"\nssl.principal.mapping.rules={PRINCIPAL_RULES}\n" in DOCUMENT.read_text()


def _with_table(text: str, name: str, lines: list[str]) -> str:
    table = f"<!-- tries: {name} -->\n" + "".join(f"{line}\n" for line in lines) + "<!-- end -->"
    found, count = re.subn(rf"<!-- tries: {name} -->\n.*?<!-- end -->", lambda _: table, text, flags=re.DOTALL)
    assert count == 1
    return found

"""The SQL for a server's roles: ClickHouse's own parser reads every statement. No server is here to run it."""

import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from clickhouse_connect.driver.client import Client

from storage.client import connect
from storage.server_roles import ROLES, statements
from tests.conftest import DoorUnderTest

FILE = Path(__file__).resolve().parents[2] / "deploy" / "clickhouse" / "roles.sql"


@pytest.fixture
def client(door: DoorUnderTest) -> Iterator[Client]:
    with closing(connect(door.address("reports"))) as client:
        yield client


def test_every_statement_is_clickhouse_s_sql(client: Client) -> None:
    text = re.sub(r"^--.*$", "", FILE.read_text(), flags=re.MULTILINE)
    written = [statement.strip() for statement in text.split(";") if statement.strip()]

    assert written == [statement for role in ROLES for statement in statements(role, "kvandal")]
    for statement in written:
        parsed = client.query("SELECT formatQuerySingleLine({sql:String})", parameters={"sql": statement})
        assert parsed.result_rows[0][0].startswith(statement.split(" IF ")[0].split(" ON ")[0])


def test_nothing_is_granted_beyond_the_database_and_lists_of_it() -> None:
    granted = [s for role in ROLES for s in statements(role, "kvandal") if s.startswith("GRANT")]

    places = {re.search(r" ON (\S+) TO ", statement).group(1) for statement in granted}  # type: ignore[union-attr]
    lists = {f"system.{name}" for name in ("columns", "databases", "tables", "mutations")}
    assert places == {"kvandal.*"} | lists
    assert not [s for s in granted if "GRANT OPTION" in s or "ALL" in s.split()]


def test_only_reading_roles_are_read_only_and_only_they() -> None:
    for role in ROLES:
        writes = {"INSERT", "ALTER", "ALTER DELETE"} & set(role.grants)
        assert role.readonly == (not writes)
        assert any("readonly = 2 CONST" in s for s in statements(role, "kvandal")) == role.readonly

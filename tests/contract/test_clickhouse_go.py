"""The door before clickhouse-go v2, connected as Grafana's plug-in does it: over HTTP, with gzip, as its role.

What the library makes of an answer is held against the same answer as JSON, which takes another way through both.
"""

import json
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from storage.client import StoreAddress
from tests.conftest import DoorUnderTest
from tests.servers.plugin_client import PluginClient, PluginRefusedError, plugin_client

pytestmark = pytest.mark.timeout(600)  # a first run builds the program

# One expression for each type that a panel's answer has or may have, and the hard ones: lengths of two bytes, empty
# values, dictionaries within arrays, tuples with names.
EXPRESSIONS = {
    "UInt8": "toUInt8(number)",
    "UInt64": "toUInt64(9007199254740991)",
    "Int32": "toInt32(-number)",
    "Float64": "number / 7",
    "Bool": "toBool(number)",
    "String": "repeat('wärme ', number * 100)",
    "FixedString(3)": "toFixedString('abc', 3)",
    "LowCardinality(String)": "toLowCardinality(toString(number % 2))",
    "Nullable(Float64)": "if(number = 1, NULL, number / 3)",
    "Nullable(String)": "if(number = 1, NULL, toString(number))",
    "LowCardinality(Nullable(String))": "CAST(if(number = 1, NULL, 'x') AS LowCardinality(Nullable(String)))",
    "Enum8('a' = 0, 'b, (c)' = 1, 'd' = 2)": "CAST(number AS Enum8('a' = 0, 'b, (c)' = 1, 'd' = 2))",
    "Array(String)": "arrayMap(one -> toString(one), range(number))",
    "Array(LowCardinality(String))": "CAST(range(number) AS Array(LowCardinality(String)))",
    "Array(Array(Nullable(Int16)))": "[[toNullable(toInt16(number))], []]",
    "Map(String, UInt64)": "map('one', number, 'two', number + 1)",
    "Tuple(name String, of UInt8)": "CAST(('a', number) AS Tuple(name String, of UInt8))",
    "SimpleAggregateFunction(max, Float64)": "CAST(number / 3 AS SimpleAggregateFunction(max, Float64))",
}
TIMES = {
    "DateTime": "toDateTime(1790834400 + number, 'UTC')",
    "DateTime64(3, 'UTC')": "toDateTime64(1790834400.125 + number, 3, 'UTC')",
    "Nullable(DateTime64(3, 'UTC'))": "if(number = 1, NULL, toDateTime64(1790834400.125, 3, 'UTC'))",
}
FROM_THREE = "FROM numbers(3)"


@pytest.fixture(scope="module")
def plugin(door: DoorUnderTest) -> Iterator[PluginClient]:
    with plugin_client(door.address("grafana")) as client:
        yield client


def as_json(address: StoreAddress, sql: str) -> list[list[Any]]:
    asked = requests.post(
        address.url,
        params={"output_format_json_quote_64bit_integers": "0"},
        data=f"{sql} FORMAT JSONCompactEachRow",
        auth=(address.user, address.password),
        timeout=60,
    )
    assert asked.ok, asked.text
    return [json.loads(line) for line in asked.text.splitlines()]


def test_it_connects_and_pings(plugin: PluginClient) -> None:
    answer = plugin.ask("SELECT currentDatabase() AS name, 1 AS one")
    assert (answer.names, answer.rows) == (("name", "one"), (("kvandal", 1),))


@pytest.mark.parametrize(("kind", "expression"), EXPRESSIONS.items(), ids=EXPRESSIONS.keys())
def test_every_type_is_read(plugin: PluginClient, door: DoorUnderTest, kind: str, expression: str) -> None:
    """A column before and one behind: who miscounts the one between reads rubbish."""
    sql = f"SELECT number AS before, {expression} AS value, toString(number) AS behind {FROM_THREE}"
    answer = plugin.ask(sql)
    assert answer.names == ("before", "value", "behind")
    assert answer.types[1] == kind
    assert [_plain(row) for row in answer.rows] == [_plain(row) for row in as_json(door.address("grafana"), sql)]


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return pytest.approx(value) if isinstance(value, float) else value


@pytest.mark.parametrize(("kind", "expression"), TIMES.items(), ids=TIMES.keys())
def test_times_are_the_instants_that_they_are(plugin: PluginClient, kind: str, expression: str) -> None:
    """The engine leaves the timezone out of DateTime's type; the instant is right all the same."""
    answer = plugin.ask(f"SELECT {expression} AS time, 'behind' AS behind {FROM_THREE}")
    assert answer.types[0] == kind
    assert answer.column("time")[0] == ("2026-10-01T06:00:00Z" if kind == "DateTime" else "2026-10-01T06:00:00.125Z")
    assert answer.column("behind") == ["behind"] * 3
    if kind.startswith("Nullable"):
        assert answer.column("time")[1] is None


def test_an_answer_of_many_blocks_is_whole(plugin: PluginClient) -> None:
    answer = plugin.ask("SELECT number, toString(number) AS text FROM numbers(200000)")
    assert [row[0] for row in answer.rows] == list(range(200_000))
    assert answer.rows[-1][1] == "199999"


def test_no_rows_are_no_error(plugin: PluginClient) -> None:
    assert plugin.ask("SELECT number FROM numbers(3) WHERE number > 5").rows == ()


@pytest.mark.parametrize(
    ("sql", "code"),
    [("SELECT nothing_of_this_name", 47), ("SELEC 1", 62), ("CREATE TABLE mine (one UInt8) ENGINE = Memory", 164)],
)
def test_a_refusal_reaches_it_with_clickhouses_code(plugin: PluginClient, sql: str, code: int) -> None:
    with pytest.raises(PluginRefusedError) as refused:
        plugin.ask(sql)
    assert refused.value.code == code
    assert plugin.ask("SELECT 1 AS one").rows == ((1,),), "the connection goes on"


def test_a_type_whose_length_is_not_known_is_refused_by_name(plugin: PluginClient) -> None:
    with pytest.raises(PluginRefusedError, match=r"AggregateFunction.* is not offered in this protocol; cast it"):
        plugin.ask("SELECT quantileState(0.5)(number) AS sketch FROM numbers(3)")


def test_a_wrong_password_is_said(door: DoorUnderTest) -> None:
    wrong = StoreAddress(door.url, "grafana", "another", "kvandal")
    with pytest.raises(PluginRefusedError, match="Authentication failed") as refused, plugin_client(wrong):
        pass
    assert refused.value.code == 516

"""What a role admits, judged on trees as ClickHouse 26.9's parseQueryToJSON writes them."""

import pytest

from storage.engine import ParsedStatement, QueryRefusedError
from storage.roles import (
    DEFAULT_LIMITS,
    Role,
    RoleName,
    SettingRule,
    StatementKind,
    check_format,
    check_setting,
    judge_statement,
    make_role,
)

PASSWORD = "correct horse"  # noqa: S105
DATABASE = "plant"


def literal(value: object, kind: str = "String") -> dict[str, object]:
    return {"type": "Literal", "value": {"field_type": kind, "value": value}}


def children(*nodes: object) -> dict[str, object]:
    return {"type": "ExpressionList", "children": list(nodes)}


def function(name: str, *arguments: object) -> dict[str, object]:
    return {"type": "Function", "name": name, "arguments": children(*arguments)}


def table(*parts: str) -> dict[str, object]:
    node: dict[str, object] = {"type": "TableIdentifier", "name": ".".join(parts)}
    return node | ({"name_parts": list(parts)} if len(parts) > 1 else {})


def select(
    *columns: object,
    source: dict[str, object] | None = None,
    settings: dict[str, object] | None = None,
    **clauses: object,
) -> dict[str, object]:
    query: dict[str, object] = {"type": "SelectQuery", "select": children(*columns)}
    if source is not None:
        key = "table_function" if source["type"] == "Function" else "database_and_table_name"
        element = {"type": "TablesInSelectQueryElement", "table_expression": {"type": "TableExpression", key: source}}
        query["tables"] = {"type": "TablesInSelectQuery", "children": [element]}
    if settings is not None:
        query["settings"] = settings
    return {"type": "SelectWithUnionQuery", "list_of_selects": children(query)} | clauses


def changes(**values: object) -> dict[str, object]:
    listed = [{"name": name, "value": {"field_type": "UInt64", "value": value}} for name, value in values.items()]
    return {"type": "SetQuery", "changes": listed}


def role(name: RoleName = RoleName.REPORTS) -> Role:
    return make_role(name, PASSWORD)


def judge(tree: dict[str, object], name: RoleName = RoleName.REPORTS, **params: str) -> StatementKind:
    return judge_statement(role(name), DATABASE, ParsedStatement("", tree), params).kind


def code_of(tree: dict[str, object], name: RoleName = RoleName.REPORTS, **params: str) -> int:
    with pytest.raises(QueryRefusedError) as refusal:
        judge(tree, name, **params)
    return refusal.value.code


@pytest.mark.parametrize("name", list(RoleName))
def test_password_is_never_shown(name: RoleName) -> None:
    assert PASSWORD not in repr(role(name))
    assert PASSWORD not in str(role(name))


def test_role_without_password_is_refused() -> None:
    with pytest.raises(ValueError, match="reports has no password"):
        make_role(RoleName.REPORTS, "")


@pytest.mark.parametrize("name", list(RoleName))
def test_handles_of_every_role_are_limited_and_insert_durably(name: RoleName) -> None:
    settings = role(name).handle_settings
    limits = DEFAULT_LIMITS[name]
    assert settings["max_execution_time"] == str(limits.execution_time_s)
    assert settings["max_memory_usage"] == str(limits.memory_bytes)
    assert settings["async_insert"] == "0"
    assert settings.get("readonly") == ("2" if name in (RoleName.REPORTS, RoleName.GRAFANA) else None)


@pytest.mark.parametrize(
    ("value", "admitted"), [("1", True), ("30", True), ("31", False), ("0", False), ("-1", False), ("1e9", False)]
)
def test_ceiling_admits_only_numbers_from_one_up_to_it(value: str, *, admitted: bool) -> None:
    assert SettingRule(ceiling=30).admits(value) is admitted


def test_insert_settings_belong_to_inserting_roles() -> None:
    check_setting(role(RoleName.INGEST), "insert_deduplication_token", "topic:0:1-2")
    with pytest.raises(QueryRefusedError) as refusal:
        check_setting(role(RoleName.GRAFANA), "insert_deduplication_token", "topic:0:1-2")
    assert refusal.value.code == 452


@pytest.mark.parametrize("name", ["Native", "JSONCompactEachRow", "TabSeparatedWithNames", "ArrowStream", "Parquet"])
def test_plain_formats_are_offered(name: str) -> None:
    check_format(name)


@pytest.mark.parametrize("name", ["Template", "DataFrame", "Protobuf", "CapnProto", "MySQLWire", "Native x", ""])
def test_formats_that_read_schemas_or_leave_the_protocol_are_not_offered(name: str) -> None:
    with pytest.raises(QueryRefusedError):
        check_format(name)


@pytest.mark.parametrize(
    "tree",
    [
        select(literal(1, "UInt64")),
        select({"type": "Asterisk"}, source=table("readings")),
        select({"type": "Asterisk"}, source=table(DATABASE, "readings")),
        select({"type": "Asterisk"}, source=table("system", "tables")),
        select({"type": "Asterisk"}, source=function("numbers", literal(3, "UInt64"))),
        select(function("count"), settings=changes(max_threads=1)),
    ],
)
def test_reading_the_own_database_is_admitted(tree: dict[str, object]) -> None:
    assert judge(tree) is StatementKind.READ


@pytest.mark.parametrize(
    "tree",
    [
        select({"type": "Asterisk"}, source=table("other", "readings")),
        select({"type": "Asterisk"}, source=table("default", "/etc/passwd")),
        select({"type": "Asterisk"}, source=table("plant.csv")),
        select({"type": "Asterisk"}, source=table("system", "processes")),
        select({"type": "Asterisk"}, source=table("a", "b", "c")),
        select({"type": "Asterisk"}, source=function("File", literal("/etc/passwd"))),
        select({"type": "Asterisk"}, source=function("a_table_function_of_next_year")),
        select(function("FILE", literal("/etc/passwd"))),
        select(function("aiGenerate", literal("x"))),
        select(function("in", literal(1), {"type": "Identifier", "name": "x.y", "name_parts": ["x", "y"]})),
        select({"type": "Asterisk", "transformers": {"type": "ColumnsApplyTransformer", "func_name": "file"}}),
        select(literal(1), out_file=literal("/tmp/x")),  # noqa: S108 — a name in a refused statement
        select(literal(1), settings={"type": "SetQuery", "default_settings": ["max_result_rows"]}),
        select({"type": "Subquery", "children": [select(function("url", literal("x")), source=function("url"))]}),
        {"type": "ExplainQuery", "kind": "EXPLAIN", "query": {"type": "CreateQuery"}},
        {"type": "SystemQuery", "query_type": "SHUTDOWN"},
        {"type": "SetQuery", "is_standalone": True},
        {"type": "StatementOfNextYear"},
    ],
)
@pytest.mark.parametrize("name", list(RoleName))
def test_what_reaches_past_the_database_is_denied_to_every_role(name: RoleName, tree: dict[str, object]) -> None:
    assert code_of(tree, name) == 497


def test_identifier_parameters_are_judged_by_their_values() -> None:
    node: dict[str, object] = {"type": "TableIdentifier", "name": "", "name_parts": ["", ""]}
    node["children"] = [
        {"type": "QueryParameter", "name": "d", "param_type": "Identifier"},
        {"type": "QueryParameter", "name": "t", "param_type": "Identifier"},
    ]
    tree = select({"type": "Asterisk"}, source=node)
    assert judge(tree, d=DATABASE, t="readings") is StatementKind.READ
    assert code_of(tree, d="default", t="readings") == 497
    assert code_of(tree, d=DATABASE, t="a.b") == 497
    assert code_of(tree) == 497


INSERT: dict[str, object] = {
    "type": "InsertQuery",
    "table": {"type": "Identifier", "name": "readings"},
    "format": "CSV",
}


def test_only_inserting_roles_insert() -> None:
    assert judge(INSERT, RoleName.INGEST) is StatementKind.INSERT
    assert code_of(INSERT, RoleName.GRAFANA) == 164


@pytest.mark.parametrize(
    "extra",
    [
        {"infile": literal("/etc/passwd")},
        {"table_function": function("file", literal("x"))},
        {"table_function": function("numbers", literal(1, "UInt64"))},
        {"database": {"type": "Identifier", "name": "system"}},
        {"format": "Template"},
        {"select": select({"type": "Asterisk"}, source=function("input", literal("a Int8")))},
    ],
)
def test_inserts_take_their_data_from_the_body_or_the_database(extra: dict[str, object]) -> None:
    assert code_of(INSERT | extra, RoleName.INGEST) == 497


def engine(name: str, settings: dict[str, object] | None = None) -> dict[str, object]:
    storage: dict[str, object] = {
        "type": "Storage",
        "engine": {"type": "Function", "name": name, "kind": "TABLE_ENGINE"},
    }
    return storage | ({"settings": settings} if settings else {})


def test_only_admin_creates_and_only_engines_that_stay_inside() -> None:
    tree: dict[str, object] = {"type": "CreateQuery", "database": "", "table": "t"}
    window = changes(non_replicated_deduplication_window=1000)
    assert judge(tree | {"storage": engine("MergeTree", window)}, RoleName.ADMIN) is StatementKind.CHANGE
    assert code_of(tree | {"storage": engine("MergeTree", changes(disk="x"))}, RoleName.ADMIN) == 497
    assert code_of(tree | {"storage": engine("Kafka")}, RoleName.ADMIN) == 497
    assert code_of(tree | {"database": "other"}, RoleName.ADMIN) == 497
    assert code_of(tree | {"attach": True}, RoleName.ADMIN) == 497
    assert code_of(tree, RoleName.INGEST) == 497
    assert code_of(tree, RoleName.REPORTS) == 164


@pytest.mark.parametrize(
    "text",
    ["DESCRIBE TABLE plant.readings FORMAT Native", "SHOW CREATE TABLE readings", "EXISTS TABLE system.tables"],
)
def test_statement_without_a_tree_is_admitted_by_its_one_spelling(text: str) -> None:
    assert judge_statement(role(), DATABASE, ParsedStatement(text, None), {}).kind is StatementKind.READ


@pytest.mark.parametrize(
    "text",
    [
        "DESCRIBE TABLE file('x')",
        "DESCRIBE TABLE default.readings",
        "DESCRIBE TABLE readings INTO OUTFILE 'x'",
        "DESCRIBE TABLE readings FORMAT Template",
        "SHOW PROCESSLIST",
        "SHOW GRANTS",
        "CREATE USER a",
        "",
    ],
)
def test_other_statements_without_a_tree_are_denied(text: str) -> None:
    with pytest.raises(QueryRefusedError) as refusal:
        judge_statement(role(), DATABASE, ParsedStatement(text, None), {})
    assert refusal.value.code == 497

"""Who may do what in the embedded engine, which has no users of its own.

A statement is judged on the syntax tree that ClickHouse's own parser makes of it, never on its text, so comments,
casing, quoting and nesting change nothing. What is not listed here is refused: the engine runs with the rights of our
process, and its `readonly` does not keep it from our files and our network.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType

from storage.engine import ErrorCode, ParsedStatement, QueryRefusedError

Tree = Mapping[str, object]


class RoleName(StrEnum):
    """The embedded roles. `admin` changes the schema and is off unless it is given a password."""

    INGEST = "ingest"
    REPORTS = "reports"
    GRAFANA = "grafana"
    ADMIN = "admin"


class StatementKind(StrEnum):
    """What a statement does to the store."""

    READ = "read"
    INSERT = "insert"
    CHANGE = "change"


@dataclass(frozen=True, slots=True)
class Limits:
    """What one query of a role may take, and how many run at once."""

    execution_time_s: int
    memory_bytes: int
    result_rows: int
    result_bytes: int
    threads: int
    concurrent_queries: int
    insert_bytes: int = 0


@dataclass(frozen=True, slots=True)
class SettingRule:
    """What values a setting may be given: anything, one value, or numbers above 0 up to a ceiling."""

    only: str | None = None
    ceiling: int | None = None

    def admits(self, value: str) -> bool:
        """Tell whether `value` keeps the rule; 0 means "no limit" to ClickHouse, so no ceiling admits it."""
        if self.only is not None:
            return value == self.only
        if self.ceiling is not None:
            return re.fullmatch(r"[0-9]{1,18}", value) is not None and 0 < int(value) <= self.ceiling
        return True


@dataclass(frozen=True, slots=True)
class Role:
    """One role: what it may run, set and take. `password` is never shown."""

    name: RoleName
    kinds: frozenset[StatementKind]
    limits: Limits
    password: str = field(repr=False)

    @property
    def readonly(self) -> bool:
        return self.kinds == _READING

    @property
    def settings(self) -> Mapping[str, SettingRule]:
        """The settings a query of this role may carry."""
        ceilings = {name: SettingRule(ceiling=int(value)) for name, value in _limit_settings(self.limits).items()}
        inserting = _INSERT_SETTINGS if StatementKind.INSERT in self.kinds else {}
        return _READ_SETTINGS | inserting | ceilings

    @property
    def handle_settings(self) -> Mapping[str, str]:
        """What is set once on each of the role's handles."""
        # readonly=2, not 1: under 1 the door could not apply the settings a query is allowed. `readonly` itself can
        # be changed under neither.
        return _limit_settings(self.limits) | _FIXED_SETTINGS | ({"readonly": "2"} if self.readonly else {})


@dataclass(frozen=True, slots=True)
class Verdict:
    """What an admitted statement is. `result_format` is the format it names itself."""

    kind: StatementKind
    result_format: str | None


_GIB = 1 << 30
_READING = frozenset({StatementKind.READ})
DEFAULT_LIMITS: Mapping[RoleName, Limits] = MappingProxyType(
    {
        # A dashboard has to answer while somebody watches, and there are many panels.
        RoleName.GRAFANA: Limits(
            execution_time_s=30,
            memory_bytes=2 * _GIB,
            result_rows=1_000_000,
            result_bytes=_GIB // 4,
            threads=2,
            concurrent_queries=4,
        ),
        # Group-bys run in the engine; a report takes at most a few million rows out.
        RoleName.REPORTS: Limits(
            execution_time_s=600,
            memory_bytes=8 * _GIB,
            result_rows=20_000_000,
            result_bytes=_GIB // 2,
            threads=4,
            concurrent_queries=2,
        ),
        RoleName.INGEST: Limits(
            execution_time_s=300,
            memory_bytes=4 * _GIB,
            result_rows=1_000_000,
            result_bytes=_GIB // 4,
            threads=4,
            concurrent_queries=4,
            insert_bytes=_GIB,
        ),
        RoleName.ADMIN: Limits(
            execution_time_s=3600,
            memory_bytes=8 * _GIB,
            result_rows=20_000_000,
            result_bytes=2 * _GIB,
            threads=4,
            concurrent_queries=1,
            insert_bytes=_GIB,
        ),
    }
)
_KINDS: Mapping[RoleName, frozenset[StatementKind]] = {
    RoleName.GRAFANA: _READING,
    RoleName.REPORTS: _READING,
    RoleName.INGEST: frozenset({StatementKind.READ, StatementKind.INSERT}),
    RoleName.ADMIN: frozenset(StatementKind),
}

_ANY = SettingRule()
_FIXED_SETTINGS: dict[str, str] = {
    "allow_introspection_functions": "0",
    "async_insert": "0",
    "deduplicate_blocks_in_dependent_materialized_views": "1",
    # The embedded engine takes a bare expression for a SELECT, a server does not.
    "implicit_select": "0",
    # Otherwise the data of INSERT … VALUES are SQL expressions, which nobody judges.
    "input_format_values_deduce_templates_of_expressions": "0",
    "input_format_values_interpret_expressions": "0",
    "max_query_size": str(1 << 20),
    "result_overflow_mode": "throw",
    "timeout_overflow_mode": "throw",
}
_READ_SETTINGS: dict[str, SettingRule] = dict.fromkeys(
    (
        "cast_string_to_dynamic_use_inference",
        "date_time_input_format",
        "date_time_output_format",
        "group_by_use_nulls",
        "join_use_nulls",
        "optimize_move_to_prewhere",
        "output_format_arrow_compression_method",
        "output_format_arrow_fixed_string_as_fixed_byte_array",
        "output_format_arrow_low_cardinality_as_dictionary",
        "output_format_arrow_string_as_string",
        "output_format_json_quote_64bit_floats",
        "output_format_json_quote_64bit_integers",
        "output_format_json_quote_decimals",
        "output_format_json_quote_denormals",
        "output_format_native_encode_types_in_binary_format",
        "output_format_parquet_compression_method",
        "output_format_parquet_string_as_string",
        "prefer_column_name_to_alias",
        "session_timezone",
        "transform_null_in",
    ),
    _ANY,
) | {
    "max_block_size": SettingRule(ceiling=1 << 20),
    "readonly": SettingRule(only="2"),
    # Clients may insist on what holds here anyway, or on what means nothing on one node.
    "async_insert": SettingRule(only="0"),
    "max_partitions_per_insert_block": SettingRule(ceiling=4000),
    "optimize_on_insert": SettingRule(only="0"),
    "deduplicate_blocks_in_dependent_materialized_views": SettingRule(only="1"),
    "distributed_foreground_insert": SettingRule(only="1"),
    "insert_distributed_sync": SettingRule(only="1"),
}
_INSERT_SETTINGS: dict[str, SettingRule] = dict.fromkeys(
    (
        "insert_deduplicate",
        "insert_deduplication_token",
        "input_format_defaults_for_omitted_fields",
        "input_format_null_as_default",
        "input_format_skip_unknown_fields",
        "input_format_with_names_use_header",
        "input_format_with_types_use_header",
        "wait_for_async_insert",
    ),
    _ANY,
)
_EXPLAIN_OPTIONS = frozenset(
    {
        "actions",
        "compact",
        "description",
        "distributed",
        "graph",
        "header",
        "indexes",
        "json",
        "keep_logical_steps",
        "oneline",
        "optimize",
        "passes",
        "projections",
        "query_tree_passes",
        "run_passes",
        "run_query_tree_passes",
        "sorting",
    }
)

_READ_TREES = frozenset(
    {"SelectWithUnionQuery", "ExplainQuery", "ShowTablesQuery", "ShowColumnsQuery", "ShowIndexesQuery"}
)
_CHANGE_TREES = frozenset(
    {"CreateQuery", "AlterQuery", "DropQuery", "RenameQuery", "OptimizeQuery", "DeleteQuery", "UpdateQuery"}
)
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# The kinds that ClickHouse cannot write as a tree but that readers, and clickhouse-connect's insert, need. The text is
# ClickHouse's own rendering, so it has one spelling.
_TREELESS = re.compile(
    r"(?:DESCRIBE TABLE|EXISTS(?: TABLE| VIEW)?|SHOW CREATE (?:TABLE|VIEW)) "
    r"(?:`?(?P<database>\w+)`?\.)?`?(?P<table>\w+)`?(?: FORMAT (?P<format>\w+))?"
)
SYSTEM_TABLES = frozenset(
    {
        "asynchronous_metrics",
        "build_options",
        "columns",
        "data_skipping_indices",
        "data_type_families",
        "databases",
        "events",
        "formats",
        "functions",
        "merge_tree_settings",
        "merges",
        "metrics",
        "mutations",
        "one",
        "parts",
        "parts_columns",
        "settings",
        "tables",
        "time_zones",
        "view_refreshes",
    }
)
# These make rows out of their arguments. All others read files, reach other hosts or run programs, or look past the
# database (merge, loop, dictionary, mergeTreeIndex).
_TABLE_FUNCTIONS = frozenset(
    {
        "generateseries",
        "generate_series",
        "null",
        "numbers",
        "numbers_mt",
        "primes",
        "sqlstandardvalues",
        "values",
        "view",
        "zeros",
        "zeros_mt",
    }
)
# Ordinary functions that read files, reach out, tell about the machine or the process, write its log, or hold a handle
# asleep. `displayName`, which tells the machine's name, is not among them: clickhouse-go greets with it.
_REFUSED_FUNCTIONS = frozenset(
    {
        "file",
        "hascolumnintable",
        "sleep",
        "sleepeachrow",
        "getmacro",
        "getserversetting",
        "addresstoline",
        "addresstolinewithinlines",
        "addresstosymbol",
        "demangle",
        "catboostevaluate",
        "python",
        "executable",
        "eval",
        "mergetreepartinfo",
        "filesystemavailable",
        "filesystemcapacity",
        "filesystemunreserved",
        "zookeepersessionuptime",
        "joinget",
        "joingetornull",
        "serveruuid",
        "buildid",
        "currentrequesturl",
        "fqdn",
        "fullhostname",
        "getclienthttpheader",
        "getoskernelversion",
        "getserverport",
        "hostname",
        "logtrace",
        "showcertificate",
        "tcpport",
        "tid",
        "timeseriesstoretags",
    }
)
_AI_FUNCTION = re.compile(r"ai(?:classify|embed|extract|filter|generate|redact|similarity|translate)\w*", re.IGNORECASE)
_IN_FUNCTION = re.compile(r"(?:global)?(?:not)?(?:null)?in(?:ignoreset)?|(?:global)?notnullin", re.IGNORECASE)
_FORMATS = re.compile(
    r"Native|RowBinary\w*|TabSeparated\w*|TSV\w*|CSV\w*|JSON\w*|Pretty\w*|Vertical|Values|Null|Arrow|ArrowStream|"
    r"Parquet|Markdown|MD|XML|LineAsString|RawBLOB|Raw"
)
_ENGINES = re.compile(
    r"(?:Replicated)?(?:Replacing|Summing|Aggregating|Collapsing|VersionedCollapsing|Coalescing)?MergeTree|"
    r"Memory|Null|Log|TinyLog|Set|Join|Atomic"
)
_STORAGE_SETTINGS_THAT_REACH_OUT = frozenset({"disk", "storage_policy", "table_disk"})
# Every other database that an engine has from the start. `default` maps table names to files.
_FOREIGN_DATABASES = frozenset({"default", "information_schema", "system"})


def make_role(name: RoleName, password: str, limits: Limits | None = None) -> Role:
    """Return the role `name`. Raises `ValueError` for an empty password."""
    if not password:
        raise ValueError(f"The role {name} has no password; give it one or leave the role out.")
    return Role(name, _KINDS[name], limits or DEFAULT_LIMITS[name], password)


def check_setting(role: Role, name: str, value: str) -> None:
    """Raise `QueryRefusedError` unless a query of `role` may set `name` to `value`."""
    rule = role.settings.get(name)
    if rule is None:
        raise QueryRefusedError.of(
            ErrorCode.SETTING_CONSTRAINT_VIOLATION, f"Setting {name} should not be changed by {role.name}."
        )
    if not rule.admits(value):
        allowed = f"{rule.only}" if rule.only is not None else f"between 1 and {rule.ceiling}"
        raise QueryRefusedError.of(
            ErrorCode.SETTING_CONSTRAINT_VIOLATION, f"Setting {name} of {role.name} should be {allowed}."
        )


def check_format(name: str) -> None:
    """Raise `QueryRefusedError` unless data may be read or written in this format."""
    if not _FORMATS.fullmatch(name):
        raise _denied(f"The format {name} is not among those that the embedded engine offers")


def judge_statement(role: Role, database: str, statement: ParsedStatement, params: Mapping[str, str]) -> Verdict:
    """Say what an allowed statement is. Raises `QueryRefusedError` for every other one.

    `database` is the role's only database, and the handle's current one; it must not be of the engine Overlay, whose
    table names are file names. `params` are the values of the statement's `{name:Type}`.
    """
    if statement.tree is None:
        return _judge_treeless(database, statement.text)
    kind = _find_kind(role, statement.tree)
    _Judge(role, database, params).check(statement.tree)
    result_format = _name_of(statement.tree.get("format_ast")) if kind is StatementKind.READ else None
    if result_format is not None:
        check_format(result_format)
    return Verdict(kind, result_format)


def _limit_settings(limits: Limits) -> dict[str, str]:
    return {
        "max_execution_time": str(limits.execution_time_s),
        "max_memory_usage": str(limits.memory_bytes),
        "max_result_bytes": str(limits.result_bytes),
        "max_result_rows": str(limits.result_rows),
        "max_threads": str(limits.threads),
    }


def _denied(sentence: str) -> QueryRefusedError:
    return QueryRefusedError.of(ErrorCode.ACCESS_DENIED, f"Not enough privileges. {sentence}.")


def _judge_treeless(database: str, text: str) -> Verdict:
    found = _TREELESS.fullmatch(text)
    if found is None:
        raise _denied(f"Statements such as {' '.join(text.split()[:2])} are refused")
    if found["format"]:
        check_format(found["format"])
    _check_table(database, found["database"], found["table"])
    return Verdict(StatementKind.READ, found["format"])


def _find_kind(role: Role, tree: Tree) -> StatementKind:
    name = str(tree.get("type"))
    if name in _READ_TREES:
        return StatementKind.READ
    kind = StatementKind.INSERT if name == "InsertQuery" else StatementKind.CHANGE
    if kind is StatementKind.CHANGE and name not in _CHANGE_TREES:
        raise _denied(f"{name.removesuffix('Query')} statements are refused")
    if role.readonly:
        raise QueryRefusedError.of(ErrorCode.READONLY, f"{role.name}: Cannot execute query in readonly mode.")
    if kind not in role.kinds:
        raise _denied(f"{role.name} may not change the schema")
    return kind


def _check_table(database: str, owner: str | None, table: str) -> None:
    if not _WORD.fullmatch(table):
        raise _denied(f"{table!r} is not a plain table name")
    if owner in (None, "", database) or (owner == "system" and table in SYSTEM_TABLES):
        return
    raise _denied(f"Only tables of {database} and some of system can be named, not {owner}.{table}")


def _name_of(node: object) -> str | None:
    return str(node.get("name")) if isinstance(node, Mapping) else None


def _walk(tree: Tree) -> Iterator[Tree]:
    waiting: list[object] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, Mapping):
            yield node
            waiting.extend(node.values())
        elif isinstance(node, list):
            waiting.extend(node)


class _Judge:
    """Looks at each node of one statement by itself; every check raises or passes."""

    def __init__(self, role: Role, database: str, params: Mapping[str, str]) -> None:
        self._role = role
        self._database = database
        self._params = params
        self._checks = {
            "AlterCommand": self._check_alter_command,
            "AlterQuery": self._check_target,
            "ColumnsApplyTransformer": self._check_apply,
            "CreateQuery": self._check_create,
            "DeleteQuery": self._check_target,
            "Dictionary": self._check_dictionary,
            "DropQuery": self._check_drop,
            "ExplainQuery": self._check_explain,
            "Function": self._check_function,
            "Identifier": self._check_identifier,
            "InsertQuery": self._check_insert,
            "OptimizeQuery": self._check_target,
            "RenameQuery": self._check_rename,
            "SetQuery": self._check_settings,
            "ShowColumnsQuery": self._check_target,
            "ShowIndexesQuery": self._check_target,
            "ShowTablesQuery": self._check_show_tables,
            "Storage": self._check_storage,
            "TableIdentifier": self._check_table_identifier,
            "UpdateQuery": self._check_target,
            "ViewTargets": self._check_view_targets,
        }
        # Settings of these are options of a statement or of a table, checked where they stand.
        self._settings_checked: list[object] = []

    def check(self, tree: Tree) -> None:
        for node in _walk(tree):
            self._check_files(node)
            self._check_table_function(node)
            check = self._checks.get(str(node.get("type")))
            if check is not None:
                check(node)

    def _check_files(self, node: Tree) -> None:
        for key, clause in (("out_file", "INTO OUTFILE"), ("infile", "FROM INFILE")):
            if key in node:
                raise _denied(f"{clause} is refused; send and receive data over the connection")
        if node.get("cluster"):
            raise _denied("ON CLUSTER is refused")

    def _check_table_function(self, node: Tree) -> None:
        for key in ("table_function", "as_table_function"):
            name = _name_of(node.get(key))
            if name is not None and name.lower() not in _TABLE_FUNCTIONS:
                raise _denied(f"The table function {name} is refused")

    def _check_function(self, node: Tree) -> None:
        name = str(node.get("name"))
        if node.get("kind") not in ("TABLE_ENGINE", "DATABASE_ENGINE"):
            self._check_function_name(name)
        if _IN_FUNCTION.fullmatch(name):
            self._check_in_operand(node)

    def _check_function_name(self, name: str) -> None:
        if name.lower() in _REFUSED_FUNCTIONS or _AI_FUNCTION.fullmatch(name):
            raise _denied(f"The function {name} is refused")

    def _check_in_operand(self, node: Tree) -> None:
        # `x IN name` reads the table of that name, though the tree has it as a plain identifier.
        arguments = node.get("arguments")
        operands = arguments.get("children") if isinstance(arguments, Mapping) else None
        if isinstance(operands, list) and operands and operands[-1].get("type") == "Identifier":
            self._check_table_identifier(operands[-1])

    def _check_apply(self, node: Tree) -> None:
        self._check_function_name(str(node.get("func_name", "")))

    def _check_identifier(self, node: Tree) -> None:
        parts = self._resolve_parts(node)
        if len(parts) == 1:
            # A bare name can stand for the function of that name, as in arrayMap(name, …).
            self._check_function_name(parts[0])
        elif parts[0].lower() in _FOREIGN_DATABASES:
            _check_table(self._database, parts[0], parts[1])

    def _check_table_identifier(self, node: Tree) -> None:
        parts = self._resolve_parts(node)
        if len(parts) > 2:
            raise _denied(f"{'.'.join(parts)!r} is not a table name")
        _check_table(self._database, parts[0] if len(parts) > 1 else None, parts[-1])

    def _resolve_parts(self, node: Tree) -> list[str]:
        """Return the parts of a name, with `{name:Identifier}` replaced by the value it will have."""
        parts = node.get("name_parts") or [node.get("name", "")]
        children = node.get("children")
        given = iter(children if isinstance(children, list) else [])
        return [
            str(part) or self._resolve_param(next(given, {})) for part in (parts if isinstance(parts, list) else [])
        ]

    def _resolve_param(self, node: Tree) -> str:
        value = self._params.get(str(node.get("name")), "")
        if not _WORD.fullmatch(value):
            raise _denied(f"The identifier {value!r} is not a plain name")
        return value

    def _check_settings(self, node: Tree) -> None:
        if any(node is checked for checked in self._settings_checked):
            return
        if node.get("default_settings") or node.get("query_parameters"):
            raise _denied("SETTINGS may neither be reset to their defaults nor set parameters")
        for name, value in _read_changes(node):
            check_setting(self._role, name, value)

    def _check_explain(self, node: Tree) -> None:
        inner = node.get("query")
        if isinstance(inner, Mapping) and inner.get("type") != "SelectWithUnionQuery":
            raise _denied("Only SELECT can be explained")
        if "TABLE OVERRIDE" in str(node.get("kind")) or "TRANSACTION" in str(node.get("kind")):
            raise _denied(f"{node.get('kind')} is refused")
        options = node.get("settings")
        if isinstance(options, Mapping):
            self._settings_checked.append(options)
            for name, _ in _read_changes(options):
                if name not in _EXPLAIN_OPTIONS:
                    raise _denied(f"{name} is not an option of EXPLAIN that can be given")

    def _check_show_tables(self, node: Tree) -> None:
        if _name_of(node.get("from")) not in (None, self._database, "system"):
            raise _denied(f"Only tables of {self._database} and system can be listed")

    def _check_insert(self, node: Tree) -> None:
        if "table_function" in node:
            raise _denied("INSERT INTO FUNCTION is refused")
        _check_table(self._database, _name_of(node.get("database")), _name_of(node.get("table")) or "")
        if _name_of(node.get("database")) == "system":
            raise _denied("The tables of system cannot be written")
        if "format" in node:
            check_format(str(node["format"]))

    def _check_target(self, node: Tree) -> None:
        self._check_own(node.get("database"))
        self._check_own(_name_of(node.get("database_ast")))

    def _check_own(self, owner: object) -> None:
        name = _name_of(owner) if isinstance(owner, Mapping) else owner
        if name not in (None, "", self._database):
            raise _denied(f"Only {self._database} can be changed or described, not {name}")

    def _check_create(self, node: Tree) -> None:
        self._check_target(node)
        self._check_own(node.get("as_database"))
        if node.get("attach") or node.get("has_attach_from_path"):
            raise _denied("ATTACH is refused")

    def _check_drop(self, node: Tree) -> None:
        self._check_target(node)
        if node.get("kind") not in ("Drop", "Truncate"):
            raise _denied(f"{str(node.get('kind')).upper()} is refused")

    def _check_alter_command(self, node: Tree) -> None:
        for key in ("from_database", "to_database"):
            self._check_own(node.get(key))
        self._check_table_settings(node.get("settings_changes"))
        if re.match(r"FREEZE|UNFREEZE|FETCH|MOVE|EXPORT", str(node.get("command_type"))):
            raise _denied(f"ALTER … {node.get('command_type')} is refused")

    def _check_rename(self, node: Tree) -> None:
        elements = node.get("elements")
        for element in elements if isinstance(elements, list) else []:
            self._check_own(element.get("from_database"))
            self._check_own(element.get("to_database"))

    def _check_view_targets(self, node: Tree) -> None:
        targets = node.get("targets")
        for target in targets if isinstance(targets, list) else []:
            self._check_own(target.get("table_database"))

    def _check_storage(self, node: Tree) -> None:
        engine = _name_of(node.get("engine"))
        if engine is not None and not _ENGINES.fullmatch(engine):
            raise _denied(f"The engine {engine} is refused")
        self._check_table_settings(node.get("settings"))

    def _check_table_settings(self, options: object) -> None:
        if isinstance(options, Mapping):
            self._settings_checked.append(options)
            for name, _ in _read_changes(options):
                if name in _STORAGE_SETTINGS_THAT_REACH_OUT:
                    raise _denied(f"The setting {name} of a table is refused")

    def _check_dictionary(self, node: Tree) -> None:
        raise _denied(f"Dictionaries are refused; their sources, here {_name_of(node.get('source'))}, reach out")


def _read_changes(node: Tree) -> Iterator[tuple[str, str]]:
    changes = node.get("changes")
    for change in changes if isinstance(changes, list) else []:
        value = change.get("value")
        raw = value.get("value") if isinstance(value, Mapping) else value
        yield str(change.get("name")), str(int(raw)) if isinstance(raw, bool) else str(raw)

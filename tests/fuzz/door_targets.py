"""What comes in at the door: statements, heads of inserts, settings. ClickHouse's own parser takes part."""

import tempfile
from functools import cache
from pathlib import Path

from storage.door_request import split_insert
from storage.engine import Engine, ErrorCode, Handle, QueryRefusedError
from storage.roles import RoleName, StatementKind, check_format, check_setting, judge_statement, make_role
from tests.fuzz.target import Target, check

_REPORTS, _INGEST = make_role(RoleName.REPORTS, "fuzz"), make_role(RoleName.INGEST, "fuzz")
_DATABASE = "kvandal"


@cache
def _handle() -> Handle:
    """One engine for the whole run; only its parser is used, so that no statement is ever run."""
    engine = Engine.open(Path(tempfile.mkdtemp(prefix="kvandal-fuzz-")) / "engine", memory_limit_bytes=1 << 30)
    return engine.open_handle()


def _read_statement(value: bytes) -> None:
    """A statement that the reports' role may run only reads, and still does as ClickHouse words it."""
    try:
        statement = _handle().parse(value.decode(errors="replace").replace("\0", " "))
        verdict = judge_statement(_REPORTS, _DATABASE, statement, {"p": "gpu"})
    except QueryRefusedError:
        return
    check(verdict.kind is StatementKind.READ, f"the reports' role may {verdict.kind}")
    # What is judged is the tree; what runs is ClickHouse's wording of it, which must be as harmless.
    try:
        again = _handle().parse(statement.text)
        check(judge_statement(_REPORTS, _DATABASE, again, {"p": "gpu"}) == verdict, "what runs is judged otherwise")
    except QueryRefusedError as error:
        check(_is_unreadable(error), f"what runs would be refused: {error}")
    else:
        check(again.text == statement.text, "what runs says something else")


def _is_unreadable(error: QueryRefusedError) -> bool:
    """ClickHouse words a few statements so that it cannot read them itself: running them fails, which harms nobody."""
    return error.code == ErrorCode.SYNTAX_ERROR


def _read_insert(value: bytes) -> None:
    try:
        head = split_insert(value)
    except QueryRefusedError:
        return
    if head is None:
        return
    check(head.statement.lstrip()[:1] != "" and 0 < head.data_start <= len(value), "data begin outside of the input")
    check(head.format.isalnum(), "a format that is no word")


def _read_setting(value: bytes) -> None:
    name, _, text = value.decode(errors="replace").partition("=")
    for role in (_REPORTS, _INGEST):
        try:
            check_setting(role, name, text)
            check_format(text)
        except QueryRefusedError:
            continue


_STATEMENTS = (
    b"SELECT resource, avg(power_watts) FROM kvandal.gpu WHERE time > now() - 60 GROUP BY ALL ORDER BY 1 LIMIT 5",
    b"WITH t AS (SELECT 1 AS a) SELECT * FROM t JOIN (SELECT 2 AS a) USING a SETTINGS max_threads = 2 FORMAT JSON",
    b"SHOW TABLES FROM kvandal LIKE 'gpu%'",
    b"DESCRIBE TABLE kvandal.gpu",
    b"EXPLAIN SELECT count() FROM {p:Identifier}",
    b"INSERT INTO kvandal.events SELECT * FROM kvandal.events",
)
_SQL_WORDS = (
    b"SELECT ", b" FROM ", b"INSERT INTO ", b" SETTINGS ", b" FORMAT Native", b" INTO OUTFILE 'x'", b"file('x')",
    b"url('http://x')", b"system.", b"remote('x','y','z')", b"/*", b"*/", b"--", b"{p:Identifier}", b"(", b")", b"'",
    b"`", b"executable('x')", b"merge('.*')", b"dictGet('x','y',1)", b"UNION ALL ", b"ALTER TABLE ",
    b"; DROP TABLE gpu",
)  # fmt: skip
_INSERTS = (
    b"INSERT INTO gpu (resource, time) FORMAT Native \n\x01\x02data",
    b"/* c */ INSERT INTO `gpu` -- x\n VALUES (1, 'it''s')",
    b'INSERT INTO events SETTINGS async_insert=0 FORMAT JSONEachRow {"id": 1}',
)

DOOR_TARGETS = (
    Target("statement", _read_statement, _STATEMENTS, _SQL_WORDS),
    Target("insert-head", _read_insert, _INSERTS, _SQL_WORDS),
    Target(
        "door-setting", _read_setting, (b"max_threads=4", b"readonly=0", b"output_format_json_quote_64bit_integers=1")
    ),
)

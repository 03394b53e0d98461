"""What each role tries on the brokers and on the store, and what comes of it: docs/security.md shows these tables.

tests/integration/test_kafka_access.py and test_store_access.py do every one of them over the wire, and hold the outcome
against what is written here. KVANDAL_REWRITE_GOLDEN=1 with tests/unit/test_security_docs.py writes the tables anew.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

KAFKA_ROLES = ("agent", "gateway", "ingest", "incidents", "operator", "stranger")
# By topic: who may write, who may read. A stranger is a user whom the brokers know and nobody gave an ACL.
TOPICS = {
    "gpu": (("agent", "operator"), ("ingest", "operator")),
    "gpu_health": (("agent", "operator"), ("ingest", "operator")),
    "port": (("agent", "operator"), ("ingest", "operator")),
    "tray": (("agent", "gateway", "operator"), ("ingest", "operator")),
    "rack": (("gateway", "operator"), ("ingest", "operator")),
    "cooling": (("gateway", "operator"), ("ingest", "operator")),
    "power": (("gateway", "operator"), ("ingest", "operator")),
    "points": (("gateway", "operator"), ("ingest", "operator")),
    "inventory": (("agent", "gateway", "operator"), ("ingest", "incidents", "operator")),
    "events": (("agent", "gateway", "operator"), ("ingest", "incidents", "operator")),
    "jobs": (("agent", "gateway", "operator"), ("ingest", "operator")),
    "deadletter": (("ingest", "operator"), ("operator",)),
}
# Who may do what else; what has nobody beside it, only the brokers' administrator may do.
DEEDS = {
    "commit as ingest's group": ("ingest", "operator"),
    "commit as incidents' group": ("incidents", "operator"),
    "delete ingest's group": (),
    "create a topic kvandal.x": ("operator",),
    "create a topic x": (),
    "delete a topic": (),
    "delete a topic's records": (),
    "shorten a topic's retention": (),
    "give another user a new password": (),
    "give itself an ACL": (),
}
# Clients that are not let in at all.
TURNED_AWAY = (
    "without TLS",
    "with TLS, without a password, where one is asked for",
    "with a wrong password",
    "as a user whom nobody made",
    "with TLS, without a certificate, where one is asked for",
    "with a certificate that somebody else signed",
    "with a certificate that has run out",
)


@dataclass(frozen=True, slots=True)
class StoreTry:
    """One statement, what it would do, and which roles are let."""

    what: str
    sql: str
    allowed: Sequence[str] = ()


STORE_ROLES = ("admin", "ingest", "reports", "grafana")
STORE_TRIES = (
    StoreTry("read readings", "SELECT count() FROM gpu", STORE_ROLES),
    StoreTry("insert readings", "INSERT INTO gpu (resource, time) VALUES (1, 1)", ("admin", "ingest")),
    StoreTry("make a table", "CREATE TABLE sneaky (a UInt8) ENGINE = Memory", ("admin",)),
    StoreTry("drop a table", "DROP TABLE IF EXISTS sneaky", ("admin",)),
    StoreTry("delete rows", "ALTER TABLE gpu DELETE WHERE resource = 1", ("admin",)),
    StoreTry("read a file of the machine", "SELECT * FROM file('/etc/passwd', 'LineAsString')"),
    StoreTry("… in a comment's shadow", "SELECT * FROM/**/file/* */('/etc/passwd', 'LineAsString')"),
    StoreTry("… in a subquery", "SELECT (SELECT count() FROM file('/etc/passwd', 'LineAsString'))"),
    StoreTry("… in a common table expression", "WITH f AS (SELECT * FROM file('/etc/passwd')) SELECT * FROM f"),
    StoreTry("… as a function", "WITH (x -> file(x)) AS f SELECT f('/etc/passwd')"),
    StoreTry("… as a table's name", "SELECT * FROM default.`/etc/passwd`"),
    StoreTry("… through a view", "CREATE VIEW sneaky AS SELECT * FROM file('/etc/passwd', 'LineAsString')"),
    StoreTry(
        "… through a dictionary",
        "CREATE DICTIONARY d (a UInt64) PRIMARY KEY a SOURCE(FILE(PATH '/etc/passwd' FORMAT 'CSV')) LAYOUT(FLAT())",
    ),
    StoreTry("write a file", "SELECT 1 INTO OUTFILE '/tmp/kvandal-outfile'"),
    StoreTry("… behind a second statement", "SELECT 1; SELECT 1 INTO OUTFILE '/tmp/kvandal-outfile'"),
    StoreTry("… by an insert", "INSERT INTO FUNCTION file('/tmp/kvandal-outfile', 'CSV', 'a Int8') SELECT 1"),
    StoreTry("reach another host", "SELECT * FROM url('http://127.0.0.1:1/', 'CSV', 'a Int8')"),
    StoreTry("… as a server", "SELECT * FROM remote('127.0.0.1', system.one)"),
    StoreTry("… as a bucket", "SELECT * FROM s3('http://127.0.0.1:1/x.csv')"),
    StoreTry("run a program", "SELECT * FROM executable('id', 'CSV', 'a String')"),
    StoreTry("stop the server", "SYSTEM SHUTDOWN"),
    StoreTry("make a user", "CREATE USER sneaky"),
    StoreTry("grant itself everything", "GRANT ALL ON *.* TO grafana"),
    StoreTry("see what others ask", "SELECT * FROM system.processes"),
    StoreTry("see the machine's folders", "SELECT path FROM system.disks"),
    StoreTry("ask about the machine", "SELECT hostName(), getOSKernelVersion()"),
    StoreTry("write a line of the engine's log", "SELECT logTrace('x')"),
    StoreTry("lift its limits", "SELECT 1 SETTINGS max_execution_time = 0"),
    StoreTry("… and its read-only handle", "SELECT 1 SETTINGS readonly = 0"),
    StoreTry("take an unlisted format", "SELECT 1 FORMAT Template SETTINGS format_template_row = '/etc/passwd'"),
)


def topic_table() -> Iterator[str]:
    yield "| topic | " + " | ".join(KAFKA_ROLES) + " |"
    yield "|---" * (len(KAFKA_ROLES) + 1) + "|"
    for topic, (writers, readers) in TOPICS.items():
        cells = []
        for role in KAFKA_ROLES:
            rights = [word for word, who in (("writes", writers), ("reads", readers)) if role in who]
            cells.append(", ".join(rights) or "refused")
        yield f"| `kvandal.{topic}` | " + " | ".join(cells) + " |"
    for deed, who in DEEDS.items():
        yield f"| {deed} | " + " | ".join("may" if role in who else "refused" for role in KAFKA_ROLES) + " |"


def store_table() -> Iterator[str]:
    yield "| tries to | by | " + " | ".join(STORE_ROLES) + " |"
    yield "|---" * (len(STORE_ROLES) + 2) + "|"
    for one in STORE_TRIES:
        cells = ("may" if role in one.allowed else "refused" for role in STORE_ROLES)
        yield f"| {one.what} | `{one.sql}` | " + " | ".join(cells) + " |"

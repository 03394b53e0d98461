"""One way to reach ClickHouse: a server, the embedded engine's door, or the engine in this process.

Everything in Kvandal names its store by URL: `http://host:8123`, `https://host:8443`, or
`chdb:///var/lib/kvandal/clickhouse` for the embedded engine in this very process.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import clickhouse_connect
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError, Error

DATABASE = "kvandal"

# ClickHouse error codes that say "not now": the same statement may succeed later.
# 159 timeout, 202 too many queries, 209/210 network, 241 memory, 242 table is
# read-only, 243 no space, 252 too many parts, 425 system error, 999 keeper.
_PASSING_CODES = frozenset({159, 202, 209, 210, 241, 242, 243, 252, 425, 999})


_HINTS = {
    60: "; run `kvandal schema apply`",  # unknown table: nobody has applied the migrations
    81: "; make the database first, with CREATE DATABASE as an administrator",
}
_FOREIGN_ANSWER = re.compile(r"HTTP status (\d{3})\b")


class StoreUnavailableError(ConnectionError):
    """ClickHouse is away, overloaded or out of space; the same call may succeed later."""


class StoreRefusedError(ValueError):
    """ClickHouse understood the call and refused it; repeating it will not help."""


@dataclass(frozen=True, slots=True)
class StoreAddress:
    """Where the store is and as whom to go there. The password is never shown."""

    url: str
    user: str = "default"
    password: str = field(default="", repr=False)
    database: str = DATABASE
    ca_file: str = ""  # who signed the store's certificate; empty = whom this machine trusts


def connect(address: StoreAddress, *, answer_timeout_s: int = 300) -> Client:
    """A client of the store, with inserts synchronous: `async_insert` is on by default since 26.x.

    A server that is silent for `answer_timeout_s` counts as away: one that lost its power says nothing at all. Raises
    StoreUnavailableError when nothing answers, ValueError for a URL of another kind.
    """
    parts = urlsplit(address.url)
    settings = {"async_insert": 0}
    with store_errors(f"ClickHouse at {address.url}"):
        if parts.scheme == "chdb":
            client = clickhouse_connect.get_client(interface="chdb", path=parts.path, settings=settings)
            client.command(f"CREATE DATABASE IF NOT EXISTS {address.database} ENGINE = Atomic")
            client.database = address.database
            return client
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"store.url is {address.url!r}; give http://host:port, https://host:port or chdb:///path")
        return clickhouse_connect.get_client(
            interface=parts.scheme,
            host=parts.hostname,
            port=parts.port or (8443 if parts.scheme == "https" else 8123),
            username=address.user,
            password=address.password,
            database=address.database,
            ca_cert=address.ca_file or None,
            settings=settings,
            autogenerate_session_id=False,
            send_receive_timeout=answer_timeout_s,
        )


@contextmanager
def store_errors(what: str) -> Iterator[None]:
    """Turns the client library's errors into the two that callers can act on."""
    try:
        yield
    except Error as error:
        # Without a code the error came from the transport, not from ClickHouse.
        if error.code is None:
            if status := _FOREIGN_ANSWER.search(str(error)):
                # Without its body: what a proxy says back may hold what it was told, our password too.
                raise StoreUnavailableError(f"{what}: no answer of ClickHouse's (HTTP status {status[1]})") from None
            raise StoreUnavailableError(f"{what}: no answer ({_root_cause(error)})") from error
        if error.code in _PASSING_CODES:
            raise StoreUnavailableError(f"{what}: {_first_line(error)}") from error
        raise StoreRefusedError(f"{what}: {_first_line(error)}{_HINTS.get(error.code, '')}") from error
    except ClickHouseError as error:
        raise StoreUnavailableError(f"{what}: {_first_line(error)}") from error


def _root_cause(error: BaseException) -> str:
    """What the operating system said, below what the libraries made of it."""
    while (deeper := error.__cause__ or error.__context__) is not None:
        error = deeper
    return getattr(error, "strerror", None) or _first_line(error)


def _first_line(error: BaseException) -> str:
    """ClickHouse's own words, without the client's preamble, the statement and the version at the end."""
    text = str(error).strip().split("\n", 1)[0]
    _, marker, said = text.partition("DB::Exception: ")
    return (said if marker else text).split(" (version ", 1)[0].split(" In scope ", 1)[0][:500]

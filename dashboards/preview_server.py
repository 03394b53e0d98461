"""Serves previews: pages drawn when they are asked for, with variables and range in their addresses, as Grafana's are.

For one machine's demo, read-only and on loopback: no script, no state, no log-in. One page is drawn at a time.
"""

import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self
from urllib.parse import parse_qs, urlsplit

from clickhouse_connect.driver.client import Client

from dashboards.answers import Asker, Json, asked_variables
from dashboards.board import Page
from dashboards.macros import ALL
from dashboards.preview import PAGE_WIDTH, draw_page, every_dashboard, range_of, range_text
from dashboards.preview_links import ServedLinks, Values
from storage.client import StoreAddress, StoreRefusedError, StoreUnavailableError, connect
from storage.reception import is_local_name

_log = logging.getLogger(__name__)

HOST = "127.0.0.1"
NOW = "now"
# How wide the window is, if the browser tells: pictures are then drawn for it. Chromium does, once it was asked, and
# comes again at once where that is critical.
_WIDTH_HINT = "Sec-CH-Viewport-Width"
_LEAST_WIDTH, _MOST_WIDTH = 900, 4000
RANGES = ("now-15m", "now-1h", "now-3h", "now-6h", "now-24h", "now-7d", "now-30d")
_MOST_OFFERED = 400  # names in one list; more of them nobody scrolls through
_IDLE_TIMEOUT_S = 60.0


class AddressRefusedError(ValueError):
    """A page's address holds what no link of ours has."""


@dataclass(frozen=True, slots=True)
class Moments:
    """The ends of ranges that a page offers: label to "now" or milliseconds since the epoch; the first is meant."""

    ends: Mapping[str, str]

    @classmethod
    def of(cls, **ends: datetime | None) -> Self:
        """By label, with _ for spaces; None is now, whenever that is."""
        told = {label: NOW if end is None else str(int(end.timestamp() * 1000)) for label, end in ends.items()}
        return cls({label.replace("_", " "): end for label, end in told.items()})

    def meant(self, uid: str) -> str:
        """The first; a page about the pipeline is about what it did last."""
        ends = list(self.ends.values())
        if uid != Page.PIPELINE:
            return ends[0]
        return NOW if NOW in ends else max(ends, key=int)


class PreviewServer:
    """An open server of previews; `close` ends it. Raises OSError where the port is taken."""

    def __init__(self, address: StoreAddress, moments: Moments, *, port: int = 0) -> None:
        self._client = connect(address)
        self._server = _Server((HOST, port), _Drawer(self._client, moments))
        self._thread = threading.Thread(target=self._server.serve_forever, name="previews", daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self._server.server_address[1]}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Drawer:
    """Draws the page of an address. The client is not for two threads at once."""

    def __init__(self, client: Client, moments: Moments) -> None:
        self._client, self._moments = client, moments
        self._dashboards = every_dashboard()
        self._one_at_a_time = threading.Lock()

    def knows(self, uid: str) -> bool:
        return uid in self._dashboards

    def draw(self, uid: str, query: Mapping[str, Sequence[str]], width: int) -> str:
        """AddressRefusedError, StoreUnavailableError, StoreRefusedError."""
        dashboard = self._dashboards[uid]
        span = {
            "from": _only(query, "from", dashboard["time"]["from"]),
            "to": _only(query, "to", self._moments.meant(uid)),
        }
        chosen = {name.removeprefix("var-"): values for name, values in query.items() if name.startswith("var-")}
        if any("\\" in value for values in chosen.values() for value in values):
            raise AddressRefusedError("a variable holds a backslash, which no name of ours has")
        with self._one_at_a_time:
            asker = _asker(self._client, span)
            values = asker.choose(dashboard, chosen)
            form = "".join(self._form(dashboard, asker, values, span))
            links = ServedLinks(span, {**chosen, **values})
            return draw_page(dashboard, asker, values, links, form, width=width).html

    def _form(self, dashboard: Json, asker: Asker, values: Values, span: Mapping[str, str]) -> Iterator[str]:
        """What Grafana has above a page: a list for each variable, and the range."""
        yield '<form method="get">'
        for variable in asked_variables(dashboard):
            offered = asker.offered(variable, values)[:_MOST_OFFERED]
            everything = [ALL] if variable["includeAll"] else []
            yield _list(f"var-{variable['name']}", variable["label"], [*everything, *offered], values[variable["name"]])
        yield _list("from", "Range", RANGES, [span["from"]])
        yield _list("to", "until", list(self._moments.ends.values()), [span["to"]], self._labels())
        yield f"<button>Show</button><span>{range_text(asker)}</span></form>"

    def _labels(self) -> Mapping[str, str]:
        return {end: label for label, end in self._moments.ends.items()}


def _only(query: Mapping[str, Sequence[str]], name: str, otherwise: str) -> str:
    return query[name][-1] if name in query else otherwise


def _asker(client: Client, span: Mapping[str, str]) -> Asker:
    """`from` is relative to `to`, which is now or milliseconds since the epoch. AddressRefusedError."""
    try:
        end = datetime.now(UTC) if span["to"] == NOW else datetime.fromtimestamp(int(span["to"]) / 1000, UTC)
        return Asker(client, end - range_of(span["from"]), end)
    except (ValueError, OverflowError, OSError) as error:
        raise AddressRefusedError(f"the range {span['from']} to {span['to']} is none: {error}") from error


def _list(
    name: str, label: str, offered: Sequence[str], chosen: Sequence[str], labels: Mapping[str, str] | None = None
) -> str:
    """What is chosen stands in the list even where the list does not offer it."""
    told = {ALL: "All", **{one: f"last {one.removeprefix('now-')}" for one in RANGES}, **(labels or {})}
    options = "".join(
        f'<option value="{escape(one, quote=True)}"{" selected" if one in chosen else ""}>'
        f"{escape(told.get(one, one))}</option>"
        for one in dict.fromkeys([*offered, *chosen])
    )
    return f'<label>{escape(label)} <select name="{name}">{options}</select></label>'


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], drawer: _Drawer) -> None:
        self.drawer = drawer
        super().__init__(address, _Handler)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    timeout = _IDLE_TIMEOUT_S

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        uid = url.path.removeprefix("/d/")
        if not is_local_name(self.headers.get("Host", "")):
            self._send(HTTPStatus.FORBIDDEN, "Previews are for this machine: open them by its loopback address.\n")
        elif url.path == "/":
            self._send(HTTPStatus.FOUND, "", {"Location": f"/d/{Page.SITE}"})
        elif not self.server.drawer.knows(uid):
            self._send(HTTPStatus.NOT_FOUND, f"There is no page {escape(url.path)}.\n")
        else:
            self._draw(uid, parse_qs(url.query))

    def _draw(self, uid: str, query: Mapping[str, Sequence[str]]) -> None:
        try:
            page = self.server.drawer.draw(uid, query, self._width())
        except AddressRefusedError as error:
            self._send(HTTPStatus.BAD_REQUEST, f"{error}\n")
        except (StoreUnavailableError, StoreRefusedError) as error:
            self._send(HTTPStatus.SERVICE_UNAVAILABLE, f"{error}\n")
        else:
            self._send(HTTPStatus.OK, page, {"Content-Type": "text/html; charset=utf-8"})

    def _width(self) -> int:
        told = self.headers.get(_WIDTH_HINT, "")
        return min(max(int(told), _LEAST_WIDTH), _MOST_WIDTH) if told.isdecimal() else PAGE_WIDTH

    def _send(self, status: HTTPStatus, text: str, headers: Mapping[str, str] | None = None) -> None:
        body = text.encode()
        self.send_response(status)
        for name, value in {"Content-Type": "text/plain; charset=utf-8", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        for asking in ("Accept-CH", "Critical-CH"):
            self.send_header(asking, _WIDTH_HINT)
        self.send_header("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, _format: str, *_arguments: object) -> None:
        _log.debug("A preview was asked for", extra={"path": self.path})

"""The part of Grafana's HTTP API that publishing uses, as its documentation (11.6) describes it.

No Grafana can be had for the tests: what is here is folders, data sources by uid, dashboards with versions and
messages, tokens, and the refusal (412) of a save that does not know the newest version.
"""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

TOKEN = "glsa_for_tests"  # noqa: S105 - of no Grafana
Answer = tuple[int, Any]
NOT_FOUND: Answer = (404, {"message": "not found"})


@dataclass(slots=True)
class GrafanaState:
    """What the server knows, and how often it was asked to change something."""

    folders: dict[str, dict[str, Any]] = field(default_factory=dict)
    sources: dict[str, dict[str, Any]] = field(default_factory=dict)
    dashboards: dict[str, list[dict[str, Any]]] = field(default_factory=dict)  # versions, the oldest first
    changes: int = 0

    def edit(self, uid: str, **values: Any) -> None:
        """Save a dashboard as a person does in the editor: a version more, with his own message or none."""
        newest = self.dashboards[uid][-1]
        document = {**newest["data"], **values, "version": newest["version"] + 1}
        self.dashboards[uid].append({"version": newest["version"] + 1, "message": "", "data": document})


@dataclass(frozen=True, slots=True)
class GrafanaApiServer:
    url: str
    state: GrafanaState


@contextmanager
def grafana_api() -> Iterator[GrafanaApiServer]:
    """On a free loopback port, until the block ends."""
    state = GrafanaState()

    class Handler(_Handler):
        grafana = state

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield GrafanaApiServer(f"http://127.0.0.1:{server.server_port}", state)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    grafana: GrafanaState

    def do_GET(self) -> None:
        self._answer(
            {
                r"/api/folders/([\w-]+)": lambda uid: _found(self.grafana.folders.get(uid)),
                r"/api/datasources/uid/([\w-]+)": lambda uid: _found(self.grafana.sources.get(uid)),
                r"/api/dashboards/uid/([\w-]+)": self._dashboard,
                r"/api/dashboards/uid/([\w-]+)/versions": self._versions,
            }
        )

    def do_POST(self) -> None:
        self._answer(
            {
                r"/api/folders": self._create_folder,
                r"/api/datasources": self._create_source,
                r"/api/dashboards/db": self._save_dashboard,
            }
        )

    def do_PUT(self) -> None:
        self._answer({r"/api/datasources/uid/([\w-]+)": self._update_source})

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        """Tests need no access log."""

    def _answer(self, routes: dict[str, Callable[..., Answer]]) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._send(401, {"message": "Unauthorized"})
        path = self.path.partition("?")[0]
        for pattern, handle in routes.items():
            found = re.fullmatch(pattern, path)
            if found:
                arguments = [*found.groups()] if self.command == "GET" else [*found.groups(), json.loads(body)]
                return self._send(*handle(*arguments))
        return self._send(404, {"message": f"no route for {self.command} {path}"})

    def _send(self, status: int, document: Any) -> None:
        text = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def _create_folder(self, body: dict[str, Any]) -> Answer:
        if body["uid"] in self.grafana.folders:
            return 412, {"message": "a folder with the same uid already exists", "status": "version-mismatch"}
        self.grafana.folders[body["uid"]] = {"uid": body["uid"], "title": body["title"], "version": 1}
        self.grafana.changes += 1
        return 200, self.grafana.folders[body["uid"]]

    def _create_source(self, body: dict[str, Any]) -> Answer:
        if body["uid"] in self.grafana.sources:
            return 409, {"message": "data source with the same name already exists"}
        return self._put_source(body)

    def _update_source(self, uid: str, body: dict[str, Any]) -> Answer:
        return self._put_source(body) if uid in self.grafana.sources else NOT_FOUND

    def _put_source(self, body: dict[str, Any]) -> Answer:
        # Secrets go in and never come out; Grafana adds fields of its own.
        secrets = dict.fromkeys(body.pop("secureJsonData", {}), True)
        known = {"id": len(self.grafana.sources) + 1, "orgId": 1, "readOnly": False, "url": "", "basicAuth": False}
        self.grafana.sources[body["uid"]] = known | body | {"secureJsonFields": secrets}
        self.grafana.changes += 1
        return 200, {"datasource": self.grafana.sources[body["uid"]], "message": "Datasource added"}

    def _dashboard(self, uid: str) -> Answer:
        versions = self.grafana.dashboards.get(uid)
        if not versions:
            return NOT_FOUND
        return 200, {"dashboard": versions[-1]["data"], "meta": {"folderUid": "kvandal", "version": len(versions)}}

    def _versions(self, uid: str) -> Answer:
        versions = self.grafana.dashboards.get(uid)
        if not versions:
            return NOT_FOUND
        listed = [{"version": one["version"], "message": one["message"], "uid": uid} for one in reversed(versions)]
        return 200, {"continueToken": "", "versions": listed}

    def _save_dashboard(self, body: dict[str, Any]) -> Answer:
        document = body["dashboard"]
        if body["folderUid"] not in self.grafana.folders:
            return 400, {"message": "folder not found"}
        versions = self.grafana.dashboards.setdefault(document["uid"], [])
        if versions and versions[-1]["version"] != document["version"] and not body["overwrite"]:
            return 412, {"message": "The dashboard has been changed by someone else", "status": "version-mismatch"}
        number = len(versions) + 1
        saved = {**document, "id": len(self.grafana.dashboards), "version": number}
        versions.append({"version": number, "message": body["message"], "data": saved})
        self.grafana.changes += 1
        return 200, {"uid": document["uid"], "status": "success", "version": number}


def _found(document: dict[str, Any] | None) -> Answer:
    return (200, document) if document else NOT_FOUND

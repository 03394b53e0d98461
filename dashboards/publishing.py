"""Publishes folder, data sources and dashboards to a Grafana; says first what would change, and never hides a hand.

Every version that we save carries the message "kvandal <digest>" of what was saved. So the newest version's message
tells an older state of ours (which is replaced) from an edit by hand (drift: reported, and left alone unless the caller
asks otherwise), whatever Grafana adds to the JSON by itself. Publishing twice changes nothing.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import sha256
from pathlib import Path
from typing import Any

import requests
from grafana_client import GrafanaApi  # type: ignore[import-untyped]
from grafana_client.client import GrafanaException, TokenAuth  # type: ignore[import-untyped]

from dashboards.board import RUNBOOKS
from dashboards.provisioning import (
    CLICKHOUSE_NAME,
    DIAL_TIMEOUT_S,
    FOLDER_TITLE,
    FOLDER_UID,
    PROMETHEUS_NAME,
    QUERY_TIMEOUT_S,
)
from dashboards.rendering import boards, dashboard_json
from dashboards.targets import CLICKHOUSE_TYPE, CLICKHOUSE_UID, PROMETHEUS_UID

Json = Mapping[str, Any]

_SIGNATURE = "kvandal "  # what a message of ours begins with
_OWN_TO_GRAFANA = ("id", "version")  # keys of a dashboard that are Grafana's, not ours
_MOST_DIFFERENCES = 20
TIMEOUT_S = 30.0


class PublishingError(RuntimeError):
    """Grafana refused, or is away; says what was tried and what to do."""


class Change(StrEnum):
    """What publishing does, or would do, to one thing."""

    NONE = "unchanged"
    CREATE = "create"
    UPDATE = "update"
    DRIFT = "edited by hand"  # left alone, unless told to overwrite


@dataclass(frozen=True, slots=True)
class Planned:
    """One thing, what is to happen to it, and in what it differs from what Grafana has."""

    kind: str
    uid: str
    title: str
    change: Change
    differences: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [f"{self.change}: {self.kind} {self.title} ({self.uid})", *(f"  {one}" for one in self.differences)]
        return "\n".join(lines)


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSources:
    """Where Grafana's data sources find ClickHouse (HTTP interface) and Prometheus. The password is never shown."""

    clickhouse_host: str
    clickhouse_port: int = 8123
    clickhouse_user: str = "grafana"
    clickhouse_password: str = field(default="", repr=False)
    clickhouse_secure: bool = False
    database: str = "kvandal"
    prometheus_url: str = ""

    def documents(self) -> Iterator[dict[str, Any]]:
        """In the form of Grafana's HTTP API; without Prometheus where no URL is given."""
        yield {
            "uid": CLICKHOUSE_UID, "name": CLICKHOUSE_NAME, "type": CLICKHOUSE_TYPE, "access": "proxy",
            "jsonData": {
                "host": self.clickhouse_host, "port": self.clickhouse_port, "protocol": "http",
                "secure": self.clickhouse_secure, "username": self.clickhouse_user,
                "defaultDatabase": self.database, "dialTimeout": str(DIAL_TIMEOUT_S),
                "queryTimeout": str(QUERY_TIMEOUT_S),
            },
            "secureJsonData": {"password": self.clickhouse_password},
        }  # fmt: skip
        if self.prometheus_url:
            yield {
                "uid": PROMETHEUS_UID, "name": PROMETHEUS_NAME, "type": "prometheus", "access": "proxy",
                "url": self.prometheus_url, "jsonData": {"timeInterval": "15s"},
            }  # fmt: skip


def read_secret(file: Path) -> str:
    """A token or password, which never is a flag. PublishingError where the file cannot be read."""
    try:
        return file.read_text().strip()
    except OSError as error:
        raise PublishingError(f"the secret file {file} cannot be read ({error.strerror}); give another") from error


def open_grafana(url: str, token_file: Path) -> GrafanaApi:
    """A client that acts as the service account whose token stands in the file. PublishingError without a token."""
    token = read_secret(token_file)
    if not token:
        raise PublishingError(f"the token file {token_file} is empty; put a service account's token into it")
    return GrafanaApi.from_url(url, credential=TokenAuth(token), timeout=TIMEOUT_S)


class Publisher:
    """Compares and publishes. Every method raises PublishingError; what was done before it stays done."""

    def __init__(self, grafana: GrafanaApi, sources: DataSources | None = None, *, runbooks: str = RUNBOOKS) -> None:
        self._grafana = grafana
        self._sources = sources
        self._dashboards = [json.loads(dashboard_json(board, runbooks)) for board in boards()]

    def plan(self) -> list[Planned]:
        """What publish() would do; changes nothing."""
        return [self._plan_folder(), *self._plan_sources(), *(self._plan_dashboard(one) for one in self._dashboards)]

    def publish(self, *, overwrite: bool = False) -> list[Planned]:
        """Bring Grafana up to date and return what was done. `overwrite` replaces what was edited by hand, too."""
        done = [self._plan_folder()]
        if done[0].change is Change.CREATE:
            _call("create the folder", self._grafana.folder.create_folder, FOLDER_TITLE, FOLDER_UID)
        for planned, document in zip(self._plan_sources(), self._documents(), strict=True):
            self._put_source(planned, document)
            done.append(planned)
        for dashboard in self._dashboards:
            planned = self._plan_dashboard(dashboard)
            if planned.change in (Change.CREATE, Change.UPDATE) or (planned.change is Change.DRIFT and overwrite):
                self._put_dashboard(dashboard)
            done.append(planned)
        return done

    def _plan_folder(self) -> Planned:
        found = _find("look for the folder", self._grafana.folder.get_folder, FOLDER_UID)
        return Planned("folder", FOLDER_UID, FOLDER_TITLE, Change.NONE if found else Change.CREATE)

    def _documents(self) -> list[dict[str, Any]]:
        return list(self._sources.documents()) if self._sources else []

    def _plan_sources(self) -> list[Planned]:
        return [self._plan_source(document) for document in self._documents()]

    def _plan_source(self, document: Json) -> Planned:
        found = _find("look for a data source", self._grafana.datasource.get_datasource_by_uid, document["uid"])
        if found is None:
            return Planned("data source", document["uid"], document["name"], Change.CREATE)
        # Grafana gives no secret away and adds fields of its own: what we set is compared, where it can be.
        wanted = {key: value for key, value in document.items() if key != "secureJsonData"}
        changes = tuple(differences(_common(found, wanted), wanted))
        return Planned("data source", document["uid"], document["name"], _updated(changes), changes)

    def _put_source(self, planned: Planned, document: dict[str, Any]) -> None:
        if planned.change is Change.CREATE:
            _call(f"create the data source {planned.title}", self._grafana.datasource.create_datasource, document)
        elif planned.change is Change.UPDATE:
            update = self._grafana.datasource.update_datasource_by_uid
            _call(f"update the data source {planned.title}", update, planned.uid, document)

    def _plan_dashboard(self, wanted: Json) -> Planned:
        uid, title = wanted["uid"], wanted["title"]
        found = _find("look for a dashboard", self._grafana.dashboard.get_dashboard, uid)
        if found is None:
            return Planned("dashboard", uid, title, Change.CREATE)
        message = self._last_message(uid)
        if message == _signed(wanted):
            return Planned("dashboard", uid, title, Change.NONE)
        change = Change.UPDATE if message.startswith(_SIGNATURE) else Change.DRIFT
        return Planned("dashboard", uid, title, change, tuple(differences(_ours(found["dashboard"]), wanted)))

    def _last_message(self, uid: str) -> str:
        answer = _call(
            "read a dashboard's versions", self._grafana.dashboard_versions.get_dashboard_versions_by_uid, uid
        )
        # A list up to Grafana 11.0, an object around it since.
        versions = answer["versions"] if isinstance(answer, dict) else answer
        newest: Json = max(versions, key=lambda version: version["version"], default={})
        return str(newest.get("message", ""))

    def _put_dashboard(self, wanted: Json) -> None:
        found = _find("look for a dashboard", self._grafana.dashboard.get_dashboard, wanted["uid"])
        # With the version that was seen Grafana refuses (412) if somebody saves in between.
        version = found["dashboard"]["version"] if found else 0
        document = {
            "dashboard": {**wanted, "id": None, "version": version},
            "folderUid": FOLDER_UID,
            "message": _signed(wanted),
            "overwrite": False,
        }
        _call(f"save the dashboard {wanted['uid']}", self._grafana.dashboard.update_dashboard, document)


def differences(found: object, wanted: object, path: str = "") -> Iterator[str]:
    """Where two documents differ, by path, at most 20 of them: found -> wanted."""
    for count, one in enumerate(_differences(found, wanted, path)):
        if count == _MOST_DIFFERENCES:
            yield "and more"
            return
        yield one


def _differences(found: object, wanted: object, path: str) -> Iterator[str]:
    if isinstance(found, dict) and isinstance(wanted, dict):
        for key in sorted(found.keys() | wanted.keys()):
            yield from _differences(found.get(key), wanted.get(key), f"{path}.{key}" if path else key)
    elif isinstance(found, list) and isinstance(wanted, list) and len(found) == len(wanted):
        for place, (before, after) in enumerate(zip(found, wanted, strict=True)):
            yield from _differences(before, after, f"{path}[{place}]")
    elif found != wanted:
        yield f"{path}: {_short(found)} -> {_short(wanted)}"


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _signed(dashboard: Json) -> str:
    digest = sha256(json.dumps(dashboard, sort_keys=True).encode()).hexdigest()
    return f"{_SIGNATURE}{digest[:16]}"


def _ours(dashboard: Json) -> dict[str, Any]:
    return {key: value for key, value in dashboard.items() if key not in _OWN_TO_GRAFANA}


def _common(found: Json, wanted: Json) -> dict[str, Any]:
    """Those keys of `found` that `wanted` speaks of."""
    return {
        key: _common(found[key], value) if isinstance(value, dict) and isinstance(found.get(key), dict) else found[key]
        for key, value in wanted.items()
        if key in found
    }


def _updated(changes: tuple[str, ...]) -> Change:
    return Change.UPDATE if changes else Change.NONE


def _find(doing: str, call: Any, *arguments: object) -> Any:  # noqa: ANN401 - grafana-client has no types
    """The answer, or None where Grafana has no such thing."""
    try:
        return call(*arguments)
    except GrafanaException as error:
        if error.status_code == requests.codes.not_found:
            return None
        raise _failed(doing, error) from error
    except requests.RequestException as error:
        raise PublishingError(f"could not {doing}: Grafana does not answer ({error}); check the URL") from error


def _call(doing: str, call: Any, *arguments: object) -> Any:  # noqa: ANN401 - grafana-client has no types
    answer = _find(doing, call, *arguments)
    if answer is None:
        raise PublishingError(f"could not {doing}: Grafana says that it is not there; publish again")
    return answer


def _failed(doing: str, error: GrafanaException) -> PublishingError:
    hints = {
        401: "the token is wrong or has expired",
        403: "the token may not do that; give its service account the role Editor, or Admin for data sources",
        412: "somebody saved it in between; look at the difference and publish again",
    }
    return PublishingError(f"could not {doing}: {hints.get(error.status_code, error.message)}")

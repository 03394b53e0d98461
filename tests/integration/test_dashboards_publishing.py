"""Publishing through grafana-client to a server that answers as Grafana's documented API does."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from dashboards.publishing import Change, DataSources, Publisher, PublishingError, open_grafana
from dashboards.rendering import boards
from tests.servers.grafana_api import TOKEN, GrafanaApiServer, grafana_api

SOURCES = DataSources(clickhouse_host="store.test", clickhouse_password="hidden", prometheus_url="http://prom.test")  # noqa: S106
UID = "kvandal-site"


@pytest.fixture
def server() -> Iterator[GrafanaApiServer]:
    with grafana_api() as running:
        yield running


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text(f"{TOKEN}\n")
    return path


@pytest.fixture
def publisher(server: GrafanaApiServer, token_file: Path) -> Publisher:
    return Publisher(open_grafana(server.url, token_file), SOURCES)


def changes(publisher: Publisher) -> dict[str, Change]:
    return {one.uid: one.change for one in publisher.plan()}


def test_an_empty_grafana_gets_everything_and_the_plan_said_so(publisher: Publisher, server: GrafanaApiServer) -> None:
    planned = publisher.plan()
    assert server.state.changes == 0
    assert {one.change for one in planned} == {Change.CREATE}
    publisher.publish()
    assert set(server.state.dashboards) == {board.page.value for board in boards()}
    assert set(server.state.sources) == {"kvandal-clickhouse", "kvandal-prometheus"}
    assert server.state.folders["kvandal"]["title"] == "Kvandal"


def test_publishing_twice_changes_nothing(publisher: Publisher, server: GrafanaApiServer) -> None:
    publisher.publish()
    before = server.state.changes
    assert {one.change for one in publisher.publish()} == {Change.NONE}
    assert server.state.changes == before


def test_an_edit_by_hand_is_reported_and_left_alone(publisher: Publisher, server: GrafanaApiServer) -> None:
    publisher.publish()
    server.state.edit(UID, title="My own title")
    drifted = next(one for one in publisher.publish() if one.uid == UID)
    assert drifted.change is Change.DRIFT
    assert drifted.differences == ('title: "My own title" -> "Kvandal / Site overview"',)
    assert server.state.dashboards[UID][-1]["data"]["title"] == "My own title"


def test_an_edit_by_hand_is_overwritten_when_asked(publisher: Publisher, server: GrafanaApiServer) -> None:
    publisher.publish()
    server.state.edit(UID, title="My own title")
    publisher.publish(overwrite=True)
    assert server.state.dashboards[UID][-1]["data"]["title"] == "Kvandal / Site overview"
    assert changes(publisher)[UID] is Change.NONE


def test_an_older_state_of_ours_is_updated(publisher: Publisher, server: GrafanaApiServer) -> None:
    publisher.publish()
    newest = server.state.dashboards[UID][-1]
    newest["message"], newest["data"] = "kvandal 0123456789abcdef", {**newest["data"], "refresh": "10m"}
    planned = next(one for one in publisher.publish() if one.uid == UID)
    assert planned.change is Change.UPDATE
    assert planned.differences == ('refresh: "10m" -> "1m"',)
    assert server.state.dashboards[UID][-1]["data"]["refresh"] == "1m"


def test_a_changed_data_source_is_updated_and_no_secret_is_shown(
    publisher: Publisher, server: GrafanaApiServer
) -> None:
    publisher.publish()
    server.state.sources["kvandal-clickhouse"]["jsonData"]["host"] = "elsewhere.test"
    planned = next(one for one in publisher.publish() if one.uid == "kvandal-clickhouse")
    assert planned.change is Change.UPDATE
    assert planned.differences == ('jsonData.host: "elsewhere.test" -> "store.test"',)
    assert server.state.sources["kvandal-clickhouse"]["jsonData"]["host"] == "store.test"
    assert "hidden" not in json.dumps(server.state.sources) + repr(SOURCES)


def test_without_data_sources_only_folder_and_dashboards_are_published(
    server: GrafanaApiServer, token_file: Path
) -> None:
    Publisher(open_grafana(server.url, token_file)).publish()
    assert server.state.sources == {}
    assert UID in server.state.dashboards


def test_a_wrong_token_is_said_plainly(server: GrafanaApiServer, tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("another")
    with pytest.raises(PublishingError, match="token is wrong or has expired"):
        Publisher(open_grafana(server.url, path)).plan()


@pytest.mark.parametrize(("text", "said"), [("", "is empty"), (None, "cannot be read")])
def test_a_missing_token_is_said_before_anything_is_asked(tmp_path: Path, text: str | None, said: str) -> None:
    path = tmp_path / "token"
    if text is not None:
        path.write_text(text)
    with pytest.raises(PublishingError, match=said):
        open_grafana("http://127.0.0.1:9", path)


def test_a_grafana_that_is_away_is_said_plainly(token_file: Path) -> None:
    with pytest.raises(PublishingError, match="does not answer"):
        Publisher(open_grafana("http://127.0.0.1:9", token_file)).plan()

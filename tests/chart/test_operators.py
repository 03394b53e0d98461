"""What Strimzi and Altinity's operator are given, against our lists, the chart's values and the engine's own words.

Neither operator runs here: their kinds are known by name, and what they make of an object is not tested.
"""

import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml
from clickhouse_connect.driver.client import Client

from storage.client import StoreAddress, connect
from storage.server_roles import ROLES
from stream.access import KafkaRole, permissions, principals
from stream.topics import ALL_TOPICS
from tests.servers.helm import CHART, VALUES

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
USERS: list[dict[str, Any]] = list(yaml.safe_load_all((DEPLOY / "strimzi" / "users.yaml").read_text()))
TOPICS: list[dict[str, Any]] = list(yaml.safe_load_all((DEPLOY / "strimzi" / "topics.yaml").read_text()))
CLICKHOUSE: dict[str, Any] = yaml.safe_load((DEPLOY / "altinity" / "clickhouse.yaml").read_text())
CONFIGURATION: dict[str, Any] = CLICKHOUSE["spec"]["configuration"]
HALL: dict[str, Any] = yaml.safe_load((VALUES / "hall.yaml").read_text())
DEFAULTS: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())
STORE_USERS = {DEFAULTS["store"][role]["user"]: HALL["store"][role]["passwordSecret"]["name"]
               for role in ("ingest", "keep", "reports", "schema")}  # fmt: skip
A_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")


@pytest.fixture
def engine(database: StoreAddress) -> Iterator[Client]:
    with closing(connect(database)) as client:
        yield client


def test_every_object_has_a_name_that_kubernetes_takes() -> None:
    for o in (*USERS, *TOPICS, CLICKHOUSE):
        assert A_NAME.fullmatch(o["metadata"]["name"])


def test_each_role_is_a_user_of_strimzi_with_the_chart_s_name_and_password() -> None:
    made = {user["metadata"]["name"]: user["spec"]["authentication"]["password"]["valueFrom"]["secretKeyRef"]
            for user in USERS}  # fmt: skip
    assert made == {
        HALL["kafka"][role]["username"]: {"name": HALL["kafka"][role]["passwordSecret"]["name"], "key": "password"}
        for role in KafkaRole
    }
    # Strimzi writes a Secret under the user's own name: ours must have another.
    assert not {secret["name"] for secret in made.values()} & set(made)


def test_a_user_may_do_what_its_role_may_and_nothing_else() -> None:
    given = {
        (f"User:{user['metadata']['name']}", operation, acl["resource"]["type"], acl["resource"]["name"],
         acl["resource"]["patternType"] == "prefix")
        for user in USERS for acl in user["spec"]["authorization"]["acls"] for operation in acl["operations"]
    }  # fmt: skip
    wanted = {(p.principal, p.kafka_word, str(p.resource), p.name, p.prefixed) for p in permissions(principals({}))}
    assert given == wanted


def test_the_topics_are_those_that_topics_apply_makes() -> None:
    made = {t["spec"]["topicName"]: (t["spec"]["partitions"], {k: str(v) for k, v in t["spec"]["config"].items()})
            for t in TOPICS}  # fmt: skip
    assert made == {topic.name: (topic.partitions, dict(topic.settings)) for topic in ALL_TOPICS}


def test_clickhouse_s_users_are_the_chart_s_and_grafana_s() -> None:
    secrets = {key.partition("/")[0]: value.split("/")[1] for key, value in CONFIGURATION["users"].items()
               if key.endswith("/k8s_secret_password")}  # fmt: skip
    assert secrets == {**STORE_USERS, "kvandal_grafana": "kvandal-store-grafana"}
    assert {key.partition("/")[0] for key in CONFIGURATION["users"]} == set(secrets)


def test_a_user_s_limits_are_in_the_file_beside_it() -> None:
    limits = ElementTree.fromstring(CONFIGURATION["files"]["users.d/kvandal.xml"])  # noqa: S314 - our own text
    profiles, quotas = ({e.tag for e in limits.findall(f"{kind}/*")} for kind in ("profiles", "quotas"))
    assert {value for key, value in CONFIGURATION["users"].items() if key.endswith("/profile")} == profiles
    assert {value for key, value in CONFIGURATION["users"].items() if key.endswith("/quota")} == quotas
    assert len(profiles) == len(quotas) == len(ROLES)
    reports = limits.find("profiles/kvandal_reports")
    assert reports is not None
    assert reports.findtext("readonly") == "2"
    assert reports.find("constraints/readonly/const") is not None
    assert reports.findtext("constraints/max_execution_time/max") == reports.findtext("max_execution_time")


def test_the_engine_knows_every_setting_and_every_bound(engine: Client) -> None:
    limits = ElementTree.fromstring(CONFIGURATION["files"]["users.d/kvandal.xml"])  # noqa: S314 - our own text
    settings = {e.tag for e in limits.findall("profiles/*/*")} - {"constraints"}
    known = {name for (name,) in engine.query("SELECT name FROM system.settings").result_rows}
    assert settings
    assert settings <= known
    columns = "SELECT name FROM system.columns WHERE database = 'system' AND table = 'quota_limits'"
    counted = {name for (name,) in engine.query(columns).result_rows}
    bounds = {e.tag for e in limits.findall("quotas/*/interval/*")} - {"duration"}
    assert {f"max_{bound}" for bound in bounds} <= counted


def test_the_engine_parses_every_grant(engine: Client) -> None:
    grants = [grant for key, grants in CONFIGURATION["users"].items() if key.endswith("/query") for grant in grants]
    assert len(grants) >= 4 * len(ROLES)
    for grant in grants:
        asked = engine.query("SELECT formatQuery({text:String})", parameters={"text": f"{grant} TO somebody"})
        assert asked.result_rows

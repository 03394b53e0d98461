"""What the chart's containers start with, run through our own program: each verb, its settings file, its secrets.

The files of every volume are put in place under a folder, and the paths in arguments and variables lead there.
"""

import tomllib
from collections.abc import Mapping
from pathlib import Path

import click
import msgspec
import pytest
from click.testing import CliRunner

from kvandal.cli import main
from kvandal.settings import (
    AgentSettings,
    ClientSettings,
    DoctorSettings,
    IngestSettings,
    KeeperSettings,
    Secret,
    is_section,
    load_settings,
    variable_name,
)
from tests.command_line import resolve
from tests.servers.chart import SETS, Container, containers, manifests

Effective = AgentSettings | ClientSettings | DoctorSettings | IngestSettings | KeeperSettings
SETTINGS_OF: Mapping[str, type[Effective]] = {
    "agent": AgentSettings, "ingest": IngestSettings, "keep": KeeperSettings, "doctor": DoctorSettings,
}  # fmt: skip
# docs/security.md: which role each component is on the brokers, and which user in the store.
KAFKA_ROLES = {
    "agent": "agent", "gateway-hall-a": "gateway", "ingest": "ingest", "incidents": "incidents",
    "topics": "operator", "test": "ingest",
}  # fmt: skip
STORE_ROLES = {"ingest": "ingest", "keep": "keep", "reports": "reports", "schema": "schema", "test": "ingest"}


def effective(container: Container) -> Effective:
    """The settings as the container's verb would load them."""
    words, given = list(container.arguments), container.environment
    file = Path(words[words.index("--config") + 1]) if "--config" in words else None
    match words[0]:
        case "agent":
            return load_settings(AgentSettings, file=file, environment=given)
        case "ingest":
            return load_settings(IngestSettings, file=file, environment=given)
        case "keep":
            return load_settings(KeeperSettings, file=file, environment=given)
        case "doctor":
            return load_settings(DoctorSettings, file=file, environment=given)
        case _:
            return load_settings(ClientSettings, file=file, environment=given)


def known_variables(kind: type[msgspec.Struct]) -> set[str]:
    """Every variable that a process with these settings would look at."""
    names = set()
    for section in msgspec.structs.fields(kind):
        for key in msgspec.structs.fields(section.type) if is_section(section.type) else ():
            names.add(variable_name(section.name, key.name))
            if key.type is Secret:
                names.add(f"{variable_name(section.name, key.name)}_FILE")
    return names


@pytest.fixture(params=SETS)
def started(request: pytest.FixtureRequest, tmp_path: Path) -> list[Container]:
    return list(containers(manifests(request.param), tmp_path))


@pytest.fixture
def of_a_hall(tmp_path: Path) -> list[Container]:
    return list(containers(manifests("hall"), tmp_path))


def test_every_command_line_is_taken_as_it_stands(started: list[Container]) -> None:
    """By click itself: verbs, options, their values and what must be given."""
    assert len(started) >= 5
    # With the command line's own settings: a verb keeps the help option that it is first asked with.
    parent = click.Context(main, **main.context_settings)
    for container in started:
        command, left = resolve(container.arguments)
        with command.make_context(command.name, left, parent=parent):
            pass


def test_every_process_with_settings_says_that_they_hold(started: list[Container]) -> None:
    checked = set()
    for container in started:
        command, _ = resolve(container.arguments)
        if all(parameter.name != "check_config" for parameter in command.params):
            continue
        done = CliRunner().invoke(main, [*container.arguments, "--check-config"], env=dict(container.environment))
        assert done.exit_code == 0, f"{container.maker}: {done.output}"
        assert tomllib.loads(done.stdout)
        checked.add(container.component.partition("-")[0])
    assert {"agent", "ingest", "keep"} <= checked


def test_every_variable_of_ours_is_one_that_the_process_reads(started: list[Container]) -> None:
    """A variable that nobody reads is a value that has no effect."""
    for container in started:
        given = {name for name in container.environment if name.startswith("KVANDAL_")}
        known = known_variables(SETTINGS_OF.get(container.arguments[0], ClientSettings))
        assert given - known == set(), container.maker


def test_each_process_is_itself_on_the_brokers(of_a_hall: list[Container]) -> None:
    seen = {}
    for container in of_a_hall:
        settings = effective(container)
        if "KVANDAL_KAFKA_BOOTSTRAP" not in container.environment or isinstance(settings, KeeperSettings):
            continue
        kafka = settings.kafka
        role = seen[container.component] = kafka.username.removeprefix("kvandal-")
        assert kafka.tls
        assert Path(kafka.password_file).read_text() == f"kvandal-kafka-{role}/password", container.maker
        assert Path(kafka.ca_file).read_text() == "kvandal-kafka-ca/ca.crt"
    assert seen == KAFKA_ROLES


def test_each_process_is_itself_in_the_store(of_a_hall: list[Container]) -> None:
    seen = {}
    for container in of_a_hall:
        settings = effective(container)
        if "KVANDAL_STORE_URL" not in container.environment or isinstance(settings, AgentSettings):
            continue
        role = seen[container.component] = settings.store.user.removeprefix("kvandal_")
        assert settings.store.password == f"kvandal-store-{role}/password", container.maker
    assert seen == STORE_ROLES


def test_what_reads_the_site_knows_no_store(of_a_hall: list[Container]) -> None:
    for container in of_a_hall:
        if container.component.startswith(("agent", "gateway")):
            assert not any(name.startswith("KVANDAL_STORE") for name in container.environment)


def test_a_certificate_takes_the_place_of_a_password(tmp_path: Path) -> None:
    given = ("--set", "kafka.ingest.username=,kafka.ingest.certificateSecret.name=ingest-tls")
    (ingest,) = [c for c in containers(manifests("hall", *given), tmp_path) if c.component == "ingest"]
    settings = effective(ingest)
    assert isinstance(settings, IngestSettings)
    assert settings.kafka.username == ""
    assert Path(settings.kafka.certificate_file).read_text() == "ingest-tls/user.crt"
    assert Path(settings.kafka.key_file).read_text() == "ingest-tls/user.key"


def test_a_store_over_tls_is_known_by_its_authority(tmp_path: Path) -> None:
    given = ("--set", "store.url=https://clickhouse.example:8443,store.caSecret.name=store-ca")
    seen = 0
    for container in containers(manifests("hall", *given), tmp_path):
        settings = effective(container)
        if "KVANDAL_STORE_URL" in container.environment and not isinstance(settings, AgentSettings):
            assert Path(settings.store.ca_file).read_text() == "store-ca/ca.crt", container.maker
            seen += 1
    assert seen >= len(STORE_ROLES)


def test_settings_of_the_keeper_are_a_file_of_its_own(tmp_path: Path) -> None:
    given = ("--set-literal", 'keep.config=[keep]\nzone = "Europe/Helsinki"')
    (keep,) = [c for c in containers(manifests("hall", *given), tmp_path) if c.component == "keep"]
    settings = effective(keep)
    assert isinstance(settings, KeeperSettings)
    assert settings.keep.zone == "Europe/Helsinki"


def test_a_full_spool_does_not_get_its_pod_evicted(tmp_path: Path) -> None:
    """Kubernetes evicts a pod whose volume outgrows its limit; SQLite's log needs room beside the values."""
    objects = manifests("laptop")
    (agent,) = [c for c in containers(objects, tmp_path) if c.component == "agent"]
    settings = effective(agent)
    assert isinstance(settings, AgentSettings)
    (volume,) = [v for o in objects if o["kind"] == "DaemonSet" for v in o["spec"]["template"]["spec"]["volumes"]
                 if v["name"] == "spool"]  # fmt: skip
    gibibytes = int(volume["emptyDir"]["sizeLimit"].removesuffix("Gi"))
    assert gibibytes * 1024 >= 1.5 * settings.agent.spool_mb

"""Settings: who wins, and what an error says."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from kvandal.addresses import kafka_address
from kvandal.settings import AgentSettings, ClientSettings, SettingsError, load_settings
from stream.log import LogUnavailableError


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "agent.toml"
    path.write_text("[agent]\ninterval_s = 5\nhost_interval_s = 50\n")
    return path


def test_flags_win_over_the_environment_which_wins_over_the_file(file: Path) -> None:
    environment = {"KVANDAL_AGENT_INTERVAL_S": "6", "KVANDAL_AGENT_HOST_INTERVAL_S": "60"}
    settings = load_settings(AgentSettings, file=file, environment=environment, flags={"agent.interval_s": 7})
    assert (settings.agent.interval_s, settings.agent.host_interval_s) == (7, 60)


def test_a_process_s_own_defaults_yield_to_everything(file: Path) -> None:
    defaults = {"agent.interval_s": 8, "agent.metrics_port": 1}
    settings = load_settings(AgentSettings, file=file, environment={}, defaults=defaults)
    assert (settings.agent.interval_s, settings.agent.metrics_port) == (5, 1)


@pytest.mark.parametrize(
    ("environment", "flags", "origin"),
    [
        ({"KVANDAL_AGENT_INTERVAL_S": "0"}, {}, "the environment"),
        ({"KVANDAL_AGENT_INTERVAL_S": "1"}, {"agent.interval_s": 0}, "the command line"),
    ],
)
def test_an_error_names_the_setting_and_where_it_came_from(
    file: Path, environment: Mapping[str, str], flags: Mapping[str, object], origin: str
) -> None:
    with pytest.raises(SettingsError, match=rf"agent\.interval_s: .*\(from {origin}\)"):
        load_settings(AgentSettings, file=file, environment=environment, flags=flags)


def test_an_unknown_key_of_a_file_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    file = tmp_path / "agent.toml"
    file.write_text("[agent]\nintervall_s = 5\n")
    with pytest.raises(SettingsError, match=r"agent: .*intervall_s.*agent\.toml"):
        load_settings(AgentSettings, file=file, environment={})


def test_a_password_file_of_kafka_is_read_at_every_connect(tmp_path: Path) -> None:
    secret = tmp_path / "password"
    environment = {
        "KVANDAL_KAFKA_TLS": "true",
        "KVANDAL_KAFKA_USERNAME": "kvandal-agent",
        "KVANDAL_KAFKA_PASSWORD_FILE": str(secret),
    }
    security = kafka_address(load_settings(AgentSettings, environment=environment).kafka).security

    with pytest.raises(LogUnavailableError, match=r"kafka\.password_file .*password cannot be read: No such file"):
        security.client_options()
    for password in ("first", "second"):
        secret.write_text(f"{password}\n")
        assert security.client_options()["sasl_plain_password"] == password


def test_a_store_s_password_comes_from_a_file(tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("geheim\n")

    settings = load_settings(ClientSettings, environment={"KVANDAL_STORE_PASSWORD_FILE": str(secret)})

    assert settings.store.password == "geheim"  # noqa: S105


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"kafka.username": "x", "kafka.password": "y"}, "need kafka.tls = true"),
        ({"kafka.tls": True, "kafka.username": "x"}, "kafka.username needs a password"),
        ({"kafka.tls": True, "kafka.password": "y"}, "a password a username"),
        ({"kafka.tls": True, "kafka.certificate_file": "x"}, "give both of kafka.certificate_file"),
        ({"kafka.tls": True, "kafka.username": "x", "kafka.password": "y", "kafka.password_file": "z"}, "give one of"),
        ({"store.url": "https://reports:geheim@store:8443"}, "store.url holds a user or a password"),
    ],
)
def test_a_way_in_that_would_not_hold_is_refused_without_telling_secrets(given: dict[str, object], said: str) -> None:
    with pytest.raises(SettingsError, match=said) as refused:
        load_settings(ClientSettings, environment={}, flags=given)
    assert "geheim" not in str(refused.value)

"""The image's recipe and the compose file: parsed and held against our program. No container engine runs here."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.command_line import fault_of

ROOT = Path(__file__).resolve().parents[2]
DOCKER = ROOT / "docker"
COMPOSE: dict[str, Any] = yaml.safe_load((DOCKER / "compose.yaml").read_text())
OURS = {name: service for name, service in COMPOSE["services"].items() if service["image"].startswith("kvandal:")}
INSTRUCTION = re.compile(r"^([A-Z]+) +(.+)$", re.MULTILINE)


def instructions() -> list[tuple[str, str]]:
    text = re.sub(r"\\\n\s*", "", re.sub(r"^\s*#.*\n", "", (DOCKER / "Dockerfile").read_text(), flags=re.MULTILINE))
    return INSTRUCTION.findall(text)


def test_the_image_ends_as_a_plain_user_and_starts_our_program() -> None:
    last = dict(instructions())
    uid, _, gid = last["USER"].partition(":")
    assert int(uid) > 0
    assert int(gid) > 0
    assert last["ENTRYPOINT"] == '["kvandal"]'


def test_the_base_is_named_once_by_version_and_never_as_the_latest() -> None:
    bases = [rest for word, rest in instructions() if word == "FROM"]
    assert all(base.split()[0] == "${BASE}" for base in bases)
    (base,) = [rest.partition("=")[2] for word, rest in instructions() if word == "ARG"]
    assert re.fullmatch(r"python:3\.\d+-slim-\w+", base)


def test_everything_that_is_copied_is_there_and_let_through() -> None:
    allowed = {line[1:] for line in (DOCKER / "Dockerfile.dockerignore").read_text().splitlines() if line[:1] == "!"}
    assert {path for path in allowed if not (ROOT / path).exists()} == set()
    packages = {path.parent.name for path in ROOT.glob("[a-z]*/*.py")} - {"tests", "benchmarks"}
    assert packages <= allowed


def test_what_is_left_out_of_the_image_is_in_the_lock() -> None:
    locked = set(re.findall(r"^([a-z0-9-]+)==", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    assert set((DOCKER / "left-out.txt").read_text().split()) <= locked


@pytest.mark.parametrize("name", COMPOSE["services"])
def test_every_service_is_pinned_and_depends_on_what_exists(name: str) -> None:
    service = COMPOSE["services"][name]
    assert re.fullmatch(r"[\w./-]+:(?!latest)[\w.-]+", service["image"])
    assert set(service.get("depends_on", {})) <= set(COMPOSE["services"])
    for volume in service.get("volumes", []):
        source = volume.split(":")[0]
        assert (DOCKER / source).exists() if source.startswith(".") else source in COMPOSE["volumes"]


@pytest.mark.parametrize("name", OURS)
def test_our_program_understands_every_command(name: str) -> None:
    assert fault_of(OURS[name]["command"]) == ""
    assert OURS[name]["read_only"] is True
    assert OURS[name]["cap_drop"] == ["ALL"]


def test_every_published_port_is_on_loopback_alone() -> None:
    ports = [port for service in COMPOSE["services"].values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_prometheus_knows_the_rules_that_are_rendered() -> None:
    configured = yaml.safe_load((DOCKER / "compose" / "prometheus.yml").read_text())
    named = {Path(path).name for path in configured["rule_files"]}
    assert named == {path.name for path in (ROOT / "helm" / "kvandal" / "files" / "rules").glob("*.yml")}

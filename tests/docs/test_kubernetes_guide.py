"""docs/guides/kubernetes.md as a newcomer follows it: every command, the values, and what comes of both.

There is no cluster: `kubectl` only notes the Secrets that it is told to make, and Helm renders instead of installing.
"""

import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from kvandal.settings import AgentSettings, load_settings
from tests.docs.blocks import GUIDES, blocks
from tests.servers.chart import pods
from tests.servers.helm import CHART, KUBERNETES, VALUES, documents, ensure_helm

ROOT = GUIDES.parents[1]
GUIDE = GUIDES / "kubernetes.md"
KUBECTL = """\
#!/usr/bin/env bash
# Notes the Secrets that it is told to make, as NAMESPACE/NAME/KEY with what is in them; gives a certificate when asked.
set -euo pipefail
[ "$1" = -n ] || exit 2
case "$3 $4" in
    "create secret")
        for word in "${@:7}"; do
            pair="${word#--from-file=}"
            printf '%s/%s/%s %s\\n' "$2" "$6" "${pair%%=*}" "$(cat "${pair#*=}")" >> "$NOTES"
        done ;;
    "get secret") printf '%s' certificate | base64 ;;
    *) exit 2 ;;
esac
"""
SETTING = re.compile(r"`([a-zA-Z]+(?:\.[a-zA-Z]+)+)`")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """Every Secret's key that the guide's commands make, with what is in it."""
    folder = tmp_path_factory.mktemp("newcomer")
    program, notes = folder / "kubectl", folder / "notes"
    program.write_text(KUBECTL)
    program.chmod(0o755)
    for name in ("dsx-password", "grafana-token"):
        (folder / name).write_text(name)
    script = "\n".join(block for block in blocks(GUIDE, "text") if "kubectl" in block)
    environment = os.environ | {"PATH": f"{folder}:{os.environ['PATH']}", "NOTES": str(notes)}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return dict(line.split(" ", 1) for line in notes.read_text().splitlines())


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What the guide's `helm upgrade` would install with the guide's values."""
    (command,) = [line for block in blocks(GUIDE, "text") for line in block.splitlines() if "helm upgrade" in line]
    mine = tmp_path_factory.mktemp("values") / "my-values.yaml"
    (values,) = blocks(GUIDE, "yaml")
    mine.write_text(values)
    words = command.replace("helm upgrade --install", f"{ensure_helm()} template --kube-version {KUBERNETES}").replace(
        "my-values.yaml", str(mine)
    )
    done = subprocess.run(words.split(), cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return documents(done.stdout)


def wanted_secrets(objects: list[dict[str, Any]]) -> Iterator[str]:
    """NAMESPACE/NAME/KEY of every secret that a pod mounts."""
    for _, pod in pods(objects):
        for volume in pod["volumes"]:
            for source in volume.get("projected", {}).get("sources", []):
                yield from (f"telemetry/{source['secret']['name']}/{i['key']}" for i in source["secret"]["items"])
            for item in volume.get("secret", {}).get("items", []):
                yield f"telemetry/{volume['secret']['secretName']}/{item['key']}"


def test_every_secret_that_a_pod_mounts_is_made_on_the_way(
    made: Mapping[str, str], installed: list[dict[str, Any]]
) -> None:
    wanted = set(wanted_secrets(installed))
    assert len(wanted) > 9
    assert wanted <= made.keys()


def test_a_gateway_finds_the_files_that_its_settings_name(
    made: Mapping[str, str], installed: list[dict[str, Any]], tmp_path: Path
) -> None:
    (gateway,) = [o for o in installed if o["kind"] == "ConfigMap" and o["metadata"]["name"].endswith("-hall-a")]
    (tmp_path / "gateway.toml").write_text(gateway["data"]["gateway.toml"])
    settings = load_settings(AgentSettings, file=tmp_path / "gateway.toml", environment={})
    assert settings.dsx is not None
    assert f"telemetry/kvandal-hall-a/{Path(settings.dsx.password_file).name}" in made


def test_strimzi_and_the_altinity_operator_find_their_secrets_with_the_same_passwords(made: Mapping[str, str]) -> None:
    users = list(yaml.safe_load_all((ROOT / "deploy" / "strimzi" / "users.yaml").read_text()))
    for user in users:
        secret = user["spec"]["authentication"]["password"]["valueFrom"]["secretKeyRef"]
        place = f"{secret['name']}/{secret['key']}"
        assert made[f"kafka/{place}"] == made[f"telemetry/{place}"]
    clickhouse = yaml.safe_load((ROOT / "deploy" / "altinity" / "clickhouse.yaml").read_text())
    references = [
        value for key, value in clickhouse["spec"]["configuration"]["users"].items() if key.endswith("password")
    ]
    assert references
    assert set(references) <= made.keys()


def test_no_two_roles_share_a_password(made: Mapping[str, str]) -> None:
    passwords = {place: text for place, text in made.items() if place.startswith("telemetry/") and "password" in place}
    assert len(set(passwords.values())) == len(passwords)
    assert all(len(text) >= 12 for text in passwords.values())


def test_every_value_that_the_guide_names_exists() -> None:
    values: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())
    named = {name for page in ("kubernetes.md", "strimzi.md", "altinity.md")
             for name in SETTING.findall((GUIDES / page).read_text())
             if name.partition(".")[0] in values}  # fmt: skip
    assert len(named) > 12
    optional = {"kafka.settings.partitions"}  # the schema knows it, and the values have none
    for name in named - optional:
        held: Any = values
        for part in name.replace("ROLE", "ingest").split("."):
            assert part in held, f"the guide names {name}"
            held = held[part]


def test_every_file_that_the_guides_name_is_there() -> None:
    for page in ("kubernetes.md", "strimzi.md", "altinity.md"):
        text = (GUIDES / page).read_text()
        for path in re.findall(r"\b(?:deploy|docker|helm)/[\w./-]+\w", text):
            assert (ROOT / path).exists(), f"{page}: {path}"
        for path in re.findall(r"`values/(\w+\.yaml)`", text):
            assert (VALUES / path).exists(), f"{page}: {path}"

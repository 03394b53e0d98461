"""Helm for the tests, built from its Go module: no package of Debian has it."""

import shutil
import subprocess
import sys
from pathlib import Path

import yaml

from tests.servers.kafka import ServerUnavailable

MODULE = "helm.sh/helm/v3/cmd/helm@v3.22.0"
ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "helm" / "kvandal"
VALUES = CHART / "values"
BUILT = ROOT / ".cache" / "bin"
BUILD_TIMEOUT_S = 1800  # four minutes on two cores that do nothing else
RUN_TIMEOUT_S = 60
KUBERNETES = "1.33.0"  # of which the chart is told: there is no cluster to ask


class HelmRefusedError(Exception):
    """Helm did not render or lint; the message is what it said."""


def ensure_helm(*, build: bool = False) -> str:
    """The helm program; with `build` it is built where there is none. Raises ServerUnavailable."""
    found = shutil.which("helm", path=str(BUILT)) or shutil.which("helm")
    if found is None and build:
        _build()
        found = shutil.which("helm", path=str(BUILT))
    if found is None:
        raise ServerUnavailable("Helm is not on this machine: `make servers` builds it with Go")
    return found


def _build() -> None:
    go = shutil.which("go")
    if go is None:
        raise ServerUnavailable("Helm is built with Go, and there is none on the PATH")
    BUILT.mkdir(parents=True, exist_ok=True)
    environment = {"GOBIN": str(BUILT), "GOFLAGS": "-trimpath -ldflags=-s"}
    command = ["env", *(f"{key}={value}" for key, value in environment.items()), go, "install", MODULE]
    done = subprocess.run(command, capture_output=True, text=True, timeout=BUILD_TIMEOUT_S, check=False)
    if done.returncode != 0:
        raise ServerUnavailable(f"Helm could not be built: {done.stderr.strip().splitlines()[-1]}")


def helm(*arguments: str) -> str:
    """What `helm` prints on stdout; raises HelmRefusedError with what it said on stderr."""
    done = subprocess.run(
        [ensure_helm(), *arguments], capture_output=True, text=True, timeout=RUN_TIMEOUT_S, check=False
    )
    if done.returncode != 0:
        raise HelmRefusedError(done.stderr + done.stdout)
    return done.stdout


def render(*arguments: str) -> str:
    """The chart's manifests as one text."""
    known = ("--namespace", "telemetry", "--kube-version", KUBERNETES)
    return helm("template", "kvandal", str(CHART), *known, *arguments)


def documents(text: str) -> list[dict[str, object]]:
    """The objects of a text of manifests."""
    return [document for document in yaml.safe_load_all(text) if document]


def main() -> int:
    try:
        sys.stderr.write(f"Helm is ready: {Path(ensure_helm(build=True)).name}\n")
    except ServerUnavailable as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

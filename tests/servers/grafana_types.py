"""Grafana's own types of dashboards, from its package @grafana/schema, in two versions; TypeScript's compiler checks.

`python -m tests.servers.grafana_types --prepare` fetches both ahead of the tests, so that no test waits for a download.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path

from tests.servers.kafka import ServerUnavailable
from tests.servers.preparing import make, prepare

FOLDER = Path(__file__).resolve().parent / "grafana_schema"
CACHE = FOLDER.parents[2] / ".cache" / "grafana-schema"
FETCH_TIMEOUT_S = 180.0  # 27 MB
CHECK_TIMEOUT_S = 180.0  # 5 s of work
TYPES = "dashboard.d.ts"


class Schema(StrEnum):
    """The versions of package.json, by their aliases there."""

    OLDEST = "oldest"
    NEWEST = "newest"


def complaints(schema: Schema, dashboards: Mapping[str, str], folder: Path) -> list[str]:
    """What the compiler says about dashboards (name to JSON) against one version; empty is good. ServerUnavailable."""
    modules = fetched() / "node_modules"
    shutil.copy(FOLDER / TYPES, folder)
    (folder / "node_modules").symlink_to(modules)
    for name, document in dashboards.items():
        lines = ['import type { AnyDashboard } from "./dashboard";', f"export const board: AnyDashboard = {document};"]
        (folder / f"{name}.ts").write_text("\n".join(lines))
    (folder / "tsconfig.json").write_text(json.dumps(_settings(schema, sorted(dashboards))))
    compiler = str(modules / "typescript" / "bin" / "tsc")
    command = [_program("node"), compiler, "--project", str(folder), "--pretty", "false"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=CHECK_TIMEOUT_S, check=False)
    said = [line for line in done.stdout.splitlines() if re.match(r"\S+\(\d+,\d+\): error", line)]
    if done.returncode and not said:
        raise RuntimeError(f"the compiler failed: {done.stdout[-400:]}{done.stderr[-400:]}")
    return said


def _settings(schema: Schema, names: Sequence[str]) -> Mapping[str, object]:
    package = f"./node_modules/{schema}"
    return {
        "compilerOptions": {
            "strict": True, "noEmit": True, "target": "es2022", "module": "esnext", "moduleResolution": "bundler",
            "types": [], "baseUrl": ".",
            # Under its own name: the package's types of panels import it by that.
            "paths": {"@grafana/schema": [package], "@grafana/schema/*": [f"{package}/*"]},
        },
        "files": [f"{name}.ts" for name in names],
    }  # fmt: skip


def fetched() -> Path:
    """The folder with both versions, as package-lock.json has them. Raises ServerUnavailable."""
    lock = FOLDER / "package-lock.json"
    folder = CACHE / hashlib.sha256(lock.read_bytes()).hexdigest()[:16]
    if not (folder / "node_modules").exists():
        mine = CACHE / f"{folder.name}.{os.getpid()}"  # two test processes may fetch at the same time
        mine.mkdir(parents=True, exist_ok=True)
        for name in ("package.json", lock.name):
            shutil.copy(FOLDER / name, mine)
        _fetch(mine)
        try:
            mine.rename(folder)
        except OSError:
            shutil.rmtree(mine)  # the other was first
    return folder


def _fetch(folder: Path) -> None:
    command = [_program("npm"), "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    try:
        make(command, folder, what="@grafana/schema", timeout_s=FETCH_TIMEOUT_S)
    except ServerUnavailable:
        shutil.rmtree(folder)  # half of it is worth nothing
        raise


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise ServerUnavailable(f"dashboards are checked against Grafana's types with {name}, which is not here")
    return found


if __name__ == "__main__":
    sys.exit(prepare(sys.argv[1:], "tests.servers.grafana_types", "@grafana/schema", fetched))

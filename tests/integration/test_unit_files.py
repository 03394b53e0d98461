"""The systemd units as systemd itself judges them; nothing is started."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.servers.kafka import ServerUnavailable

UNITS = sorted((Path(__file__).resolve().parents[2] / "deploy" / "systemd").glob("*.service"))
# 10 is a service that may do everything. The agent's is what SECURITY.md and docs/guides/agent.md say.
WORST_EXPOSURE = 2.5
AGENT_EXPOSURE = 2.0


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_a_unit_is_exposed_no_more_than_is_said(unit: Path) -> None:
    program = shutil.which("systemd-analyze")
    if program is None:
        raise ServerUnavailable("systemd-analyze, which judges the units, is not installed")

    done = subprocess.run(
        [program, "security", "--offline=true", "--no-pager", str(unit)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip

    found = re.search(r"Overall exposure level for \S+: ([0-9.]+) ", done.stdout)
    assert found is not None, done.stdout + done.stderr
    assert float(found[1]) <= (AGENT_EXPOSURE if unit.name == "kvandal-agent.service" else WORST_EXPOSURE)

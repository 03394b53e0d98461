"""A newer version of this program: a copy of its packages whose catalogue has one metric more.

Its layouts file has one layout more, and its migrations one file more. It runs as processes of its own, from its own
folder, as the next release would beside this one during an upgrade.
"""

import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from kvandal.broker import tied_to_parent
from tests.servers.stack import environment

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("catalogue", "collectors", "dashboards", "alerts", "kvandal", "reports", "simulation", "storage", "stream")
METRIC = "probe"  # of the table `rack`, in whole watts
COLUMN = f"{METRIC}_watts_raw"
_ADDED = f'    _gauge("{METRIC}", units.WATTS, U32, 1, "What only the newer program knows", DsxPoint("Rack/Probe")),\n'
_MIGRATION = f"ALTER TABLE rack ADD COLUMN IF NOT EXISTS {COLUMN} UInt32 DEFAULT {2**32 - 1};\n"
_RENDER_LAYOUTS = """
from catalogue.layouts import known_layouts, render_layouts
from importlib.resources import files
text = render_layouts(known_layouts())
files("catalogue").joinpath("layouts.json").write_text(text)
"""
# Publishes a frame of one tick for each value.
_SEND = """
import sys
from catalogue import RACK
from stream.client import KafkaAddress
from stream.frame import seal
from stream.publish import Publisher
from stream.rows import pack
bootstrap, source, epoch_ms, first_s, values = sys.argv[1], *map(int, sys.argv[2:5]), map(int, sys.argv[5:])
publisher, failures = Publisher(KafkaAddress(bootstrap)), []
for sequence, watts in enumerate(values):
    rows = pack(RACK, [source], [first_s + sequence], {"power_watts": [watts], "probe_watts": [watts + 1]})
    frame = seal(RACK, rows, source=source, epoch_ms=epoch_ms, sequence=sequence, ticks=1, sent_ms=epoch_ms)
    publisher.publish(RACK.topic, source, frame, acknowledged=lambda _: None, failed=failures.append)
publisher.flush()
publisher.close()
assert not failures, failures
"""


@dataclass(frozen=True, slots=True)
class NewerProgram:
    """The folder of the newer program."""

    folder: Path

    @classmethod
    def make(cls, folder: Path) -> Self:
        """Copy the packages and add the metric, its layout and its migration."""
        for package in PACKAGES:
            shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
        facility = folder / "catalogue" / "facility.py"
        text = facility.read_text()
        start = text.index("\nRACK = (\n")
        end = text.index("\n)\n", start) + 1
        facility.write_text(text[:end] + _ADDED + text[end:])
        (folder / "storage" / "migrations" / "9000_probe.sql").write_text(_MIGRATION)
        newer = cls(folder)
        newer._python(_RENDER_LAYOUTS)
        return newer

    @property
    def environment(self) -> dict[str, str]:
        """What makes a Python process run this program instead of the installed one."""
        return {"PYTHONPATH": str(self.folder), "PYTHONSAFEPATH": "1"}  # or the working directory would come first

    def send_rack_frames(
        self, bootstrap: str, *, source: int, epoch_ms: int, first_s: int, watts: Sequence[int]
    ) -> None:
        """Publish a frame of one row for each of `watts`; the metric of its own is one watt more."""
        self._python(_SEND, bootstrap, *(str(number) for number in (source, epoch_ms, first_s, *watts)))

    def _python(self, text: str, *arguments: str) -> None:
        done = subprocess.run(
            tied_to_parent([sys.executable, "-c", text, *arguments]),
            cwd=self.folder,
            env=environment(self.environment),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr

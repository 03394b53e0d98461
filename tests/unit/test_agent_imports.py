"""What the agent of a GPU node carries: memory that it takes is a job's memory."""

import subprocess
import sys

# What such an agent runs: the command line as far as its verb, the source nvml, and what sends.
_STARTED = """
import sys
from kvandal.cli import main
import click
main.get_command(click.Context(main), "agent")
import kvandal.reading, collectors.nvml.source, collectors.kernel_log, stream.publish
print(*sorted(sys.modules), sep="\\n")
"""
# Libraries of other sources, of ingest, of reports; most take a megabyte or many.
_OTHERS = {
    "altair", "chdb", "clickhouse_connect", "cryptography", "google", "grpc", "jinja2", "paho", "pandas", "polars",
    "psutil", "pyarrow", "pymodbus", "pysnmp", "requests", "rich", "yaml",
    "zoneinfo",
}  # fmt: skip
_OURS = {
    "alerts", "dashboards", "reports", "simulation", "storage", "collectors.device_pool", "collectors.host",
    "collectors.redfish.source", "stream.batch", "stream.consume", "stream.ingest",
    "kvandal.verbs_run", "kvandal.verbs_store", "kvandal.verbs_watch", "kvandal.verbs_wire",
}  # fmt: skip


def test_the_agent_of_a_gpu_node_imports_nothing_that_it_does_not_need() -> None:
    finished = subprocess.run([sys.executable, "-c", _STARTED], capture_output=True, text=True, check=True, timeout=120)
    imported = set(finished.stdout.split())
    assert "collectors.nvml.source" in imported
    assert not imported & (_OTHERS | _OURS)

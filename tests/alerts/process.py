"""The incidents process for tests that kill it: `python -m tests.alerts.process` with its options as JSON."""

import json
import sys
from pathlib import Path

from prometheus_client import CollectorRegistry

from alerts.pushing import PushRule
from alerts.running import IncidentOptions, run_incidents
from kvandal.serving import serve_metrics, stop_on_signals
from stream.client import KafkaAddress


def main(given: str) -> None:
    options = json.loads(given)
    registry = CollectorRegistry()
    server = serve_metrics(registry, host="127.0.0.1", port=0)
    sys.stdout.write(f"{server.server_port}\n")
    sys.stdout.flush()
    run_incidents(
        IncidentOptions(
            state=Path(options["state"]),
            alertmanagers=options["alertmanagers"],
            push=PushRule(resend_s=2.0, expire_s=60.0),
            targets=Path(options["targets"]),
            maintenance=Path(options["maintenance"]) if options.get("maintenance") else None,
        ),
        KafkaAddress(options["bootstrap"]),
        stop_on_signals(),
        registry=registry,
    )


if __name__ == "__main__":
    main(sys.argv[1])

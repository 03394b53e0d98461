"""`make bench`: runs the measurements one after the other and prints them as JSON."""

import json
import sys

from benchmarks import agent, frame_codec, gateway, ingest_drain, report_cost, report_sustainability


def main() -> None:
    quick = "QUICK=1" in sys.argv[1:]
    gpus, seconds = (1000, 300) if quick else (4000, 600)
    results = {
        "frame_codec": frame_codec.run(),
        "agent": agent.run(),
        "gateway": gateway.run(seconds=60.0) if quick else gateway.run(),
        "report_sustainability": report_sustainability.run(),
        "report_cost": report_cost.run((1_000,) if quick else report_cost.SIZES),
        "ingest_drain": [ingest_drain.run(gpus=gpus, seconds=seconds, ticks=ticks) for ticks in (10, 20)],
    }
    sys.stdout.write(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()

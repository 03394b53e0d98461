"""`make bench`: measures everything, holds it against its goals, and writes docs/performance.md.

`--quick` takes smaller sizes, writes nothing, and fails where a ratio is worse by more than a third than in
baseline.json.
"""

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks import page, suite
from benchmarks.goals import Goal, reached

BASELINE = Path(__file__).with_name("baseline.json")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="smaller sizes, held against baseline.json")
    parser.add_argument("--only", default="", metavar="NAME,NAME", help=f"of {', '.join(suite.BENCHMARKS)}")
    parser.add_argument("--baseline", action="store_true", help="with --quick: write what was measured as the baseline")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        sys.stdout.write(json.dumps(suite.measure(options.one, quick=options.quick)) + "\n")
        return 0
    wanted = options.only.split(",") if options.only else suite.names(quick=options.quick)
    unknown = set(wanted) - set(suite.BENCHMARKS)
    if unknown:
        parser.error(f"no such measurement: {', '.join(sorted(unknown))}; there are {', '.join(suite.BENCHMARKS)}")
    measurements = {name: _measured(name, quick=options.quick) for name in wanted}
    if options.quick:
        return _finish_quick(measurements, renew=options.baseline)
    return _finish_whole(measurements)


def _measured(name: str, *, quick: bool) -> dict[str, object]:
    sys.stderr.write(f"measuring {name}\n")
    return suite.run_apart(name, quick=quick)


def _finish_whole(measurements: Mapping[str, Any]) -> int:
    """Write the page; what was not measured now is as it was."""
    known: dict[str, Any] = json.loads(page.MEASURED.read_text())["measurements"] if page.MEASURED.exists() else {}
    known.update(measurements)
    merged = {name: known[name] for name in suite.BENCHMARKS if name in known}
    page.write({"machine": suite.machine(), "measurements": merged})
    for goal, value in reached(measurements):
        if value is not None:
            _tell(goal, value, "reached" if goal.is_reached(value) else "NOT REACHED")
    return _failures(measurements)


def _finish_quick(measurements: Mapping[str, Any], *, renew: bool) -> int:
    ratios = {goal: value for goal, value in reached(measurements) if goal.is_ratio and value is not None}
    if renew:
        BASELINE.write_text(json.dumps({goal.key: round(value, 3) for goal, value in ratios.items()}, indent=1) + "\n")
    baseline = json.loads(BASELINE.read_text())
    worse = 0
    for goal, value in ratios.items():
        regressed = goal.has_regressed(value, baseline[goal.key])
        worse += regressed
        _tell(goal, value, f"{'WORSE by more than a third than' if regressed else 'was'} {baseline[goal.key]:g}")
    missing = set(baseline) - {goal.key for goal in ratios}
    if missing:
        sys.stderr.write(f"in baseline.json, and not measured: {', '.join(sorted(missing))}\n")
    return 1 if worse or missing else _failures(measurements)


def _tell(goal: Goal, value: float, verdict: str) -> None:
    sys.stdout.write(f"{goal.text(value):>10}  {goal.bound_text:>9}  {verdict:<12}  {goal.what}\n")


def _failures(measurements: Mapping[str, Any]) -> int:
    failed = {name: one["failed"] for name, one in measurements.items() if "failed" in one}
    for name, why in failed.items():
        sys.stderr.write(f"{name} {why}\n")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())

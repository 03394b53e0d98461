"""`make chaos`: breaks a site at random for some minutes and prints what came of it.

What is checked at the end is every byte: the stored rows, in order, are the rows that were produced. A defect is a row
that is lost, doubled or altered, a process that ends by itself, one that does not end when it is asked to, or a site
that stands still although all of it was mended. How busy the machine was is told beside it.
"""

import argparse
import json
import logging
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from catalogue import GPU
from tests.chaos.faults import FAULTS
from tests.chaos.feeder import Fleet
from tests.chaos.load import Load
from tests.chaos.site import FRAMES_PER_SECOND, ChaosSite, running_site
from tests.servers.stack import assert_minutes_agree, stored_rows

logger = logging.getLogger("chaos")

DRAIN_S = 300.0
STILL_S = 120.0  # nothing stored for so long after all was mended: it is not slow, it stands still
PAUSE_S = 1.0  # between two faults, at most
LATEST = 1.5  # times the seconds asked for: how long a run may go on for the kills that it still lacks


@dataclass(slots=True)
class Outcome:
    """What one run did and found."""

    seed: int
    seconds: float = 0.0
    struck: Counter[str] = field(default_factory=Counter)
    kills: int = 0
    frames: int = 0
    rows: int = 0
    lost: int = 0
    doubled: int = 0
    altered: int = 0
    events: int = 0
    longest_recovery_s: float = 0.0
    slowest_stop_s: float = 0.0
    complaints: list[str] = field(default_factory=list)
    load: Load = field(default_factory=Load)

    @property
    def holds(self) -> bool:
        return not (self.lost or self.doubled or self.altered or self.complaints)

    def document(self) -> dict[str, object]:
        return {
            "seed": self.seed, "seconds": round(self.seconds), "faults": dict(self.struck), "kills": self.kills,
            "frames": self.frames, "rows": self.rows, "lost": self.lost, "doubled": self.doubled,
            "altered": self.altered, "events": self.events, "longest_recovery_s": round(self.longest_recovery_s, 1),
            "slowest_stop_s": round(self.slowest_stop_s, 1), "complaints": self.complaints, "load": str(self.load),
        }  # fmt: skip


def run(folder: Path, *, seconds: float, seed: int, kills: int = 0, per_second: float = FRAMES_PER_SECOND) -> Outcome:
    """Break things for so many seconds and kills, mend everything, and hold the store against what was produced."""
    outcome = Outcome(seed)
    with running_site(folder, seed=seed, per_second=per_second) as site, outcome.load:
        _break(site, outcome, seconds, kills)
        site.heal()
        _wait_until_stored(site)
        outcome.longest_recovery_s = site.progress.longest_s
        _compare(site, outcome)
        for name in site.members:
            site.stop_member(name)
        outcome.complaints, outcome.slowest_stop_s = site.complaints, site.slowest_stop_s
    return outcome


def _break(site: ChaosSite, outcome: Outcome, seconds: float, kills: int) -> None:
    dice, started_s = random.Random(outcome.seed), time.monotonic()  # noqa: S311 - moments, no secrets
    while outcome.seconds < seconds or (outcome.kills < kills and outcome.seconds < LATEST * seconds):
        time.sleep(dice.uniform(0.0, PAUSE_S))
        (fault,) = dice.choices(FAULTS, [one.weight for one in FAULTS])
        logger.info("%.0f s, %d frames stored: %s", outcome.seconds, site.progress.stored, fault.name)
        fault.strike(site, dice)
        outcome.struck[fault.name] += 1
        outcome.kills += fault.kills
        outcome.seconds = time.monotonic() - started_s


def _wait_until_stored(site: ChaosSite) -> None:
    codes = [feeder.drain(DRAIN_S) for feeder in site.feeders]
    if any(codes):
        site.complaints.append(f"feeders ended with {codes}: what they produced was not all acknowledged")
    wanted = site.produced()
    while (stored := site.stored()) < wanted:
        if site.progress.stands_still_s > STILL_S:
            stacks = "\n".join(f"{name}: {member.stacks()}" for name, member in site.members.items())
            site.complaints.append(f"{stored} of {wanted} frames are stored and no more for {STILL_S:g} s:\n{stacks}")
            return
        time.sleep(0.2)


def _compare(site: ChaosSite, outcome: Outcome) -> None:
    """Rows byte for byte, one line in `frames` for each frame, every event, and minutes that agree with the rows."""
    store = site.client()
    for feeder in site.feeders:
        _compare_feeder(site, feeder.fleet, feeder.produced(), outcome)
    lines = store.query("SELECT count(), uniqExact(topic_id, partition, offset) FROM frames WHERE outcome = 'stored'")
    if (found := tuple(lines.result_rows[0])) != (outcome.frames, outcome.frames):
        site.complaints.append(f"`frames` has {found} lines of stored frames, {outcome.frames} were produced")
    if refused := store.command("SELECT count() FROM frames WHERE outcome IN ('rejected', 'parked')"):
        site.complaints.append(f"{refused} good frames were refused")
    events = int(str(store.command("SELECT count() FROM events FINAL WHERE kind = 'chaos'")))
    if events != outcome.events:
        site.complaints.append(f"{events} events are stored, {outcome.events} were produced")
    try:
        assert_minutes_agree(store, GPU)
    except AssertionError as differing:
        site.complaints.append(str(differing))


def _compare_feeder(site: ChaosSite, fleet: Fleet, count: int, outcome: Outcome) -> None:
    truth = np.sort(np.concatenate([fleet.rows(number) for number in range(count)]), order=["resource", "time"])
    first, last = int(truth["resource"].min()), int(truth["resource"].max())
    found = stored_rows(site.client(), GPU, f"resource BETWEEN {first} AND {last}")
    keys = np.unique(found[["resource", "time"]])
    outcome.frames += count
    outcome.rows += len(truth)
    outcome.events += fleet.events(count)
    outcome.doubled += len(found) - len(keys)
    outcome.lost += len(np.setdiff1d(truth[["resource", "time"]], keys))
    if len(found) == len(truth):
        outcome.altered += int((found != truth).sum())


def table(outcome: Outcome) -> str:
    """The run as a Markdown table."""
    lines = ["| fault | times |", "|---|---|"]
    lines += [f"| {fault.name} | {outcome.struck[fault.name]} |" for fault in FAULTS]
    account = (
        f"{outcome.kills} kills in {outcome.seconds / 60:.0f} minutes; {outcome.frames:,} frames with "
        f"{outcome.rows:,} rows produced; lost {outcome.lost}, duplicated {outcome.doubled}, "
        f"altered {outcome.altered}; {outcome.events:,} events; longest recovery {outcome.longest_recovery_s:.1f} s; "
        f"slowest stop {outcome.slowest_stop_s:.1f} s; seed {outcome.seed}. Machine: {outcome.load}."
    )
    return "\n".join([*lines, "", account, *(f"DEFECT: {complaint}" for complaint in outcome.complaints)])


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument(
        "--kills", type=int, default=0, help="go on until there were so many, half as long again at most"
    )
    parser.add_argument("--per-second", type=float, default=FRAMES_PER_SECOND, help="frames of each of two agents")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000)
    parser.add_argument("--json", type=Path, help="also write what was found to this file")
    options = parser.parse_args()
    logging.basicConfig(level=logging.CRITICAL, format="%(message)s", stream=sys.stderr)  # clients complain for minutes
    logger.setLevel(logging.INFO)
    folder = Path(tempfile.mkdtemp(prefix="kvandal-chaos-"))
    outcome = run(
        folder,
        seconds=options.minutes * 60,
        seed=options.seed,
        kills=options.kills,
        per_second=options.per_second,
    )
    sys.stdout.write(table(outcome) + "\n")
    if outcome.holds:
        shutil.rmtree(folder)
    else:
        sys.stderr.write(f"logs and data of the run are in {folder}\n")
    if options.json:
        options.json.write_text(json.dumps(outcome.document(), indent=1) + "\n")
    return 0 if outcome.holds else 1


if __name__ == "__main__":
    raise SystemExit(main())

"""Fuzzes what reads outside input, and prints what came of it.

    python -m tests.fuzz --inputs 1000000 --target all

Guided by coverage where Atheris is installed (`pip install atheris`), by plain mutation where it is not; the table says
which. Inputs that crash or hang are written to the folder of the findings. Exit 1 when there is one.
"""

import argparse
import logging
import random
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import click
import msgspec

from tests.fuzz.run import Tally, run_blind, save_findings
from tests.fuzz.targets import TARGETS


def main(arguments: Sequence[str] | None = None) -> int:
    logging.disable()  # readers say what they drop; a million times over nobody reads it
    options = _parse(arguments)
    engine = options.engine or ("guided" if find_spec("atheris") else "blind")
    click.echo(
        f"{'target':<18}{'engine':<8}{'inputs':>10}{'corpus':>8}{'crashes':>9}{'hangs':>7}{'slowest':>9}{'seconds':>9}"
    )
    tallies = []
    for name in TARGETS if options.target == "all" else options.target.split(","):
        if engine == "guided":
            tally = _run_guided(name, options.inputs, options.seed, options.corpus)
        else:
            tally = run_blind(TARGETS[name], options.inputs, seed=options.seed)
        save_findings(tally, options.findings)
        tallies.append(tally)
        _show(tally)
    _show(_total(tallies))
    return int(any(tally.crashes or tally.hangs or tally.inputs < options.inputs for tally in tallies))


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--inputs", type=int, default=100_000, help="inputs for each target")
    parser.add_argument("--target", default="all", help=f"all, or some of {','.join(TARGETS)}")
    parser.add_argument("--engine", choices=["guided", "blind"])
    parser.add_argument("--seed", type=int, default=random.randrange(1, 1 << 31))  # noqa: S311 - no secrets
    parser.add_argument("--corpus", type=Path, default=Path(tempfile.gettempdir()) / "kvandal-fuzz" / "corpus")
    parser.add_argument("--findings", type=Path, default=Path(tempfile.gettempdir()) / "kvandal-fuzz" / "findings")
    return parser.parse_args(arguments)


def _run_guided(name: str, inputs: int, seed: int, corpus: Path) -> Tally:
    """In a process of its own; one that died has a tally of how far it came, and counts as a crash."""
    corpus.mkdir(parents=True, exist_ok=True)
    tally_path, log_path = corpus / f"{name}.json", corpus / f"{name}.log"
    tally_path.unlink(missing_ok=True)
    places = [str(corpus / name), str(tally_path)]
    with log_path.open("wb") as log:
        command = [sys.executable, "-m", "tests.fuzz.guided", name, str(inputs), str(seed), *places]
        subprocess.run(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=False)
    tally = msgspec.json.decode(tally_path.read_bytes(), type=Tally) if tally_path.exists() else Tally(name, "guided")
    if tally.inputs < inputs:
        tally.crashes += 1
        click.echo(f"{name}: the process ended early; see {log_path}")
    return tally


def _total(tallies: Sequence[Tally]) -> Tally:
    return Tally(
        "all",
        "",
        inputs=sum(tally.inputs for tally in tallies),
        corpus=sum(tally.corpus for tally in tallies),
        crashes=sum(tally.crashes for tally in tallies),
        hangs=sum(tally.hangs for tally in tallies),
        slowest_s=max((tally.slowest_s for tally in tallies), default=0.0),
        seconds=sum(tally.seconds for tally in tallies),
    )


def _show(tally: Tally) -> None:
    click.echo(
        f"{tally.target:<18}{tally.engine:<8}{tally.inputs:>10,}{tally.corpus:>8,}{tally.crashes:>9}{tally.hangs:>7}"
        f"{tally.slowest_s:>9.3f}{tally.seconds:>9.0f}"
    )
    for place in sorted({f"  {finding.kind} at {finding.place}" for finding in tally.findings}):
        click.echo(place)


if __name__ == "__main__":
    sys.exit(main())

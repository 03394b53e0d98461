"""For servers and tools that have to be fetched or built: `python -m … --prepare` does it ahead of the tests."""

import argparse
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tests.servers.kafka import ServerUnavailable


def make(
    command: Sequence[str], folder: Path, *, what: str, timeout_s: float, environment: Mapping[str, str] | None = None
) -> None:
    """Run what fetches or builds; ServerUnavailable, with the end of what it said, when it does not get done."""
    try:
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=timeout_s, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise ServerUnavailable(f"{what} could not be had in {timeout_s:.0f} s") from error
    if done.returncode != 0:
        raise ServerUnavailable(f"{what} could not be had: {done.stderr.strip()[-400:]}")


def prepare(arguments: Sequence[str], module: str, what: str, ready: Callable[[], object]) -> int:
    """The main function of a module that prepares `what`; returns the exit status."""
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=f"{what} for the tests.")
    parser.add_argument("--prepare", action="store_true", required=True, help="get what the tests will run")
    parser.parse_args(arguments)
    try:
        ready()
    except ServerUnavailable as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stderr.write(f"{what} is ready\n")
    return 0

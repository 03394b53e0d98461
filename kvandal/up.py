"""`kvandal up`: the embedded stack without end, on data that is kept."""

from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

import msgspec

from kvandal.demo import SourceChoice, choose_source, claim_folder, previous_month_site, simulate_arguments
from kvandal.screen import TerminalScreen
from kvandal.simulating import SimulatedSite
from kvandal.stack import Stack, StackOptions
from kvandal.talk import say


@dataclass(frozen=True, slots=True)
class UpOptions:
    """What to run, and where its data is kept."""

    data: Path
    gpus: int
    seed: int
    source: SourceChoice
    door_port: int


def run_up(options: UpOptions, stop: Event) -> None:
    """Run until `stop`; then stop producing, wait until everything is stored, and end."""
    claim_folder(options.data, fresh=False)
    with TerminalScreen() as screen, Stack(StackOptions(options.data, door_port=options.door_port)) as stack:
        say(f"ClickHouse  {stack.door_url}  (read-only without a password)")
        say(f"metrics     {stack.metrics_url}")
        say(f"logs        {options.data / 'logs'}")

        def show(facts: dict[str, Any]) -> None:
            if facts["phase"] == "month":
                screen.phase("simulating a month")
                screen.progress(facts["done"], facts["total"])
            elif facts["phase"] == "live":
                screen.phase("running until Ctrl-C")

        stack.start_agents(_agent_arguments(options))
        stack.watch(show, until=stop.is_set)
        screen.phase("waiting until everything is stored")
        if not stack.stop_agents():
            say("not everything could be stored; the next start sends the rest")


def _agent_arguments(options: UpOptions) -> list[str]:
    source = choose_source(options.source)
    if source is SourceChoice.SIMULATOR:
        return simulate_arguments(options.data, _kept_site(options))
    spool = str(options.data / "spool.db")
    return ["agent", "--source", source, "--spool", spool, "--until-stored", "--port", "0"]


def _kept_site(options: UpOptions) -> SimulatedSite:
    """The site that the folder began with: its month is sent again, the same, if it was cut off."""
    path = options.data / "site.json"
    if path.exists():
        return msgspec.json.decode(path.read_bytes(), type=SimulatedSite)
    site = previous_month_site(options.gpus, options.seed)
    path.write_bytes(msgspec.json.encode(site))
    return site

"""`kvandal up`: the embedded stack without end, on data that is kept."""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

import msgspec

from kvandal.demo import SourceChoice, choose_source, claim_folder, previous_month_site, simulate_arguments
from kvandal.screen import TerminalScreen
from kvandal.simulating import SimulatedSite
from kvandal.stack import Stack, StackOptions
from kvandal.talk import say
from storage.roles import RoleName

if TYPE_CHECKING:
    from dashboards.preview_server import Moments


@dataclass(frozen=True, slots=True)
class UpOptions:
    """What to run, and where its data is kept."""

    data: Path
    gpus: int
    seed: int
    days: int | None
    source: SourceChoice
    door_port: int


def run_up(options: UpOptions, stop: Event) -> None:
    """Run until `stop`; then stop producing, wait until everything is stored, and end."""
    from dashboards.preview_server import PreviewServer

    claim_folder(options.data, fresh=False)
    source = choose_source(options.source)
    with (
        TerminalScreen() as screen,
        Stack(StackOptions(options.data, door_port=options.door_port)) as stack,
        PreviewServer(stack.address(RoleName.REPORTS), _moments(options, source)) as previews,
    ):
        say(f"dashboards  {previews.url}")
        say(f"ClickHouse  {stack.door_url}  (read-only without a password)")
        say(f"metrics     {stack.metrics_url}")
        say(f"logs        {options.data / 'logs'}")

        def show(facts: dict[str, Any]) -> None:
            if facts["phase"] == "month":
                screen.phase("simulating a month")
                screen.progress(facts["done"], facts["total"])
            elif facts["phase"] == "live":
                screen.phase("running until Ctrl-C")

        stack.start_agents(_agent_arguments(options, source))
        stack.watch(show, until=stop.is_set)
        screen.phase("waiting until everything is stored")
        if not stack.stop_agents():
            say("not everything could be stored; the next start sends the rest")


def _moments(options: UpOptions, source: SourceChoice) -> "Moments":
    """Ranges of the previews end now, or with the simulated month."""
    from dashboards.preview_server import Moments

    if source is not SourceChoice.SIMULATOR:
        return Moments.of(now=None)
    month_end = datetime.fromtimestamp(_kept_site(options).month_end_s, UTC)
    return Moments.of(now=None, end_of_the_simulated_month=month_end)


def _agent_arguments(options: UpOptions, source: SourceChoice) -> list[str]:
    if source is SourceChoice.SIMULATOR:
        return simulate_arguments(options.data, _kept_site(options))
    spool = str(options.data / "spool.db")
    return ["agent", "--source", source, "--spool", spool, "--until-stored", "--port", "0"]


def _kept_site(options: UpOptions) -> SimulatedSite:
    """The site that the folder began with: its month is sent again, the same, if it was cut off."""
    path = options.data / "site.json"
    if path.exists():
        return msgspec.json.decode(path.read_bytes(), type=SimulatedSite)
    site = previous_month_site(options.gpus, options.seed, options.days)
    path.write_bytes(msgspec.json.encode(site))
    return site

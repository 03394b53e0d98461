"""The verb of every node, apart from those that only a few machines run."""

from pathlib import Path
from threading import Event

import click

from kvandal.hangup import Reload
from kvandal.options import kafka_options, settings_options
from kvandal.settings import SOURCE_NAMES, AgentSettings, load_settings, show_settings
from kvandal.talk import show


@click.command(short_help="Read this node and publish what it gives.")
@settings_options
@kafka_options
@click.option(
    "--source",
    multiple=True,
    type=click.Choice(SOURCE_NAMES),
    help="What to read. [setting agent.sources]",
)
@click.option("--spool", help="File in which frames wait for the broker. [setting agent.spool]")
@click.option("--port", type=click.IntRange(0, 65_535), help="Port of /metrics. [setting agent.metrics_port]")
@click.option("--host-interval", type=float, help="Seconds between host readings. [setting agent.host_interval_s]")
@click.option(
    "--until-stored", is_flag=True, help="Keep frames until ingest has stored them: for a broker that forgets."
)
@click.option("--once", is_flag=True, help="With --print: read everything once, publish nothing, and end.")
@click.option("--print", "show", is_flag=True, help="Print what this node gives, and what is absent and why.")
@click.option("--counts", type=click.Path(path_type=Path), hidden=True, help="Write what was acknowledged, at the end.")
def agent(
    *, config: Path | None, check_config: bool, broker: str | None, source: tuple[str, ...], spool: str | None,
    port: int | None, host_interval: float | None, until_stored: bool, once: bool, show: bool, counts: Path | None,
) -> None:  # fmt: skip
    """Read this node and publish what it gives, second by second.

    Every frame waits in a spool on disk until the broker has it. /metrics shows the latest
    readings and the agent's own health. SIGHUP reloads sources and intervals from the file.
    """
    flags = {
        "kafka.bootstrap": broker, "agent.sources": list(source) or None, "agent.spool": spool,
        "agent.metrics_port": port, "agent.host_interval_s": host_interval,
    }  # fmt: skip
    if once != show:
        raise click.UsageError("--once and --print go together: they show what this node gives, without publishing it")
    reload = Reload(lambda: load_settings(AgentSettings, file=config, flags=flags))
    settings = load_settings(AgentSettings, file=config, flags=flags)
    if check_config:
        click.echo(show_settings(settings))
        return
    from kvandal.reading import run_agent
    from kvandal.serving import stop_on_signals

    stop = stop_on_signals()
    if once:
        _show_node(settings, stop)
        return
    drained = run_agent(settings, stop, until_stored=until_stored, count_file=counts, reload=reload)
    if until_stored and not drained:  # otherwise what is left waits in the spool, as it should
        raise SystemExit(1)


def _show_node(settings: AgentSettings, stop: Event) -> None:
    """Print what each source gives; exit 1 when one of them gives nothing."""
    from kvandal.node_view import view_node
    from kvandal.sources import make_sources

    works = True
    for view in view_node(make_sources(settings, None), stop=stop):
        show(f"{view.name}: " + "\n".join(view.lines) + "\n")
        works = works and view.works
    if not works:
        raise SystemExit(1)

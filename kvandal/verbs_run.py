"""The verbs that run something: the whole pipeline, or one of its processes."""

import json
import os
from pathlib import Path

import click

from kvandal.options import kafka_options, settings_options, store_options
from kvandal.settings import (
    SOURCE_NAMES,
    AgentSettings,
    DoctorSettings,
    IngestSettings,
    KeeperSettings,
    SettingsError,
    load_settings,
    show_settings,
)
from kvandal.talk import say, show_line

_OUT = click.option("--out", type=click.Path(path_type=Path), default=Path("kvandal-demo"), show_default=True,
                    help="Folder for data, logs and report; a demo empties it first.")  # fmt: skip

_DAYS = click.option("--days", type=click.IntRange(1, 31), metavar="DAYS",
                     help="Simulate only so many last days of the month: the sooner it is live.")  # fmt: skip


@click.command(short_help="Run the whole pipeline here and account for every row.")
@click.option(
    "--gpus", type=click.IntRange(4, 200_000), default=512, show_default=True, help="GPUs of the simulated site."
)
@click.option("--seconds", type=click.IntRange(1, 86_400), default=60, show_default=True, help="How long to run live.")
@click.option("--once", is_flag=True, help="End after the report instead of serving until Ctrl-C.")
@click.option("--source", type=click.Choice(["auto", "simulator", "nvml", "host"]), default="auto", show_default=True,
              help="What to read; auto takes this machine's GPUs where it has some.")  # fmt: skip
@click.option("--seed", type=int, default=1, show_default=True, help="The simulated site and its month follow from it.")
@_DAYS
@click.option(
    "--port", type=click.IntRange(0, 65_535), default=0, help="Port of the ClickHouse door; 0 takes a free one."
)
@click.option("--summary", type=click.Path(path_type=Path), metavar="FILE", help="Write what was counted as JSON.")
@click.option("--fault", type=click.Choice(["drop", "double"]), help="Break one frame on purpose, to see it found.")
@_OUT
def demo(
    *, gpus: int, seconds: int, once: bool, source: str, seed: int, days: int | None, port: int, summary: Path | None,
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
        out=out, gpus=gpus, seconds=seconds, seed=seed, days=days, source=SourceChoice(source), door_port=port,
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


@click.command(short_help="Run the embedded pipeline without end, on kept data.")
@click.option("--gpus", type=click.IntRange(4, 200_000), default=512, show_default=True,
              help="GPUs of the simulated site; only the first start looks at it.")  # fmt: skip
@click.option(
    "--seed", type=int, default=1, show_default=True, help="Seed of the site; only the first start looks at it."
)
@_DAYS
@click.option("--source", type=click.Choice(["auto", "simulator", "nvml", "host"]), default="auto", show_default=True,
              help="What to read, as for the demo.")  # fmt: skip
@click.option(
    "--port", type=click.IntRange(0, 65_535), default=8123, show_default=True, help="Port of the ClickHouse door."
)
@click.option("--data", type=click.Path(path_type=Path), default=Path("kvandal-data"), show_default=True,
              help="Folder whose data is kept from start to start.")  # fmt: skip
def up(*, gpus: int, seed: int, days: int | None, source: str, port: int, data: Path) -> None:
    """Run the embedded pipeline without end, on data that is kept.

    The same as the demo, for days: Ctrl-C stops it cleanly, the next start goes on where it was.
    """
    from kvandal.demo import SourceChoice
    from kvandal.serving import stop_on_signals
    from kvandal.up import UpOptions, run_up

    options = UpOptions(data=data, gpus=gpus, seed=seed, days=days, source=SourceChoice(source), door_port=port)
    run_up(options, stop_on_signals())


@click.command(short_help="Check everything that an agent or ingest needs.")
@click.option("--config", type=click.Path(path_type=Path), help="TOML file with the settings of an agent or of ingest.")
@click.option("--only", type=click.Choice(["agent", "ingest"]), help="Leave out what the other one needs.")
@kafka_options
@store_options
@click.option("--spool", help="File in which frames wait for the broker. [setting agent.spool]")
@click.option("--source", multiple=True, type=click.Choice(SOURCE_NAMES),
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
        show_line(f"{'failed':<13}{'settings':<18}{error}")
        raise SystemExit(1) from error
    click.echo(f"{'ok':<13}{'settings':<18}{config or 'no file'}, environment and flags")
    verdicts = []
    for finding in examine(settings, agent=only != "ingest", ingest=only != "agent"):
        show_line(f"{finding.verdict:<13}{finding.check:<18}{finding.text}")
        verdicts.append(finding.verdict)
    if Verdict.FAILED in verdicts:
        raise SystemExit(1)


@click.command(short_help="Serve a simulated site through its real protocols.")
@click.option("--serve", is_flag=True, help="Serve DSX, Modbus and Redfish, for an agent to read.")
@click.option(
    "--data", type=click.Path(path_type=Path), required=True, help="Folder for the site's state and settings."
)
@click.option("--gpus", type=click.IntRange(4, 200_000), default=512, show_default=True, help="GPUs of the site.")
@click.option("--seed", type=int, default=1, show_default=True, help="The site and what happens in it follow from it.")
@click.option("--mqtt", metavar="HOST:PORT", help="MQTT broker that carries the site's DSX bus.")
@click.option("--mqtt-user", default="", help="User at that broker.")
@click.option("--mqtt-password-file", type=click.Path(path_type=Path), help="File with the user's password.")
@click.option("--racks-through", type=click.Choice(["dsx", "redfish"]), default="dsx", show_default=True,
              help="Which protocol tells of the racks.")  # fmt: skip
@click.option("--modbus-port", type=click.IntRange(0, 65_535), default=5020, show_default=True)
@click.option("--redfish-port", type=click.IntRange(0, 65_535), default=8443, show_default=True,
              help="Port of the first controller; the others follow it.")  # fmt: skip
@click.option("--broker", metavar="HOST:PORT", help="Kafka, for the settings that are written.")
@click.option("--site", hidden=True, help="The site as JSON: the demo's child process.")
@click.option("--until-stored", is_flag=True, hidden=True)
@click.option("--counts", type=click.Path(path_type=Path), hidden=True)
def simulate(
    *, serve: bool, data: Path, gpus: int, seed: int, mqtt: str | None, mqtt_user: str, mqtt_password_file: Path | None,
    racks_through: str, modbus_port: int, redfish_port: int, broker: str | None, site: str | None, until_stored: bool,
    counts: Path | None,
) -> None:  # fmt: skip
    """Serve a simulated site through the protocols that a real one speaks, until Ctrl-C.

    Racks through DSX on an MQTT broker, meters through Modbus, cooling units through Redfish. The settings of a
    gateway that reads it all are written beside its state: kvandal agent --config DATA/gateway.toml.
    """
    if serve:
        _serve(data, gpus, seed, mqtt, mqtt_user, mqtt_password_file, racks_through, modbus_port, redfish_port, broker)
    elif site and broker:
        _simulate(data, site, broker, counts, until_stored=until_stored)
    else:
        raise click.UsageError("give --serve; without it this verb is a child process of the demo")


def _serve(
    data: Path, gpus: int, seed: int, mqtt: str | None, user: str, password_file: Path | None, racks_through: str,
    modbus_port: int, redfish_port: int, kafka: str | None,
) -> None:  # fmt: skip
    from kvandal.serving import stop_on_signals
    from kvandal.serving_site import RacksThrough, ServeOptions, mqtt_address, serve_site

    broker = mqtt_address(mqtt, username=user, password_file=password_file) if mqtt else None
    options = ServeOptions(
        folder=data, gpus=gpus, seed=seed, racks_through=RacksThrough(racks_through), broker=broker,
        broker_password_file=str(password_file or ""), modbus_port=modbus_port, redfish_port=redfish_port,
        kafka=kafka or "",
    )  # fmt: skip
    serve_site(options, stop_on_signals())


def _simulate(data: Path, site: str, broker: str, counts: Path | None, *, until_stored: bool) -> None:
    """Run agents over a simulated site."""
    import msgspec

    from kvandal.serving import stop_on_signals
    from kvandal.simulating import SimulatedSite, SimulateOptions, run_simulated_agents

    settings = load_settings(AgentSettings, flags={"kafka.bootstrap": broker, "agent.drain_s": 120})
    options = SimulateOptions(data, msgspec.json.decode(site, type=SimulatedSite), counts, until_stored=until_stored)
    if not run_simulated_agents(options, settings, stop_on_signals()):
        raise SystemExit(1)


@click.command(short_help="Move frames from Kafka into ClickHouse, exactly once.")
@settings_options
@kafka_options
@store_options
@click.option("--port", type=click.IntRange(0, 65_535), help="Port of /metrics. [setting ingest.metrics_port]")
@click.option("--rewind-to-store", "rewind", is_flag=True,
              help="Set the group, which must have ended, back to where a restored store ends; then stop.")  # fmt: skip
def ingest(*, config: Path | None, check_config: bool, broker: str | None, url: str | None, user: str | None,
           port: int | None, rewind: bool) -> None:  # fmt: skip
    """Move frames from Kafka into ClickHouse, every row exactly once.

    Start as many as the topics have partitions: they share the work as one consumer group. What is
    away is waited for; what cannot be stored goes to the dead letters.
    """
    flags = {"kafka.bootstrap": broker, "store.url": url, "store.user": user, "ingest.metrics_port": port}
    settings = load_settings(IngestSettings, file=config, flags=flags)
    if check_config:
        click.echo(show_settings(settings))
        return
    if rewind:
        _rewind(settings)
        return
    from kvandal.allocator import give_freed_memory_back
    from kvandal.ingesting import run_ingest
    from kvandal.serving import stop_on_signals

    give_freed_memory_back()
    run_ingest(settings, stop_on_signals())


def _rewind(settings: IngestSettings) -> None:
    from kvandal.addresses import store_address
    from kvandal.backing_up import rewind_to_store

    for partition, (before, after) in rewind_to_store(settings.kafka, store_address(settings.store)).items():
        click.echo(f"{partition.topic} {partition.number}: {before} -> {after}")


@click.command(short_help="Run the embedded ClickHouse, its door and ingest.")
@click.option("--data", type=click.Path(path_type=Path), required=True, help="Folder of the embedded ClickHouse.")
@click.option("--broker", metavar="HOST:PORT", required=True, help="Kafka bootstrap address.")
@click.option("--port", type=click.IntRange(0, 65_535), default=8123, show_default=True, help="Port of the door.")
@click.option(
    "--keep-days", type=click.IntRange(7, 4000), default=400, show_default=True, help="Days that raw readings are kept."
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Where the door listens; a network needs TLS.")
@click.option("--certificate", type=click.Path(path_type=Path), help="The door's certificate, in PEM: it speaks TLS.")
@click.option("--key", type=click.Path(path_type=Path), help="Key of the certificate, in PEM.")
@click.option("--fault", type=click.Choice(["drop", "double"]), hidden=True)
def store(*, data: Path, broker: str, port: int, keep_days: int, host: str, certificate: Path | None, key: Path | None,
          fault: str | None) -> None:  # fmt: skip
    """Run ClickHouse in this process, with its HTTP door and the ingest into it.

    Passwords of the door's roles come from KVANDAL_INGEST_PASSWORD, KVANDAL_REPORTS_PASSWORD and
    KVANDAL_GRAFANA_PASSWORD, or from files named by these with _FILE; a role without a password
    does not exist. On loopback without TLS, reports may be read without a password.
    """
    if (certificate is None) != (key is None):
        raise click.UsageError("--certificate and --key go together")
    from kvandal.fault import Fault
    from kvandal.serving import stop_on_signals
    from kvandal.store import StoreOptions, run_store
    from storage.door import DoorCertificate
    from storage.reception import read_passwords

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
        data, door_port=port, door_host=host, door_certificate=DoorCertificate(certificate, key) if certificate and key
        else None, keep_raw_days=keep_days, passwords=read_passwords(os.environ),
        fault=Fault(fault) if fault else None,
    )  # fmt: skip
    run_store(options, settings, stop_on_signals())


@click.command(short_help="Keep hours and topology of a ClickHouse server.")
@settings_options
@store_options
def keep(*, config: Path | None, check_config: bool, url: str | None, user: str | None) -> None:
    """Keep what a ClickHouse server has to have computed: the hour tier, and the topology.

    One process per store. The embedded store (demo, up) does this itself.
    """
    settings = load_settings(KeeperSettings, file=config, flags={"store.url": url, "store.user": user})
    if check_config:
        click.echo(show_settings(settings))
        return
    from kvandal.addresses import store_address
    from kvandal.keeping import keep_store
    from kvandal.serving import stop_on_signals

    keep_store(store_address(settings.store), settings, stop_on_signals())

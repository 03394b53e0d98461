"""The verbs around watching: dashboards, alerts, and the incidents that wake people."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import click
import msgspec

from kvandal.options import client_settings, kafka_options, store_options
from kvandal.talk import say

if TYPE_CHECKING:
    from dashboards.publishing import Publisher

P = ParamSpec("P")
R = TypeVar("R")


@click.group(short_help="Grafana dashboards: render, diff, publish, preview.")
def dashboards() -> None:
    """The Grafana dashboards: as files, over Grafana's API, and as previews without a Grafana."""


def _publisher(
    grafana: str, token_file: Path, clickhouse: str, password_file: Path | None, prometheus: str, runbooks: str
) -> "Publisher":
    from dashboards.publishing import DataSources, Publisher, open_grafana, read_secret

    if not clickhouse:
        return Publisher(open_grafana(grafana, token_file), runbooks=runbooks)
    host, _, port = clickhouse.partition(":")
    sources = DataSources(
        clickhouse_host=host,
        clickhouse_port=int(port or 8123),
        clickhouse_password=read_secret(password_file) if password_file else "",
        prometheus_url=prometheus,
    )
    return Publisher(open_grafana(grafana, token_file), sources, runbooks=runbooks)


_RUNBOOKS = click.option(
    "--runbooks", default="https://kvandal.example/runbooks", show_default=True, help="Where runbooks are served."
)


def _grafana_options(command: Callable[P, R]) -> Callable[P, R]:
    for option in (
        _RUNBOOKS,
        click.option("--prometheus", default="", help="URL of Prometheus, as Grafana reaches it."),
        click.option(
            "--clickhouse-password-file",
            "password_file",
            type=click.Path(path_type=Path),
            help="Password of the user grafana.",
        ),
        click.option(
            "--clickhouse",
            default="",
            metavar="HOST[:PORT]",
            help="ClickHouse as Grafana reaches it: publish its data source too.",
        ),
        click.option("--token-file", type=click.Path(path_type=Path), required=True, help="Service account's token."),
        click.option("--grafana", required=True, metavar="URL", help="Grafana, as https://host:3000."),
    ):
        command = option(command)
    return command


@dashboards.command("render", short_help="Write them as files for Grafana's provisioning.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("dashboards-rendered"), show_default=True)
@_RUNBOOKS
def dashboards_render(*, out: Path, runbooks: str) -> None:
    """Write dashboards and provisioning as files, for Helm, compose or a Grafana of your own."""
    from dashboards.rendering import site_files

    for path, text in site_files(runbooks).items():
        (out / path).parent.mkdir(parents=True, exist_ok=True)
        (out / path).write_text(text)
        click.echo(out / path)


@dashboards.command("diff", short_help="Say what publishing would change; exit 1 if anything.")
@_grafana_options
def dashboards_diff(
    *, grafana: str, token_file: Path, clickhouse: str, password_file: Path | None, prometheus: str, runbooks: str
) -> None:
    """Say what publishing would change in Grafana, and change nothing."""
    from dashboards.publishing import Change

    planned = _publisher(grafana, token_file, clickhouse, password_file, prometheus, runbooks).plan()
    for one in planned:
        click.echo(str(one))
    if any(one.change is not Change.NONE for one in planned):
        raise SystemExit(1)


@dashboards.command("publish", short_help="Bring Grafana up to date.")
@click.option("--overwrite", is_flag=True, help="Replace also what was edited by hand in Grafana.")
@_grafana_options
def dashboards_publish(
    *, overwrite: bool, grafana: str, token_file: Path, clickhouse: str, password_file: Path | None, prometheus: str,
    runbooks: str,
) -> None:  # fmt: skip
    """Bring Grafana's folder, data sources and dashboards up to date; exit 1 where something was edited by hand."""
    from dashboards.publishing import Change

    publisher = _publisher(grafana, token_file, clickhouse, password_file, prometheus, runbooks)
    done = publisher.publish(overwrite=overwrite)
    for one in done:
        click.echo(str(one))
    if any(one.change is Change.DRIFT for one in done):
        raise SystemExit(1)


@dashboards.command("preview", short_help="Draw the dashboards as pages, without Grafana.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("dashboards-preview"), show_default=True)
@click.option("--only", multiple=True, metavar="UID", help="Only these dashboards.")
@store_options
def dashboards_preview(*, out: Path, only: tuple[str, ...], url: str | None, user: str | None) -> None:
    """Draw the dashboards from a store's data as static pages."""
    from dashboards.preview import write_previews
    from kvandal.addresses import store_address

    written = write_previews(store_address(client_settings(url=url, user=user).store), out, only=only)
    for page in written.pages:
        click.echo(page)


@click.group(short_help="Rules and routing for Prometheus and Alertmanager.")
def alerts() -> None:
    """Rules for Prometheus and routing for the Alertmanager, with a site's own thresholds and receivers."""


@alerts.command("render", short_help="Write a site's rules and routing.")
@click.option("--site", type=click.Path(path_type=Path), help="TOML with the site's thresholds and receivers.")
@click.option(
    "--runbooks", default="https://kvandal.example/runbooks", show_default=True, help="Where runbooks are served."
)
@click.option("--dashboards", "boards", default="https://grafana.example", show_default=True, help="Where Grafana is.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder for the files.")
def alerts_render(*, site: Path | None, runbooks: str, boards: str, out: Path) -> None:
    """Write the files that a site gives to Prometheus and the Alertmanager."""
    from alerts.rendering import site_files
    from alerts.routing import Routing, load_routing
    from alerts.telling import Links
    from alerts.thresholds import Thresholds, load_thresholds

    thresholds = load_thresholds(site) if site else Thresholds()
    routing = load_routing(site) if site else Routing()
    files = site_files(thresholds, routing, Links(runbooks, boards))
    out.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (out / name).write_text(text)
        click.echo(out / name)


@alerts.command("replay", short_help="Replay shipped incidents and score what would have been told.")
@click.argument("incident")
@click.option("--json", "as_json", is_flag=True, help="The scores as JSON.")
@click.option("--markdown", is_flag=True, help="The page docs/reference/replays.md.")
def alerts_replay(*, incident: str, as_json: bool, markdown: bool) -> None:
    """Replay INCIDENT, or `all`; `list` names them. Exit 1 where a page is missed, late, false or one too many.

    Needs promtool and the Alertmanager on the PATH: Prometheus' own rule engine judges the metric rules, and the
    Alertmanager what is grouped and held back.
    """
    from alerts.replay_incident import incident_names, load_incident
    from alerts.replay_score import lines, page
    from kvandal.replaying import replay

    if incident == "list":
        for name in incident_names():
            click.echo(f"{name}: {load_incident(name).title}")
        return
    scores = []
    for name in incident_names() if incident == "all" else [incident]:
        say(f"replaying {name}")
        scores.append(replay(load_incident(name)))
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(scores), indent=1))
    elif markdown:
        click.echo(page(scores), nl=False)
    else:
        click.echo("\n".join(lines(scores)))
    if not all(score.is_good for score in scores):
        raise SystemExit(1)


@click.command(short_help="Turn events into alarms for the Alertmanager.")
@kafka_options
@click.option("--alertmanager", "alertmanagers", multiple=True, required=True, metavar="URL", help="Once for each.")
@click.option("--state", type=click.Path(path_type=Path), default=Path("/var/lib/kvandal/incidents.db"),
              show_default=True, help="File in which open incidents are kept.")  # fmt: skip
@click.option(
    "--maintenance", type=click.Path(path_type=Path), help="Maintenance windows: TOML, or the register as CSV."
)
@click.option("--tenants", type=click.Path(path_type=Path), help="TOML that says who rents which racks.")
@click.option("--targets", type=click.Path(path_type=Path), help="File that tells Prometheus where the agents are.")
@click.option(
    "--runbooks", default="https://kvandal.example/runbooks", show_default=True, help="Where runbooks are served."
)
@click.option("--dashboards", "boards", default="https://grafana.example", show_default=True, help="Where Grafana is.")
@click.option("--port", type=click.IntRange(0, 65_535), default=9466, show_default=True, help="Port of /metrics.")
@click.option("--metrics-host", default="127.0.0.1", show_default=True, help="Address on which /metrics listens.")
def incidents(
    *, broker: str | None, alertmanagers: tuple[str, ...], state: Path, maintenance: Path | None,
    tenants: Path | None, targets: Path | None, runbooks: str, boards: str, port: int, metrics_host: str,
) -> None:  # fmt: skip
    """Turn XIDs, leaks, breakers and other events into alarms: one per cause, resolved when it is over.

    What is open survives a restart; nobody is paged twice for one thing.
    """
    from prometheus_client import CollectorRegistry

    from alerts.running import IncidentOptions, run_incidents
    from alerts.telling import Links
    from alerts.tenants import load_tenants
    from kvandal.addresses import kafka_address
    from kvandal.serving import serve_metrics, stop_on_signals

    stop, registry = stop_on_signals(), CollectorRegistry()
    serve_metrics(registry, host=metrics_host, port=port)
    options = IncidentOptions(
        state=state, alertmanagers=alertmanagers, links=Links(runbooks, boards), maintenance=maintenance,
        targets=targets, tenants=load_tenants(tenants) if tenants else (),
    )  # fmt: skip
    say(f"incidents to {', '.join(alertmanagers)}")
    run_incidents(options, kafka_address(client_settings(broker=broker).kafka), stop, registry=registry)

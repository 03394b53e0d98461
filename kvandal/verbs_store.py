"""The verbs that look at the store, or change what it holds: schema, queries, topology, audit, reports."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kvandal.options import client_settings, connected, store_options
from kvandal.talk import say, show_line
from kvandal.verbs_publish import (
    list_frozen,
    make_report_key,
    out_option,
    parse_period,
    period_option,
    publishing_options,
    verify_report,
    write_publication,
    write_publications,
)

if TYPE_CHECKING:
    from reports.period import Period
    from storage.reader import Reader
    from storage.register_kinds import RegisterKind


@click.group(short_help="Tables of the store: apply, status, diff, render.")
def schema() -> None:
    """Tables of the store: apply migrations, see which are applied, compare with the catalogue."""


@schema.command("apply")
@store_options
def schema_apply(*, url: str | None, user: str | None) -> None:
    """Apply the migrations that are missing, in order."""
    from storage.schema import apply

    applied = apply(connected(url, user))
    for migration in applied:
        click.echo(f"{migration.number:04}  {migration.name}")
    say(f"{len(applied)} migrations applied" if applied else "the schema is up to date")


@schema.command("render", short_help="Print the schema for a ClickHouse cluster.")
@click.option("--cluster", required=True, help="Name of the cluster in ClickHouse's remote_servers.")
@click.option("--after", type=click.IntRange(0), default=0, help="Only migrations after this one: for an upgrade.")
def schema_render(*, cluster: str, after: int) -> None:
    """Print the schema as SQL for a ClickHouse cluster: replicated, sharded by resource."""
    from storage.cluster import cluster_script

    click.echo(cluster_script(cluster, after=after), nl=False)


@schema.command("status", short_help="List the migrations; exit 1 if one is missing.")
@store_options
def schema_status(*, url: str | None, user: str | None) -> None:
    """List the migrations; exit 1 when one is missing or has changed."""
    from storage.schema import status

    states = status(connected(url, user))
    for state in states:
        word = "CHANGED" if state.changed else "applied" if state.applied else "missing"
        click.echo(f"{state.migration.number:04}  {word:<8}{state.migration.name}")
    if any(state.changed or not state.applied for state in states):
        raise SystemExit(1)


@schema.command("diff", short_help="Compare the tables with the catalogue; exit 1 if they differ.")
@store_options
def schema_diff(*, url: str | None, user: str | None) -> None:
    """Say where the tables depart from the catalogue; exit 1 when they do."""
    from storage.schema import diff

    differences = diff(connected(url, user))
    for sentence in differences:
        show_line(sentence)
    if differences:
        raise SystemExit(1)
    say("the tables are what the catalogue says")


@click.command(short_help="Run one SELECT and print what it returns.")
@click.argument("sql")
@click.option("--format", "form", type=click.Choice(["table", "csv", "json"]), default="table", show_default=True)
@store_options
def query(*, sql: str, form: str, url: str | None, user: str | None) -> None:
    """Run one SELECT and print what it returns.

    Columns of a metric's name are in base units; absent readings are empty.

    Example: kvandal query "SELECT avg(power_watts) FROM gpu WHERE time > now() - 60"
    """
    import polars as pl

    from kvandal.showing import show_frame
    from storage.client import store_errors

    with store_errors("query"):
        answer = connected(url, user).query_arrow(sql)
    show_frame(pl.DataFrame(answer), form)


@click.group(short_help="The site as a tree: show, conflicts, history.")
def topology() -> None:
    """The site as a tree, as files and devices tell of it: what is where, who contradicts whom, what was moved."""


def _loaded_topology(url: str | None, user: str | None) -> Any:  # noqa: ANN401 - storage.topology.Topology, imported late
    from collectors.topology.settings import ReconciliationSettings
    from kvandal.addresses import store_address
    from kvandal.topology import load_topology

    return load_topology(store_address(client_settings(url=url, user=user).store), ReconciliationSettings())


@topology.command("show", short_help="Print the tree, now or at a time.")
@click.option("--at", type=click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"]), help="As it was then, UTC; default: now.")
@click.option("--under", metavar="RESOURCE", help="Only what is below this: name, identity, kind:identity or id.")
@click.option("--whole", is_flag=True, help="With every tray, GPU, port and point, not only their number.")
@store_options
def topology_show(*, at: datetime | None, under: str | None, whole: bool, url: str | None, user: str | None) -> None:
    """Print the site as a tree, and what has no place in it."""
    from kvandal.topology import TreeView, find_resource, tree_lines

    known = _loaded_topology(url, user)
    moment = at.replace(tzinfo=UTC) if at else datetime.now(UTC)
    view = TreeView(at=moment, under=find_resource(known, under) if under else None, whole=whole)
    for line in tree_lines(known, view):
        show_line(line)


@topology.command("conflicts", short_help="List where sources disagree; exit 1 if they do.")
@click.option("--past", is_flag=True, help="Also what was settled since.")
@click.option("--format", "form", type=click.Choice(["table", "csv", "json"]), default="table", show_default=True)
@store_options
def topology_conflicts(*, past: bool, form: str, url: str | None, user: str | None) -> None:
    """List where two sources say that a resource is part of different things: both words, by whom, and since when.

    What may be one thing under two identities, but is in doubt, is said as well.
    """
    from kvandal.showing import show_frame
    from kvandal.topology import alias_lines, conflict_frame

    found = _loaded_topology(url, user)
    conflicts, doubts = conflict_frame(found, past=past), list(alias_lines(found))
    for doubt in doubts:
        say(doubt)
    if len(conflicts):
        show_frame(conflicts, form)
    if len(conflicts) or doubts:
        raise SystemExit(1)
    say("no conflicts")


@topology.command("history", short_help="Print where a resource has been.")
@click.argument("resource")
@store_options
def topology_history(*, resource: str, url: str | None, user: str | None) -> None:
    """Print where a resource has been, and what has been said of it by whom."""
    from kvandal.topology import find_resource, history_lines

    known = _loaded_topology(url, user)
    for line in history_lines(known, find_resource(known, resource)):
        show_line(line)


@topology.command("check", short_help="Check topology files; exit 1 if they are wrong.")
@click.argument("files", type=click.Path(path_type=Path), nargs=-1, required=True)
def topology_check(*, files: tuple[Path, ...]) -> None:
    """Check topology files that are told together, without telling anybody."""
    from kvandal.topology import file_problems

    problems = file_problems(files, now=datetime.now(UTC))
    for problem in problems:
        show_line(problem)
    if problems:
        raise SystemExit(1)
    say("the files are a topology")


@click.command(short_help="Back an embedded store up, while it runs.")
@click.option("--data", type=click.Path(path_type=Path), required=True, help="Folder of the embedded ClickHouse.")
@click.option("--to", "target", type=click.Path(path_type=Path), required=True, help="New folder for the back-up.")
def backup(*, data: Path, target: Path) -> None:
    """Copy everything that an embedded store holds into a new folder, between two inserts of ingest."""
    from kvandal.backing_up import back_up

    rows, size = back_up(data, target)
    say(f"{rows:,} rows, {size / 1e6:,.1f} MB")


@click.command(short_help="Make an embedded store of a back-up.")
@click.option("--from", "source", type=click.Path(path_type=Path), required=True, help="Folder of the back-up.")
@click.option("--data", type=click.Path(path_type=Path), required=True, help="New folder for the store.")
def restore(*, source: Path, data: Path) -> None:
    """Restore a back-up into a new folder; kvandal store then goes on from the log, and drops what it has."""
    from kvandal.backing_up import restore as restore_store

    manifest = restore_store(source, data)
    say(f"{manifest.rows:,} rows, as they were at {manifest.taken_at:%Y-%m-%d %H:%M:%S}Z")


@click.command(short_help="Account for every reading of a period.")
@period_option
@store_options
def audit(*, period: str | None, url: str | None, user: str | None) -> None:
    """Account for every reading of a period; exit 1 when something is missing, doubled or altered.

    Produced is what agents numbered; it must be what is stored, dead-lettered and reported as lost. Rows and minutes
    are counted for themselves, so that a row which vanished or came twice behind the books is found too.
    """
    from kvandal.auditing import show_audit
    from storage.audit import audit_tables

    bounds = parse_period(period)
    client = connected(url, user)
    if not show_audit(audit_tables(client, bounds.start, bounds.end, now=datetime.now(UTC))):
        raise SystemExit(1)


@click.group(invoke_without_command=True, short_help="Write a report of a period: site, heat, efficiency, SLA.")
@period_option
@out_option
@store_options
@click.pass_context
def report(ctx: click.Context, *, period: str | None, out: Path, url: str | None, user: str | None) -> None:
    """Write a report of a period; without a command that of the site: energy, PUE and heat.

    Every figure comes with its coverage and its uncertainty.
    """
    if ctx.invoked_subcommand is not None:
        return
    from reports.site import write_site_report

    reader, bounds = _asked(period, url, user)
    click.echo(write_site_report(reader, bounds, out, now=datetime.now(UTC)))


@report.command("heat", short_help="Heat, its balances, capacity, and statements to off-takers.")
@publishing_options()
@store_options
def report_heat(**asked: Any) -> None:  # noqa: ANN401 - the options of every report, as write_publication takes them
    """Write the heat report of a period: a page, and every figure as JSON beside it; other formats as asked.

    With --freeze it is signed by its approver and added to the chain of frozen reports.
    """
    from reports.heat_publication import read_heat_publication

    write_publication(read_heat_publication, **asked)


@report.command("efficiency", short_help="GPU hours, energy per job, throttling, stragglers, lemons.")
@publishing_options()
@click.option("--price-zone", default="", help="Bidding zone, where the register of prices has several: NO4.")
@store_options
def report_efficiency(*, price_zone: str, **asked: Any) -> None:  # noqa: ANN401 - see report_heat
    """Write the efficiency report of a period: a page, and every figure as JSON beside it; other formats as asked."""
    from reports.efficiency import EfficiencySettings
    from reports.efficiency_publication import efficiency_reading

    write_publication(efficiency_reading(EfficiencySettings(price_zone=price_zone)), **asked)


@report.command("sustainability", short_help="EU indicators, PUE, water, renewables, emissions; to be signed.")
@publishing_options("html,pdf,csv,xlsx,json")
@store_options
def report_sustainability(**asked: Any) -> None:  # noqa: ANN401 - see report_heat
    """Write the sustainability report of a month or a year, in English or Norwegian.

    What no sensor gives comes from the registers (kvandal import). With --freeze it is signed by its approver and added
    to the chain of frozen reports; a frozen month is only replaced by a restatement, which says what moved and why.
    """
    from reports.sustainability.publication import read_sustainability_publication

    write_publication(read_sustainability_publication, **asked)


for _command in (verify_report, list_frozen, make_report_key):
    report.add_command(_command)


@report.command("sla", short_help="What was agreed with customers, and whether it was kept.")
@click.option("--customer", metavar="NAME", help="Only this customer's files; the name as in the register contracts.")
@publishing_options()
@store_options
def report_sla(*, customer: str | None, **asked: Any) -> None:  # noqa: ANN401 - see report_heat
    """Write the SLA reports of a month (or, without credits, of a day): one of each customer, in a folder of its own.

    The rules come from the registers contracts, allocations, maintenance and exclusions. Each outage has a file of
    evidence. The summary beside the customers' folders names all of them: it is the operator's alone. With --freeze
    each report is signed and frozen by itself, so that a restatement for one customer is none for another.
    """
    from reports.sla_publication import sla_reading

    write_publications(sla_reading(customer), **asked)


@report.command("metrics", short_help="Key figures of a period in Prometheus' text format.")
@period_option
@store_options
def report_metrics(*, period: str | None, url: str | None, user: str | None) -> None:
    """Print the key figures of a period in Prometheus' text format, the coverage beside each.

    For the textfile collector of a node_exporter; `kvandal keep` serves yesterday's and the last month's itself.
    """
    from reports.exposition import exposition
    from reports.key_figures import read_figures

    reader, bounds = _asked(period, url, user)
    click.echo(exposition([read_figures(reader, bounds, datetime.now(UTC))]), nl=False)


def _asked(period: str | None, url: str | None, user: str | None) -> "tuple[Reader, Period]":
    from storage.reader import Reader

    bounds = parse_period(period)  # before a connection: a slip of the pen needs no store
    return Reader(connected(url, user)), bounds


class _KindOrCommand(click.Group):
    """A group that takes what is no command of its own as the kind of register to import."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in self.commands:
            return "file", self.commands["file"], args
        return super().resolve_command(ctx, args)


@click.group(
    "import", cls=_KindOrCommand, short_help="Registers: what no sensor gives, from CSV files.",
    subcommand_metavar="KIND FILE [OPTIONS] | COMMAND [ARGS]",
)  # fmt: skip
def import_() -> None:
    """Registers: certificates, factors, prices, calibrations, contracts and other facts that no sensor gives.

    kvandal import emission_factors factors.csv --evidence letter.pdf --by NAME

    Every import is a version with the hash of its file and of its evidence; nothing is overwritten. The guide
    registers.md describes the columns of each kind.
    """


@import_.command("file", hidden=True)
@click.argument("kind")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--evidence", type=click.Path(path_type=Path), required=True, help="The document that proves it.")
@click.option("--by", "imported_by", required=True, help="Who answers for it.")
@click.option("--valid-from", help="From when it holds: a date, or a time with its zone; default: always.")
@click.option("--dry-run", is_flag=True, help="Check the file and say what it would change.")
@store_options
def import_file(
    *, kind: str, file: Path, evidence: Path, imported_by: str, valid_from: str | None, dry_run: bool, url: str | None,
    user: str | None,
) -> None:  # fmt: skip
    """Import one CSV file of a KIND of register, and say what it changes."""
    from kvandal.importing import ImportRequest, import_register, parse_valid_from

    request = ImportRequest(
        kind=_kind(kind), file=file, evidence=evidence, imported_by=imported_by,
        valid_from=parse_valid_from(valid_from),
    )  # fmt: skip
    for sentence in import_register(client_settings(url=url, user=user), request, dry_run=dry_run).sentences():
        show_line(sentence)


@import_.command("list", short_help="List what was imported.")
@click.argument("kinds", nargs=-1, metavar="[KIND]...")
@click.option(
    "--prove", type=click.Path(path_type=Path), help="Only versions of which this file is the CSV or evidence."
)
@store_options
def import_list(*, kinds: tuple[str, ...], prove: Path | None, url: str | None, user: str | None) -> None:
    """List every version that was imported: of what, by whom, when, and the hashes of its files."""
    from kvandal.importing import list_versions, version_lines
    from storage.register_kinds import RegisterKind

    wanted = [_kind(name) for name in kinds] or list(RegisterKind)
    for line in version_lines(list_versions(client_settings(url=url, user=user), wanted), prove=prove):
        show_line(line)


@import_.command("template", short_help="Print an example CSV of a kind.")
@click.argument("kind")
def import_template(*, kind: str) -> None:
    """Print a CSV file of a KIND of register that could be imported as it stands."""
    from reports.registers_import.documents import template

    click.echo(template(_kind(kind)), nl=False)


def _kind(name: str) -> "RegisterKind":
    from storage.register_kinds import RegisterKind

    if name not in list(RegisterKind):
        raise click.UsageError(f"there is no register {name}; there are {', '.join(RegisterKind)}")
    return RegisterKind(name)


@click.command(short_help="Forget a person in the store.")
@click.option("--user", "person", required=True, help="The person's name as the scheduler has it.")
@click.option("--key", "keys", type=click.Path(path_type=Path), multiple=True, required=True,
              help="Pseudonym key file; give every key that was ever used.")  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Count what would be forgotten, and change nothing.")
@click.option("--url", help="ClickHouse, as http://host:port. [setting store.url]")
@click.option("--role", help="User or role to connect as. [setting store.user]")
def forget(*, person: str, keys: tuple[Path, ...], dry_run: bool, url: str | None, role: str | None) -> None:
    """Delete what the store knows of a person, and say what is beyond its reach.

    The store knows a person by pseudonyms only; with the keys they are computed again. Exit 1 when something is left.
    """
    from kvandal.forgetting import forget as forget_person

    done = forget_person(client_settings(url=url, user=role), person, keys, dry_run=dry_run)
    for sentence in done.sentences():
        show_line(sentence)
    if not (dry_run or done.is_done):
        raise SystemExit(1)


@click.command(short_help="Reckon what a site asks of Kafka and ClickHouse.")
@click.option("--gpus", type=click.IntRange(1, 10_000_000), required=True, help="GPUs of the site.")
@click.option("--brokers", type=click.IntRange(1, 1_000), default=3, show_default=True, help="Brokers of Kafka.")
@click.option("--kafka-copies", type=click.IntRange(1, 5), default=3, show_default=True, help="Copies of each topic.")
@click.option("--store-copies", type=click.IntRange(1, 10), default=2, show_default=True, help="Copies of each row.")
@click.option("--json", "as_json", is_flag=True, help="As JSON, in bytes and seconds.")
def plan(*, gpus: int, brokers: int, kafka_copies: int, store_copies: int, as_json: bool) -> None:
    """Reckon what a site of so many GPUs asks of Kafka, ingest and ClickHouse.

    Unit costs that were measured on a simulated site, times the size. It asks nobody.
    """
    from kvandal.planning import load_unit_costs, plan_document, plan_lines, plan_site

    costs = load_unit_costs()
    site = plan_site(costs, gpus=gpus, brokers=brokers, kafka_copies=kafka_copies, store_copies=store_copies)
    click.echo(json.dumps(plan_document(site), indent=1) if as_json else "\n".join(plan_lines(site, costs)))


@click.command(short_help="Show what is measured, with its unit.")
@click.option("--json", "as_json", is_flag=True, help="Everything another program needs to read our frames and tables.")
def catalogue(*, as_json: bool) -> None:
    """Show what is measured: every table and metric with its unit."""
    from catalogue.documents import catalogue_document, catalogue_listing

    click.echo(json.dumps(catalogue_document(), indent=1, ensure_ascii=False) if as_json else catalogue_listing())

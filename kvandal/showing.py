"""What the verbs print."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import click
import polars as pl

from catalogue import GPU, TRAY, Table
from kvandal.demo import DemoResult
from kvandal.talk import say
from storage.client import StoreAddress, connect
from stream.deadletter import DeadLetter


def show_result(result: DemoResult) -> None:
    """The account of a demo, and where to look next."""
    click.echo(f"\n{'table':<10}{'produced':>12}{'stored':>12}{'lost':>8}{'duplicated':>12}")
    for count in result.tables:
        click.echo(f"{count.table:<10}{count.produced:>12,}{count.stored:>12,}{count.lost:>8,}{count.duplicated:>12,}")
    total = [result.total(part) for part in ("produced", "stored", "lost", "duplicated")]
    click.echo(f"{'all':<10}{total[0]:>12,}{total[1]:>12,}{total[2]:>8,}{total[3]:>12,}")
    click.echo(f"\n{_phases(result)}; {result.rows_per_second:,.0f} rows a second from first reading to stored")
    if result.report is None:
        _show_latest(result.door_url)
    click.echo(_verdict(result))
    _show_places(result)


def _phases(result: DemoResult) -> str:
    return ", ".join(f"{phase} {seconds:.1f} s" for phase, seconds in result.phases_s.items())


def _verdict(result: DemoResult) -> str:
    if result.holds:
        return "every row that was produced is stored, once"
    if not result.total("produced"):
        return "nothing was produced: see the log of the agent"
    faults = [
        f"{getattr(count, part):,} rows of {count.table} {part}"
        for count in result.tables
        for part in ("lost", "duplicated")
        if getattr(count, part)
    ]
    return "THE ACCOUNT DOES NOT HOLD: " + "; ".join(faults)


def _show_places(result: DemoResult) -> None:
    click.echo("")
    if result.report is not None:
        click.echo(f"report      {Path(result.report).resolve()}")
    click.echo(f"ClickHouse  {result.door_url}")
    click.echo(f"            curl '{result.door_url}/?query=SELECT+count()+FROM+gpu'")
    click.echo(f"metrics     {result.metrics_url}")


def _show_latest(door_url: str) -> None:
    """The newest reading of every resource of this machine, in base units."""
    client = connect(StoreAddress(door_url))
    for table in (TRAY, GPU):
        names = ", ".join(metric.name for metric in table.metrics)
        rows = client.query(
            f"SELECT time, resource, {names} FROM {table.name} ORDER BY time DESC LIMIT 1 BY resource"  # noqa: S608 - names of the catalogue
        ).result_rows
        for row in rows:
            _show_row(table, row)


def _show_row(table: Table, row: Sequence[object]) -> None:
    click.echo(f"\n{table.name} {int(str(row[1])):016x} at {row[0]} UTC")
    for metric, value in zip(table.metrics, row[2:], strict=True):
        if value is not None:
            states = dict(metric.states)
            text = states.get(int(str(value)), str(value)) if states else f"{value:,.6g} {metric.unit.symbol}"
            click.echo(f"  {metric.name:<36}{text:>20}  {metric.brief}")


def show_frame(frame: pl.DataFrame, form: str) -> None:
    """A query's result as a table for people, CSV, or JSON lines."""
    if form == "csv":
        click.echo(frame.write_csv(), nl=False)
    elif form == "json":
        click.echo(frame.write_ndjson(), nl=False)
    else:
        with pl.Config(
            fmt_str_lengths=100,
            tbl_width_chars=200,
            tbl_rows=100,
            tbl_cols=50,
            tbl_hide_dataframe_shape=True,
            tbl_hide_column_data_types=True,
        ):
            click.echo(frame)
            say(f"{len(frame)} rows")


def dead_letter_line(letter: DeadLetter) -> str:
    when = datetime.fromtimestamp(letter.checked_at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    place = f"{letter.topic} {letter.partition}:{letter.offset}"
    return f"{when}  {place:<28}{len(letter.value):>8} bytes  {letter.detail or letter.reason}"

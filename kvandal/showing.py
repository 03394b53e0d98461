"""What the verbs print."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import click
import polars as pl

from catalogue import GPU, TRAY, Table
from kvandal.demo import DemoResult
from kvandal.talk import say, show, show_line
from storage.client import StoreAddress, connect
from stream.deadletter import DeadLetter
from stream.tail import describe
from stream.topics import topic

_SHOWN_BYTES = 1024  # of a dead letter


def show_result(result: DemoResult) -> None:
    """The account of a demo, and where to look next."""
    click.echo(f"\n{'table':<10}{'produced':>12}{'stored':>12}{'lost':>8}{'duplicated':>12}")
    for count in result.tables:
        click.echo(f"{count.table:<10}{count.produced:>12,}{count.stored:>12,}{count.lost:>8,}{count.duplicated:>12,}")
    total = [result.total(part) for part in ("produced", "stored", "lost", "duplicated")]
    click.echo(f"{'all':<10}{total[0]:>12,}{total[1]:>12,}{total[2]:>8,}{total[3]:>12,}")
    click.echo(f"\n{_phases(result)}; {_pace(result.rows_per_second)} rows a second from first reading to stored")
    if result.report is None:
        _show_latest(result.door_url)
    click.echo(_verdict(result))
    _show_places(result)


def _pace(rows_per_second: float) -> str:
    """Whole numbers, but not 0 for one machine's few rows."""
    return f"{rows_per_second:,.0f}" if rows_per_second >= 10 else f"{rows_per_second:.1f}"


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
    click.echo(f"dashboards  {result.previews_url}")
    click.echo(f"ClickHouse  {result.door_url}")
    click.echo(f"            curl '{result.door_url}/?query=SELECT+count()+FROM+{_fullest(result)}'")
    click.echo(f"metrics     {result.metrics_url}")


def _fullest(result: DemoResult) -> str:
    """The table that has something to show."""
    return max(result.tables, key=lambda count: count.stored).table if result.tables else GPU.name


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
            show(str(frame))
            say(f"{len(frame)} rows")


def dead_letter_line(letter: DeadLetter) -> str:
    when = datetime.fromtimestamp(letter.checked_at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    return f"{when}  {letter.name:<28}{len(letter.value):>8} bytes  {letter.detail or letter.reason}"


def show_dead_letter(letter: DeadLetter) -> None:
    """Everything about one letter: why it is here, what it says, and its bytes."""
    show_line(dead_letter_line(letter))
    show_line(f"reason      {letter.reason}")
    show_line(f"topic id    {letter.topic_id}")
    click.echo(f"key         {letter.key:016x}")
    show("\n" + describe(topic(letter.topic).content, letter.value, f"{letter.partition}:{letter.offset}"))
    click.echo("")
    for line in hex_lines(letter.value[:_SHOWN_BYTES]):
        click.echo(line)
    if len(letter.value) > _SHOWN_BYTES:
        click.echo(f"... {len(letter.value) - _SHOWN_BYTES:,} bytes more")


def hex_lines(value: bytes) -> Iterator[str]:
    """Sixteen bytes a line: offset, hexadecimal, and what of it is printable ASCII."""
    for offset in range(0, len(value), 16):
        piece = value[offset : offset + 16]
        text = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in piece)
        yield f"{offset:08x}  {piece.hex(' '):<47}  {text}"

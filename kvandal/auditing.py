"""`kvandal audit`: the account of a period, table by table, and what does not hold in it."""

from collections.abc import Iterator
from datetime import datetime

import click

from storage.audit import Gap, TableAudit

_SHOWN_GAPS = 20

_COLUMNS = ("produced", "stored", "dead", "lost", "missing", "vanished", "doubled")


def heading() -> str:
    return f"{'table':<12}" + "".join(f"{name:>14}" for name in _COLUMNS)


def table_line(audit: TableAudit) -> str:
    """The rows of one table by what became of them."""
    counts = (
        audit.produced, audit.stored, audit.rejected + audit.parked, audit.lost, audit.missing, audit.vanished,
        audit.doubled,
    )  # fmt: skip
    return f"{audit.table:<12}" + "".join(f"{count:>14,}" for count in counts)


def remarks(audit: TableAudit) -> Iterator[str]:
    """What a reader of the account should know about one table, most important first."""
    if audit.vanished > 0:
        yield f"{audit.table}: {audit.vanished:,} rows of frames that count as stored are not there"
    if audit.vanished < 0:
        yield f"{audit.table}: {-audit.vanished:,} rows are there of which no frame is known"
    if audit.doubled:
        yield f"{audit.table}: {audit.doubled:,} rows are there twice"
    for hour in audit.altered:
        yield f"{audit.table}: the minutes of {_utc(hour)} are not what the raw rows give"
    yield from (_gap(gap) for gap in audit.gaps[:_SHOWN_GAPS])
    if len(audit.gaps) > _SHOWN_GAPS:
        yield f"{audit.table}: and {len(audit.gaps) - _SHOWN_GAPS:,} gaps more"
    if audit.rejected_frames or audit.parked_frames:
        yield (
            f"{audit.table}: {audit.rejected_frames:,} frames rejected and {audit.parked_frames:,} parked; "
            "see kvandal dead-letters list"
        )
    if audit.compared > 1:
        yield f"{audit.table}: minutes were compared with raw rows for 1 in {audit.compared} resources"
    if not audit.raw:
        yield f"{audit.table}: raw rows are no longer kept; counted by the minutes, which cannot show doubles"


def _gap(gap: Gap) -> str:
    said = "as its agent reported" if gap.explained else f"{gap.reported:,} of them reported"
    return (
        f"{gap.table}: source {gap.source:016x} lacks {gap.end - gap.first:,} ticks, about {gap.rows:,} rows, "
        f"between {_utc(gap.after)} and {_utc(gap.before)}, {said}"
    )


def _utc(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%d %H:%M:%SZ")


def show_audit(audits: Iterator[TableAudit]) -> bool:
    """Print the account; whether it holds."""
    click.echo(heading())
    found = []
    for audit in audits:
        click.echo(table_line(audit))
        found.append(audit)
    told = [text for audit in found for text in remarks(audit)]
    click.echo("\n" + "\n".join([*told, ""]) if told else "")
    holds = all(audit.holds for audit in found)
    click.echo("the account holds" if holds else "THE ACCOUNT DOES NOT HOLD")
    return holds

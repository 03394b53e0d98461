"""What the verbs of `kvandal report` share: formats, languages, freezing; and the verbs about frozen reports."""

import os
from collections.abc import Callable, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import click

from kvandal.options import connected, store_options
from kvandal.talk import say, show_line

if TYPE_CHECKING:
    from kvandal.publishing import Published, PublishRequest
    from reports.period import Period
    from reports.publishing.publication import Publication
    from storage.reader import Reader

P = ParamSpec("P")
R = TypeVar("R")

KEY_PASSWORD = "KVANDAL_REPORT_KEY_PASSWORD"  # noqa: S105 - the name of a variable of the environment


period_option = click.option("--period", help="Month, day or year: 2026-10, 2026-10-05 or 2026; or last-month.")
out_option = click.option(
    "--out", type=click.Path(path_type=Path), default=Path("report"), show_default=True, help="Folder for the files."
)


def publishing_options(default_formats: str = "html,json") -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Options of every report: the period, where to, in which formats and languages, and freezing."""
    options = (
        period_option,
        out_option,
        click.option("--format", "formats", default=default_formats, show_default=True,
                     help="Of html, pdf, csv, xlsx and json, separated by commas."),
        click.option("--language", "languages", default="en", show_default=True,
                     help="en, nb (Norwegian, where a report is written in it), or both: en,nb."),
        click.option("--freeze", is_flag=True, help="Sign the report and add it to the chain of frozen reports."),
        click.option("--approver", default="", help="Who approves the report that is frozen."),
        click.option("--key", type=click.Path(path_type=Path), help="Private key file of the approver."),
        click.option("--restate", "reason", default="", metavar="REASON",
                     help="Why a frozen report is to be replaced by its next restatement."),
    )  # fmt: skip

    def decorated(command: Callable[P, R]) -> Callable[P, R]:
        for option in reversed(options):
            command = option(command)
        return command

    return decorated


def parse_period(text: str | None) -> "Period":
    """--period; `last-month` is the month before this one, so that a schedule needs no shell arithmetic."""
    from reports.period import Period

    if text is None:
        raise click.UsageError("give --period, such as 2026-10")
    return Period.last_month(datetime.now(UTC)) if text == "last-month" else Period.parse(text)


def write_publication(build: "Callable[[Reader, Period, datetime], Publication]", **asked: Any) -> None:  # noqa: ANN401 - the options above
    """Build a report, write its files, print their paths."""
    write_publications(lambda reader, period, now: (build(reader, period, now),), **asked)


def write_publications(
    build: "Callable[[Reader, Period, datetime], Sequence[Publication]]",
    *,
    period: str | None,
    out: Path,
    formats: str,
    languages: str,
    freeze: bool,
    approver: str,
    key: Path | None,
    reason: str,
    url: str | None,
    user: str | None,
) -> None:
    """Build the reports of a period, write their files, print their paths.

    Raises FrozenMonthError, which tells of all that are frozen and moved, when the others are written.
    """
    from kvandal.frozen_chain import FrozenChain
    from kvandal.publishing import FrozenMonthError, PublishRequest, parse_formats, parse_languages, publish
    from storage.reader import Reader

    bounds = parse_period(period)
    request = PublishRequest(out=out, formats=[*parse_formats(formats)], languages=[*parse_languages(languages)])
    if freeze:
        request = _freezing(request, approver, key, reason)
    elif approver or key or reason:
        raise click.UsageError("--approver, --key and --restate go with --freeze")
    refused = []
    with closing(connected(url, user)) as client:
        now, chain = datetime.now(UTC), FrozenChain(client)
        for publication in build(Reader(client), bounds, now):
            try:
                published = publish(chain, publication, request, now=now)
            except FrozenMonthError as error:
                refused.append(str(error))
                continue
            _tell(publication, published)
    if refused:
        raise FrozenMonthError("\n".join(refused))


def _tell(publication: "Publication", published: "Published") -> None:
    for path in published.paths:
        click.echo(path)
    for problem in publication.problems:
        say(f"to be put right: {problem}")
    for sentence in published.sentences:
        say(sentence)


def _freezing(request: "PublishRequest", approver: str, key: Path | None, reason: str) -> "PublishRequest":
    from dataclasses import replace

    from kvandal.publishing import FreezeRequest
    from reports.publishing.keys import read_private_key

    if not approver or key is None:
        raise click.UsageError("--freeze needs --approver NAME and --key FILE; kvandal report key makes a key")
    private = read_private_key(key, os.environ.get(KEY_PASSWORD))
    return replace(request, freezing=FreezeRequest(approver=approver, key=private, reason=reason))


@click.command("verify", short_help="Check a frozen report or a file of one; exit 1 if it was altered.")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--public-key", "keys", type=click.Path(path_type=Path), multiple=True,
              help="Public key file of an approver whom you trust.")  # fmt: skip
@click.option("--chain", is_flag=True, help="Also look for it in the store's chain, and check the whole of that.")
@store_options
def verify_report(*, file: Path, keys: tuple[Path, ...], chain: bool, url: str | None, user: str | None) -> None:
    """Check that a frozen report, or a PDF or other file of one, is what was approved.

    The record (*.frozen.json) must be beside the file. Without --chain no store is needed.
    """
    from kvandal.publishing import verify
    from reports.publishing.freezing import ForgedError

    trusted = _public_keys(keys)
    try:
        if chain:
            with closing(connected(url, user)) as client:
                lines = verify(file, trusted=trusted, client=client)
        else:
            lines = verify(file, trusted=trusted)
    except ForgedError as error:
        raise click.ClickException(str(error)) from error
    for line in lines:
        show_line(line)


@click.command("frozen", short_help="List the frozen reports; exit 1 if their chain does not hold.")
@click.option("--public-key", "keys", type=click.Path(path_type=Path), multiple=True,
              help="Public key file of an approver whom you trust.")  # fmt: skip
@store_options
def list_frozen(*, keys: tuple[Path, ...], url: str | None, user: str | None) -> None:
    """List every frozen report after checking the whole chain."""
    from kvandal.frozen_chain import frozen_lines
    from reports.publishing.freezing import ForgedError

    try:
        with closing(connected(url, user)) as client:
            lines = frozen_lines(client, trusted=_public_keys(keys))
    except ForgedError as error:
        raise click.ClickException(str(error)) from error
    for line in lines:
        show_line(line)


@click.command("key", short_help="Make the key with which an approver signs.")
@click.argument("file", type=click.Path(path_type=Path))
def make_report_key(*, file: Path) -> None:
    """Write a new Ed25519 key to FILE, and its public half to FILE.pub.

    It is encrypted where KVANDAL_REPORT_KEY_PASSWORD is set, and signing then needs the same.
    """
    from reports.publishing.freezing import fingerprint
    from reports.publishing.keys import make_key, read_public_key

    public = make_key(file, os.environ.get(KEY_PASSWORD))
    click.echo(public)
    say(
        f"key {fingerprint(read_public_key(public))}; give {public.name} to whoever verifies, and {file.name} to nobody"
    )


def _public_keys(paths: Sequence[Path]) -> list[str]:
    from reports.publishing.keys import read_public_key

    return [read_public_key(path) for path in paths]

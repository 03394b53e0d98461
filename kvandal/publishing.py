"""`kvandal report …`: a publication becomes files in a folder, and where that is asked for a frozen report.

Files of a frozen report carry its restatement in their names, are never overwritten, and cannot be written to.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from clickhouse_connect.driver.client import Client
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from kvandal.frozen_chain import FrozenChain, checked_chain
from reports.publishing.documents import changes_between, digest, json_text
from reports.publishing.freezing import (
    Approval,
    ForgedError,
    FrozenReport,
    check,
    check_files,
    evidence_of,
    fingerprint,
    freeze,
    read_json,
)
from reports.publishing.html import render_html
from reports.publishing.pdf import render_pdf
from reports.publishing.publication import Change, Language, Publication, Seal
from reports.publishing.sheets import render_csv, render_xlsx

_FROZEN_SUFFIX = ".frozen.json"
_FROZEN_MODE = 0o444
_WRITABLE = 0o222
EVIDENCE_FOLDER = "evidence"
_NAMED = 5  # so many changes are named in an error


class Format(StrEnum):
    """The formats of a publication, by the ends of their files' names."""

    HTML = "html"
    PDF = "pdf"
    CSV = "csv"
    XLSX = "xlsx"
    JSON = "json"


class FrozenMonthError(ValueError):
    """The period is frozen, and its figures have moved since."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FreezeRequest:
    """Who approves, with which key; `reason` says why an earlier freezing is to be replaced."""

    approver: str
    key: Ed25519PrivateKey
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishRequest:
    """What is wanted of a publication. JSON has one language, whatever the languages are."""

    out: Path
    formats: Sequence[Format]
    languages: Sequence[Language] = (Language.ENGLISH,)
    freezing: FreezeRequest | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """The files that were written, and sentences about what was done. `frozen` is the report that holds, if any."""

    paths: Sequence[Path]
    sentences: Sequence[str]
    frozen: FrozenReport | None = None


def publish(chain: FrozenChain, publication: Publication, request: PublishRequest, *, now: datetime) -> Published:
    """Write a publication's files; freeze it, at the end of the chain, where that is asked for.

    Raises FrozenMonthError where figures of a frozen period moved and no reason is given, ForgedError where the chain
    does not hold, ValueError, StoreUnavailableError (the call may be repeated), StoreRefusedError, OSError.
    """
    request = replace(request, out=request.out / publication.folder)
    if request.freezing is None:
        earlier = chain.unchecked_restatements(publication)
        paths = write_files(publication, request)
        return Published(paths=paths, sentences=[*_evidence_sentence(publication), *_standing(publication, earlier)])
    return _freeze(chain, publication, request, request.freezing, now)


def _evidence_sentence(publication: Publication) -> Iterator[str]:
    if publication.evidence:
        yield f"{len(publication.evidence)} files of evidence for {publication.party or publication.report}"


def render(
    publication: Publication, request: PublishRequest, seal: Seal | None = None, mark: str = ""
) -> dict[str, bytes]:
    """All files of a publication by name; `mark` comes after the period."""
    stem = f"{publication.report}-{publication.period.text}{mark}"
    found: dict[str, bytes] = {}
    for form in request.formats:
        if form is Format.JSON:
            found[f"{stem}.json"] = json_text(publication.document).encode()
            continue
        for language in request.languages:
            ending = f"{form}" if language is Language.ENGLISH else f"{language}.{form}"
            found[f"{stem}.{ending}"] = _rendered(publication, form, language, seal)
    return found


def _rendered(publication: Publication, form: Format, language: Language, seal: Seal | None) -> bytes:
    match form:
        case Format.HTML:
            return render_html(publication, language, seal).encode()
        case Format.PDF:
            return render_pdf(publication, language, seal)
        case Format.CSV:
            return render_csv(publication, language).encode("utf-8-sig")  # Excel takes it for Latin-1 otherwise
        case Format.XLSX:
            return render_xlsx(publication, language, seal)
        case Format.JSON:
            return json_text(publication.document).encode()


def _freeze(
    chain: FrozenChain,
    publication: Publication,
    request: PublishRequest,
    freezing: FreezeRequest,
    now: datetime,
) -> Published:
    earlier = chain.restatements(publication)
    approval = _approval(publication, freezing, earlier, now)
    if approval is None:
        last = earlier[-1]
        return Published(paths=(), sentences=[f"nothing moved: {last.title} still holds"], frozen=last)
    seal = Seal(
        restatement=approval.restatement,
        approver=approval.approver,
        frozen_at=approval.frozen_at,
        document_sha256=digest(publication.document),
        reason=approval.reason,
        changes=approval.changes,
    )
    mark = f"-r{approval.restatement}"
    files = {**render(publication, request, seal, mark), **_evidence(publication)}
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    frozen = freeze(publication, approval, digests, chain.reports[-1] if chain.reports else None, freezing.key)
    envelope = f"{publication.report}-{publication.period.text}{mark}{_FROZEN_SUFFIX}"
    files[envelope] = json_text(frozen.document()).encode()
    drafts = _drafted(request.out, files)
    chain.add(frozen, approval)
    paths = [_sealed(draft, path) for draft, path in drafts]
    sentences = [*_evidence_sentence(publication), *_frozen_sentences(frozen), *change_lines(approval.changes)]
    return Published(paths=[path for path in paths if path.parent == request.out], sentences=sentences, frozen=frozen)


def _approval(
    publication: Publication, freezing: FreezeRequest, earlier: Sequence[FrozenReport], now: datetime
) -> Approval | None:
    """What is to be signed; None where the report is frozen already and nothing moved."""
    if not publication.complete:
        end = publication.period.local(publication.period.end)
        raise ValueError(f"{publication.period.text} is not over; it can be frozen from {end:%-d %B %Y %H:%M} on")
    if not freezing.approver.strip():
        raise ValueError("nobody approves the report; give --approver NAME")
    approval = Approval(approver=freezing.approver.strip(), frozen_at=now)
    if not earlier:
        return approval
    last = earlier[-1]
    changes = changes_between(last.record, evidence_of(publication))
    if not changes:
        return None
    if not freezing.reason.strip():
        raise FrozenMonthError(_moved_sentence(last, changes))
    number = int(last.record["restatement"]) + 1
    return replace(approval, restatement=number, reason=freezing.reason.strip(), changes=changes)


def _moved_sentence(last: FrozenReport, changes: Sequence[Change]) -> str:
    named = "; ".join(change_lines(changes[:_NAMED]))
    more = f"; and {len(changes) - _NAMED} more" if len(changes) > _NAMED else ""
    return (
        f"{last.title} is frozen, approved by {last.record['approver']}, and cannot change; since then moved: {named}"
        f"{more}. Give --restate REASON to freeze restatement {int(last.record['restatement']) + 1}"
    )


def change_lines(changes: Iterable[Change]) -> list[str]:
    """A line for each thing that moved: what, from, to, by how much."""
    return [_change_line(change) for change in changes]


def _change_line(change: Change) -> str:
    before, after = (_value(value) for value in (change.before, change.after))
    unit = f" {change.unit}" if change.unit else ""
    by = "" if change.delta is None else f" ({change.delta:+.6g}{unit})"
    kind = change.key.split(" ")[0] if change.of == "input" else "figure"
    return f"{kind} {change.title}: {before} to {after}{unit}{by}"


def _value(value: float | str | None) -> str:
    return "nothing" if value is None else value if isinstance(value, str) else f"{value:.6g}"


def _frozen_sentences(frozen: FrozenReport) -> list[str]:
    return [
        f"frozen: {frozen.title}, number {frozen.sequence} of the chain, approved by {frozen.record['approver']}",
        f"hash {frozen.hash}, signed with key {fingerprint(frozen.public_key)}",
    ]


def _standing(publication: Publication, earlier: Sequence[FrozenReport]) -> list[str]:
    """Whether what was just written differs from what was frozen."""
    if not earlier:
        return []
    last = earlier[-1]
    check(last)
    changes = changes_between(last.record, evidence_of(publication))
    if not changes:
        return [f"{last.title} is frozen, and nothing moved since"]
    return [f"this is a draft: {last.title} is frozen, and {len(changes)} values moved since"]


# Verifying ------------------------------------------------------------------------------------------------------------


def verify(path: Path, *, trusted: Sequence[str] = (), client: Client | None = None) -> list[str]:
    """Say what a frozen report, or a file of one, is; ForgedError where it is not what was frozen. OSError.

    A file of a report is known by the record beside it. With a `client` the record must also be in the store's chain.
    """
    envelope = path if path.name.endswith(_FROZEN_SUFFIX) else _envelope_of(path)
    frozen = read_envelope(envelope)
    check(frozen, trusted=trusted)
    whole = [*check_files(frozen, envelope.parent)]
    if path != envelope and _name_in(envelope.parent, path) not in whole:
        raise ForgedError(f"{path.name} is not among the files of {frozen.title}")
    lines = [*_frozen_sentences(frozen), _whole_sentence(whole)]
    if not trusted:
        lines.append("whose key that is, this cannot tell: give --public-key FILE of the approver")
    if client is not None:
        lines.append(_place_in_chain(frozen, client, trusted))
    return lines


def _whole_sentence(names: Sequence[str]) -> str:
    """The report's own files by name; evidence, of which there may be thousands, by number."""
    own = [name for name in names if not name.startswith(f"{EVIDENCE_FOLDER}/")]
    more = f", and {len(names) - len(own)} of evidence" if len(own) < len(names) else ""
    return f"whole: the record, and {len(own)} files: {', '.join(own) or 'none here'}{more}"


def read_envelope(path: Path) -> FrozenReport:
    try:
        document = read_json(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ForgedError(f"{path.name} is no frozen report: {error}") from error
    if not isinstance(document, dict):
        raise ForgedError(f"{path.name} is no frozen report")
    return FrozenReport.of(document)


def _envelope_of(path: Path) -> Path:
    if not path.exists():
        raise FileNotFoundError(f"{path} is not there; name a frozen report, or a file of one")
    beside = path.absolute().parent
    for folder in (beside, beside.parent) if beside.name == EVIDENCE_FOLDER else (beside,):
        for envelope in sorted(folder.glob(f"*{_FROZEN_SUFFIX}")):
            files = read_envelope(envelope).record.get("files")
            if isinstance(files, dict) and _name_in(folder, path) in files:
                return envelope
    raise ForgedError(
        f"{path.name} belongs to no frozen report in {path.parent}: a file *{_FROZEN_SUFFIX} names its own"
    )


def _name_in(folder: Path, path: Path) -> str:
    """A file's name in a record that lies in the folder."""
    return path.absolute().relative_to(folder.absolute()).as_posix()


def _place_in_chain(frozen: FrozenReport, client: Client, trusted: Sequence[str]) -> str:
    chain = checked_chain(client, trusted=trusted)
    if not any(held.hash == frozen.hash for held in chain):
        raise ForgedError(f"{frozen.title} is not in the store's chain: it was removed there, or never was in it")
    later = [held for held in chain if _same_report(held, frozen) and held.sequence > frozen.sequence]
    replaced = f"; {later[-1].title} replaces it" if later else ""
    return f"number {frozen.sequence} of {len(chain)} in the store's chain, which holds{replaced}"


def _same_report(one: FrozenReport, other: FrozenReport) -> bool:
    return all(one.record[name] == other.record[name] for name in ("report", "period"))


# Files ----------------------------------------------------------------------------------------------------------------


def write_files(publication: Publication, request: PublishRequest) -> list[Path]:
    """Write the files of a draft, older ones are replaced whole; returns those of the report itself. OSError."""
    files, evidence = render(publication, request), _evidence(publication)
    for name, content in {**files, **evidence}.items():
        path = request.out / name
        if name in files or not path.exists() or path.read_bytes() != content:  # a frozen one stays as it is
            _draft(path, content).replace(path)
    if publication.folder:
        _forget_evidence(request.out, set(evidence))
    return [request.out / name for name in files]


def _evidence(publication: Publication) -> dict[str, bytes]:
    return {f"{EVIDENCE_FOLDER}/{name}": content for name, content in publication.evidence.items()}


def _forget_evidence(out: Path, kept: Set[str]) -> None:
    """Remove evidence of older drafts: a folder that is handed over holds what its report names. Frozen files stay."""
    for path in (out / EVIDENCE_FOLDER).glob("*.json"):
        if _name_in(out, path) not in kept and path.stat().st_mode & _WRITABLE:
            path.unlink()


def _drafted(out: Path, files: Mapping[str, bytes]) -> list[tuple[Path, Path]]:
    """The files of a frozen report under names that do not count yet; FileExistsError where another one is there."""
    for name, content in files.items():
        if (out / name).exists() and (out / name).read_bytes() != content:
            raise FileExistsError(
                f"{out / name} is there already; frozen files are never overwritten: give another folder"
            )
    return [(_draft(out / name, content), out / name) for name, content in files.items()]


def _draft(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(path.name + ".part")
    draft.unlink(missing_ok=True)
    with draft.open("xb") as file:  # anew: not through a link that somebody laid in a shared folder
        file.write(content)
    return draft


def _sealed(draft: Path, path: Path) -> Path:
    draft.chmod(_FROZEN_MODE)
    return draft.replace(path)


def parse_formats(text: str) -> Iterator[Format]:
    """html,pdf,csv as Formats, each once; ValueError for another word."""
    for word in dict.fromkeys(word.strip() for word in text.split(",")):
        if word not in list(Format):
            raise ValueError(f"there is no format {word!r}; there are {', '.join(Format)}")
        yield Format(word)


def parse_languages(text: str) -> Iterator[Language]:
    for word in dict.fromkeys(word.strip() for word in text.split(",")):
        if word not in list(Language):
            raise ValueError(f"there is no language {word!r}; there are {', '.join(Language)}")
        yield Language(word)

"""The SLA reports as publications: one of each customer, made of nothing but theirs, and the operator's summary."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial

from reports.efficiency_hours import Health
from reports.figures import Kpi, counted
from reports.period import Period
from reports.publishing.parts import method_pairs, period_facts
from reports.publishing.publication import (
    Blank,
    Cards,
    Cell,
    Column,
    Input,
    Name,
    Pairs,
    Publication,
    Section,
    Table,
    Words,
)
from reports.render import DASH
from reports.sla import ContractReport, CustomerReport, SlaReport, build_sla, read_sla
from reports.sla_account import Sums
from reports.sla_definitions import definitions
from reports.sla_documents import customer_document, evidence_files, evidence_name, folder_name, summary_document
from reports.sla_figures import NINES
from reports.sla_outages import EvidenceRow, Outage
from reports.sla_words import (
    COUNT_WORDS,
    UNIT_WORDS,
    agreed,
    lasting,
    subject,
    summary_of,
    term_pairs,
    verdict,
)
from reports.sweep import HOUR_MS
from storage.reader import Reader

# A page lists this many units, outages and rows of evidence of a contract; the workbook and the JSON have all.
LINES_SHOWN = 25

_STATES = (
    "Each millisecond of a GPU has one state, the first that holds: down (unreadable, a fatal XID until it is over, a "
    "recovery action, an unhealthy fabric, a failed node, an isolated rack), maintenance, unknown (no readings), "
    "degraded (held down by heat or brake, a link down), healthy. A node is up when all its GPUs are, a rack when as "
    "many of its trays are as agreed. What readings show is exact to one tick, what events show to their own time."
)
_EVIDENCE = (
    "Each outage has a file of what shows it: times, source, resource. Its SHA-256 is that of the file's rows as JSON "
    "with sorted keys, without spaces, in UTF-8."
)


class UnknownCustomerError(ValueError):
    """There is no contract with such a customer; the message says with whom there are."""


def sla_reading(customer: str | None) -> Callable[[Reader, Period, datetime], tuple[Publication, ...]]:
    """How the reports of all customers and the operator's summary are read, or that of one customer alone.

    Raises UnknownCustomerError, ValueError as `read_sla` and `build_sla` do, StoreUnavailableError, StoreRefusedError.
    """
    return partial(_read, customer)


def _read(customer: str | None, reader: Reader, period: Period, now: datetime) -> tuple[Publication, ...]:
    return sla_publications(build_sla(read_sla(reader, period, now), period, now=now), customer)


def sla_publications(report: SlaReport, customer: str | None = None) -> tuple[Publication, ...]:
    """All customers' publications in order of their names, then the summary; or one customer's alone."""
    if customer is not None:
        return (customer_publication(_customer(report, customer)),)
    return (*map(customer_publication, report.customers), summary_publication(report))


def _customer(report: SlaReport, name: str) -> CustomerReport:
    for one in report.customers:
        if one.party == name:
            return one
    known = ", ".join(repr(one.party) for one in report.customers) or "none"
    raise UnknownCustomerError(
        f"no SLA contract with {name!r} in {report.period.text}; there are contracts with: {known}"
    )


# A customer's ---------------------------------------------------------------------------------------------------------


def customer_publication(report: CustomerReport) -> Publication:
    """What one customer is told, with the files of evidence."""
    return Publication(
        report="sla",
        party=report.party,
        folder=f"{_folder(report.period)}/{folder_name(report.party)}",
        kicker="Service level report",
        site=Name(report.site),
        period=report.period,
        complete=report.complete,
        unfinished=_unfinished(report),
        generated_at=report.generated_at,
        software=report.software,
        summary=Name(summary_of(report)),
        facts=[("Provided by", Name(report.site)), *_facts(report)],
        sections=tuple(_sections(report)),
        figures=tuple(kpi for one in report.contracts for kpi in _figures(one, report)),
        document=customer_document(report),
        inputs=tuple(found for one in report.contracts for found in _inputs(one, report)),
        evidence=evidence_files(report),
    )


def _folder(period: Period) -> str:
    return f"sla-{period.text}"


def _unfinished(report: CustomerReport | SlaReport) -> str:
    until = report.period.local(report.window.end)
    return f"The period is not over. Everything here is as of {until:%-d %B %Y %H:%M %Z}; credits are provisional."


def _facts(report: CustomerReport | SlaReport) -> list[tuple[str, str]]:
    local = report.period.local
    facts = period_facts(
        report.period, cut_off=local(report.window.end), generated_at=report.generated_at, software=report.software
    )
    return [*facts, ("Contract registers as of", f"{local(report.known_at):%-d %b %Y %H:%M %Z}")]


def _figures(report: ContractReport, customer: CustomerReport) -> Iterator[Kpi]:
    """Key figures under names that tell contracts apart."""
    of = subject(report, customer)
    for kpi in report.kpis:
        words = kpi.definition
        yield replace(kpi, definition=replace(words, key=f"{of} {words.key}", title=f"{words.title}, {of}"))


def _inputs(report: ContractReport, customer: CustomerReport) -> Iterator[Input]:
    """What the figures rest on, so that a restatement can say why they moved: terms, units, states, outages."""
    of = subject(report, customer)
    terms = "; ".join(f"{term}: {text}" for term, text in term_pairs(report.terms, customer.period))
    yield Input(kind="terms", id=of, name=of, value=terms)
    for unit in sorted(report.units, key=lambda line: line.name):
        yield _hours(f"{of} {unit.name}", f"{unit.name}, time under {of}", unit.sums.total_ms, kind="unit")
    for state, ms in report.sums.health_ms.items():
        yield _hours(f"{of} {state}", f"{state} by telemetry, {of}", ms, kind="state")
    for cause, ms in report.left_out_ms.items():
        yield _hours(f"{of} {cause}", f"{_cause(cause)} left out of {of}", ms, kind="exclusion")
    for outage in report.outages:
        since = f"{outage.unit} from {customer.period.local(outage.start):%Y-%m-%d %H:%M:%S}"
        yield _hours(f"{of} {outage.key}", since, outage.counted_ms, kind="outage")
        yield Input(kind="evidence", id=f"{of} {outage.key}", name=since, value=outage.evidence_sha256)


def _hours(of: str, name: str, ms: int, *, kind: str) -> Input:
    return Input(kind=kind, id=of, name=name, value=ms / HOUR_MS, unit="h")


def _cause(cause: str) -> str:
    return cause.replace("_", " ") or "unknown time"


def _sections(report: CustomerReport) -> Iterator[Section]:
    for place, one in enumerate(report.contracts):
        # A sheet of a workbook needs a name of its own.
        mark = f" {place + 1}" if len(report.contracts) > 1 else ""
        yield from _contract_sections(one, report, mark)
    words = [*definitions().values()]
    yield Section(title="Method", blocks=[Pairs([*method_pairs(words), ("States", _STATES), ("Evidence", _EVIDENCE)])])


def _contract_sections(one: ContractReport, report: CustomerReport, mark: str) -> Iterator[Section]:
    of = subject(one, report)
    terms = Pairs([(term, Name(text)) for term, text in term_pairs(one.terms, report.period)])
    title = Name(f"{of}: {verdict(one)}")
    if one.reason:
        yield Section(title=title, blocks=[Words([one.reason], notice=True), terms], new_page=mark not in ("", " 1"))
        return
    yield Section(title=title, blocks=[Cards(one.kpis, margins=False), terms], new_page=mark not in ("", " 1"))
    name = f" under {of}" if mark else ""
    yield Section(title=f"Where the time went{name}", blocks=[*_times(one, mark), one.chart])
    yield Section(title=f"Units{name}", blocks=[_units(one, mark)])
    yield Section(title=f"Outages{name}", blocks=[_outages(one, report, mark), _evidence(one, mark)])


_HOURS = Column("Unit-hours", 2, numeric=True)
_SHARE = Column("Share, %", 3, numeric=True, percentage=True)


def _times(one: ContractReport, mark: str) -> Iterator[Table]:
    whole = one.sums.total_ms
    yield Table(
        key=f"by telemetry{mark}",
        title="By telemetry",
        columns=(Column("State"), _HOURS, _SHARE),
        rows=[_time_row(state.capitalize(), ms, whole) for state, ms in one.sums.health_ms.items()],
    )
    yield Table(
        key=f"by contract{mark}",
        title="By contract",
        columns=(Column("Counts as"), _HOURS, _SHARE),
        rows=[_time_row(COUNT_WORDS[word], ms, whole) for word, ms in one.sums.counts_ms.items()],
    )
    if one.left_out_ms:
        yield Table(
            key=f"left out{mark}",
            title="Left out",
            columns=(Column("For"), _HOURS, _SHARE),
            rows=[_time_row(_cause(cause).capitalize(), ms, whole) for cause, ms in one.left_out_ms.items()],
        )
    yield Table(
        key=f"time to restore{mark}",
        title="Time to restore",
        columns=(Column("Step"), Column("Mean"), Column("Failures", 0, numeric=True)),
        rows=[(line.name.capitalize(), lasting(line.mean), line.failures) for line in one.phases],
    )


def _time_row(name: str, ms: int, whole_ms: int) -> tuple[Cell, ...]:
    return name, ms / HOUR_MS, 100 * ms / whole_ms


def _units(one: ContractReport, mark: str) -> Table:
    hours = ("Covered, h", "Down, h", "Unknown, h", "Left out, h", "Counted, h")
    columns = (
        Column("Unit"), *(Column(title, 2, numeric=True) for title in hours),
        *(Column(title, NINES, numeric=True, percentage=True) for title in ("Technical, %", "Contractual, %")),
        Column("Outages", 0, numeric=True), Column("Credit, %", 1, numeric=True),
    )  # fmt: skip
    rows = [
        (
            Name(line.name), *(ms / HOUR_MS for ms in _unit_times(line.sums)), _percent(line.sums.technical),
            _percent(line.sums.contractual), line.outages, _percent(line.credit),
        )
        for line in one.units
    ]  # fmt: skip
    text = "Those with the lowest contractual availability come first."
    return Table(key=f"units{mark}", title="", columns=columns, rows=rows, text=text, shown=LINES_SHOWN)


def _unit_times(sums: Sums) -> tuple[int, ...]:
    down, unknown = (sums.health_ms[state] for state in (Health.DOWN, Health.UNKNOWN))
    return sums.total_ms, down, unknown, sums.total_ms - sums.up_ms - sums.down_ms, sums.down_ms


def _percent(share: object) -> float | None:
    return None if share is None else float(100 * share)  # type: ignore[operator]


def _outages(one: ContractReport, report: CustomerReport, mark: str) -> Table:
    columns = (
        Column("Unit"), Column("From"), Column("To"), Column("Lasted, h", 3, numeric=True),
        Column("Counted, h", 3, numeric=True), Column("Shown by"), Column("Evidence"), Column("SHA-256"),
    )  # fmt: skip
    return Table(
        key=f"outages{mark}",
        title="",
        columns=columns,
        rows=[_outage(outage, report.period) for outage in one.outages],
        text=f"Times are those of {report.period.zone}.",
        nothing="There was none.",
        shown=LINES_SHOWN,
    )


def _outage(outage: Outage, period: Period) -> tuple[Cell, ...]:
    first, last = (f"{period.local(edge):%-d %b %Y %H:%M:%S}" for edge in (outage.start, outage.end))
    return (
        Name(outage.unit),
        f"{first}, began before" if outage.began_before else first,
        f"{last}, goes on" if outage.goes_on else last,
        (outage.end - outage.start).total_seconds() / 3600,
        outage.counted_ms / HOUR_MS,
        Name(", ".join(outage.reasons) or DASH),
        evidence_name(outage),
        outage.evidence_sha256,
    )


def _evidence(one: ContractReport, mark: str) -> Table:
    columns = (
        Column("Outage"), Column("At, UTC"), Column("Until, UTC"), Column("Source"), Column("Resource"),
        Column("What"), Column("Text"), Column("Reference"),
    )  # fmt: skip
    rows = [(outage.key, *_evidence_row(row)) for outage in one.outages for row in outage.evidence]
    return Table(
        key=f"evidence{mark}", title="What shows them", columns=columns, rows=rows, nothing="Nothing.",
        shown=LINES_SHOWN,
    )  # fmt: skip


def _evidence_row(row: EvidenceRow) -> tuple[Cell, ...]:
    what = row.what.replace("_", " ") if row.code is None else f"XID {row.code}"
    told = (row.resource, what, row.text, row.reference)
    return row.at, row.until or None, row.source, *(Name(text) if text else None for text in told)


# The operator's -------------------------------------------------------------------------------------------------------


def summary_publication(report: SlaReport) -> Publication:
    """All contracts, the whole fleet, and what is amiss in the registers; for the operator alone."""
    each = [(one, customer) for customer in report.customers for one in customer.contracts]
    return Publication(
        report="sla-summary",
        folder=_folder(report.period),
        kicker="SLA summary, for the operator alone",
        site=Name(report.site),
        period=report.period,
        complete=report.complete,
        unfinished=_unfinished(report),
        generated_at=report.generated_at,
        software=report.software,
        summary=_outcomes(report),
        facts=[*_facts(report), ("Fleet", f"{report.gpus} GPUs of the inventory")],
        sections=tuple(_summary_sections(report)),
        figures=tuple(kpi for one, customer in each for kpi in _figures(one, customer)),
        document=summary_document(report),
        inputs=tuple(found for one, customer in each for found in _inputs(one, customer)),
        notices=("It names all customers: give each only the folder that is theirs.",),
        problems=report.problems,
    )


def _outcomes(report: SlaReport) -> str:
    contracts = [one for customer in report.customers for one in customer.contracts]
    if not contracts:
        return "The register contracts has no SLA contract in this period."
    outcomes = {word: sum(verdict(one) == word for one in contracts) for word in ("kept", "missed", "cannot be told")}
    words = ", ".join(f"{count} {word}" for word, count in outcomes.items() if count)
    return f"{counted(len(contracts), 'contract')} with {counted(len(report.customers), 'customer')}: {words}."


def _summary_sections(report: SlaReport) -> Iterator[Section]:
    yield Section(title="Contracts", blocks=[_contracts(report)])
    yield Section(title="All GPUs, whoever has them", blocks=[_fleet(report)])


def _contracts(report: SlaReport) -> Table:
    columns = (
        Column("Customer"), Column("Contract"), Column("Units", 0, numeric=True), Column("Unit"), Column("Agreed"),
        *(Column(title, NINES, numeric=True, percentage=True) for title in ("Contractual, %", "Technical, %")),
        Column("Observed, %", 2, numeric=True, percentage=True), Column("Outages", 0, numeric=True), Column("Target"),
        Column("Credit, %", 2, numeric=True), Column("Credit", 2, numeric=True), Column("Currency"),
    )  # fmt: skip
    rows = [_contract_row(one, customer) for customer in report.customers for one in customer.contracts]
    nothing = "The register contracts has no SLA contract in this period."
    return Table(key="contracts", title="", columns=columns, rows=rows, nothing=nothing)


def _contract_row(one: ContractReport, customer: CustomerReport) -> Sequence[Cell]:
    sums = one.sums
    shares = (_percent(share) for share in (sums.contractual, sums.technical, sums.seen_share))
    return (
        Name(customer.party), Name(subject(one, customer)), len(one.units), UNIT_WORDS[one.terms.unit],
        agreed(one.terms.target), *(Blank() if share is None else share for share in shares), len(one.outages),
        verdict(one), _percent(one.credit), one.credit_money, Name(one.terms.currency),
    )  # fmt: skip


def _fleet(report: SlaReport) -> Table:
    whole = sum(report.fleet_ms.values())
    rows = [
        (state.capitalize(), ms / HOUR_MS, 100 * ms / whole if whole else None) for state, ms in report.fleet_ms.items()
    ]
    return Table(
        key="fleet", title="", columns=(Column("State"), replace(_HOURS, title="GPU-hours"), _SHARE), rows=rows
    )

"""The key figures of sustainability of one window of time: pure functions from the ledger and the books to Kpis."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date

import polars as pl

from reports import figures, heat_account
from reports.figures import JOULES_PER_KWH, JOULES_PER_MWH, Evidence, Kpi, Role, Total
from reports.period import Period, Span
from reports.sustainability import books
from reports.sustainability.books import Certificate, Entry, Fact, Factor
from reports.sustainability.definitions import DEFINITIONS
from reports.sustainability.inputs import Energies, SustainabilityData
from storage.register_kinds import RegisterKind

KWH_PER_MWH = 1e3
# PUE proper takes twelve months, of which so much was observed.
PUE_COVERAGE = 0.95
DEFAULT_COUNTRY, DEFAULT_ZONE = "NO", "NO4"


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Window:
    """What the figures of one window of time rest on."""

    data: SustainabilityData
    energies: Energies
    facts: Mapping[str, Fact]
    certificates: tuple[Certificate, ...]
    location_factor: Factor | None
    residual_factor: Factor | None

    @property
    def period(self) -> Period:
        return self.energies.period


def window(data: SustainabilityData, energies: Energies, site: str, known_on: date) -> Window:
    period = energies.period
    facts = books.site_facts(data, period)
    country = str(facts["country"].value) if "country" in facts else DEFAULT_COUNTRY
    zone = str(facts["bidding_zone"].value) if "bidding_zone" in facts else DEFAULT_ZONE
    return Window(
        data=data,
        energies=energies,
        facts=facts,
        certificates=books.certificates(data, period, site, known_on),
        location_factor=books.factor(data, period, "location", country=country, zone=zone),
        residual_factor=books.factor(data, period, "residual", country=country, zone=zone),
    )


def key_figures(of: Window) -> tuple[Kpi, ...]:
    """All key figures, in the order in which they are shown."""
    bought, it = total(of, Role.SITE), total(of, Role.IT)
    backup = books.fuel(of.data, of.period, "electricity_kwh")
    site = _with_backup(bought, backup)
    water, renewable = books.water(of.data, of.period), renewable_energy(of)
    location, market = _emissions(of, bought, None, of.location_factor), _market(of, bought, renewable)
    return (
        replace(_energy("site_energy", site), note=_backup_note(backup)),
        _entry("backup_energy", backup, KWH_PER_MWH),
        _energy("it_energy", it),
        _pue(of, backup),
        _entry("water", water),
        _entry("potable_water", books.water(of.data, of.period, potable_only=True)),
        _over_it("wue", water.value, it, water.reason, water.share_estimated),
        _energy("heat_reused", total(of, Role.HEAT_HANDED_OVER)),
        _of_heat(of, "supply_temperature", "heat_temperature"),
        _of_heat(of, "erf", "erf"),
        _entry("renewable", renewable),
        _ref(site, renewable),
        _hourly(of, renewable),
        replace(location, definition=DEFINITIONS["scope_2_location"]),
        replace(market, definition=DEFINITIONS["scope_2_market"]),
        _scope_1(of),
        _cue("cue_location", location, it),
        _cue("cue_market", market, it),
        _load_factor(of, it),
    )


def total(of: Window, role: Role) -> Total:
    return heat_account.total_of(of.energies.heat, role)


def _with_backup(site: Total, backup: Entry) -> Total:
    if site.joules is None or not backup.value:
        return site
    return replace(site, joules=site.joules + backup.value * JOULES_PER_KWH)


def _backup_note(backup: Entry) -> str:
    return "" if backup.value is not None else "Without backup generators, which are not told."


def only_if_covered(kpi: Kpi) -> Kpi:
    """A figure of another window beside the period's; blank where little of it was read: it would mislead."""
    if kpi.value is None or kpi.evidence is None or kpi.evidence.coverage >= PUE_COVERAGE:
        return kpi
    return replace(kpi, value=None, evidence=None, reason="Readings cover less than 95 % of this time.", note="")


def blank(key: str, reason: str) -> Kpi:
    return Kpi.blank(DEFINITIONS[key], reason)


def _energy(key: str, found: Total) -> Kpi:
    if found.joules is None:
        return blank(key, found.reason)
    return Kpi(DEFINITIONS[key], found.joules / JOULES_PER_MWH, DEFINITIONS[key].unit, found.evidence)


def _entry(key: str, entry: Entry, divisor: float = 1.0) -> Kpi:
    if entry.value is None:
        return blank(key, entry.reason)
    evidence = Evidence(coverage=1.0, share_estimated=entry.share_estimated)
    return Kpi(DEFINITIONS[key], entry.value / divisor, DEFINITIONS[key].unit, evidence, note=entry.note)


def is_whole_year(period: Period) -> bool:
    return period.span is Span.YEAR


def _pue(of: Window, backup: Entry) -> Kpi:
    """PUE over twelve months; over any other time it is an interim PUE, and says so."""
    words = DEFINITIONS["pue"]
    note = "Over twelve months."
    if not is_whole_year(of.period):
        words = replace(
            words, title="iPUE (interim)", method=words.method + " Interim: PUE proper takes twelve months."
        )
        note = "Interim: not twelve months."
    kpi = figures.ratio(words, of.energies.heat.account, Role.SITE, Role.IT)
    if is_whole_year(of.period) and kpi.evidence is not None and kpi.evidence.coverage < PUE_COVERAGE:
        return blank("pue", "Readings cover less than 95 % of this time.")
    it = total(of, Role.IT)
    if kpi.value is None or not it.joules:
        return kpi
    value = kpi.value + (backup.value or 0.0) * JOULES_PER_KWH / it.joules
    return replace(kpi, value=value, note=" ".join(text for text in (note, kpi.note) if text))


def _over_it(key: str, amount: float | None, it: Total, reason: str, share_estimated: float) -> Kpi:
    """amount / E_IT in MWh."""
    if amount is None or not it.joules or it.evidence is None:
        return blank(key, " ".join(text for text in (reason, it.reason) if text) or "No IT energy was counted.")
    # How sure an invoice or a published factor is, nobody says: then neither is the ratio's uncertainty known.
    share = max(it.evidence.share_estimated, share_estimated)
    evidence = replace(it.evidence, share_estimated=share, uncertainty=None)
    return Kpi(DEFINITIONS[key], amount / (it.joules / JOULES_PER_MWH), DEFINITIONS[key].unit, evidence)


def _of_heat(of: Window, key: str, ours: str) -> Kpi:
    """A figure of the heat report under our own words."""
    found = next(kpi for kpi in heat_account.key_figures(of.energies.heat) if kpi.definition.key == key)
    return replace(found, definition=DEFINITIONS[ours], note="")


def renewable_energy(of: Window, instrument: str = "") -> Entry:
    """MWh of the certificates that count; of one instrument where it is given."""
    kind = RegisterKind.GUARANTEES_OF_ORIGIN
    if not of.data.is_imported(kind):
        return books.missing(kind)
    counted = [one for one in of.certificates if one.verdict == "counts" and instrument in ("", one.instrument)]
    return Entry(value=sum(one.counted_mwh for one in counted), lines=tuple(one.line for one in counted))


def _ref(site: Total, renewable: Entry) -> Kpi:
    if renewable.value is None or not site.joules or site.evidence is None:
        return blank("ref", " ".join(text for text in (renewable.reason, site.reason) if text))
    share = renewable.value / (site.joules / JOULES_PER_MWH)
    note = (
        f"{renewable.value - site.joules / JOULES_PER_MWH:.1f} MWh more than was used count nowhere."
        if share > 1
        else ""
    )
    evidence = replace(site.evidence, uncertainty=site.evidence.uncertainty if share < 1 else None)
    return Kpi(DEFINITIONS["ref"], min(1.0, share), "", evidence, note=note)


def _hourly(of: Window, renewable: Entry) -> Kpi:
    if renewable.value is None:
        return blank("hourly_matching", renewable.reason)
    counted = [one for one in of.certificates if one.counted_mwh > 0]
    value = books.hourly_matching(hourly_energy(of), counted, of.period)
    site = total(of, Role.SITE)
    if value is None or site.evidence is None:
        return blank("hourly_matching", site.reason or "No hour is wholly known.")
    evidence = Evidence(coverage=site.evidence.coverage, share_estimated=1.0)
    return Kpi(DEFINITIONS["hourly_matching"], 100 * value, "%", evidence, note="Certificates are dated by days.")


def hourly_energy(of: Window) -> pl.DataFrame:
    """Site energy by local hour: time, joules (absent unless the hour is known)."""
    hour = pl.col("time").dt.convert_time_zone(of.period.zone).dt.truncate("1h")
    joules = pl.col(f"{Role.SITE}_joules")
    quarters = of.energies.heat.account.quarters
    return quarters.group_by(time=hour).agg(joules=pl.when(joules.null_count() == 0).then(joules.sum())).sort("time")


def _emissions(of: Window, site: Total, renewable_mwh: float | None, factor: Factor | None) -> Kpi:
    """t = (E - E_ren) x factor; 1 MWh at 1 g/kWh is 1 kg."""
    key = "scope_2_location" if renewable_mwh is None else "scope_2_market"
    if factor is None:
        if not of.data.is_imported(RegisterKind.EMISSION_FACTORS):
            return blank(key, books.missing(RegisterKind.EMISSION_FACTORS).reason)
        method = "location" if renewable_mwh is None else "residual"
        return blank(key, f"The register emission_factors has no {method} factor up to this year.")
    if site.joules is None or site.evidence is None:
        return blank(key, site.reason)
    mwh = max(0.0, site.joules / JOULES_PER_MWH - (renewable_mwh or 0.0))
    year = of.period.local(of.period.start).year
    note = "" if factor.year == year else f"Factor of {factor.year}: no later one was imported."
    evidence = replace(site.evidence, uncertainty=None)
    return Kpi(DEFINITIONS[key], mwh * factor.grams_per_kwh / KWH_PER_MWH, "t CO₂e", evidence, note=note)


def _market(of: Window, site: Total, renewable: Entry) -> Kpi:
    if renewable.value is None:
        return blank("scope_2_market", renewable.reason)
    return _emissions(of, site, renewable.value, of.residual_factor)


def _scope_1(of: Window) -> Kpi:
    fuels, leaks = books.fuel(of.data, of.period, "co2e_kg"), books.refrigerant_leaks(of.data, of.period)
    if fuels.value is None or leaks.value is None:
        return blank("scope_1", " ".join(entry.reason for entry in (fuels, leaks) if entry.reason))
    kilograms = fuels.value + leaks.value
    evidence = Evidence(coverage=1.0, share_estimated=fuels.share_estimated)
    return Kpi(DEFINITIONS["scope_1"], kilograms / KWH_PER_MWH, "t CO₂e", evidence, note=leaks.note)


def _cue(key: str, emissions: Kpi, it: Total) -> Kpi:
    """t / MWh = kg / kWh."""
    if emissions.value is None:
        return blank(key, emissions.reason)
    return replace(_over_it(key, emissions.value, it, "", 0.0), note=emissions.note)


def _load_factor(of: Window, it: Total) -> Kpi:
    installed = of.data.installed_it_watts
    if not installed:
        return blank("load_factor", "The inventory does not rate the power of every rack.")
    if it.joules is None:
        return blank("load_factor", it.reason)
    watts = it.joules / of.period.seconds
    evidence = it.evidence
    return Kpi(DEFINITIONS["load_factor"], 100 * watts / installed, "%", evidence)

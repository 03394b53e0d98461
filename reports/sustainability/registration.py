"""What a Norwegian data centre registers with Nkom, the communications authority, before it operates.

Act and regulation in force since 1 January 2025, for data centres of 0.5 MW and more. Legal status of the EU figures in
Norway is a text of the register of facts: this report states none of its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from reports.figures import Kpi
from reports.sustainability.key_figures import Window


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """One entry; a blank has a `reason`."""

    key: str
    title: str
    value: float | str | None
    unit: str = ""
    reason: str = ""


_FACTS = (
    ("data_centre_name", "Name of the data centre", ""),
    ("owner", "Owner", ""),
    ("operator", "Operator", ""),
    ("organisation_number", "Organisation number", ""),
    ("contact", "Contact", ""),
    ("municipality", "Municipality", ""),
    ("data_centre_type", "Type of data centre", ""),
    ("services", "Services", ""),
    ("entry_into_operation", "Entry into operation", ""),
    ("electrical_redundancy", "Redundancy of power", ""),
    ("cooling_redundancy", "Redundancy of cooling", ""),
    ("crypto_mining_percent", "Share of energy for crypto-mining", "%"),
    ("legal_status", "Legal status of the EU figures", ""),
)


def registrations(of: Window, kpis: Sequence[Kpi]) -> tuple[Registration, ...]:
    energy = next(kpi for kpi in kpis if kpi.definition.key == "site_energy")
    told = Registration(
        key="total_energy", title="Total energy in the period", value=energy.value, unit="MWh", reason=energy.reason
    )
    return (*(_fact(of, *fact) for fact in _FACTS), _installed(of), told)


def _fact(of: Window, key: str, title: str, unit: str) -> Registration:
    fact = of.facts.get(key)
    reason = "" if fact else f"The register site_facts does not state {key}."
    return Registration(key=key, title=title, value=fact.value if fact else None, unit=unit, reason=reason)


def _installed(of: Window) -> Registration:
    watts = of.data.installed_it_watts
    return Registration(
        key="installed_it_power_kw",
        title="Installed IT power",
        value=None if watts is None else watts / 1e3,
        unit="kW",
        reason="" if watts is not None else "The inventory does not rate the power of every rack.",
    )

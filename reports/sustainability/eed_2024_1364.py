"""The indicators of Delegated Regulation (EU) 2024/1364, each traced from sensor or register to figure.

Another edition of the rules is another module with another SCHEMA: what was reported under this one stays as it was.
The numbers are this list's own. Symbols in brackets are those of the regulation as far as they are known to us.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import polars as pl

from reports.figures import Kpi, Role
from reports.sustainability import books
from reports.sustainability.books import Entry
from reports.sustainability.key_figures import KWH_PER_MWH, Window, renewable_energy
from storage.register_kinds import RegisterKind

SCHEMA = "eed_2024_1364"
EXABYTE = "EB"
NAMED_METERS = 4
_LEDGER = "Register differences by quarter hour in the ledger, summed over meters."

Value = float | str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Indicator:
    """One indicator. `source`: the sensors or register lines; `way`: what became of them. A blank has a `reason`."""

    number: str
    key: str
    title: str
    symbol: str
    unit: str
    value: Value
    reason: str
    source: str
    way: str
    is_optional: bool = False


def indicators(of: Window, kpis: Sequence[Kpi]) -> tuple[Indicator, ...]:
    """All indicators in the order of the annex, and the four that are derived from them."""
    return tuple(_Annex(of, {kpi.definition.key: kpi for kpi in kpis}).all())


class _Annex:
    def __init__(self, of: Window, kpis: Mapping[str, Kpi]) -> None:
        self._of, self._kpis = of, kpis

    def all(self) -> Iterator[Indicator]:
        yield self._installed()
        yield self._fact("2", "floor_area_total_m2", "Total floor area", "S_DC", "m²")
        yield self._fact("3", "floor_area_computer_room_m2", "Floor area of computer rooms", "S_CR", "m²")
        yield self._energy("4", "site_energy", "energy_total_kwh", "Total energy", "E_DC", Role.SITE)
        yield self._book("4b", "backup_energy", "energy_backup_kwh", "Energy of backup generators", "E_DC-BG", "kWh",
                         KWH_PER_MWH, books.fuel(self._of.data, self._of.period, "electricity_kwh"))  # fmt: skip
        yield self._energy("5", "it_energy", "energy_it_kwh", "Energy of IT equipment", "E_IT", Role.IT)
        yield self._fact("6", "grid_functions", "Functions for the electricity grid", "", "")
        yield self._fact("7", "battery_capacity_kw", "Battery capacity offered to the grid", "C_BtG", "kW")
        yield self._water("8", "water", "water_input_m3", "Water input", "W_IN", potable_only=False)
        yield self._water(
            "9", "potable_water", "water_potable_m3", "Drinking water input", "W_IN-POT", potable_only=True
        )
        yield self._energy("10", "heat_reused", "waste_heat_reused_kwh", "Waste heat reused", "E_REUSE",
                           Role.HEAT_HANDED_OVER)  # fmt: skip
        yield self._temperature()
        yield self._fact("12", "it_intake_setpoint_celsius", "Set point of IT intake air", "T_IN", "°C")
        yield self._refrigerants()
        yield self._degree_days()
        for number, key, title, symbol, instrument in (
            ("15", "renewable_total_kwh", "Renewable energy, all", "E_RES-TOT", ""),
            ("16", "renewable_go_kwh", "Renewable energy, guarantees of origin", "E_RES-GOO", "go"),
            ("17", "renewable_ppa_kwh", "Renewable energy, purchase agreements", "E_RES-PPA", "ppa"),
            ("18", "renewable_onsite_kwh", "Renewable energy, on-site", "E_RES-OS", "onsite"),
        ):
            yield self._renewable(number, key, title, symbol, instrument)
        yield self._fact("19", "ict_capacity_servers", "ICT capacity of servers", "C_SERV", "")
        yield self._fact("20", "ict_capacity_storage_pb", "ICT capacity of storage", "C_STOR", "PB")
        for number, key, title, unit in (
            ("21", "bandwidth_in_gbps", "Incoming bandwidth", "Gbit/s"),
            ("22", "bandwidth_out_gbps", "Outgoing bandwidth", "Gbit/s"),
            ("23", "traffic_in_eb", "Incoming traffic", EXABYTE),
            ("24", "traffic_out_eb", "Outgoing traffic", EXABYTE),
        ):
            yield self._fact(number, key, title, "", unit, is_optional=True)
        for key, symbol, way in (
            ("pue", "PUE", "4 / 5"),
            ("wue", "WUE", "8 / 5"),
            ("erf", "ERF", "10 / 4"),
            ("ref", "REF", "15 / 4"),
        ):
            yield self._derived(key, symbol, way)

    def _installed(self) -> Indicator:
        """From the register of facts where it states one, else the inventory's ratings."""
        if "installed_it_power_kw" in self._of.facts:
            return self._fact("1", "installed_it_power_kw", "Installed IT power", "PD_IT", "kW")
        watts = self._of.data.installed_it_watts
        return Indicator(
            number="1", key="installed_it_power_kw", title="Installed IT power", symbol="PD_IT", unit="kW",
            value=None if watts is None else watts / 1e3,
            reason="" if watts is not None else "The inventory does not rate the power of every rack.",
            source="Inventory: rated power of every rack.", way="Sum over all racks at the period's end.",
        )  # fmt: skip

    def _fact(
        self, number: str, key: str, title: str, symbol: str, unit: str, *, is_optional: bool = False
    ) -> Indicator:
        fact = self._of.facts.get(key)
        reason = "" if fact else self._no_fact(key, is_optional=is_optional)
        return Indicator(
            number=number, key=key, title=title, symbol=symbol, unit=unit, value=fact.value if fact else None,
            reason=reason, source=self._origins((fact.line,)) if fact else "Register site_facts.",
            way="As registered, on the period's last day.", is_optional=is_optional,
        )  # fmt: skip

    def _no_fact(self, key: str, *, is_optional: bool) -> str:
        if is_optional:
            return "Optional, and not registered."
        return f"The register site_facts does not state {key}."

    def _energy(self, number: str, kpi_key: str, key: str, title: str, symbol: str, role: Role) -> Indicator:
        kpi = self._kpis[kpi_key]
        return Indicator(
            number=number, key=key, title=title, symbol=symbol, unit="kWh",
            value=None if kpi.value is None else kpi.value * KWH_PER_MWH, reason=kpi.reason,
            source=self._meters(role), way=_LEDGER + (" Indicator 4b is added." if role is Role.SITE else ""),
        )  # fmt: skip

    def _meters(self, role: Role) -> str:
        meters = self._of.energies.heat.meters.filter(pl.col("role") == role).sort("name")
        if meters.is_empty():
            return "No meter has this role."
        named = [f"{row['name']} ({row['class_used']})" for row in meters.head(NAMED_METERS).iter_rows(named=True)]
        more = meters.height - NAMED_METERS
        return f"Meters: {', '.join(named)}" + (f" and {more} more." if more > 0 else ".")

    def _book(
        self, number: str, kpi_key: str, key: str, title: str, symbol: str, unit: str, scale: float, entry: Entry
    ) -> Indicator:
        kpi = self._kpis[kpi_key]
        return Indicator(
            number=number, key=key, title=title, symbol=symbol, unit=unit,
            value=None if kpi.value is None else kpi.value * scale, reason=kpi.reason,
            source=self._origins(entry.lines) or "Register fuels.", way="Sum of the lines; a line counts by its days.",
        )  # fmt: skip

    def _water(self, number: str, kpi_key: str, key: str, title: str, symbol: str, *, potable_only: bool) -> Indicator:
        entry = books.water(self._of.data, self._of.period, potable_only=potable_only)
        found = self._book(number, kpi_key, key, title, symbol, "m³", 1.0, entry)
        return found if entry.lines else replace(found, source="Register water.")

    def _temperature(self) -> Indicator:
        kpi = self._kpis["heat_temperature"]
        return Indicator(
            number="11", key="waste_heat_temp_c", title="Average temperature of waste heat", symbol="T_WH", unit="°C",
            value=kpi.value, reason=kpi.reason, source=self._meters(Role.HEAT_HANDED_OVER),
            way="Supply temperature of each quarter hour, weighted by its heat.",
        )  # fmt: skip

    def _refrigerants(self) -> Indicator:
        kind = RegisterKind.REFRIGERANTS
        used = books.refrigerants_in_use(self._of.data, self._of.period)
        reason = "" if used.height else "No charge of refrigerant is registered."
        if not self._of.data.is_imported(kind):
            reason = books.missing(kind).reason
        types = ", ".join(sorted(set(used["refrigerant"].to_list())))
        return Indicator(
            number="13", key="refrigerants", title="Types of refrigerant", symbol="", unit="", value=types or None,
            reason=reason, source=self._origins(books.lines_of(used)) or "Register refrigerants.",
            way="Types in the latest check of each machine.",
        )  # fmt: skip

    def _degree_days(self) -> Indicator:
        entry = books.cooling_degree_days(self._of.data, self._of.period)
        return Indicator(
            number="14", key="cooling_degree_days", title="Cooling degree days", symbol="CDD", unit="K·d",
            value=entry.value, reason=entry.reason, source=self._origins(entry.lines) or "Register weather.",
            way="Σ max(0, day's mean outside temperature \u2212 21 °C); the base of 21 °C is an assumption.",
        )  # fmt: skip

    def _renewable(self, number: str, key: str, title: str, symbol: str, instrument: str) -> Indicator:
        entry = renewable_energy(self._of, instrument)
        return Indicator(
            number=number, key=key, title=title, symbol=symbol, unit="kWh",
            value=None if entry.value is None else entry.value * KWH_PER_MWH, reason=entry.reason,
            source=self._origins(entry.lines) or "Register guarantees_of_origin.",
            way="Cancelled for this site; by the share of the consumption's days in the period.",
        )  # fmt: skip

    def _derived(self, key: str, symbol: str, way: str) -> Indicator:
        kpi = self._kpis[key]
        return Indicator(
            number=symbol, key=key, title=kpi.definition.title, symbol=symbol, unit=kpi.unit, value=kpi.value,
            reason=kpi.reason, source=f"Indicators {way}.", way=kpi.definition.method,
        )  # fmt: skip

    def _origins(self, lines: Sequence[tuple[str, int]]) -> str:
        found = "; ".join(books.origins(self._of.data, lines))
        return f"{found[0].upper()}{found[1:]}." if found else ""

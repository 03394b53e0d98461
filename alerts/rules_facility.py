"""Metric rules about racks, coolant, power and meters."""

from collections.abc import Iterator

from alerts.alert import Dashboard, MetricRule, Owner, Recording, Severity
from alerts.series import series
from alerts.thresholds import Thresholds
from catalogue import COOLING, POWER, RACK
from catalogue.facility import BREAKER_STATES, EQUIPMENT_STATES

_EQUIPMENT = {name: code for code, name in EQUIPMENT_STATES}
_TRIPPED = next(code for code, name in BREAKER_STATES if name == "tripped")
# The inventory as the incidents process shows it: a gateway's readings have no other names. Of the last hour, so
# that a restart of that process changes no alert's labels: that would be another alert, and another page.
_INFO = "last_over_time(kvandal_incidents_place_info{resource='%s'}[1h])"


def looked_up(label: str, form: str = "", otherwise: str = "") -> str:
    """A template for a name of the place that an alert's resource is. It costs nothing while all is well."""
    found = (
        '{{ with printf "' + _INFO + '" $labels.resource | query }}{{ . | first | label "' + label + '"' + form + " }}"
    )
    return found + ("{{ else }}" + otherwise if otherwise else "") + "{{ end }}"


def looked_up_variable(label: str) -> str:
    """A dashboard's variable with what `looked_up` finds; nothing where the place has no such label."""
    place = '{{ with printf "' + _INFO + '" $labels.resource | query }}{{ with . | first | label "' + label + '" }}'
    return place + f"&var-{label}={{{{ . | urlquery }}}}{{{{ end }}}}{{{{ end }}}}"


_WHERE = looked_up("name", otherwise="{{ $labels.resource }}")
_SITE_POWER, _RACKS = "kvandal:rack_power_watts:sum", "kvandal:rack_power_watts:count"
# CoolProp at 45 °C and 3 bar, 25 % propylene glycol by mass: 1007.2 kg/m3 x 3981 J/(kg K).
_HEAT_CAPACITY_JOULES_PER_CUBIC_METRE_KELVIN = 4.01e6
_LEAST_RACK_WATTS = 20_000  # below, flow and heat balance say nothing


def facility_recordings() -> tuple[Recording, ...]:
    power = series(RACK, "power_watts")
    return (
        Recording(name=_SITE_POWER, expression=f"sum({power})"),
        Recording(name=_RACKS, expression=f"count({power})"),
    )


def facility_rules(limits: Thresholds) -> tuple[MetricRule, ...]:
    return (*_cdus(limits), *_coolant(limits), *_racks(limits), *_site(limits))


def _place(name: str, severity: Severity, expression: str, for_s: float, summary: str, cost: str, *numbers: int,
           owner: Owner = Owner.COOLING, dashboard: Dashboard = Dashboard.COOLING) -> MetricRule:  # fmt: skip
    return MetricRule(
        name=name, severity=severity, owner=owner, dashboard=dashboard, cost=cost, numbers=numbers,
        expression=expression, for_s=int(for_s), summary=summary, resolves_place=True,
    )  # fmt: skip


def _cdus(limits: Thresholds) -> Iterator[MetricRule]:
    state, level = series(COOLING, "equipment_state"), series(COOLING, "reservoir_level_ratio")
    yield _place(
        "CduDegraded", Severity.TICKET, f"{state} == {_EQUIPMENT['degraded']}", 60,
        f"{_WHERE} is degraded: a pump or its spare has failed",
        "the next fault stops the coolant of its racks", 33,
    )  # fmt: skip
    yield _place(
        "CduDown", Severity.PAGE, f"{state} == {_EQUIPMENT['failed']}", 30,
        f"{_WHERE} has failed",
        "its racks trip on temperature within minutes", 34,
    )  # fmt: skip
    for severity, limit in (
        (Severity.TICKET, limits.reservoir_warn_ratio), (Severity.PAGE, limits.reservoir_page_ratio),
    ):  # fmt: skip
        yield _place(
            "ReservoirLow", severity, f"{level} < {limit:g}", 60,
            f"the reservoir of {_WHERE} is {{{{ $value | humanizePercentage }}}} full",
            "coolant is being lost, and pumps that run dry stop every rack of the loop",
        )  # fmt: skip


def _coolant(limits: Thresholds) -> Iterator[MetricRule]:
    supply = series(COOLING, "secondary_supply_temperature_celsius")
    for severity, above, for_s in (
        (Severity.TICKET, limits.tcs_warn_kelvin, 300), (Severity.PAGE, limits.tcs_page_kelvin, 60),
    ):  # fmt: skip
        limit = limits.tcs_supply_celsius + above
        yield _place(
            "TcsSupplyHot", severity, f"{supply} > {limit:g}", for_s,
            f"{_WHERE} sends coolant of {{{{ $value }}}} °C to its racks, above {limit:g}",
            "GPUs lose their margin and slow down", 31,
        )  # fmt: skip
    dew_point = series(COOLING, "dew_point_temperature_celsius")
    yield _place(
        "CondensationRisk", Severity.TICKET, f"{supply} < {dew_point} + {limits.condensation_kelvin:g}", 300,
        f"{_WHERE} sends coolant of {{{{ $value }}}} °C, near the dew point",
        "water condenses on live parts", 32,
    )  # fmt: skip
    pressure, heat = series(COOLING, "secondary_pressure_pascals"), series(COOLING, "heat_flow_watts")
    steady = f"abs(delta({heat}[10m])) < 0.1 * {heat}"
    yield _place(
        "LoopPressureDrop", Severity.PAGE,
        f"delta({pressure}[10m]) < -{limits.loop_pressure_drop_pascals:g} and {steady}", 0,
        f"the loop of {_WHERE} lost {{{{ $value | humanize }}}}Pa in 10 minutes at steady load",
        "coolant runs out somewhere that no detector watches", 35,
    )  # fmt: skip
    flow, power = series(RACK, "liquid_flow_cubic_metres_per_second"), series(RACK, "power_watts")
    capacity = _HEAT_CAPACITY_JOULES_PER_CUBIC_METRE_KELVIN * limits.rack_design_kelvin
    for severity, share, for_s in (
        (Severity.TICKET, limits.rack_flow_warn_ratio, 60), (Severity.PAGE, limits.rack_flow_page_ratio, 30),
    ):  # fmt: skip
        needed = f"{power} * {share * limits.rack_liquid_ratio / capacity:.6g}"
        yield _place(
            "RackFlowLow", severity, f"{flow} < {needed} and {power} > {_LEAST_RACK_WATTS}", for_s,
            f"{_WHERE} gets less than {share:.0%} of the flow that its power needs",
            "its GPUs heat up within minutes", 30, dashboard=Dashboard.RACK,
        )  # fmt: skip
    carried = series(RACK, "liquid_heat_watts")
    residual = f"abs({power} * {limits.rack_liquid_ratio:g} - {carried}) / {power}"
    yield _place(
        "HeatBalanceResidual", Severity.TICKET,
        f"{residual} > {limits.heat_residual_ratio:g} and {power} > {_LEAST_RACK_WATTS}", 1800,
        f"heat and power of {_WHERE} differ by {{{{ $value | humanizePercentage }}}}",
        "the heat that is reported is wrong", 36, dashboard=Dashboard.RACK,
    )  # fmt: skip


def _racks(limits: Thresholds) -> Iterator[MetricRule]:
    supplies, power = series(RACK, "power_supply_count"), series(RACK, "power_watts")
    yield _place(
        "PowerShelfDegraded", Severity.TICKET, f"{supplies} < max_over_time({supplies}[1d])", 120,
        f"{_WHERE} has {{{{ $value }}}} healthy power supplies, fewer than in the last day",
        "its spare power is used up", 37, owner=Owner.POWER, dashboard=Dashboard.RACK,
    )  # fmt: skip
    yield _place(
        "PowerShelfDegraded", Severity.PAGE, f"{supplies} < {limits.rack_supplies_required:g}", 120,
        f"{_WHERE} has {{{{ $value }}}} healthy power supplies, fewer than it needs",
        "the rack brakes or goes dark under load", 37, owner=Owner.POWER, dashboard=Dashboard.RACK,
    )  # fmt: skip
    most = limits.rack_power_warn_ratio * limits.rack_power_limit_watts
    yield _place(
        "RackPowerOverBudget", Severity.TICKET, f"{power} > {most:g}", 120,
        f"{_WHERE} draws {{{{ $value | humanize }}}}W, close to its limit",
        "its breaker may trip", 38, owner=Owner.POWER, dashboard=Dashboard.RACK,
    )  # fmt: skip


def _site(limits: Thresholds) -> Iterator[MetricRule]:
    yield MetricRule(
        name="SitePowerRamp", severity=Severity.PAGE, owner=Owner.POWER, dashboard=Dashboard.POWER, numbers=(39,),
        cost="the grid operator may disconnect the site",
        # Racks that come into sight or go out of it are no ramp.
        expression=f"abs(delta({_SITE_POWER}[1m])) > {limits.site_ramp_watts_per_minute:.10g} "
        f"and delta({_RACKS}[1m]) == 0",
        for_s=0,
        summary="the racks' power changed by {{ $value | humanize }}W within a minute",
    )  # fmt: skip
    yield _place(
        "BreakerTripped", Severity.PAGE, f"{series(POWER, 'breaker_state')} == {_TRIPPED}", limits.breaker_s,
        f"the breaker of {_WHERE} has tripped",
        "everything behind it is dark or runs on its spare feed", 40, owner=Owner.POWER, dashboard=Dashboard.POWER,
    )  # fmt: skip

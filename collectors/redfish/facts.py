"""Facts about equipment that do not change every second, as text with the unit in the name: attributes of inventory."""

from collections.abc import Mapping

from collectors.redfish.document import Document, part_of, reading_at, text_at


def maker_facts(document: Document) -> dict[str, str]:
    place = text_at(document, "Location/PartLocation/ServiceLabel") or text_at(document, "UserLabel")
    return {
        "serial": text_at(document, "SerialNumber"),
        "manufacturer": text_at(document, "Manufacturer"),
        "model": text_at(document, "Model"),
        "firmware_version": text_at(document, "FirmwareVersion"),
        "location": place,
    }


def system_facts(document: Document) -> dict[str, str]:
    """What marks the node of a ComputerSystem; its operating system tells the same of itself (SMBIOS, type 1)."""
    return {
        "system_serial": text_at(document, "SerialNumber"),
        "system_uuid": text_at(document, "UUID").lower(),
    }


def rating_facts(document: Document) -> dict[str, str]:
    """What the device is rated for; apparent power is the most that active power can be."""
    flow, pressure = reading_at(document, "RatedFlowLitersPerMinute"), reading_at(document, "RatedPressurekPa")
    return {
        "nominal_power_watts": written(reading_at(document, "PowerCapacityVA")),
        "nominal_heat_watts": written(reading_at(document, "CoolingCapacityWatts")),
        "nominal_loss_to_air_watts": written(reading_at(document, "RatedThermalLossToAirWatts")),
        "nominal_flow_cubic_metres_per_second": written(None if flow is None else flow / 60_000),
        "nominal_pressure_pascals": written(None if pressure is None else pressure * 1000),
        "loop_type": text_at(document, "CoolingLoopType"),
        "circuit_type": text_at(document, "CircuitType"),
    }


def coolant_facts(racks: Document | None, facility: Document | None) -> dict[str, str]:
    """The coolant on the rack side, and on the facility side where it is told apart."""
    facts = _fluid(racks) if racks is not None else {}
    return facts | ({"primary_fluid": _fluid(facility)["fluid"]} if facility is not None else {})


def has_coolant(document: Document) -> bool:
    """Whether a document says what its coolant is."""
    return isinstance(part_of(document, "Coolant"), Mapping)


def _fluid(document: Document) -> dict[str, str]:
    """CoolingLoop 1.1, Coolant: additives in percent by volume, properties at 20 to 25 degrees."""
    base, additive = text_at(document, "Coolant/CoolantType"), text_at(document, "Coolant/AdditiveName", 64)
    share = reading_at(document, "Coolant/AdditivePercent")
    heat = reading_at(document, "Coolant/SpecificHeatkJoulesPerKgK")
    mixed = f"{base} with {written(share)} % {additive or 'additive'} by volume" if share else base
    return {
        "fluid": mixed,
        "fluid_density_kilograms_per_cubic_metre": written(reading_at(document, "Coolant/DensityKgPerCubicMeter")),
        "fluid_specific_heat_joules_per_kilogram_kelvin": written(None if heat is None else heat * 1000),
    }


def written(number: float | None) -> str:
    """A number as inventory has it; empty for none, and for 0, by which firmware means that it does not know."""
    return f"{number:.15g}" if number else ""

"""What each key figure of the site report means, in the words that the report prints."""

from collections.abc import Iterable, Mapping

from reports.figures import Definition

# ISO/IEC 30134-2 and EN 50600-4-2 name the category by the point where IT energy is measured.
_CATEGORIES = {
    "UPS output": "category 1: IT energy at the UPS output",
    "PDU output": "category 2: IT energy at the PDU output",
    "IT input": "category 3: IT energy at the input of the IT equipment",
}
NOT_DECLARED = "category not declared: the inventory does not say where IT energy is measured"

_SITE_BOUNDARY = "Everything behind the site's feed meters, imported electricity only."
_REGISTER_METHOD = "E = Σ (Rᵢ \u2212 Rᵢ₋₁) of the meters' energy registers, with resets and roll-overs handled."


def pue_category(measured_at: Iterable[str]) -> str:
    """The category that follows from where the IT meters are; of several points, all are named."""
    points = sorted(set(measured_at))
    if not points or any(not point for point in points):
        return NOT_DECLARED
    if len(points) > 1:
        return f"mixed categories: IT energy at {', '.join(points)}"
    return _CATEGORIES.get(points[0], f"IT energy at {points[0]}")


def definitions(*, category: str, part_name: str) -> Mapping[str, Definition]:
    """All definitions by key; `category` is the PUE category, `part_name` how the period is divided."""
    found = (
        Definition(
            key="site_energy",
            title="Site energy",
            unit="MWh",
            boundary=_SITE_BOUNDARY,
            method=f"E_DC. {_REGISTER_METHOD}",
            source="ISO/IEC 30134-2; EN 50600-4-2 (energy entering the data centre)",
        ),
        Definition(
            key="it_energy",
            title="IT energy",
            unit="MWh",
            boundary=f"The hall IT meters ({category}).",
            method=f"E_IT, sum of all halls. {_REGISTER_METHOD}",
            source="ISO/IEC 30134-2; EN 50600-4-2 (energy of IT equipment)",
        ),
        Definition(
            key="ipue",
            title="iPUE (interim)",
            unit="",
            boundary=f"Whole site; {category}.",
            method="iPUE = E_DC / E_IT over the same quarter hours. Interim: PUE proper takes twelve months.",
            source="ISO/IEC 30134-2; EN 50600-4-2 (PUE and its derivatives)",
        ),
        Definition(
            key="erf",
            title="ERF (energy reuse)",
            unit="",
            boundary="Heat at the hand-over meters over the whole site's energy.",
            method="ERF = E_reuse / E_DC. All heat handed over is taken as reused outside the site.",
            source="ISO/IEC 30134-6; EN 50600-4-6",
        ),
        Definition(
            key="heat_handed_over",
            title="Heat handed over",
            unit="MWh th.",
            boundary="Heat meters at the boundary to the off-takers.",
            method="Q = Σ (Rᵢ \u2212 Rᵢ₋₁) of the meters' heat registers.",
            source="EN 1434 (heat meters)",
        ),
        Definition(
            key="heat_rejected",
            title="Heat rejected",
            unit="MWh th.",
            boundary="Heat meters before dry coolers or sea water.",
            method="Q = Σ (Rᵢ \u2212 Rᵢ₋₁) of the meters' heat registers.",
            source="EN 1434 (heat meters)",
        ),
        Definition(
            key="mean_power",
            title="Mean site power",
            unit="kW",
            boundary=_SITE_BOUNDARY,
            method="P = E_DC / t over the quarter hours of which all energy is known.",
            source="IEC 62053-22 (the meters)",
        ),
        Definition(
            key="peak_power",
            title="15-minute peak",
            unit="kW",
            boundary=_SITE_BOUNDARY,
            method="max(E_DC per quarter hour / 900 s), of the quarter hours observed throughout.",
            source="Settlement unit of the Nordic power market: 15 minutes",
        ),
        Definition(
            key="load_factor",
            title="IT load factor",
            unit="%",
            boundary="The hall IT meters over the rated power of all racks.",
            method="Mean IT power / installed IT power, both in W. PUE depends on load: read them together.",
            source="Installed IT power: the inventory's rack ratings",
        ),
        Definition(
            key="gpu_share",
            title="GPU share of IT",
            unit="%",
            boundary="GPU boards, without processors, network, switches and supplies.",
            method=f"Σ of the GPUs' own energy counters / E_IT, over each {part_name} in which both are known.",
            source="NVML energy counters; the 5 % limit of error is an assumption",
        ),
    )
    return {definition.key: definition for definition in found}

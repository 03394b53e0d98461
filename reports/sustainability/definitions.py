"""What each key figure of sustainability means."""

from collections.abc import Mapping

from reports.figures import Definition

_SITE = "Everything behind the site's feed meters."
_REGISTERS = "E = Σ (Rᵢ \u2212 Rᵢ₋₁) of the meters' energy registers, with resets and roll-overs handled."
_REUSE = "Heat at the hand-over meters; all of it is taken as reused outside the boundary."
_TERMS = {
    "site_energy": ("Site energy (E_DC)", "MWh", _SITE, f"{_REGISTERS} Electricity of backup generators is added.",
                    "ISO/IEC 30134-2; EN 50600-4-2"),
    "backup_energy": ("Backup generators (E_DC-BG)", "MWh", "Generators inside the boundary.",
                      "Electricity of the generators, from the register of fuels.",
                      "Delegated Regulation (EU) 2024/1364"),
    "it_energy": ("IT energy (E_IT)", "MWh", "The hall IT meters.", _REGISTERS, "ISO/IEC 30134-2; EN 50600-4-2"),
    "pue": ("PUE", "", "Whole site.", "PUE = E_DC / E_IT over the same quarter hours.",
            "ISO/IEC 30134-2; EN 50600-4-2"),
    "wue": ("WUE", "m³/MWh", "All water that crosses the boundary (category 2).", "WUE = W_IN / E_IT.",
            "ISO/IEC 30134-9"),
    "erf": ("ERF (energy reuse)", "", _REUSE, "ERF = E_reuse / E_DC over the same quarter hours.",
            "ISO/IEC 30134-6; EN 50600-4-6"),
    "ref": ("REF (renewable energy)", "", "Certificates that were cancelled for this site.",
            "REF = E_ren / E_DC, at most 1.", "ISO/IEC 30134-3; EN 50600-4-3"),
    "cue_location": ("CUE, location-based", "kgCO₂e/kWh", "Electricity of the site.",
                     "CUE = E_DC · factor of the grid / E_IT.", "ISO/IEC 30134-8"),
    "cue_market": ("CUE, market-based", "kgCO₂e/kWh", "Electricity of the site.",
                   "CUE = (E_DC \u2212 E_ren) · factor of the residual mix / E_IT.", "ISO/IEC 30134-8"),
    "scope_1": ("Scope 1", "t CO₂e", "Fuels burnt and refrigerants leaked on the site.",
                "Σ energy of fuel · its factor + Σ leaked mass · its GWP.", "GHG Protocol, Corporate Standard"),
    "scope_2_location": ("Scope 2, location-based", "t CO₂e", "Electricity bought.", "E · factor of the grid's mix.",
                         "GHG Protocol, Scope 2 Guidance"),
    "scope_2_market": ("Scope 2, market-based", "t CO₂e", "Electricity bought.",
                       "(E \u2212 E_ren) · factor of the residual mix; certificates count with 0.",
                       "GHG Protocol, Scope 2 Guidance"),
    "water": ("Water (W_IN)", "m³", "All water that crosses the boundary.", "Σ of the water meters' invoices.",
              "Delegated Regulation (EU) 2024/1364"),
    "potable_water": ("Drinking water (W_IN-POT)", "m³", "Drinking water that crosses the boundary.",
                      "Σ of the invoices of drinking water.", "Delegated Regulation (EU) 2024/1364"),
    "heat_reused": ("Heat reused (E_REUSE)", "MWh", _REUSE,
                    "Q = Σ (Rᵢ \u2212 Rᵢ₋₁) of the meters' heat registers.", "EN 1434; ISO/IEC 30134-6"),
    "heat_temperature": ("Waste heat temperature", "°C", "Supply pipe of the hand-over meters.",
                         "T = Σ T·Q·Δt / Σ Q·Δt, by quarter hour.", "Delegated Regulation (EU) 2024/1364"),
    "renewable": ("Renewable energy (E_RES-TOT)", "MWh", "Certificates that were cancelled for this site.",
                  "Σ of guarantees of origin, power purchase agreements and on-site generation.",
                  "Delegated Regulation (EU) 2024/1364"),
    "hourly_matching": ("Hourly matching", "%", "Certificates that were cancelled for this site.",
                        "Σ min(E_h, G_h) / Σ E_h; each certificate is spread evenly over the days of its generation.",
                        "Method of this report"),
    "load_factor": ("IT load factor", "%", "The hall IT meters over the installed IT power.",
                    "Mean IT power / installed IT power. PUE depends on load: read them together.",
                    "Installed IT power: the inventory's rack ratings"),
}  # fmt: skip
DEFINITIONS: Mapping[str, Definition] = {
    key: Definition(key=key, title=title, unit=unit, boundary=boundary, method=method, source=source)
    for key, (title, unit, boundary, method, source) in _TERMS.items()
}

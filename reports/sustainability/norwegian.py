"""The sustainability report in Norwegian (bokmål).

English sentences are the keys. In a template `{text}` is translated in turn, `{value}` is a number or a date and gets
its Norwegian form, and `{name}` is what people called a thing, which stays as it is.
"""

import re
from collections.abc import Iterator, Mapping
from functools import cache

from reports.publishing.layout import localised
from reports.publishing.publication import Language

_SAME = frozenset({
    "", "MWh", "kWh", "m³", "m²", "m³/MWh", "°C", "%", "kW", "K·d", "PB", "EB", "Gbit/s", "kg CO₂e/kWh",
    "kgCO₂e/kWh", "t CO₂e", "g/kWh", "GWP", "PUE", "WUE", "iPUE", "IT", "Symbol", "Register", "ppa", "go", "diesel",
    "hvo", "Instrument",
    "WUE = W_IN / E_IT.", "ISO/IEC 30134-2; EN 50600-4-2", "ISO/IEC 30134-3; EN 50600-4-3", "ISO/IEC 30134-8",
    "ISO/IEC 30134-6; EN 50600-4-6", "ISO/IEC 30134-9", "EN 1434; ISO/IEC 30134-6", "CUE", "REF", "ERF",
    "GHG Protocol, Scope 2 Guidance", "GHG Protocol, Corporate Standard", "T = Σ T·Q·Δt / Σ Q·Δt.", "it",
})  # fmt: skip

_WORDS: Mapping[str, str] = {
    # The report and its cover
    "Sustainability report": "Bærekraftsrapport",
    "Report": "Rapport",
    "Contents": "Innhold",
    "Period": "Periode",
    "Time zone": "Tidssone",
    "Data cut-off": "Siste måling",
    "no readings": "ingen målinger",
    "Generated": "Laget",
    "Software": "Programvare",
    "PUE category": "PUE-kategori",
    "EU schema": "EU-skjema",
    "To be put right": "Må rettes",
    "Standing": "Status",
    "Restatement": "Utgave",
    "Approved by": "Godkjent av",
    "Frozen": "Låst",
    "SHA-256 of the document": "SHA-256 av dokumentet",
    "Not frozen: late readings may still change these figures.": "Ikke låst: sene målinger kan ennå endre tallene.",
    "Frozen, and approved by {approver}.": "Låst og godkjent av {approver}.",
    "generated {time}": "laget {time}",
    "The period is not over. Coverage counts the time still to come as not observed.":
        "Perioden er ikke over. Dekningen regner tiden som gjenstår, som ikke målt.",
    "{n} more rows are in the workbook beside this report.": "{n} rader til står i regnearket ved siden av rapporten.",
    "Nothing to show.": "Ingenting å vise.",
    "Nothing to draw: the readings for this chart are missing.": "Ingenting å tegne: målingene til figuren mangler.",
    "category 1: IT energy at the UPS output": "kategori 1: IT-energi målt etter UPS",
    "category 2: IT energy at the PDU output": "kategori 2: IT-energi målt etter PDU",
    "category 3: IT energy at the input of the IT equipment": "kategori 3: IT-energi målt inn på IT-utstyret",
    "category not declared: the inventory does not say where IT energy is measured":
        "kategori ikke oppgitt: fortegnelsen sier ikke hvor IT-energien måles",
    # What a restatement changes
    "What this restatement changes": "Hva denne utgaven endrer",
    "Reason given": "Oppgitt grunn",
    "What moved": "Hva som er endret",
    "Kind": "Slag",
    "Before": "Før",
    "After": "Etter",
    "Change": "Endring",
    "figure": "tall",
    "meter": "måler",
    "register": "register",
    # Evidence
    "Key figures": "Nøkkeltall",
    "± is the expanded uncertainty (k = 2). Observed is the share of the period in which readings came at their usual "
    "interval; from 99 % a figure counts as measured, from 95 % as measured with gaps, below as estimated.":
        "± er utvidet usikkerhet (k = 2). Dekket er den delen av perioden da målingene kom så ofte som de skal; fra "
        "99 % regnes et tall som målt, fra 95 % som målt med hull, under det som anslått.",
    "measured": "målt",
    "measured with gaps": "målt med hull",
    "estimated": "anslått",
    "not available": "mangler",
    "{share} observed": "{share} dekket",
    "{share} estimated": "{share} anslått",
    "uncertainty unknown": "ukjent usikkerhet",
    # Key figures
    "Site energy (E_DC)": "Anleggets energi (E_DC)",
    "Backup generators (E_DC-BG)": "Reserveaggregater (E_DC-BG)",
    "IT energy (E_IT)": "IT-energi (E_IT)",
    "iPUE (interim)": "iPUE (foreløpig)",
    "Water (W_IN)": "Vann (W_IN)",
    "Drinking water (W_IN-POT)": "Drikkevann (W_IN-POT)",
    "Heat reused (E_REUSE)": "Gjenbrukt varme (E_REUSE)",
    "Waste heat temperature": "Spillvarmens temperatur",
    "ERF (energy reuse)": "ERF (gjenbruk av energi)",
    "Renewable energy (E_RES-TOT)": "Fornybar energi (E_RES-TOT)",
    "REF (renewable energy)": "REF (fornybar energi)",
    "Hourly matching": "Dekning time for time",
    "Scope 1": "Scope 1 (direkte utslipp)",
    "Scope 2, location-based": "Scope 2, lokasjonsbasert",
    "Scope 2, market-based": "Scope 2, markedsbasert",
    "CUE, location-based": "CUE, lokasjonsbasert",
    "CUE, market-based": "CUE, markedsbasert",
    "IT load factor": "Utnyttelse av IT-effekt",
    "Interim: not twelve months.": "Foreløpig: ikke tolv måneder.",
    "Over twelve months.": "Over tolv måneder.",
    "Divided by days, where a line reaches beyond the period.": "Delt etter dager der en linje går ut over perioden.",
    "Certificates are dated by days.": "Sertifikatene er datert på dagen.",
    "Leaks are booked when a check finds them.": "Lekkasjer føres når en kontroll finner dem.",
    "Without backup generators, which are not told.": "Uten reserveaggregater, som ikke er oppgitt.",
    # Blanks
    "No check of refrigerants fell in this period.": "Ingen kontroll av kuldemedier falt i perioden.",
    "Readings cover less than 95 % of this time.": "Målingene dekker mindre enn 95 % av denne tiden.",
    "The inventory does not rate the power of every rack.": "Fortegnelsen oppgir ikke effekten til alle rack.",
    "No temperature of heat that was handed over is known.": "Ingen temperatur på levert varme er kjent.",
    "No charge of refrigerant is registered.": "Ingen fylling av kuldemedium er registrert.",
    "No quarter hour is wholly known of both.": "Intet kvarter er helt kjent for begge.",
    "No hour is wholly known.": "Ingen time er helt kjent.",
    "No IT energy was counted.": "Ingen IT-energi ble målt.",
    "No site energy was counted.": "Ingen energi ble målt for anlegget.",
    "The inventory has no site meter.": "Fortegnelsen har ingen måler for anlegget.",
    "The inventory has no IT meter.": "Fortegnelsen har ingen IT-måler.",
    "The inventory has no handed-over heat meter.": "Fortegnelsen har ingen måler for levert varme.",
    "No meter has this role.": "Ingen måler har denne rollen.",
    "Optional, and not registered.": "Frivillig, og ikke registrert.",
    # Comparison
    "Compared, and over twelve months": "Sammenlignet, og over tolv måneder",
    "Energy and iPUE by month": "Energi og iPUE per måned",
    "Above: where the site's energy went, in MWh. Below: site energy over IT energy of each month.":
        "Øverst: hvor anleggets energi gikk, i MWh. Nederst: anleggets energi over IT-energi, måned for måned.",
    "Energy (MWh)": "Energi (MWh)",
    "Cooling": "Kjøling",
    "Other": "Annet",
    "Other and losses": "Annet og tap",
    "The period before is read by quarter hour. iPUE is interim: PUE proper takes twelve months, and is blank until "
    "they are there.":
        "Perioden før er lest kvarter for kvarter. iPUE er foreløpig: egentlig PUE krever tolv måneder, og mangler til "
        "de er der.",
    "Figure": "Tall",
    "Unit": "Enhet",
    "This period": "Denne perioden",
    "Twelve months": "Tolv måneder",
    "iPUE (interim); PUE over twelve months": "iPUE (foreløpig); PUE over tolv måneder",
    # Balance
    "Energy balance": "Energibalanse",
    "Without backup generators.": "Uten reserveaggregater.",
    "Where": "Hvor",
    "Energy, MWh": "Energi, MWh",
    "Share, %": "Andel, %",
    "±, MWh": "±, MWh",
    "Site, all feeds": "Anlegget, alle innmatinger",
    "Residual: losses between the meters, and their errors": "Rest: tap mellom målerne, og målernes feil",
    # EU indicators
    "EU indicators": "EUs indikatorer",
    "Delegated Regulation (EU) 2024/1364, of the period. A blank is a value that is missing, never zero.":
        "Delegert forordning (EU) 2024/1364, for perioden. Det som mangler, står som manglende og aldri som null.",
    "No.": "Nr.",
    "Indicator": "Indikator",
    "Value": "Verdi",
    "Why it is blank": "Hvorfor den mangler",
    "Installed IT power": "Installert IT-effekt",
    "Total floor area": "Samlet gulvareal",
    "Floor area of computer rooms": "Gulvareal i datarom",
    "Total energy": "Samlet energi",
    "Energy of backup generators": "Energi fra reserveaggregater",
    "Energy of IT equipment": "IT-utstyrets energi",
    "Functions for the electricity grid": "Tjenester til strømnettet",
    "Battery capacity offered to the grid": "Batterikapasitet stilt til nettets rådighet",
    "Water input": "Vannforbruk",
    "Drinking water input": "Forbruk av drikkevann",
    "Waste heat reused": "Gjenbrukt spillvarme",
    "Average temperature of waste heat": "Spillvarmens middeltemperatur",
    "Set point of IT intake air": "Settpunkt for innluft til IT",
    "Types of refrigerant": "Typer kuldemedium",
    "Cooling degree days": "Kjølegraddager",
    "Renewable energy, all": "Fornybar energi, samlet",
    "Renewable energy, guarantees of origin": "Fornybar energi, opprinnelsesgarantier",
    "Renewable energy, purchase agreements": "Fornybar energi, kraftkjøpsavtaler",
    "Renewable energy, on-site": "Fornybar energi, på stedet",
    "ICT capacity of servers": "Tjenernes IKT-kapasitet",
    "ICT capacity of storage": "Lagringens IKT-kapasitet",
    "Incoming bandwidth": "Båndbredde inn",
    "Outgoing bandwidth": "Båndbredde ut",
    "Incoming traffic": "Trafikk inn",
    "Outgoing traffic": "Trafikk ut",
    # Water, fuels, refrigerants
    "Water, fuels and refrigerants": "Vann, brensel og kuldemedier",
    "Water": "Vann",
    "Water meter": "Vannmåler",
    "From": "Fra",
    "To": "Til",
    "Volume, m³": "Volum, m³",
    "Drinking water": "Drikkevann",
    "yes": "ja",
    "no": "nei",
    "Fuels": "Brensel",
    "Equipment": "Utstyr",
    "Fuel": "Brensel",
    "natural_gas": "naturgass",
    "biogas": "biogass",
    "hydrogen": "hydrogen",
    "Energy, kWh": "Energi, kWh",
    "Electricity, kWh": "Strøm, kWh",
    "Refrigerants": "Kuldemedier",
    "The latest check of each machine up to the period's end.": "Siste kontroll av hver maskin før periodens slutt.",
    "Machine": "Maskin",
    "Refrigerant": "Kuldemedium",
    "Charge, kg": "Fylling, kg",
    "Checked on": "Kontrollert",
    "Leaked since the check before, kg": "Lekket siden forrige kontroll, kg",
    # Renewables
    "Renewable energy": "Fornybar energi",
    "Energy used and certificates": "Forbruk og sertifikater",
    "The site's energy, and the certificates that count towards it.":
        "Anleggets energi, og sertifikatene som teller mot den.",
    "Site energy": "Anleggets energi",
    "Guarantees of origin": "Opprinnelsesgarantier",
    "Purchase agreements": "Kraftkjøpsavtaler",
    "On-site generation": "Produksjon på stedet",
    "Ledger of certificates": "Regnskap over sertifikater",
    "Certificate": "Sertifikat",
    "Technology": "Teknologi",
    "Country": "Land",
    "MWh": "MWh",
    "Counts here, MWh": "Teller her, MWh",
    "Cancellation": "Innløsning",
    "Cancelled on": "Innløst",
    "Verdict": "Vurdering",
    "onsite": "på stedet",
    "hydro": "vannkraft",
    "wind": "vindkraft",
    "solar": "solkraft",
    "biomass": "biomasse",
    "geothermal": "geotermisk",
    "marine": "havenergi",
    "other_renewable": "annen fornybar",
    "nuclear": "kjernekraft",
    "fossil": "fossil",
    "other": "annet",
    "counts": "teller",
    "not cancelled": "ikke innløst",
    "not renewable": "ikke fornybar",
    "cancelled for somebody else": "innløst for en annen",
    # Emissions
    "Emissions": "Utslipp",
    "Emission factors of electricity": "Utslippsfaktorer for strøm",
    "Method": "Metode",
    "Publisher": "Utgiver",
    "Version": "Versjon",
    "Year": "År",
    "Gases": "Gasser",
    "location-based": "lokasjonsbasert",
    "residual mix": "restmiks",
    # Registration
    "Registration in Norway": "Registrering i Norge",
    "What Nkom registers of data centres of 0.5 MW and more. Whether the EU's rules bind in Norway is stated by the "
    "register site_facts, not by this report.":
        "Det Nkom registrerer om datasentre fra 0,5 MW. Om EUs regler gjelder i Norge, sier registeret site_facts, "
        "ikke denne rapporten.",
    "Entry": "Opplysning",
    "Name of the data centre": "Datasenterets navn",
    "Owner": "Eier",
    "Operator": "Operatør",
    "Organisation number": "Organisasjonsnummer",
    "Contact": "Kontakt",
    "Municipality": "Kommune",
    "Type of data centre": "Type datasenter",
    "Services": "Tjenester",
    "Entry into operation": "Satt i drift",
    "Redundancy of power": "Redundans i strømforsyning",
    "Redundancy of cooling": "Redundans i kjøling",
    "Share of energy for crypto-mining": "Andel energi til utvinning av kryptovaluta",
    "Legal status of the EU figures": "EU-tallenes rettslige status",
    "Total energy in the period": "Samlet energi i perioden",
    # Data quality
    "Data quality": "Datakvalitet",
    "Meters": "Målere",
    "A class in brackets is assumed.": "En klasse i parentes er antatt.",
    "Meter": "Måler",
    "Role": "Rolle",
    "Class": "Klasse",
    "Calibrated": "Kalibrert",
    "Observed, %": "Dekket, %",
    "Estimated, %": "Anslått, %",
    "site": "anlegg",
    "cooling": "kjøling",
    "heat handed over": "levert varme",
    "heat rejected": "bortkjølt varme",
    "heat own use": "varme til eget bruk",
    "Gaps, resets and other events": "Hull, nullstillinger og andre hendelser",
    "What": "Hva",
    "Booked, MWh": "Ført, MWh",
    "No gap, reset or other event.": "Intet hull, ingen nullstilling eller annen hendelse.",
    "gap": "hull",
    "gap at the period's edge": "hull ved periodens grense",
    "missing": "mangler",
    "reset": "nullstilling",
    "rollover": "telleverket rundt",
    "implausible": "urimelig verdi",
    "register frozen": "telleverk står stille",
    "meter exchanged": "måler byttet",
    "coarse register": "grovt telleverk",
    "register and power disagree": "telleverk og effekt er uenige",
    "Registers": "Registre",
    "Imported on": "Importert",
    "Answered for by": "Ansvarlig",
    "Evidence": "Dokumentasjon",
    "SHA-256 of the evidence": "SHA-256 av dokumentasjonen",
    "not imported": "ikke importert",
    # From sensor to figure
    "From sensor to figure": "Fra måler til tall",
    "Each EU indicator, from the sensor or the register that it comes from to the figure.":
        "Hver av EUs indikatorer, fra måleren eller registeret den kommer fra, til tallet.",
    "How": "Hvordan",
    "Inventory: rated power of every rack.": "Fortegnelsen: merkeeffekt for hvert rack.",
    "Sum over all racks at the period's end.": "Sum over alle rack ved periodens slutt.",
    "As registered, on the period's last day.": "Som registrert, på periodens siste dag.",
    "Register differences by quarter hour in the ledger, summed over meters.":
        "Telleverkets endring kvarter for kvarter i energiregnskapet, summert over målerne.",
    "Indicator 4b is added.": "Indikator 4b er lagt til.",
    "Sum of the lines; a line counts by its days.": "Sum av linjene; en linje teller etter sine dager.",
    "Supply temperature of each quarter hour, weighted by its heat.":
        "Turtemperaturen i hvert kvarter, vektet med varmen.",
    "Types in the latest check of each machine.": "Typene i siste kontroll av hver maskin.",
    "Σ max(0, day's mean outside temperature \u2212 21 °C); the base of 21 °C is an assumption.":
        "Σ max(0, døgnets middeltemperatur ute \u2212 21 °C); grensen på 21 °C er en antakelse.",
    "Cancelled for this site; by the share of the consumption's days in the period.":
        "Innløst for dette anlegget; etter andelen av forbrukets dager som faller i perioden.",
    # Methods and boundaries
    "Everything behind the site's feed meters.": "Alt bak anleggets innmatingsmålere.",
    "E = Σ (Rᵢ \u2212 Rᵢ₋₁) of the meters' energy registers, with resets and roll-overs handled.":
        "E = Σ (Rᵢ \u2212 Rᵢ₋₁) av målernes telleverk, korrigert for nullstillinger og telleverk som går rundt.",
    "Electricity of backup generators is added.": "Strøm fra reserveaggregater er lagt til.",
    "Generators inside the boundary.": "Aggregater innenfor grensen.",
    "Electricity of the generators, from the register of fuels.": "Aggregatenes strøm, fra registeret over brensel.",
    "Delegated Regulation (EU) 2024/1364": "Delegert forordning (EU) 2024/1364",
    "The hall IT meters.": "Hallenes IT-målere.",
    "Whole site.": "Hele anlegget.",
    "PUE = E_DC / E_IT over the same quarter hours.": "PUE = E_DC / E_IT over de samme kvarterene.",
    "Interim: PUE proper takes twelve months.": "Foreløpig: egentlig PUE krever tolv måneder.",
    "All water that crosses the boundary (category 2).": "Alt vann som krysser grensen (kategori 2).",
    "All water that crosses the boundary.": "Alt vann som krysser grensen.",
    "Drinking water that crosses the boundary.": "Drikkevann som krysser grensen.",
    "Σ of the water meters' invoices.": "Σ av vannmålernes fakturaer.",
    "Σ of the invoices of drinking water.": "Σ av fakturaene for drikkevann.",
    "Heat at the hand-over meters; all of it is taken as reused outside the boundary.":
        "Varmen ved leveringsmålerne; all regnes som gjenbrukt utenfor grensen.",
    "Q = Σ (Rᵢ \u2212 Rᵢ₋₁) of the meters' heat registers.": "Q = Σ (Rᵢ \u2212 Rᵢ₋₁) av varmemålernes telleverk.",
    "ERF = E_reuse / E_DC over the same quarter hours.": "ERF = E_reuse / E_DC over de samme kvarterene.",
    "Supply pipe of the hand-over meters.": "Turledningen ved leveringsmålerne.",
    "T = Σ T·Q·Δt / Σ Q·Δt, by quarter hour.": "T = Σ T·Q·Δt / Σ Q·Δt, kvarter for kvarter.",
    "Certificates that were cancelled for this site.": "Sertifikater som er innløst for dette anlegget.",
    "REF = E_ren / E_DC, at most 1.": "REF = E_ren / E_DC, høyst 1.",
    "Σ of guarantees of origin, power purchase agreements and on-site generation.":
        "Σ av opprinnelsesgarantier, kraftkjøpsavtaler og produksjon på stedet.",
    "Σ min(E_h, G_h) / Σ E_h; each certificate is spread evenly over the days of its generation.":
        "Σ min(E_h, G_h) / Σ E_h; hvert sertifikat er fordelt jevnt over dagene det ble produsert.",
    "Method of this report": "Denne rapportens metode",
    "Electricity bought.": "Kjøpt strøm.",
    "Electricity of the site.": "Anleggets strøm.",
    "E · factor of the grid's mix.": "E · faktoren for nettets miks.",
    "(E \u2212 E_ren) · factor of the residual mix; certificates count with 0.":
        "(E \u2212 E_ren) · faktoren for restmiksen; sertifikater teller med 0.",
    "Fuels burnt and refrigerants leaked on the site.": "Brensel som er brent, og kuldemedier som er lekket på stedet.",
    "Σ energy of fuel · its factor + Σ leaked mass · its GWP.":
        "Σ brenselets energi · dets faktor + Σ lekket masse · dens GWP.",
    "CUE = E_DC · factor of the grid / E_IT.": "CUE = E_DC · nettets faktor / E_IT.",
    "CUE = (E_DC \u2212 E_ren) · factor of the residual mix / E_IT.":
        "CUE = (E_DC \u2212 E_ren) · restmiksens faktor / E_IT.",
    "The hall IT meters over the installed IT power.": "Hallenes IT-målere over installert IT-effekt.",
    "Mean IT power / installed IT power. PUE depends on load: read them together.":
        "Midlere IT-effekt / installert IT-effekt. PUE avhenger av lasten: les dem sammen.",
    "Installed IT power: the inventory's rack ratings": "Installert IT-effekt: fortegnelsens merkeeffekt for rack",
    # Assumptions
    "What is assumed": "Hva som er antatt",
    "Heat handed over is taken as reused outside the boundary; no avoided emissions are claimed for it.":
        "Levert varme regnes som gjenbrukt utenfor grensen; det hevdes ingen unngåtte utslipp for den.",
    "Cooling degree days have a base of 21 °C.": "Kjølegraddager har en grense på 21 °C.",
    "A line of a register that reaches beyond the period counts by the share of its days in it.":
        "En linje i et register som går ut over perioden, teller etter andelen av dagene som faller i den.",
    "Certificates count with zero emissions in market-based figures; the rest counts with the residual mix.":
        "Sertifikater teller med null utslipp i markedsbaserte tall; resten teller med restmiksen.",
    "Embodied emissions and other scope 3 are not in this report.":
        "Utslipp fra produksjon av utstyr og annet i scope 3 er ikke med i rapporten.",
    "Where a meter's accuracy class is not known, the class that is good practice for its role is assumed.":
        "Der en målers nøyaktighetsklasse ikke er kjent, antas klassen som er god praksis for rollen.",
}  # fmt: skip

_TEMPLATES: Mapping[str, str] = {
    "{name}: {name2} is not in the topology ({name3}); the row has no effect: correct its identity, or bring what it "
    "names into the topology": (
        "{name}: {name2} finnes ikke i topologien ({name3}); raden har ingen virkning: rett identiteten, eller legg "
        "det den gjelder inn i topologien"
    ),
    "contracts: no heat meter has the off-taker {name} of contract {name2} ({name3}); nothing is counted under it: "
    "correct the party, or the meter's attribute off_taker": (
        "contracts: ingen varmemåler har varmekunden {name} i kontrakt {name2} ({name3}); ingenting telles under den: "
        "rett parten, eller målerens attributt off_taker"
    ),
    "and {value} more such rows": "og {value} slike rader til",
    "{value} to {value2}, {value3} hours": "{value} til {value2}, {value3} timer",
    "{text}, twelve months": "{text}, tolv måneder",
    "{text} Boundary: {text2} Source: {text3}.": "{text} Grense: {text2} Kilde: {text3}.",
    "{name} used {value} MWh in {value2}, at {value3}, and {value4} of it served again as heat.":
        "{name} brukte {value} MWh i {value2}, med {value3}, og {value4} av den ble brukt på nytt som varme.",
    "{name} used {value} MWh in {value2}, and {value4} of it served again as heat.":
        "{name} brukte {value} MWh i {value2}, og {value4} av den ble brukt på nytt som varme.",
    "{name} used {value} MWh in {value2}, at {value3}.": "{name} brukte {value} MWh i {value2}, med {value3}.",
    "{name} used {value} MWh in {value2}.": "{name} brukte {value} MWh i {value2}.",
    "The energy of {name} in {value} cannot be told. {text}": "Energien til {name} i {value} kan ikke oppgis. {text}",
    "{value} of {value2} EU indicators are not available; each says why.":
        "{value} av {value2} av EUs indikatorer mangler; hver av dem sier hvorfor.",
    "This report replaces restatement {value} of the same period.":
        "Denne rapporten erstatter utgave {value} for samme periode.",
    "{value} of {value2} quarter hours are left out.": "{value} av {value2} kvarter er utelatt.",
    "{value} MWh more than was used count nowhere.": "{value} MWh mer enn det som ble brukt, teller ikke.",
    "Factor of {value}: no later one was imported.": "Faktor for {value}: ingen nyere er importert.",
    "No readings in this period from {name}.": "Ingen målinger i perioden fra {name}.",
    "The register {name} was not imported.": "Registeret {name} er ikke importert.",
    "The register {name} has no line for this period.": "Registeret {name} har ingen linje for perioden.",
    "The register {name} lacks {value} of {value2} days of {name2}.":
        "Registeret {name} mangler {value} av {value2} dager for {name2}.",
    "The register {name} lacks {value} of {value2} days.": "Registeret {name} mangler {value} av {value2} dager.",
    "The register site_facts does not state {name}.": "Registeret site_facts oppgir ikke {name}.",
    "The register emission_factors has no {name} factor up to this year.":
        "Registeret emission_factors har ingen faktor av slaget {name} til og med dette året.",
    "Indicators {name} / {name2}.": "Indikator {name} / {name2}.",
    "Meters: {name} and {value} more.": "Målere: {name} og {value} til.",
    "Meters: {name}.": "Målere: {name}.",
    "Register {name}, version {value}, line {name2}; evidence SHA-256 {name3}.":
        "Register {name}, versjon {value}, linje {name2}; dokumentasjon SHA-256 {name3}.",
    "Register {name}.": "Register {name}.",
    "mixed categories: IT energy at {name}": "blandede kategorier: IT-energi ved {name}",
    "IT energy at {name}": "IT-energi ved {name}",
}  # fmt: skip

_MONTH = r"[A-Z][a-z]{2,8}"
_VALUE = re.compile(
    rf"[\d\s.,:+\-\u2212\u2013\u2009%]*|(?:\d{{1,2}} )?{_MONTH} \d{{2,4}}(?: \d\d:\d\d(?::\d\d)?)?(?: [A-Z]+)?"
)
_SENTENCES = re.compile(r"(?<=\.) (?=[A-ZΣ(\d])")
_PLACE = re.compile(r"\{(text|value|name)(\d?)\}")


def norwegian(text: str) -> str:
    """The text in Norwegian; as it is where it is not known: `is_known` tells."""
    said = _said(text)
    return text if said is None else said


def is_known(text: str) -> bool:
    return _said(text) is not None


def _said(text: str) -> str | None:
    if text in _SAME:
        return text
    if text in _WORDS:
        return _WORDS[text]
    if _VALUE.fullmatch(text):
        return localised(text, Language.NORWEGIAN)
    return _from_sentences(text) or _from_template(text)


def _from_sentences(text: str) -> str | None:
    """Several sentences, each of which is known."""
    parts = _SENTENCES.split(text)
    if len(parts) == 1 or " Boundary: " in text:
        return None
    said = [_said(part) for part in parts]
    return None if None in said else " ".join(part for part in said if part)


def _from_template(text: str) -> str | None:
    for pattern, template in _patterns():
        found = pattern.fullmatch(text)
        if found is None:
            continue
        filled = dict(_filled(found.groupdict()))
        if None not in filled.values():
            return template.format(**filled)
    return None


def _filled(parts: Mapping[str, str]) -> Iterator[tuple[str, str | None]]:
    for place, part in parts.items():
        if place.startswith("text"):
            yield place, _said(part)
        elif place.startswith("value"):
            yield place, localised(part, Language.NORWEGIAN)
        else:
            yield place, part


@cache
def _patterns() -> tuple[tuple[re.Pattern[str], str], ...]:
    return tuple((_pattern(english), said) for english, said in _TEMPLATES.items())


def _pattern(english: str) -> re.Pattern[str]:
    """A template as a regular expression: each of its places is a group."""
    parts, end = [], 0
    for place in _PLACE.finditer(english):
        parts += [re.escape(english[end : place.start()]), f"(?P<{place[1]}{place[2]}>.+?)"]
        end = place.end()
    return re.compile("".join([*parts, re.escape(english[end:])]), re.DOTALL)

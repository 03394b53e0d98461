"""Sustainability: the ratios that sensors alone give. What needs registers is in the report, not here."""

from dataclasses import replace

from catalogue import COOLING, POWER
from dashboards.board import Board, Page
from dashboards.boards.heat import ERF
from dashboards.boards.shared import HEAT_METERS, METERS, POWER_BY_ROLE, SITE_POWER, Row, ipue, of_role
from dashboards.looks import JOULES_PER_WATT_HOUR, PUE_STEPS, RATIO, SHARE, WATT_HOURS, Look, look_of, tinted
from dashboards.metrics import COOLING_HEAT_FLOW, COOLING_HEAT_REGISTER, METER_ENERGY, METER_POWER, METER_QUALITY
from dashboards.panels import About, figure, lines, ranking, rows
from dashboards.queries import Fact, Shown, figures, grouped, listing, mean, rise, series, worst

DAY_S = 86_400
_ENERGY, _HEAT = rise(METER_ENERGY), rise(COOLING_HEAT_REGISTER)


def board() -> Board:
    return Board(
        page=Page.SUSTAINABILITY,
        title="Kvandal / Sustainability",
        question="What does the site take, what does it give back, and how sure are we?",
        answer=(
            "Live figures of the range, from the meters alone. Water, renewables and carbon need registers of "
            "evidence: the monthly report has them, and it is what counts."
        ),
        rows=(_figures(), _over_time(), _meters()),
        since="now-7d",
        refresh="5m",
    )


def _figures() -> Row:
    energy = f"{of_role(_ENERGY, 'site')} / {JOULES_PER_WATT_HOUR}"
    return (
        figure(
            About(title="Site energy", why="E_DC: by the register of the site meter.", of=(METER_ENERGY,)),
            figures(POWER, [_ENERGY], METERS, [Shown("Energy", energy)]),
            {"Energy": replace(WATT_HOURS, decimals=2)},
            width=5,
        ),
        figure(
            About(title="IT energy", why="E_IT: at the meters that carry the role.", of=(METER_ENERGY,)),
            figures(POWER, [_ENERGY], METERS, [Shown("Energy", f"{of_role(_ENERGY, 'it')} / {JOULES_PER_WATT_HOUR}")]),
            {"Energy": replace(WATT_HOURS, decimals=2)},
            width=5,
        ),
        figure(
            About(title="iPUE", why="E_DC over E_IT by registers (ISO/IEC 30134-2, interim).", of=(METER_ENERGY,)),
            figures(POWER, [_ENERGY], METERS, [Shown("iPUE", ipue(_ENERGY))]),
            {"iPUE": replace(RATIO, steps=PUE_STEPS)},
        ),
        figure(
            About(title="Heat handed over", why="E_reuse: by the billing heat meter.", of=(COOLING_HEAT_REGISTER,)),
            figures(
                COOLING,
                [_HEAT],
                HEAT_METERS,
                [Shown("Heat", f"{of_role(_HEAT, 'heat_handed_over')} / {JOULES_PER_WATT_HOUR}")],
            ),
            {"Heat": replace(WATT_HOURS, decimals=2)},
            width=5,
        ),
        figure(
            About(
                title="Energy reuse factor",
                why="E_reuse over E_DC (ISO/IEC 30134-6), of this range.",
                of=(COOLING_HEAT_FLOW, METER_POWER),
            ),
            ERF,
            {"ERF": SHARE},
            width=5,
        ),
    )


def _over_time() -> Row:
    heat = mean(COOLING_HEAT_FLOW)
    return (
        lines(
            About(
                title="Power by role, mean of each day",
                why="The shape of the energy balance: IT, cooling, other, losses.",
                of=(METER_POWER,),
            ),
            series(POWER, [SITE_POWER], METERS, POWER_BY_ROLE, bucket_s=DAY_S),
            look_of(METER_POWER),
            stacked=True,
            bars=True,
            width=8,
        ),
        lines(
            About(title="iPUE of each day", why="Days are comparable; hours follow the weather.", of=(METER_POWER,)),
            series(POWER, [SITE_POWER], METERS, [Shown("iPUE", ipue(SITE_POWER))], bucket_s=DAY_S),
            replace(RATIO, steps=PUE_STEPS),
            width=8,
        ),
        lines(
            About(
                title="Heat, mean of each day",
                why="Handed over and rejected: the balance of the cooling plant.",
                of=(COOLING_HEAT_FLOW,),
            ),
            series(
                COOLING,
                [heat],
                HEAT_METERS,
                [
                    Shown("Handed over", of_role(heat, "heat_handed_over")),
                    Shown("Rejected", of_role(heat, "heat_rejected")),
                ],
                bucket_s=DAY_S,
            ),
            look_of(COOLING_HEAT_FLOW),
            stacked=True,
            bars=True,
            width=8,
        ),
    )


def _meters() -> Row:
    quality = worst(METER_QUALITY)
    return (
        rows(
            About(
                title="What the figures stand on",
                why=(
                    "Every meter with a role, its register's rise and the worst quality that it reported: the "
                    "evidence behind the numbers above."
                ),
                of=(METER_ENERGY, METER_QUALITY),
            ),
            listing(
                POWER,
                [_ENERGY, quality],
                METERS,
                [
                    Shown("Meter", "place.name"),
                    Shown("Role", str(Fact.ROLE)),
                    Shown("Energy", f"{_ENERGY} / {JOULES_PER_WATT_HOUR}"),
                    Shown("Worst quality", f"toUInt8({quality})"),
                ],
                order='"Energy" DESC',
            ),
            {"Energy": replace(WATT_HOURS, decimals=2), "Worst quality": tinted(look_of(METER_QUALITY))},
            width=14,
        ),
        ranking(
            About(title="Energy by role", why="Which part of the site took it.", of=(METER_ENERGY,)),
            grouped(
                POWER,
                [_ENERGY],
                METERS,
                [Shown("Role", str(Fact.ROLE))],
                [Shown("Energy", f"sum({_ENERGY}) / {JOULES_PER_WATT_HOUR}")],
                order='"Energy" DESC',
            ),
            Look(unit="watth", decimals=2),
            width=10,
        ),
    )

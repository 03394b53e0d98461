"""Liquid cooling: loops, CDUs and racks."""

from dataclasses import replace

from catalogue import COOLING, RACK, ResourceKind
from dashboards.board import HALL, Board, Page
from dashboards.boards.shared import TO_RACK, Row, marks
from dashboards.looks import (
    ANY_IS_BAD,
    COUNTED,
    DEW_MARGIN_STEPS,
    KELVIN,
    LITRES_PER_MINUTE,
    LITRES_PER_MINUTE_FACTOR,
    SHARE,
    Colour,
    Look,
    look_of,
    tinted,
)
from dashboards.metrics import (
    COOLING_DEW_POINT,
    COOLING_EQUIPMENT,
    COOLING_FLOW,
    COOLING_HEAT_FLOW,
    COOLING_LEAK,
    COOLING_PRESSURE,
    COOLING_PRIMARY_SUPPLY,
    COOLING_PUMP_POWER,
    COOLING_PUMP_SPEED,
    COOLING_RESERVOIR,
    COOLING_RETURN,
    COOLING_SUPPLY,
    RACK_FLOW,
    RACK_LEAK,
    RACK_LIQUID_HEAT,
    RACK_POWER,
    RACK_RETURN,
    RACK_SUPPLY,
    RACK_VALVE,
)
from dashboards.panels import About, figure, lines, plan, rows
from dashboards.queries import Scope, Shown, floor_plan, latest, listing, lowest, mean, series, series_by, worst

RACKS = Scope((ResourceKind.RACK,), (HALL,))
CDUS = Scope((ResourceKind.CDU,), (HALL,))
LOOPS = Scope((ResourceKind.LOOP,), (HALL,))

_SUPPLY, _RETURN, _DEW = mean(COOLING_SUPPLY), mean(COOLING_RETURN), mean(COOLING_DEW_POINT)
_PRIMARY = mean(COOLING_PRIMARY_SUPPLY)
_APPROACH = f"{_SUPPLY} - {_PRIMARY}"
_RISE = f"{mean(RACK_RETURN)} - {mean(RACK_SUPPLY)}"
# A rack that warms its coolant by less than this gets more flow than it needs: pumps work for nothing and the heat
# leaves colder than the off-taker wants it. Half of the 10 K for which liquid-cooled racks are laid out.
OVER_FLOW_RISE_K = 5.0


def board() -> Board:
    return Board(
        page=Page.COOLING,
        title="Kvandal / Liquid cooling",
        question="Does every rack get the coolant it needs, and not more?",
        answer="Leaks first. A small rise over a rack is over-flow; a growing approach of a CDU is a fouled exchanger.",
        choices=(HALL,),
        marks=marks((HALL,)),
        rows=(_figures(), _racks(), _cdus(), _loops()),
    )


def _figures() -> Row:
    leaks, margin = worst(RACK_LEAK), f"{_SUPPLY} - {_DEW}"
    idle = f"countIf({_RISE} < {OVER_FLOW_RISE_K} AND {mean(RACK_POWER)} > 0)"
    return (
        figure(
            About(title="Racks with a leak", why="Acted on at once.", of=(RACK_LEAK,)),
            latest(RACK, [leaks], RACKS, [Shown("Racks", f"countIf({leaks} IN (2, 3))")]),
            {"Racks": replace(COUNTED, steps=ANY_IS_BAD)},
        ),
        figure(
            About(title="Blind leak sensors", why="A detector with a fault sees no leak.", of=(RACK_LEAK,)),
            latest(RACK, [leaks], RACKS, [Shown("Racks", f"countIf({leaks} = 4)")]),
            {"Racks": replace(COUNTED, steps=ANY_IS_BAD)},
        ),
        figure(
            About(
                title="Nearest to the dew point",
                why="Below 2 K water condenses on cold plates.",
                of=(COOLING_SUPPLY, COOLING_DEW_POINT),
            ),
            latest(COOLING, [_SUPPLY, _DEW], CDUS, [Shown("Margin", f"min({margin})")]),
            {"Margin": replace(KELVIN, steps=DEW_MARGIN_STEPS)},
        ),
        figure(
            About(
                title="Largest approach",
                why="Rack side supply over facility side supply: how well exchangers work.",
                of=(COOLING_SUPPLY, COOLING_PRIMARY_SUPPLY),
            ),
            latest(COOLING, [_SUPPLY, _PRIMARY], CDUS, [Shown("Approach", f"max({_APPROACH})")]),
            {"Approach": KELVIN},
        ),
        figure(
            About(
                title="Racks with over-flow",
                why=f"Racks at work whose coolant warms by less than {OVER_FLOW_RISE_K:g} K.",
                of=(RACK_SUPPLY, RACK_RETURN),
            ),
            latest(RACK, [mean(RACK_SUPPLY), mean(RACK_RETURN), mean(RACK_POWER)], RACKS, [Shown("Racks", idle)]),
            {"Racks": COUNTED},
        ),
        figure(
            About(
                title="Heat in coolant",
                why="Should follow rack power: what is missing leaves by air.",
                of=(RACK_LIQUID_HEAT, RACK_POWER),
            ),
            latest(
                RACK,
                [mean(RACK_LIQUID_HEAT), mean(RACK_POWER)],
                RACKS,
                [Shown("Share", f"sum({mean(RACK_LIQUID_HEAT)}) / nullIf(sum({mean(RACK_POWER)}), 0)")],
            ),
            {"Share": SHARE},
        ),
    )


def _racks() -> Row:
    flow = f"{mean(RACK_FLOW)} * {LITRES_PER_MINUTE_FACTOR}"
    readings = [
        mean(RACK_SUPPLY),
        mean(RACK_RETURN),
        mean(RACK_FLOW),
        mean(RACK_VALVE),
        worst(RACK_LEAK),
        mean(RACK_LIQUID_HEAT),
    ]
    return (
        plan(
            About(
                title="Floor plan: temperature of the coolant that leaves each rack (°C)",
                why="A hot patch is a CDU or a valve; one hot rack is its own.",
                of=(RACK_RETURN,),
            ),
            floor_plan(RACK, [mean(RACK_RETURN)], (HALL,), f"reading.{mean(RACK_RETURN)}"),
            look_of(
                RACK_RETURN,
                decimals=0,
                steps=((None, Colour.CALM), (45.0, Colour.GOOD), (55.0, Colour.NOTE), (60.0, Colour.BAD)),
            ),
            height=9,
        ),
        rows(
            About(
                title="Racks",
                why="Leaks first, then the smallest rise: where flow is wasted.",
                of=(RACK_SUPPLY, RACK_RETURN, RACK_FLOW, RACK_VALVE),
            ),
            listing(
                RACK,
                readings,
                RACKS,
                [
                    Shown("Rack", "place.name"),
                    Shown("Leak", f"toUInt8({worst(RACK_LEAK)})"),
                    Shown("Supply", str(mean(RACK_SUPPLY))),
                    Shown("Return", str(mean(RACK_RETURN))),
                    Shown("Rise", _RISE),
                    Shown("Flow", flow),
                    Shown("Valve", str(mean(RACK_VALVE))),
                    Shown("Heat", str(mean(RACK_LIQUID_HEAT))),
                ],
                order=f"{worst(RACK_LEAK)} DESC, {_RISE}",
                now=True,
                limit=60,
            ),
            {
                "Rack": Look(link=TO_RACK),
                "Leak": tinted(look_of(RACK_LEAK)),
                "Supply": look_of(RACK_SUPPLY, decimals=1),
                "Return": look_of(RACK_RETURN, decimals=1),
                "Rise": KELVIN,
                "Flow": LITRES_PER_MINUTE,
                "Valve": replace(SHARE, decimals=0),
                "Heat": look_of(RACK_LIQUID_HEAT, decimals=1),
            },
            height=9,
        ),
    )


def _cdus() -> Row:
    flow = f"{mean(COOLING_FLOW)} * {LITRES_PER_MINUTE_FACTOR}"
    readings = [
        _SUPPLY,
        _RETURN,
        _PRIMARY,
        _DEW,
        mean(COOLING_FLOW),
        mean(COOLING_PRESSURE),
        mean(COOLING_PUMP_SPEED),
        mean(COOLING_PUMP_POWER),
        mean(COOLING_RESERVOIR),
        worst(COOLING_LEAK),
        worst(COOLING_EQUIPMENT),
        mean(COOLING_HEAT_FLOW),
    ]
    return (
        rows(
            About(
                title="Cooling distribution units",
                why="Everything that one looks at before walking to one.",
                of=(COOLING_EQUIPMENT, COOLING_LEAK, COOLING_PRESSURE, COOLING_PUMP_SPEED, COOLING_RESERVOIR),
            ),
            listing(
                COOLING,
                readings,
                CDUS,
                [
                    Shown("CDU", "place.name"),
                    Shown("State", f"toUInt8({worst(COOLING_EQUIPMENT)})"),
                    Shown("Leak", f"toUInt8({worst(COOLING_LEAK)})"),
                    Shown("Approach", _APPROACH),
                    Shown("Supply", str(_SUPPLY)),
                    Shown("Return", str(_RETURN)),
                    Shown("Dew margin", f"{_SUPPLY} - {_DEW}"),
                    Shown("Flow", flow),
                    Shown("Pressure", str(mean(COOLING_PRESSURE))),
                    Shown("Pump", str(mean(COOLING_PUMP_SPEED))),
                    Shown("Reservoir", str(mean(COOLING_RESERVOIR))),
                    Shown("Heat", str(mean(COOLING_HEAT_FLOW))),
                ],
                order='"State" DESC, "Leak" DESC, "CDU"',
                now=True,
            ),
            {
                "State": tinted(look_of(COOLING_EQUIPMENT)),
                "Leak": tinted(look_of(COOLING_LEAK)),
                "Approach": KELVIN,
                "Supply": look_of(COOLING_SUPPLY, decimals=1),
                "Return": look_of(COOLING_RETURN, decimals=1),
                "Dew margin": replace(KELVIN, steps=DEW_MARGIN_STEPS),
                "Flow": LITRES_PER_MINUTE,
                "Pressure": look_of(COOLING_PRESSURE, decimals=0),
                "Pump": replace(SHARE, decimals=0),
                "Reservoir": replace(SHARE, decimals=0),
                "Heat": look_of(COOLING_HEAT_FLOW, decimals=1),
            },
            width=24,
            height=7,
        ),
    )


def _loops() -> Row:
    drop = lowest(COOLING_PRESSURE)
    return (
        lines(
            About(
                title="Approach of each CDU",
                why="A slow rise over weeks is fouling: clean before it costs supply temperature.",
                of=(COOLING_SUPPLY, COOLING_PRIMARY_SUPPLY),
            ),
            series_by(COOLING, [_SUPPLY, _PRIMARY], CDUS, "name", f"avg({_APPROACH})"),
            KELVIN,
            named=True,
            width=8,
        ),
        lines(
            About(
                title="Static pressure of each CDU, lowest",
                why="A drop of 20 kPa at steady load is a leak that no detector has seen.",
                of=(COOLING_PRESSURE,),
            ),
            series_by(COOLING, [drop], CDUS, "name", f"min({drop})"),
            look_of(COOLING_PRESSURE),
            named=True,
            width=8,
        ),
        lines(
            About(
                title="Supply, return and dew point of the loops",
                why="The rise between them is what the racks put in; the gap to the dew point keeps them dry.",
                of=(COOLING_SUPPLY, COOLING_RETURN, COOLING_DEW_POINT),
            ),
            series(
                COOLING,
                [_SUPPLY, _RETURN, _DEW],
                LOOPS,
                [
                    Shown("Return", f"avg({_RETURN})"),
                    Shown("Supply", f"avg({_SUPPLY})"),
                    Shown("Dew point", f"avg({_DEW})"),
                ],
            ),
            look_of(COOLING_SUPPLY, decimals=1),
            width=8,
        ),
    )

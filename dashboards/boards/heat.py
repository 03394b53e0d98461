"""Heat reuse: what leaves the site as heat that somebody uses."""

from dataclasses import replace

from catalogue import COOLING, POWER
from dashboards.board import Board, Page
from dashboards.boards.shared import HEAT_METERS, METERS, SITE_POWER, Row, marks, of_role
from dashboards.looks import (
    JOULES_PER_WATT_HOUR,
    LITRES_PER_MINUTE,
    LITRES_PER_MINUTE_FACTOR,
    SHARE,
    WATT_HOURS,
    Look,
    look_of,
    tinted,
)
from dashboards.metrics import (
    COOLING_EQUIPMENT,
    COOLING_HEAT_FLOW,
    COOLING_HEAT_REGISTER,
    COOLING_PRIMARY_FLOW,
    COOLING_PRIMARY_RETURN,
    COOLING_PRIMARY_SUPPLY,
    COOLING_VOLUME_REGISTER,
    METER_POWER,
)
from dashboards.panels import About, figure, lines, rows
from dashboards.queries import (
    Fact,
    Scope,
    Shown,
    Summed,
    figures,
    latest,
    listing,
    mean,
    ratio,
    ratio_series,
    rise,
    series,
    worst,
)

HANDED_OVER = Scope(HEAT_METERS.kinds, roles=("heat_handed_over",))
_HEAT = mean(COOLING_HEAT_FLOW)
_SUPPLY, _RETURN = mean(COOLING_PRIMARY_SUPPLY), mean(COOLING_PRIMARY_RETURN)
_FLOW = mean(COOLING_PRIMARY_FLOW)

# Energy reuse factor (ISO/IEC 30134-6): heat handed over outside, over the site's energy; by mean powers of the range.
_GIVEN = Summed(COOLING, _HEAT, HANDED_OVER)
_DRAWN = Summed(POWER, SITE_POWER, Scope(METERS.kinds, roles=("site",)))
ERF = ratio(_GIVEN, _DRAWN, "ERF")
ERF_OVER_TIME = ratio_series(_GIVEN, _DRAWN, "ERF")


def board() -> Board:
    return Board(
        page=Page.HEAT,
        title="Kvandal / Heat reuse",
        question="How much of our heat does somebody use, and is it as warm as we agreed?",
        answer=(
            "Heat at the billing meter counts, nothing else. "
            "Rejected heat is what the off-taker did not want or could not take."
        ),
        marks=marks(),
        rows=(_figures(), _over_time(), _quality(), _meters()),
        since="now-24h",
    )


def _figures() -> Row:
    given, rejected = of_role(_HEAT, "heat_handed_over"), of_role(_HEAT, "heat_rejected")
    heat = look_of(COOLING_HEAT_FLOW, decimals=2)
    return (
        figure(
            About(title="Handed over now", why="Against the plan agreed with the off-taker.", of=(COOLING_HEAT_FLOW,)),
            latest(COOLING, [_HEAT], HEAT_METERS, [Shown("Heat", given)]),
            {"Heat": heat},
            width=5,
        ),
        figure(
            About(title="Rejected now", why="Heat that goes to air or sea.", of=(COOLING_HEAT_FLOW,)),
            latest(COOLING, [_HEAT], HEAT_METERS, [Shown("Heat", rejected)]),
            {"Heat": heat},
            width=5,
        ),
        figure(
            About(
                title="Share handed over",
                why="Of the heat that reached the meters in this range.",
                of=(COOLING_HEAT_FLOW,),
            ),
            figures(
                COOLING,
                [_HEAT],
                HEAT_METERS,
                [Shown("Share", f"{given} / nullIf({given} + ifNull({rejected}, 0), 0)")],
            ),
            {"Share": SHARE},
            width=5,
        ),
        figure(
            About(
                title="Energy reuse factor",
                why="Heat handed over outside, over site energy, in this range (ISO/IEC 30134-6 takes a year).",
                of=(COOLING_HEAT_FLOW, METER_POWER),
            ),
            ERF,
            {"ERF": SHARE},
            width=5,
        ),
        figure(
            About(
                title="Supply at the hand-over",
                why="Below the agreed temperature the heat may not be paid.",
                of=(COOLING_PRIMARY_SUPPLY,),
            ),
            latest(COOLING, [_SUPPLY], HANDED_OVER, [Shown("Supply", f"avg({_SUPPLY})")]),
            {"Supply": look_of(COOLING_PRIMARY_SUPPLY, decimals=1)},
        ),
    )


def _over_time() -> Row:
    shown = [
        Shown("Handed over", of_role(_HEAT, "heat_handed_over")),
        Shown("Rejected", of_role(_HEAT, "heat_rejected")),
    ]
    return (
        lines(
            About(
                title="Heat handed over and rejected",
                why="What is rejected while it is cold outside is money lost.",
                of=(COOLING_HEAT_FLOW,),
            ),
            series(COOLING, [_HEAT], HEAT_METERS, shown),
            look_of(COOLING_HEAT_FLOW),
            stacked=True,
        ),
        lines(
            About(
                title="Energy reuse factor over time",
                why="Shows which hours earn the yearly figure.",
                of=(COOLING_HEAT_FLOW, METER_POWER),
            ),
            ERF_OVER_TIME,
            replace(SHARE, highest=None),
        ),
    )


def _quality() -> Row:
    temperatures = [Shown("Supply", f"avg({_SUPPLY})"), Shown("Return", f"avg({_RETURN})")]
    return (
        lines(
            About(
                title="Temperatures at the hand-over",
                why="The return tells how well the off-taker cools what we send.",
                of=(COOLING_PRIMARY_SUPPLY, COOLING_PRIMARY_RETURN),
            ),
            series(COOLING, [_SUPPLY, _RETURN], HANDED_OVER, temperatures),
            look_of(COOLING_PRIMARY_SUPPLY, decimals=1),
        ),
        lines(
            About(
                title="Flow at the hand-over (litres a minute)",
                why="Heat without flow is a frozen meter.",
                of=(COOLING_PRIMARY_FLOW,),
            ),
            series(COOLING, [_FLOW], HANDED_OVER, [Shown("Flow", f"sum({_FLOW}) * {LITRES_PER_MINUTE_FACTOR}")]),
            LITRES_PER_MINUTE,
        ),
    )


def _meters() -> Row:
    energy, volume = rise(COOLING_HEAT_REGISTER), rise(COOLING_VOLUME_REGISTER)
    shown = [
        Shown("Meter", "place.name"),
        Shown("Role", str(Fact.ROLE)),
        Shown("State", f"toUInt8({worst(COOLING_EQUIPMENT)})"),
        Shown("Energy", f"{energy} / {JOULES_PER_WATT_HOUR}"),
        Shown("Volume", str(volume)),
        Shown("Energy per m³", f"{energy} / nullIf({volume}, 0) / {JOULES_PER_WATT_HOUR}"),
        Shown("Mean heat", str(_HEAT)),
        Shown("Supply", str(_SUPPLY)),
        Shown("Return", str(_RETURN)),
    ]
    readings = [energy, volume, _SUPPLY, _RETURN, _HEAT, worst(COOLING_EQUIPMENT)]
    return (
        rows(
            About(
                title="Heat meters",
                why="The registers are what is billed; energy over volume checks them against the temperatures.",
                of=(COOLING_HEAT_REGISTER, COOLING_VOLUME_REGISTER, COOLING_EQUIPMENT),
            ),
            listing(COOLING, readings, HEAT_METERS, shown, order='"Role"'),
            {
                "State": tinted(look_of(COOLING_EQUIPMENT)),
                "Energy": replace(WATT_HOURS, decimals=2),
                "Volume": look_of(COOLING_VOLUME_REGISTER, decimals=0),
                "Energy per m³": Look(unit="watth", decimals=1),
                "Mean heat": look_of(COOLING_HEAT_FLOW, decimals=2),
                "Supply": look_of(COOLING_PRIMARY_SUPPLY, decimals=1),
                "Return": look_of(COOLING_PRIMARY_RETURN, decimals=1),
            },
            width=24,
            height=5,
        ),
    )

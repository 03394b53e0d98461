"""Power, capacity and PUE."""

from dataclasses import replace

from catalogue import POWER, RACK, ResourceKind
from dashboards.board import HALL, Board, Page
from dashboards.boards.shared import METERS, POWER_BY_ROLE, SITE_POWER, TO_RACK, Row, ipue, marks, of_role
from dashboards.looks import (
    ANY_IS_BAD,
    JOULES_PER_WATT_HOUR,
    LOAD_STEPS,
    PUE_STEPS,
    RATIO,
    SHARE,
    WATT_HOURS,
    Look,
    look_of,
    tinted,
)
from dashboards.metrics import (
    METER_BREAKER,
    METER_ENERGY,
    METER_FREQUENCY,
    METER_POWER,
    METER_POWER_FACTOR,
    METER_QUALITY,
    METER_VOLTAGE,
    RACK_POWER,
    RACK_SUPPLIES,
)
from dashboards.panels import About, figure, lines, ranking, rows
from dashboards.queries import (
    Fact,
    Place,
    Scope,
    Shown,
    figures,
    grouped,
    highest,
    latest,
    listing,
    lowest,
    mean,
    rise,
    series,
    series_by,
    worst,
)

RACKS = Scope((ResourceKind.RACK,), (HALL,), facts=(Fact.NOMINAL_POWER,))
_NOMINAL = f"toFloat64OrNull({Fact.NOMINAL_POWER})"
_RACK = mean(RACK_POWER)
_SAG = lowest(METER_VOLTAGE)


def board() -> Board:
    return Board(
        page=Page.POWER,
        title="Kvandal / Power, capacity and PUE",
        question="How much do we draw, how close is it to what is built, and how much of it reaches the GPUs?",
        answer=(
            "Load near 100 % leaves no room for a failed feeder. iPUE is of this range only: PUE is of a whole year."
        ),
        choices=(HALL,),
        marks=marks(),
        rows=(_figures(), _over_time(), _capacity(), _meters()),
        since="now-24h",
    )


def _figures() -> Row:
    peak = highest(METER_POWER)
    return (
        figure(
            About(title="Site power now", why="Against the grid contract.", of=(METER_POWER,)),
            latest(POWER, [SITE_POWER], METERS, [Shown("Site", of_role(SITE_POWER, "site"))]),
            {"Site": look_of(METER_POWER, decimals=2)},
        ),
        figure(
            About(title="Highest reading", why="What the grid and our own breakers had to carry.", of=(METER_POWER,)),
            figures(POWER, [peak], METERS, [Shown("Peak", of_role(peak, "site"))]),
            {"Peak": look_of(METER_POWER, decimals=2)},
        ),
        figure(
            About(
                title="IT load factor",
                why="Rack power over the racks' nominal power: what is left to sell.",
                of=(RACK_POWER,),
            ),
            latest(
                RACK,
                [_RACK],
                RACKS,
                [Shown("Load", f"sum({_RACK}) / nullIf(sumIf({_NOMINAL}, {_RACK} IS NOT NULL), 0)")],
            ),
            {"Load": replace(SHARE, steps=LOAD_STEPS)},
        ),
        figure(
            About(
                title="iPUE",
                why="Site over IT, mean power of this range. Read it beside the load factor.",
                of=(METER_POWER,),
            ),
            figures(POWER, [SITE_POWER], METERS, [Shown("iPUE", ipue(SITE_POWER))]),
            {"iPUE": replace(RATIO, steps=PUE_STEPS)},
        ),
        figure(
            About(
                title="Cooling share",
                why="Cooling power over IT power: pumps, CDUs and heat rejection.",
                of=(METER_POWER,),
            ),
            figures(
                POWER,
                [SITE_POWER],
                METERS,
                [Shown("Cooling", f"{of_role(SITE_POWER, 'cooling')} / nullIf({of_role(SITE_POWER, 'it')}, 0)")],
            ),
            {"Cooling": replace(SHARE, decimals=2)},
        ),
        figure(
            About(title="Racks above 97 %", why="These are next to be capped.", of=(RACK_POWER,)),
            latest(RACK, [_RACK], RACKS, [Shown("Racks", f"countIf({_RACK} > 0.97 * {_NOMINAL})")]),
            {"Racks": Look(unit="short", decimals=0, steps=ANY_IS_BAD)},
        ),
    )


def _over_time() -> Row:
    return (
        lines(
            About(
                title="Where the power goes", why="IT, what cools it, and what is lost on the way.", of=(METER_POWER,)
            ),
            series(POWER, [SITE_POWER], METERS, POWER_BY_ROLE),
            look_of(METER_POWER),
            stacked=True,
        ),
        lines(
            About(
                title="iPUE over time",
                why="A step up is a plant mode; a slow rise is load that left.",
                of=(METER_POWER,),
            ),
            series(POWER, [SITE_POWER], METERS, [Shown("iPUE", ipue(SITE_POWER))]),
            replace(RATIO, steps=PUE_STEPS),
        ),
    )


def _capacity() -> Row:
    load = f"{_RACK} / {_NOMINAL}"
    shown = [
        Shown("Rack", "place.name"),
        Shown("Load", load),
        Shown("Power", str(_RACK)),
        Shown("Nominal", _NOMINAL),
        Shown("Power supplies", f"toUInt32({mean(RACK_SUPPLIES)})"),
    ]
    return (
        lines(
            About(
                title="Power of racks",
                why="The spread tells whether load is even; the highest hits its limit first.",
                of=(RACK_POWER,),
            ),
            series(
                RACK,
                [_RACK],
                RACKS,
                [
                    Shown("Lowest 5 %", f"quantile(0.05)({_RACK})"),
                    Shown("Median", f"quantile(0.5)({_RACK})"),
                    Shown("Highest 5 %", f"quantile(0.95)({_RACK})"),
                    Shown("Highest", f"max({_RACK})"),
                ],
            ),
            look_of(RACK_POWER),
            width=8,
        ),
        rows(
            About(
                title="Racks nearest to their nominal power",
                why="Where the next job does not fit.",
                of=(RACK_POWER, RACK_SUPPLIES),
            ),
            listing(RACK, [_RACK, mean(RACK_SUPPLIES)], RACKS, shown, order=f"{load} DESC", now=True, limit=30),
            {
                "Rack": Look(link=TO_RACK),
                "Load": tinted(replace(SHARE, steps=LOAD_STEPS)),
                "Power": look_of(RACK_POWER, decimals=1),
                "Nominal": look_of(RACK_POWER, decimals=1),
                "Power supplies": Look(decimals=0),
            },
            width=10,
        ),
        ranking(
            About(title="Halls", why="Power of all racks of each hall.", of=(RACK_POWER,)),
            grouped(
                RACK,
                [_RACK],
                RACKS,
                [Shown("Hall", "place.hall_name")],
                [Shown("Power", f"sum({_RACK})")],
                order='"Power" DESC',
                now=True,
                limit=20,
            ),
            look_of(RACK_POWER, decimals=1),
            width=6,
        ),
    )


def _meters() -> Row:
    energy, quality = rise(METER_ENERGY), worst(METER_QUALITY)
    shown = [
        Shown("Meter", "place.name"),
        Shown("Role", str(Fact.ROLE)),
        Shown("Breaker", f"toUInt8({worst(METER_BREAKER)})"),
        Shown("Energy", f"{energy} / {JOULES_PER_WATT_HOUR}"),
        Shown("Mean", str(SITE_POWER)),
        Shown("Highest", str(highest(METER_POWER))),
        Shown("Power factor", str(mean(METER_POWER_FACTOR))),
        Shown("Worst quality", f"toUInt8({quality})"),
    ]
    readings = [energy, quality, SITE_POWER, highest(METER_POWER), mean(METER_POWER_FACTOR), worst(METER_BREAKER)]
    return (
        rows(
            About(
                title="Meters",
                why=(
                    "Energy is the rise of each meter's own register in this range; the reports know exchanged "
                    "meters, this does not."
                ),
                of=(METER_ENERGY, METER_POWER_FACTOR, METER_BREAKER, METER_QUALITY),
            ),
            listing(POWER, readings, METERS, shown, order=f"{Fact.ROLE} = 'site' DESC, {SITE_POWER} DESC"),
            {
                "Breaker": tinted(look_of(METER_BREAKER)),
                "Energy": replace(WATT_HOURS, decimals=2),
                "Mean": look_of(METER_POWER, decimals=2),
                "Highest": look_of(METER_POWER, decimals=2),
                "Power factor": look_of(METER_POWER_FACTOR, unit="none", decimals=3),
                "Worst quality": tinted(look_of(METER_QUALITY)),
            },
            width=14,
        ),
        lines(
            About(title="Grid frequency", why="A dip that all sites saw is not ours.", of=(METER_FREQUENCY,)),
            series(
                POWER,
                [lowest(METER_FREQUENCY), highest(METER_FREQUENCY)],
                METERS,
                [
                    Shown("Lowest", f"min({lowest(METER_FREQUENCY)})"),
                    Shown("Highest", f"max({highest(METER_FREQUENCY)})"),
                ],
            ),
            look_of(METER_FREQUENCY, decimals=3),
            width=5,
        ),
        lines(
            About(
                title="Voltage against its mean",
                why="Each against its own mean of the range: levels differ, sags do not.",
                of=(METER_VOLTAGE,),
            ),
            series_by(
                POWER,
                [_SAG],
                METERS,
                Place.NAME,
                f"min({_SAG}) / avg(min({_SAG})) OVER (PARTITION BY place.{Place.NAME})",
            ),
            replace(SHARE, lowest=None, highest=None, decimals=2),
            named=True,
            width=5,
        ),
    )

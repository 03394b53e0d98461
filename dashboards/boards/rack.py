"""NVL72 rack and fabric: 72 GPUs that act as one machine."""

from dataclasses import replace

from catalogue import GPU, GPU_HEALTH, PORT, RACK, ResourceKind
from dashboards import event_queries as events
from dashboards.board import HALL, ONE_RACK, Board, Page
from dashboards.boards.shared import TO_GPU, Row, alerts, event_looks, job_mark, marks
from dashboards.looks import (
    ANY_IS_BAD,
    COUNTED,
    LITRES_PER_MINUTE,
    LITRES_PER_MINUTE_FACTOR,
    MARGIN_STEPS,
    Colour,
    Look,
    look_of,
    tinted,
)
from dashboards.metrics import (
    GPU_MARGIN,
    GPU_NVLINK_TRANSMIT,
    GPU_POWER,
    GPU_STATE,
    GPU_TEMPERATURE,
    HEALTH_FABRIC,
    HEALTH_NVLINK_INACTIVE,
    HEALTH_NVLINK_RECOVERIES_FAILED,
    HEALTH_RECOVERY_ACTION,
    PORT_LINK_DOWNED,
    PORT_RATE,
    PORT_RECEIVE,
    PORT_STATE,
    PORT_SYMBOL_ERRORS,
    PORT_TRANSMIT,
    RACK_FLOW,
    RACK_LEAK,
    RACK_LIQUID_HEAT,
    RACK_POWER,
    RACK_PRESSURE,
    RACK_RETURN,
    RACK_SUPPLIES,
    RACK_SUPPLY,
)
from dashboards.panels import NOTHING_HAPPENED, About, figure, lines, plan, rows
from dashboards.queries import (
    Place,
    Scope,
    Shown,
    elevation,
    highest,
    latest,
    listing,
    mean,
    series,
    series_by,
    total,
    worst,
)

THE_RACK = Scope((ResourceKind.RACK,), (ONE_RACK,))
GPUS = Scope((ResourceKind.GPU,), (ONE_RACK,))
PORTS = Scope((ResourceKind.PORT,), (ONE_RACK,))
_HELD_HERE = GPUS.condition


def board() -> Board:
    return Board(
        page=Page.RACK,
        title="Kvandal / NVL72 rack and fabric",
        question="Is this rack one healthy machine, and which tray or link is not?",
        answer=(
            "72 GPUs share power, coolant and NVLink: an even elevation is a healthy rack, a coloured row is a tray."
        ),
        choices=(HALL, ONE_RACK),
        marks=(*marks((ONE_RACK,), alerts='rack="${rack}"'), job_mark(_HELD_HERE)),
        rows=(_figures(), _elevations(), _coolant(), _fabric(), _events()),
        since="now-3h",
    )


def _figures() -> Row:
    leak, supplies, gone = worst(RACK_LEAK), mean(RACK_SUPPLIES), worst(GPU_STATE)
    flow = mean(RACK_FLOW)
    return (
        figure(
            About(title="Power", why="Against its nominal 120 to 142 kW.", of=(RACK_POWER,)),
            latest(RACK, [mean(RACK_POWER)], THE_RACK, [Shown("Power", f"sum({mean(RACK_POWER)})")]),
            {"Power": look_of(RACK_POWER, decimals=1)},
        ),
        figure(
            About(title="Leak detectors", why="Anything but dry is acted on.", of=(RACK_LEAK,)),
            latest(RACK, [leak], THE_RACK, [Shown("Leak", f"max({leak})")]),
            {"Leak": look_of(RACK_LEAK)},
        ),
        figure(
            About(title="Return", why="What the cold plates give back.", of=(RACK_RETURN,)),
            latest(RACK, [mean(RACK_RETURN)], THE_RACK, [Shown("Return", f"max({mean(RACK_RETURN)})")]),
            {"Return": look_of(RACK_RETURN, decimals=1)},
        ),
        figure(
            About(title="Flow", why="In litres a minute; too little heats, too much wastes.", of=(RACK_FLOW,)),
            latest(RACK, [flow], THE_RACK, [Shown("Flow", f"sum({flow}) * {LITRES_PER_MINUTE_FACTOR}")]),
            {"Flow": LITRES_PER_MINUTE},
        ),
        figure(
            About(title="Power supplies", why="Healthy ones: the shelf has few to spare.", of=(RACK_SUPPLIES,)),
            latest(RACK, [supplies], THE_RACK, [Shown("Supplies", f"min({supplies})")]),
            {"Supplies": COUNTED},
        ),
        figure(
            About(title="GPUs not readable", why="Partly readable or dark.", of=(GPU_STATE,)),
            latest(GPU, [gone], GPUS, [Shown("GPUs", f"countIf({gone} > 1)")]),
            {"GPUs": replace(COUNTED, steps=ANY_IS_BAD)},
        ),
    )


def _elevations() -> Row:
    hot, power, margin = mean(GPU_TEMPERATURE), mean(GPU_POWER), mean(GPU_MARGIN)
    return (
        plan(
            About(
                title="Elevation: GPU temperature (°C)",
                why="One hot GPU is its cold plate; a hot tray is its manifold.",
                of=(GPU_TEMPERATURE,),
            ),
            elevation(GPU, [hot], (ONE_RACK,), f"reading.{hot}"),
            look_of(
                GPU_TEMPERATURE,
                decimals=0,
                steps=((None, Colour.CALM), (55.0, Colour.GOOD), (70.0, Colour.NOTE), (80.0, Colour.BAD)),
            ),
            width=8,
            height=18,
        ),
        plan(
            About(
                title="Elevation: GPU power (W)",
                why="In one job all draw alike; dark cells report nothing.",
                of=(GPU_POWER,),
            ),
            elevation(GPU, [power], (ONE_RACK,), f"reading.{power}"),
            look_of(
                GPU_POWER,
                unit="none",
                decimals=0,
                steps=((None, Colour.CALM), (300.0, Colour.GOOD), (1450.0, Colour.WARN), (1500.0, Colour.BAD)),
            ),
            width=8,
            height=18,
        ),
        plan(
            About(title="Elevation: margin to slowdown (K)", why="What is left before clocks fall.", of=(GPU_MARGIN,)),
            elevation(GPU, [margin], (ONE_RACK,), f"reading.{margin}"),
            look_of(GPU_MARGIN, unit="none", decimals=0, steps=MARGIN_STEPS),
            width=8,
            height=18,
        ),
    )


def _coolant() -> Row:
    flow, heat, drop = mean(RACK_FLOW), mean(RACK_LIQUID_HEAT), mean(RACK_PRESSURE)
    hottest = highest(GPU_TEMPERATURE)
    power, back, supply = mean(RACK_POWER), mean(RACK_RETURN), mean(RACK_SUPPLY)
    return (
        lines(
            About(
                title="Power and heat into coolant",
                why="The gap is heat to air; a growing one is a wrong sensor.",
                of=(RACK_POWER, RACK_LIQUID_HEAT),
            ),
            series(RACK, [power, heat], THE_RACK, [Shown("Power", f"sum({power})"), Shown("Heat", f"sum({heat})")]),
            look_of(RACK_POWER),
            width=6,
        ),
        lines(
            About(
                title="Coolant in and out",
                why="The rise follows power; a hot supply is the CDU's.",
                of=(RACK_SUPPLY, RACK_RETURN),
            ),
            series(
                RACK, [supply, back], THE_RACK, [Shown("Return", f"max({back})"), Shown("Supply", f"max({supply})")]
            ),
            look_of(RACK_SUPPLY, decimals=1),
            width=6,
        ),
        lines(
            About(
                title="Pressure drop across the rack",
                why="At equal flow a rising drop is a clogged filter.",
                of=(RACK_PRESSURE, RACK_FLOW),
            ),
            series(RACK, [drop, flow], THE_RACK, [Shown("Pressure drop", f"max({drop})")]),
            look_of(RACK_PRESSURE),
            width=6,
        ),
        lines(
            About(
                title="Spread of GPU temperatures",
                why="The hottest against the coldest: a widening gap is one bad cold plate.",
                of=(GPU_TEMPERATURE,),
            ),
            series(
                GPU,
                [hottest, mean(GPU_TEMPERATURE)],
                GPUS,
                [
                    Shown("Hottest", f"max({hottest})"),
                    Shown("Mean", f"avg({mean(GPU_TEMPERATURE)})"),
                    Shown("Coldest", f"min({mean(GPU_TEMPERATURE)})"),
                ],
            ),
            look_of(GPU_TEMPERATURE),
            width=6,
        ),
    )


def _fabric() -> Row:
    sent = mean(GPU_NVLINK_TRANSMIT)
    fabric, action = worst(HEALTH_FABRIC), worst(HEALTH_RECOVERY_ACTION)
    inactive, failed = mean(HEALTH_NVLINK_INACTIVE), total(HEALTH_NVLINK_RECOVERIES_FAILED)
    moved = f"({total(PORT_TRANSMIT)} + {total(PORT_RECEIVE)}) / ($__toTime - $__fromTime)"
    ports = [
        worst(PORT_STATE),
        mean(PORT_RATE),
        total(PORT_TRANSMIT),
        total(PORT_RECEIVE),
        total(PORT_SYMBOL_ERRORS),
        total(PORT_LINK_DOWNED),
    ]
    return (
        lines(
            About(
                title="NVLink traffic by tray",
                why="A tray that sends less than the others is what they wait for.",
                of=(GPU_NVLINK_TRANSMIT,),
            ),
            series_by(GPU, [sent], GPUS, Place.TRAY, f"sum({sent})"),
            look_of(GPU_NVLINK_TRANSMIT),
            named=True,
            width=7,
        ),
        rows(
            About(
                title="GPUs whose fabric is not well",
                why="The worst first; nothing here means all links are up.",
                of=(HEALTH_FABRIC, HEALTH_NVLINK_INACTIVE, HEALTH_NVLINK_RECOVERIES_FAILED, HEALTH_RECOVERY_ACTION),
            ),
            listing(
                GPU_HEALTH,
                [fabric, inactive, failed, action],
                GPUS,
                [
                    Shown("GPU", "place.name"),
                    Shown("Fabric", f"toUInt8({fabric})"),
                    Shown("NVLinks down", str(inactive)),
                    Shown("Failed recoveries", str(failed)),
                    Shown("Action", f"toUInt8({action})"),
                ],
                order=f"{inactive} DESC, {failed} DESC, {fabric} DESC",
                limit=20,
                where=f"{inactive} > 0 OR {failed} > 0 OR {fabric} > 1 OR {action} > 0",
            ),
            {
                "GPU": Look(link=TO_GPU),
                "Fabric": tinted(look_of(HEALTH_FABRIC)),
                "NVLinks down": replace(COUNTED, steps=ANY_IS_BAD),
                "Failed recoveries": replace(COUNTED, steps=ANY_IS_BAD),
                "Action": tinted(look_of(HEALTH_RECOVERY_ACTION)),
            },
            width=8,
            empty="every link is up",
        ),
        rows(
            About(
                title="Network ports",
                why="Scale-out links: state, errors and use.",
                of=(PORT_STATE, PORT_RATE, PORT_SYMBOL_ERRORS, PORT_LINK_DOWNED),
            ),
            listing(
                PORT,
                ports,
                PORTS,
                [
                    Shown("Port", "place.name"),
                    Shown("State", f"toUInt8({worst(PORT_STATE)})"),
                    Shown("Rate", str(mean(PORT_RATE))),
                    Shown("Used", moved),
                    Shown("Symbol errors", str(total(PORT_SYMBOL_ERRORS))),
                    Shown("Went down", str(total(PORT_LINK_DOWNED))),
                ],
                order='"State" DESC, "Symbol errors" DESC',
                limit=72,
            ),
            {
                "State": tinted(look_of(PORT_STATE)),
                "Rate": look_of(PORT_RATE),
                "Used": look_of(PORT_RATE),
                "Symbol errors": replace(COUNTED, steps=ANY_IS_BAD),
                "Went down": replace(COUNTED, steps=ANY_IS_BAD),
            },
            width=9,
        ),
    )


def _events() -> Row:
    return (
        rows(
            About(title="What happened in this rack", why="The newest first: from an event to its GPU."),
            events.event_list("1", (ONE_RACK,)),
            event_looks(),
            empty=NOTHING_HAPPENED,
            width=16,
        ),
        alerts("Of this rack, by Prometheus' rules: from each to what is to be done.", 'rack="${rack}"'),
    )

"""Fleet efficiency: what the GPUs' energy is spent on."""

from dataclasses import replace

from catalogue import GPU, ResourceKind
from dashboards.board import HALL, Board, Page
from dashboards.boards.shared import TO_GPU, TO_RACK, Row, marks
from dashboards.fleet_lines import AT_WORK_WATTS, IDLE_WATTS, fleet_lines, fleet_mean, fleet_power_quantile
from dashboards.looks import (
    JOULES_PER_WATT_HOUR,
    KELVIN,
    SHARE,
    THROTTLE_STEPS,
    WATT_HOURS,
    Colour,
    Look,
    look_of,
    tinted,
)
from dashboards.metrics import (
    GPU_ENERGY,
    GPU_GRAPHICS_ACTIVE,
    GPU_MARGIN,
    GPU_POWER,
    GPU_SM_ACTIVE,
    GPU_SM_CLOCK,
    GPU_TENSOR_ACTIVE,
    THROTTLE_CAUSES,
)
from dashboards.panels import About, figure, lines, plan, rows
from dashboards.queries import (
    Scope,
    Shown,
    Tier,
    bucket_seconds,
    figures,
    floor_plan,
    grouped,
    latest,
    listing,
    mean,
    series,
    total,
)
from storage.fleet_minutes import is_idle

GPUS = Scope((ResourceKind.GPU,), (HALL,))
IDLE = is_idle(mean(GPU_GRAPHICS_ACTIVE))
_POWER, _SM, _TENSOR = mean(GPU_POWER), mean(GPU_SM_ACTIVE), mean(GPU_TENSOR_ACTIVE)
_THROTTLES = [total(metric) for metric, _ in THROTTLE_CAUSES]
# The power cap is our own choice; what heat and the power brake take is a fault.
_CAP, _, *_FAULTS = _THROTTLES
_THROTTLED = " + ".join(f"ifNull({reading}, 0)" for reading in _FAULTS)
# Amounts come with their tick: in a bucket of an hour a tick of any cadence is whole.
HOUR_S = 3600
_SPAN = "($__toTime - $__fromTime)"


def board() -> Board:
    return Board(
        page=Page.FLEET,
        title="Kvandal / Fleet efficiency",
        question="How much of the fleet's energy does work, and who wastes the rest?",
        answer=(
            "Tensor activity is a proxy of useful work: model FLOPs need the job's own figures. Idle GPUs still draw "
            "power."
        ),
        choices=(HALL,),
        marks=marks((HALL,)),
        rows=(_figures(), _over_time(), _losses(), _lists()),
        since="now-24h",
    )


def _figures() -> Row:
    energy = total(GPU_ENERGY)
    return (
        figure(
            About(
                title="Tensor activity", why="The nearest to useful work that every GPU tells.", of=(GPU_TENSOR_ACTIVE,)
            ),
            figures(GPU, [_TENSOR], GPUS, [Shown("Tensor", f"avg({_TENSOR})")]),
            {"Tensor": SHARE},
        ),
        figure(
            About(title="SM activity", why="How much of the time anything runs.", of=(GPU_SM_ACTIVE,)),
            figures(GPU, [_SM], GPUS, [Shown("SM", f"avg({_SM})")]),
            {"SM": SHARE},
        ),
        figure(
            About(title="Idle GPUs now", why="Could be sold, or switched off.", of=(GPU_GRAPHICS_ACTIVE,)),
            latest(
                GPU,
                [mean(GPU_GRAPHICS_ACTIVE)],
                GPUS,
                [Shown("Idle", f"countIf({IDLE}) / nullIf(countIf({mean(GPU_GRAPHICS_ACTIVE)} IS NOT NULL), 0)")],
            ),
            {"Idle": SHARE},
        ),
        figure(
            About(title="Power of idle GPUs", why="What waiting costs, right now.", of=(GPU_POWER,)),
            latest(
                GPU,
                [mean(GPU_GRAPHICS_ACTIVE), _POWER],
                GPUS,
                [Shown("Power", f"sumIf({_POWER}, {IDLE} AND {_POWER} IS NOT NULL)")],
            ),
            {"Power": look_of(GPU_POWER, decimals=1)},
        ),
        figure(
            About(title="GPU energy", why="Of this range, by the GPUs' own counters.", of=(GPU_ENERGY,)),
            figures(GPU, [energy], GPUS, [Shown("Energy", f"sum({energy}) / {JOULES_PER_WATT_HOUR}")]),
            {"Energy": replace(WATT_HOURS, decimals=2)},
        ),
        figure(
            About(
                title="Energy per tensor-hour",
                why="Energy for an hour of full tensor activity: lower is better.",
                of=(GPU_ENERGY, GPU_TENSOR_ACTIVE),
            ),
            figures(GPU, [_POWER, _TENSOR], GPUS, [Shown("Energy", f"sum({_POWER}) / nullIf(sum({_TENSOR}), 0)")]),
            {"Energy": replace(WATT_HOURS, decimals=2)},
        ),
    )


def _over_time() -> Row:
    return (
        lines(
            About(
                title="Activity of the fleet",
                why="The gap between SM and tensor is work that is not matrix work.",
                of=(GPU_SM_ACTIVE, GPU_TENSOR_ACTIVE),
            ),
            fleet_lines(
                (HALL,), [Shown("SM", fleet_mean(GPU_SM_ACTIVE)), Shown("Tensor", fleet_mean(GPU_TENSOR_ACTIVE))]
            ),
            SHARE,
            width=8,
        ),
        lines(
            About(
                title="Power of a GPU",
                why=(
                    "Median and spread of the GPUs' minutes: a wide spread at full load is uneven cooling or silicon."
                ),
                of=(GPU_POWER,),
            ),
            fleet_lines(
                (HALL,),
                [
                    Shown("Lowest 5 %", fleet_power_quantile(0.05)),
                    Shown("Median", fleet_power_quantile(0.5)),
                    Shown("Highest 5 %", fleet_power_quantile(0.95)),
                ],
            ),
            look_of(GPU_POWER),
            width=8,
        ),
        lines(
            About(
                title="Power of GPUs at work and idle",
                why="The idle band is what allocation and scheduling leave; a GPU is judged by each minute.",
                of=(GPU_POWER, GPU_GRAPHICS_ACTIVE),
            ),
            fleet_lines((HALL,), [Shown("At work", AT_WORK_WATTS), Shown("Idle", IDLE_WATTS)]),
            look_of(GPU_POWER),
            stacked=True,
            width=8,
        ),
    )


def _losses() -> Row:
    shares = [
        Shown(cause.capitalize(), f"sum({reading}) / (count() * {bucket_seconds(HOUR_S)})")
        for reading, (_, cause) in zip(_THROTTLES, THROTTLE_CAUSES, strict=True)
    ]
    return (
        lines(
            About(
                title="Time that clocks are held down, by cause",
                why="Power cap is our own choice; thermal and brake are faults.",
                of=tuple(metric for metric, _ in THROTTLE_CAUSES),
            ),
            series(GPU, _THROTTLES, GPUS, shares, finest=Tier.MINUTE, bucket_s=HOUR_S, whole=True),
            replace(SHARE, highest=None, decimals=2),
        ),
        plan(
            About(
                title="Floor plan: tensor activity of each rack (%)",
                why="Empty and starved racks stand out.",
                of=(GPU_TENSOR_ACTIVE,),
            ),
            floor_plan(GPU, [_TENSOR], (HALL,), f"reading.{_TENSOR}"),
            replace(SHARE, decimals=0, steps=((None, Colour.CALM), (0.05, Colour.GOOD), (0.6, Colour.BEST))),
        ),
    )


def _lists() -> Row:
    throttled = f"({_THROTTLED}) / {_SPAN}"
    return (
        rows(
            About(
                title="Racks by energy per tensor-hour",
                why="The top of the list gets least for its energy: idle, starved or slow.",
                of=(GPU_POWER, GPU_TENSOR_ACTIVE),
            ),
            grouped(
                GPU,
                [_POWER, _TENSOR, _SM],
                GPUS,
                [Shown("Rack", "place.rack_name")],
                [
                    Shown("Energy per tensor-hour", f"sum({_POWER}) / nullIf(sum({_TENSOR}), 0)"),
                    Shown("Tensor", f"avg({_TENSOR})"),
                    Shown("SM", f"avg({_SM})"),
                    Shown("Power", f"sum({_POWER})"),
                ],
                order='"Energy per tensor-hour" DESC NULLS FIRST',
                limit=40,
            ),
            {
                "Rack": Look(link=TO_RACK),
                "Energy per tensor-hour": replace(WATT_HOURS, decimals=2),
                "Tensor": SHARE,
                "SM": SHARE,
                "Power": look_of(GPU_POWER, decimals=1),
            },
        ),
        rows(
            About(
                title="GPUs whose clocks are held down most",
                why=(
                    "By heat or brake. One GPU: its cold plate. A rack: its coolant. Many at the power cap: our own "
                    "limit."
                ),
                of=(GPU_SM_CLOCK, GPU_MARGIN),
            ),
            listing(
                GPU,
                [*_THROTTLES, mean(GPU_SM_CLOCK), mean(GPU_MARGIN), _POWER],
                GPUS,
                [
                    Shown("GPU", "place.name"),
                    Shown("Held down", throttled),
                    Shown("Power cap", f"{_CAP} / {_SPAN}"),
                    Shown("Clock", str(mean(GPU_SM_CLOCK))),
                    Shown("Margin", str(mean(GPU_MARGIN))),
                    Shown("Power", str(_POWER)),
                ],
                order='"Held down" DESC, "Power cap" DESC',
                limit=40,
            ),
            {
                "GPU": Look(link=TO_GPU),
                "Held down": tinted(replace(SHARE, steps=THROTTLE_STEPS)),
                "Power cap": SHARE,
                "Clock": look_of(GPU_SM_CLOCK, decimals=2),
                "Margin": KELVIN,
                "Power": look_of(GPU_POWER),
            },
        ),
    )

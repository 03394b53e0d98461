"""The kinds of panel that our dashboards have, each over the SDK's typed builder. There are few on purpose.

Every panel says why it is there; what its metrics are is added from the catalogue.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from grafana_foundation_sdk.builders import bargauge, common, stat, statetimeline, table, text, timeseries
from grafana_foundation_sdk.builders.prometheus import Dataquery as PrometheusQuery
from grafana_foundation_sdk.models.common import (
    BarGaugeDisplayMode,
    BigValueColorMode,
    BigValueGraphMode,
    GraphDrawStyle,
    GraphGradientMode,
    GraphThresholdsStyleMode,
    LegendDisplayMode,
    LegendPlacement,
    StackingMode,
    TableCellBackgroundDisplayMode,
    TableColoredBackgroundCellOptions,
    TooltipDisplayMode,
    VisibilityMode,
    VizOrientation,
)
from grafana_foundation_sdk.models.dashboard import (
    DashboardFieldConfigSourceOverrides,
    DataSourceRef,
    DataTransformerConfig,
    DynamicConfigValue,
    FieldColor,
    FieldColorModeId,
    FieldConfig,
    FieldConfigSource,
    GridPos,
    MatcherConfig,
    Panel,
)
from grafana_foundation_sdk.models.text import TextMode

from catalogue import Metric
from dashboards import targets
from dashboards.looks import PLAIN, Colour, Look

# Below this, a point more is only noise: facility points come every 10 s.
MIN_INTERVAL = "10s"
NOTHING_READ, NOTHING_HAPPENED = "no data", "nothing happened"
SERIES_NAME = "${__field.labels.series}"
Looks = Mapping[str, Look]


@dataclass(frozen=True, slots=True, eq=False)
class Placed:
    """A panel and its size in Grafana's grid of 24 columns; heights are in rows of 30 pixels."""

    panel: Panel
    width: int
    height: int

    @property
    def defaults(self) -> FieldConfig:
        """How its columns look unless they are named."""
        config = self.panel.field_config
        if config is None or config.defaults is None:
            raise ValueError(f"the panel {self.panel.title} shows no fields")
        return config.defaults

    def at(self, x: int, y: int, number: int) -> Panel:
        self.panel.grid_pos = GridPos(self.height, self.width, x, y)
        self.panel.id_val = number
        return self.panel


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What a panel is called, why it is there, and of which metrics it is made."""

    title: str
    why: str
    of: tuple[Metric, ...] = field(default=())

    @property
    def description(self) -> str:
        briefs = list(
            dict.fromkeys(f"{metric.brief} ({metric.unit.symbol or metric.unit.suffix})" for metric in self.of)
        )
        return self.why + ("\n\n" + "\n".join(f"- {brief}" for brief in briefs) if briefs else "")


def question(title: str, answer: str, *, height: int = 3) -> Placed:
    """The panel that opens a page: the question it answers, and how to read the answer. Markdown."""
    panel = (
        text.Panel().transparent(transparent=True).mode(TextMode.MARKDOWN).content(f"## {title}\n\n{answer}").build()
    )
    panel.description = "What this page is for"
    return Placed(panel, 24, height)


def figure(about: About, sql: str, looks: Looks, *, width: int = 4, height: int = 4) -> Placed:
    """Big numbers: one for each column of the one row that `sql` answers."""
    first = next(iter(looks.values()))
    builder = (
        stat.Panel()
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).fields("").values(values=False))
        .graph_mode(BigValueGraphMode.NONE)
        .color_mode(BigValueColorMode.VALUE)
        .orientation(VizOrientation.AUTO)
        .with_target(targets.table(sql))
    )
    return _placed(about, builder.build(), first if len(looks) == 1 else PLAIN, looks, width, height)


def lines(
    about: About,
    sql: str,
    look: Look,
    *,
    named: bool = False,
    stacked: bool = False,
    bars: bool = False,
    looks: Looks | None = None,
    width: int = 12,
    height: int = 8,
    empty: str = NOTHING_READ,
) -> Placed:
    """Lines over time: a line for each column, or with `named` one for each value of the column `series`."""
    builder = _time_series(stacked=stacked, bars=bars).with_target(targets.time_series(sql))
    if named:
        builder = builder.display_name(SERIES_NAME)
    if look.steps and not stacked:
        builder = builder.thresholds_style(common.GraphThresholdsStyleConfig().mode(GraphThresholdsStyleMode.DASHED))
    placed = _placed(about, builder.build(), look, looks or {}, width, height)
    placed.defaults.no_value = empty
    return placed


def own_lines(about: About, asks: Sequence[PrometheusQuery], look: Look, *, width: int = 8, height: int = 7) -> Placed:
    """Lines over time from Prometheus: our own processes' figures."""
    builder = _time_series(stacked=False, bars=False)
    for ask in asks:
        builder = builder.with_target(ask)
    return _placed(about, builder.build(), look, {}, width, height, targets.prometheus())


def rows(
    about: About, sql: str, looks: Looks, *, width: int = 12, height: int = 8, empty: str = NOTHING_READ
) -> Placed:
    """A table, in the order that `sql` gives. `empty` is what it says without rows: none may be good."""
    placed = _placed(about, table.Panel().with_target(targets.table(sql)).build(), PLAIN, looks, width, height)
    placed.defaults.no_value = empty
    return placed


def alert_rows(about: About, expression: str, looks: Looks, *, width: int = 8, height: int = 8) -> Placed:
    """A table of alerts that stand: `looks` names the labels to show, in their order."""
    names = list(looks)
    shown = DataTransformerConfig("filterFieldsByName", options={"include": {"names": names}})
    ordered = DataTransformerConfig(
        "organize", options={"indexByName": {name: place for place, name in enumerate(names)}}
    )
    builder = table.Panel().with_transformation(shown).with_transformation(ordered)
    panel = builder.with_target(targets.alerts_now(expression)).build()
    return _placed(about, panel, PLAIN, looks, width, height, targets.prometheus())


def plan(about: About, sql: str, look: Look, *, width: int = 12, height: int = 8) -> Placed:
    """A plan of places, coloured: `sql` answers Row, Column and value. Text stands in the first column."""
    matrix = DataTransformerConfig(
        "groupingToMatrix",
        options={"columnField": "Column", "rowField": "Row", "valueField": "value", "emptyValue": "null"},
    )
    cells = TableColoredBackgroundCellOptions(TableCellBackgroundDisplayMode.BASIC)
    panel = table.Panel().cell_options(cells).with_transformation(matrix).with_target(targets.table(sql)).build()
    names = DashboardFieldConfigSourceOverrides(
        MatcherConfig("byName", "Row\\Column"), [DynamicConfigValue("custom.cellOptions", {"type": "auto"})]
    )
    return _placed(about, panel, look, {}, width, height, further=[names])


def state_lines(about: About, sql: str, look: Look, *, width: int = 12, height: int = 7) -> Placed:
    """A band over time for each value of the column `series`, coloured by state."""
    builder = (
        statetimeline.Panel()
        .show_value(VisibilityMode.NEVER)
        .row_height(0.85)
        .display_name(SERIES_NAME)
        .with_target(targets.time_series(sql))
    )
    return _placed(about, builder.build(), look, {}, width, height)


def ranking(
    about: About, sql: str, look: Look, *, width: int = 8, height: int = 8, empty: str = NOTHING_READ
) -> Placed:
    """Horizontal bars: `sql` answers a name and one number, the longest first."""
    builder = (
        bargauge.Panel()
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).values(values=True))
        .orientation(VizOrientation.HORIZONTAL)
        .display_mode(BarGaugeDisplayMode.BASIC)
        .with_target(targets.table(sql))
    )
    placed = _placed(about, builder.build(), look, {}, width, height)
    placed.defaults.no_value = empty
    return placed


def _time_series(*, stacked: bool, bars: bool) -> timeseries.Panel:
    legend = (
        common.VizLegendOptions()
        .display_mode(LegendDisplayMode.LIST)
        .placement(LegendPlacement.BOTTOM)
        .show_legend(show_legend=True)
    )
    builder = (
        timeseries.Panel()
        .legend(legend)
        .tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI))
        .interval(MIN_INTERVAL)
        .line_width(0 if stacked or bars else 1.5)
        .show_points(VisibilityMode.NEVER)
        .fill_opacity(70 if stacked or bars else 0)
        .gradient_mode(GraphGradientMode.NONE)
    )
    if bars:
        builder = builder.draw_style(GraphDrawStyle.BARS)
    if stacked:
        builder = builder.stacking(common.StackingConfig().mode(StackingMode.NORMAL).group("A"))
    return builder


def _placed(
    about: About,
    panel: Panel,
    look: Look,
    looks: Looks,
    width: int,
    height: int,
    source: DataSourceRef | None = None,
    further: Sequence[DashboardFieldConfigSourceOverrides] = (),
) -> Placed:
    panel.title, panel.description = about.title, about.description
    panel.datasource = source or targets.clickhouse()
    config = panel.field_config or FieldConfigSource()
    config.defaults = config.defaults or FieldConfig()
    _apply(look, config.defaults)
    config.overrides = [_override(name, one) for name, one in looks.items() if one != look]
    config.overrides += further
    panel.field_config = config
    return Placed(panel, width, height)


def _apply(look: Look, defaults: FieldConfig) -> None:
    defaults.unit, defaults.decimals = look.unit, look.decimals
    defaults.min_val, defaults.max_val = look.lowest, look.highest
    defaults.thresholds, defaults.mappings = look.thresholds, look.mappings or None
    defaults.no_value = NOTHING_READ
    colour = _colour(look)
    if colour is not None:
        defaults.color = colour


def _colour(look: Look) -> FieldColor | None:
    if look.palette is not None:
        return FieldColor(look.palette)
    return FieldColor(FieldColorModeId.THRESHOLDS) if look.steps else None


def _override(name: str, look: Look) -> DashboardFieldConfigSourceOverrides:
    """Everything about one column by its name."""
    values: dict[str, object | None] = {
        "unit": look.unit,
        "decimals": look.decimals,
        "min": look.lowest,
        "max": look.highest,
        "thresholds": look.thresholds,
        "mappings": look.mappings or None,
        "color": _colour(look) or (FieldColor(FieldColorModeId.FIXED, Colour.PLAIN) if not look.states else None),
        "custom.cellOptions": TableColoredBackgroundCellOptions(TableCellBackgroundDisplayMode.BASIC)
        if look.filled
        else None,
        "links": [{"title": look.link.title, "url": look.link.url}] if look.link else None,
    }
    given = [DynamicConfigValue(name, value) for name, value in values.items() if value is not None]
    return DashboardFieldConfigSourceOverrides(MatcherConfig("byName", name), given)

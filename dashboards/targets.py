"""What panels ask and whom: queries of the two data sources, which Grafana knows by fixed uids."""

from dataclasses import dataclass
from enum import StrEnum

from grafana_foundation_sdk.builders.prometheus import Dataquery as PrometheusQuery
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.variants import Dataquery
from grafana_foundation_sdk.models.dashboard import DataSourceRef
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

CLICKHOUSE_TYPE = "grafana-clickhouse-datasource"
CLICKHOUSE_UID = "kvandal-clickhouse"
PROMETHEUS_UID = "kvandal-prometheus"
PLUGIN_VERSION = "4.0.0"  # of the form of a query: the plug-in migrates what is older


def clickhouse() -> DataSourceRef:
    return DataSourceRef(type_val=CLICKHOUSE_TYPE, uid=CLICKHOUSE_UID)


def prometheus() -> DataSourceRef:
    return DataSourceRef(type_val="prometheus", uid=PROMETHEUS_UID)


class Format(StrEnum):
    """How the plug-in hands the answer on, under its own names."""

    TIME_SERIES = "timeseries"
    TABLE = "table"

    @property
    def number(self) -> int:
        return {Format.TIME_SERIES: 0, Format.TABLE: 1}[self]


@dataclass(frozen=True, slots=True)
class ClickHouseQuery(Dataquery):
    """A query in the form of the plug-in's SQL editor; the SDK has no builder for it."""

    sql: str
    format: Format
    ref_id: str = "A"

    def to_json(self) -> dict[str, object]:
        return {
            "datasource": clickhouse(),
            "editorType": "sql",
            "format": self.format.number,
            "pluginVersion": PLUGIN_VERSION,
            "queryType": self.format.value,
            "rawSql": self.sql,
            "refId": self.ref_id,
        }


@dataclass(frozen=True, slots=True)
class Ask(Builder[Dataquery]):
    """A finished query where the SDK expects one in the making."""

    query: ClickHouseQuery

    def build(self) -> Dataquery:
        return self.query


def time_series(sql: str, ref_id: str = "A") -> Ask:
    """`sql` answers `time`, at most one text column that names the series, and numbers."""
    return Ask(ClickHouseQuery(sql, Format.TIME_SERIES, ref_id))


def table(sql: str, ref_id: str = "A") -> Ask:
    return Ask(ClickHouseQuery(sql, Format.TABLE, ref_id))


def alerts_now(expression: str) -> PrometheusQuery:
    """The series that stand at the end of the range, as a table with a column for each label."""
    query = PrometheusQuery().expr(expression).ref_id("A").datasource(prometheus()).instant()
    return query.format(PromQueryFormat.TABLE)


def promql(expression: str, legend: str, ref_id: str = "A") -> PrometheusQuery:
    """`legend` names the series, labels in double braces."""
    return PrometheusQuery().expr(expression).legend_format(legend).ref_id(ref_id).datasource(prometheus()).range()

"""Metric rules about the pipeline itself: sources, agents, broker, ingest, incidents."""

from collections.abc import Iterator

from alerts.alert import Dashboard, MetricRule, Owner, Recording, Severity
from alerts.rules_gpu import FAST_BURN, SLOW_BURN
from alerts.thresholds import Thresholds

AGENT_JOB, INGEST_JOB, INCIDENTS_JOB = "kvandal-agent", "kvandal-ingest", "kvandal-incidents"
_NODE = "job, instance, node, hall, rack, cdu"  # what the scrape configuration says of a target
_STALE = "kvandal:ingest_stale:bool"
_UP = f'up{{job="{AGENT_JOB}"}}'
_REFUSED = '{outcome=~"rejected|parked"}'


def pipeline_recordings(limits: Thresholds) -> tuple[Recording, ...]:
    """Whether a table is behind, where the broker still gets rows for it: a source that is off is not lag."""
    old = f"time() - max by (table) (kvandal_ingest_last_plan_timestamp_seconds) > bool {limits.fresh_s:g}"
    produced = "sum by (topic) (rate(kvandal_agent_rows_total[5m])) > 0"
    by_table = f'label_replace({produced}, "table", "$1", "topic", "kvandal[.](.*)")'
    return (Recording(name=_STALE, expression=f"({old}) and on (table) {by_table}"),)


def pipeline_rules(limits: Thresholds) -> tuple[MetricRule, ...]:
    return (*_silence(limits), *_agents(limits), *_ingest(limits), *_incidents())


def _own(name: str, severity: Severity, expression: str, for_s: int, summary: str, cost: str, *numbers: int,
         fires_on_absence: bool = False) -> MetricRule:  # fmt: skip
    return MetricRule(
        name=name, severity=severity, owner=Owner.PLATFORM, dashboard=Dashboard.PIPELINE, cost=cost, numbers=numbers,
        expression=expression, for_s=for_s, summary=summary, fires_on_absence=fires_on_absence,
    )  # fmt: skip


def _silence(limits: Thresholds) -> Iterator[MetricRule]:
    yield _own(
        "NodeTelemetryStale", Severity.TICKET, f"{_UP} == 0", 120,
        "the agent of {{ $labels.instance }} does not answer",
        "the node is unknown: neither healthy nor billed", 25,
    )  # fmt: skip
    yield _own(
        "FleetTelemetryStale", Severity.PAGE,
        f"(count({_UP} == 0) / count({_UP})) > {limits.fleet_silent_ratio:g}", 120,
        "{{ $value | humanizePercentage }} of the agents do not answer",
        "a part of the site is unknown, and its faults are not seen", 25,
    )  # fmt: skip
    yield _own(
        "AgentsAbsent", Severity.PAGE, f"absent({_UP})", 300,
        "Prometheus knows no agent at all",
        "nothing of the site is watched", fires_on_absence=True,
    )  # fmt: skip
    yield _own(
        "SourceSilent", Severity.TICKET, f"kvandal_agent_source_age_seconds > {limits.source_silent_s:g}", 120,
        "source {{ $labels.source }} of {{ $labels.instance }} has said nothing for {{ $value | humanizeDuration }}",
        "what it reads is missing from every report", 25,
    )  # fmt: skip
    yield _own(
        "DeviceUnreadable", Severity.TICKET, "kvandal_agent_device_up == 0", 600,
        "{{ $labels.device }} does not answer {{ $labels.source }} of {{ $labels.instance }}",
        "what it measures is missing from every report",
    )  # fmt: skip


def _agents(limits: Thresholds) -> Iterator[MetricRule]:
    slow = f"histogram_quantile(0.99, sum by ({_NODE}, source, le) (rate(kvandal_agent_read_seconds_bucket[5m])))"
    missed = f'sum by ({_NODE}, source) (rate(kvandal_agent_missed_ticks_total{{reason="busy"}}[5m]))'
    yield _own(
        "CollectorCostHigh", Severity.TICKET,
        f"{slow} > {limits.read_seconds:g} or {missed} > {limits.missed_ticks_ratio:g}", 600,
        "source {{ $labels.source }} of {{ $labels.instance }} is slow or misses its ticks",
        "readings are missing, and a GPU may be about to hang", 26,
    )  # fmt: skip
    yield _own(
        "AgentBrokerAway", Severity.TICKET, "kvandal_agent_broker_up == 0", 600,
        "the agent of {{ $labels.instance }} cannot send",
        "its readings wait in its spool and are late everywhere", 48,
    )  # fmt: skip
    yield _own(
        "BrokerAway", Severity.PAGE,
        f"(count(kvandal_agent_broker_up == 0) / count(kvandal_agent_broker_up)) > {limits.broker_away_ratio:g}", 120,
        "{{ $value | humanizePercentage }} of the agents cannot send to Kafka",
        "nobody sees events or readings until it is back", 48,
    )  # fmt: skip
    yield _own(
        "TopicBlocked", Severity.TICKET, "kvandal_agent_topic_blocked == 1", 300,
        "topic {{ $labels.topic }} takes nothing from {{ $labels.instance }}",
        "its readings wait in the spool and are lost when that is full", 48,
    )  # fmt: skip
    full = "kvandal_agent_spool_bytes / kvandal_agent_spool_limit_bytes"
    yield _own(
        "SpoolFilling", Severity.TICKET, f"{full} > {limits.spool_full_ratio:g}", 60,
        "the spool of {{ $labels.instance }} is {{ $value | humanizePercentage }} full",
        "the oldest readings are lost when it is full", 48,
    )  # fmt: skip
    yield _own(
        "ClockUnsynchronised", Severity.TICKET,
        f"kvandal_agent_clock_synchronised == 0 or kvandal_agent_clock_error_seconds > {limits.clock_error_seconds:g}",
        900,
        "the clock of {{ $labels.instance }} is not kept in step",
        "its readings get wrong times, and energy is booked to the wrong job",
    )  # fmt: skip
    yield _own(
        "EnergyCounterDisagrees", Severity.TICKET,
        f"abs(kvandal_agent_energy_ratio - 1) > {limits.energy_ratio_tolerance:g}", 1800,
        "energy and power of GPU {{ $labels.resource }} on {{ $labels.instance }} differ by "
        "{{ $value | humanizePercentage }}",
        "its job's energy is reported wrongly",
    )  # fmt: skip


def _ingest(limits: Thresholds) -> Iterator[MetricRule]:
    yield _own(
        "PipelineLag", Severity.TICKET, f"{_STALE} == 1", 300,
        "table {{ $labels.table }} gets rows that are not stored within the promised time",
        "dashboards and reports show the past", 48,
    )  # fmt: skip
    budget = 1 - limits.fresh_objective_ratio
    for severity, burn, long, short in (
        (Severity.PAGE, FAST_BURN, "1h", "5m"), (Severity.TICKET, SLOW_BURN, "6h", "30m"),
    ):  # fmt: skip
        limit = f"{burn * budget:.6g}"
        yield _own(
            "PipelineFreshnessBurn", severity,
            f"avg_over_time({_STALE}[{long}]) > {limit} and avg_over_time({_STALE}[{short}]) > {limit}", 0,
            f"table {{{{ $labels.table }}}} was stale {{{{ $value | humanizePercentage }}}} of the last {long}",
            f"the month's freshness budget burns {burn:g} times too fast", 48,
        )  # fmt: skip
    yield _own(
        "IngestDown", Severity.PAGE, f'max(up{{job="{INGEST_JOB}"}}) == 0', 120,
        "no ingest answers",
        "nothing is stored; Kafka keeps it for a week", 48,
    )  # fmt: skip
    yield _own(
        "IngestRetrying", Severity.TICKET, "sum by (job, instance, doing) (rate(kvandal_ingest_retries_total[5m])) > 0",
        600,
        "ingest {{ $labels.instance }} repeats {{ $labels.doing }}: the store or the broker is away",
        "nothing is stored meanwhile", 48,
    )  # fmt: skip
    bad = f"sum by (table) (rate(kvandal_ingest_frames_total{_REFUSED}[15m]))"
    every = "sum by (table) (rate(kvandal_ingest_frames_total[15m]))"
    yield _own(
        "DeadLettersHigh", Severity.TICKET, f"({bad} / {every}) > {limits.rejected_frames_ratio:g}", 300,
        "{{ $value | humanizePercentage }} of the frames for {{ $labels.table }} cannot be stored",
        "they wait among the dead letters and are missing from reports", 48,
    )  # fmt: skip
    yield _own(
        "RecordsExpired", Severity.PAGE, "increase(kvandal_ingest_expired_records_total[15m]) > 0", 0,
        "records of {{ $labels.topic }} expired in Kafka before they were stored",
        "they are lost for good", 48,
    )  # fmt: skip


def _incidents() -> Iterator[MetricRule]:
    up = f'up{{job="{INCIDENTS_JOB}"}}'
    yield _own(
        "IncidentsDown", Severity.PAGE, f"max({up}) == 0 or absent({up})", 120,
        "kvandal incidents does not answer",
        "leaks, XIDs and trips page nobody", fires_on_absence=True,
    )  # fmt: skip
    yield _own(
        "IncidentsBehind", Severity.PAGE, "time() - kvandal_incidents_read_timestamp_seconds > 60", 60,
        "kvandal incidents has read no events for {{ $value | humanizeDuration }}",
        "leaks, XIDs and trips page nobody",
    )  # fmt: skip
    yield _own(
        "AlertmanagerUnreachable", Severity.TICKET, "time() - kvandal_incidents_pushed_timestamp_seconds > 180", 60,
        "kvandal incidents could not push to {{ $labels.alertmanager }} for {{ $value | humanizeDuration }}",
        "pages about events wait until it is back",
    )  # fmt: skip
    yield _own(
        "Watchdog", Severity.HEARTBEAT, "vector(1)", 0,
        "this alert is always there",
        "when it is absent, the way from Prometheus to people is broken", 49, fires_on_absence=True,
    )  # fmt: skip

"""The alerts whose home is Prometheus, by subject."""

from collections.abc import Mapping

from alerts.alert import MetricRule, Recording
from alerts.rules_facility import facility_recordings, facility_rules
from alerts.rules_gpu import gpu_recordings, gpu_rules
from alerts.rules_link import link_rules
from alerts.rules_pipeline import pipeline_recordings, pipeline_rules
from alerts.series import not_exported
from alerts.thresholds import Thresholds


def metric_rules(thresholds: Thresholds) -> Mapping[str, tuple[MetricRule, ...]]:
    """Every rule by its group, those that wait for a reading to be shown included."""
    return {
        "gpu": gpu_rules(thresholds),
        "link": link_rules(thresholds),
        "facility": facility_rules(thresholds),
        "pipeline": pipeline_rules(thresholds),
    }


def recordings(thresholds: Thresholds) -> Mapping[str, tuple[Recording, ...]]:
    """The series that the rules of a group share."""
    return {
        "gpu": gpu_recordings(),
        "facility": facility_recordings(),
        "pipeline": pipeline_recordings(thresholds),
    }


def missing_readings(rule: MetricRule) -> tuple[str, ...]:
    """The readings that no agent shows and that the rule waits for, as `table.metric`; empty for a rule that works."""
    return not_exported(rule.expression)

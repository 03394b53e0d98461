"""Names of our own processes' Prometheus metrics that dashboards ask for.

The metrics are declared where they are counted (collectors/exposition.py, stream/metrics.py). A test holds this list
against what those modules register, so that a renamed metric fails.
"""

from enum import StrEnum


class OwnMetric(StrEnum):
    """Series as Prometheus stores them: counters end in _total."""

    SOURCE_UP = "kvandal_agent_source_up"
    PRODUCED = "kvandal_agent_rows_total"
    LOST = "kvandal_agent_lost_rows_total"
    MISSED = "kvandal_agent_missed_ticks_total"
    READ_SECONDS = "kvandal_agent_read_seconds"
    SPOOL_BYTES = "kvandal_agent_spool_bytes"
    SPOOL_LIMIT = "kvandal_agent_spool_limit_bytes"
    LAST_PLAN = "kvandal_ingest_last_plan_timestamp_seconds"
    RETRIES = "kvandal_ingest_retries_total"
    BUFFERED = "kvandal_ingest_buffered_bytes"
    EXPIRED = "kvandal_ingest_expired_records_total"

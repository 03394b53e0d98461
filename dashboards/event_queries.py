# ruff: noqa: S608 - names come from this module, what people choose is quoted by Grafana
"""SQL over what is told by messages: events and jobs."""

from collections.abc import Sequence

from catalogue import ResourceKind
from catalogue.facility import LeakState
from catalogue.xid import XIDS, XidClass
from dashboards.queries import Choice, Scope, texts

# Kinds of event that say that something was taken out on purpose.
MAINTENANCE = "kind LIKE '%maintenance%'"
IN_RANGE = "$__timeFilter(time)"
# A hold counts where it overlaps the range; an open one has no end.
HELD = "start <= $__toTime AND (end IS NULL OR end >= $__fromTime)"
PAGING = tuple(sorted(xid.number for xid in XIDS.values() if xid.xid_class is XidClass.PAGE))
_EVERYWHERE = tuple(kind for kind in ResourceKind if kind not in (ResourceKind.POINT, ResourceKind.AGENT))
NAMED_JOB = "job IN (${job:sqlstring})"
CHOSEN_CUSTOMERS = "$__conditionalAll(customer IN (${customer:sqlstring}), $customer)"


def paging_codes() -> str:
    return ", ".join(map(str, PAGING))


def xid_class_case(code: str) -> str:
    """The class of an XID by the catalogue; a number that is not listed is a ticket, as everywhere."""
    by_class = {
        kind: ", ".join(str(xid.number) for xid in XIDS.values() if xid.xid_class is kind)
        for kind in XidClass
        if kind is not XidClass.TICKET
    }
    cases = ", ".join(f"{code} IN ({numbers}), '{kind}'" for kind, numbers in by_class.items() if numbers)
    return f"multiIf({cases}, '{XidClass.TICKET}')"


# The alert, and by that the runbook, that an event of each kind raises; alerts/event_rules.py decides, a test compares.
XID_ALERTS = {
    45: "GpuXid45Solo", 79: "GpuFallenOffBus", 92: "GpuSbeStorm", 154: "", 162: "", 163: "PowerSmoothingDisengaged",
}  # fmt: skip
CLASS_ALERTS = {
    XidClass.PAGE: "GpuXidFatal", XidClass.TICKET: "GpuXidTicket", XidClass.USER: "GpuAppXidBurst", XidClass.INFO: "",
}  # fmt: skip
LEAK_ALERTS = {
    LeakState.DRY: "", LeakState.WARNING: "CoolantLeakWarning", LeakState.CRITICAL: "CoolantLeakCritical",
    LeakState.SENSOR_FAULT: "LeakSensorFault",
}  # fmt: skip
KIND_ALERTS = {
    "rack_isolated": "RackIsolated",
    "bms_heartbeat_lost": "BmsHeartbeatLost", "cdu": "CduTripped", "power_shelf": "PowerShelfFailed",
    "meter_frozen": "MeterFrozen", "meter_exchanged": "MeterExchanged", "readings_lost": "ReadingsLost",
    "gpu_dark": "GpuDark",
    **dict.fromkeys(
        ("ssd", "power_supply", "chassis", "io_board", "processor", "memory", "nic", "network", "thermal_interface",
         "silent_data_corruption", "dependency"),
        "TrayFault",
    ),
}  # fmt: skip


def alert_of(kind: str, code: str) -> str:
    """SQL: the name of the alert that an event raises, NULL where it raises none by itself."""
    numbers, alerts = ", ".join(map(str, XID_ALERTS)), texts(list(XID_ALERTS.values()))
    classes, by_class = texts([str(one) for one in CLASS_ALERTS]), texts(list(CLASS_ALERTS.values()))
    of_class = f"transform({xid_class_case(code)}, [{classes}], [{by_class}], '')"
    of_xid = f"if({code} IN ({numbers}), transform({code}, [{numbers}], [{alerts}], ''), {of_class})"
    states, by_state = ", ".join(str(int(one)) for one in LEAK_ALERTS), texts(list(LEAK_ALERTS.values()))
    of_leak = f"transform({code}, [{states}], [{by_state}], 'CoolantLeakCritical')"
    kinds, by_kind = texts(list(KIND_ALERTS)), texts(list(KIND_ALERTS.values()))
    of_kind = f"transform({kind}, [{kinds}], [{by_kind}], '')"
    return f"nullIf(multiIf({kind} = 'xid', {of_xid}, {kind} = 'leak', {of_leak}, {of_kind}), '')"


def event_marks(
    where: str, choices: tuple[Choice, ...] = (), conditions: tuple[str, ...] = (), *, limit: int = 200
) -> str:
    """Annotations: the newest events of the range that fulfil `where`, within the chosen places."""
    scope = Scope(_EVERYWHERE, choices, conditions=conditions)
    place = f" AND resource IN (SELECT resource FROM ({scope.places}))" if choices or conditions else ""
    return (
        "SELECT time, concat(kind, if(code = 0, '', concat(' ', toString(code))), ': ', text) AS text, kind AS tags\n"
        f"FROM events FINAL WHERE {IN_RANGE} AND {where}{place}\nORDER BY time DESC LIMIT {limit}"
    )


def job_marks(where: str) -> str:
    """Annotations: the stretch of each job of the range that fulfils `where`."""
    return (
        "SELECT min(start) AS time, max(ifNull(end, now64(3))) AS timeEnd, "
        "concat(any(name), ' of ', any(customer), ': ', job) AS text, 'job' AS tags\n"
        f"FROM jobs FINAL WHERE {HELD} AND {where}\nGROUP BY job ORDER BY time DESC LIMIT 200"
    )


def event_list(
    where: str, choices: tuple[Choice, ...] = (), conditions: tuple[str, ...] = (), *, limit: int = 200
) -> str:
    """The newest events, with where they happened."""
    return (
        f'SELECT event.time AS "Time", place.rack_name AS "Rack", {_is_gpu("place.name")} AS "GPU", '
        f'{_is_gpu("NULL", "place.name")} AS "Elsewhere", event.kind AS "Kind", '
        f"if(event.kind = 'xid', event.code, NULL) AS \"XID\", "
        f"if(event.kind = 'xid', {xid_class_case('event.code')}, '') AS \"Class\", "
        f'event.text AS "What", {alert_of("event.kind", "event.code")} AS "Runbook"\n'
        f"FROM (SELECT * FROM events FINAL WHERE {IN_RANGE} AND {where}) AS event\n"
        f"INNER JOIN ({Scope(_EVERYWHERE, choices, conditions=conditions).places}) AS place "
        f'ON place.resource = event.resource\nORDER BY "Time" DESC LIMIT {limit}'
    )


def _is_gpu(then: str, otherwise: str = "NULL") -> str:
    """Of the places of events: a GPU has a page of its own."""
    return f"if(place.kind = '{ResourceKind.GPU}', {then}, {otherwise})"


def events_counted(where: str, choices: tuple[Choice, ...] = ()) -> str:
    """One figure: how many events of the range fulfil `where`."""
    place = f" AND resource IN (SELECT resource FROM ({Scope(_EVERYWHERE, choices).places}))" if choices else ""
    return f'SELECT sum(count) AS "Events" FROM events FINAL WHERE {IN_RANGE} AND {where}{place}'


def events_over_time(series: str, where: str, choices: tuple[Choice, ...] = ()) -> str:
    """Events by hour, or by the range's own buckets where these are longer, one series for each `series`."""
    place = f" AND resource IN (SELECT resource FROM ({Scope(_EVERYWHERE, choices).places}))" if choices else ""
    return (
        "SELECT toStartOfInterval(time, INTERVAL greatest(3600, $__interval_s) second) AS time, "
        f"{series} AS series, sum(count) AS value\n"
        f"FROM (SELECT time AS at, * FROM events FINAL WHERE {IN_RANGE} AND {where}{place}) AS event\n"
        "GROUP BY time, series ORDER BY time, series"
    ).replace("toStartOfInterval(time", "toStartOfInterval(event.at")


def events_by_place(place: str, label: str, where: str, choices: tuple[Choice, ...] = (), *, limit: int = 20) -> str:
    """Where events happen most: name and number."""
    return (
        f'SELECT place.{place} AS "{label}", toFloat64(sum(event.count)) AS "Events"\n'
        f"FROM (SELECT * FROM events FINAL WHERE {IN_RANGE} AND {where}) AS event\n"
        f"INNER JOIN ({Scope(_EVERYWHERE, choices).places}) AS place ON place.resource = event.resource\n"
        f'WHERE place.{place} != \'\' GROUP BY "{label}" ORDER BY "Events" DESC, "{label}" LIMIT {limit}'
    )


def xid_ranking() -> str:
    """Each XID number with what it means, how often it came and on how many GPUs."""
    meanings = ", ".join(str(xid.number) for xid in XIDS.values())
    words = texts([xid.meaning for xid in XIDS.values()])
    actions = texts([str(xid.action) for xid in XIDS.values()])
    runbook = alert_of("'xid'", "code")
    return (
        f'SELECT code AS "XID", transform(code, [{meanings}], [{words}], \'not in our list\') AS "Meaning", '
        f'{xid_class_case("code")} AS "Class", sum(count) AS "Events", uniqExact(resource) AS "GPUs", '
        f"transform(code, [{meanings}], [{actions}], 'not stated') AS \"Do at once\", "
        f'{runbook} AS "Runbook"\n'
        f"FROM events FINAL WHERE {IN_RANGE} AND kind = 'xid'\n"
        'GROUP BY code ORDER BY "Events" DESC, code LIMIT 50'
    )


def job_values() -> str:
    """The jobs of the range, the one first that held most GPU time in it."""
    return (
        f"SELECT job FROM (SELECT job, sum({held_seconds()}) AS held FROM jobs FINAL "
        f"WHERE {HELD} AND {CHOSEN_CUSTOMERS} GROUP BY job) ORDER BY held DESC, job LIMIT 1000"
    )


def largest_jobs(count: int) -> str:
    """A series: each of the jobs that held most GPU time in the range, and the others together."""
    most = (
        f"SELECT job FROM jobs FINAL WHERE {HELD} AND {CHOSEN_CUSTOMERS} GROUP BY job "
        f"ORDER BY sum({held_seconds()}) DESC, job LIMIT {count}"
    )
    return f"if(job IN ({most}), job, 'all others')"


def customer_values() -> str:
    return f"SELECT DISTINCT customer FROM jobs FINAL WHERE {HELD} ORDER BY customer"


def held_resources(where: str) -> str:
    """A condition: the GPU was held in the range by a job that fulfils `where`."""
    return f"resource IN (SELECT resource FROM jobs FINAL WHERE {HELD} AND {where})"


def while_job_ran() -> str:
    """A condition over tier.time: between the chosen job's first start and last end."""
    span = f"FROM jobs FINAL WHERE {NAMED_JOB}"
    return f"tier.time >= (SELECT min(start) {span}) AND tier.time <= (SELECT max(ifNull(end, $__toTime)) {span})"


def job_facts(shown: Sequence[str]) -> str:
    """One row about the chosen job."""
    return f"SELECT {', '.join(shown)} FROM jobs FINAL WHERE {NAMED_JOB}"


def gpus_held_over_time(series: str) -> str:
    """How many GPUs are held at the start of each bucket, one series for each value of `series`.

    Holds are first added up by job: the count does not grow with GPUs times buckets.
    """
    first = "greatest(toUnixTimestamp(start), toUnixTimestamp($__fromTime))"
    last = "least(toUnixTimestamp(ifNull(end, $__toTime)), toUnixTimestamp($__toTime))"
    step = "greatest(60, $__interval_s)"
    ticks = f"range(intDiv({first} + {step} - 1, {step}) * {step}, {last}, {step})"
    holds = (
        f"SELECT customer, job, name, start, end, uniqExact(resource) AS gpus FROM jobs FINAL WHERE {HELD} "
        f"AND {CHOSEN_CUSTOMERS} GROUP BY customer, job, name, start, end"
    )
    return (
        f"SELECT toDateTime(arrayJoin({ticks}), 'UTC') AS time, {series} AS series, toFloat64(sum(gpus)) AS value\n"
        f"FROM ({holds})\nGROUP BY time, series ORDER BY time, series"
    )


def held_seconds() -> str:
    """Seconds of one hold that lie within the range."""
    return "greatest(0, dateDiff('second', greatest(start, $__fromTime), least(ifNull(end, $__toTime), $__toTime)))"


def running_jobs(recent: str) -> str:
    """The jobs that run at the end of the range; `recent` answers resource, power, sm and tensor of GPUs."""
    return (
        'SELECT job AS "Job", any(name) AS "Name", any(customer) AS "Customer", count() AS "GPUs", '
        'min(start) AS "Since", sum(gpu.power) AS "Power", avg(gpu.sm) AS "SM", avg(gpu.tensor) AS "Tensor"\n'
        "FROM (SELECT * FROM jobs FINAL WHERE start <= $__toTime AND (end IS NULL OR end > $__toTime) "
        f"AND {CHOSEN_CUSTOMERS}) AS held\nLEFT JOIN (\n{recent}\n) AS gpu ON gpu.resource = held.resource\n"
        'GROUP BY job ORDER BY "GPUs" DESC LIMIT 200'
    )


def holds_of(condition: str) -> str:
    """The jobs that held resources which fulfil the condition, the newest first."""
    return (
        'SELECT job AS "Job", any(name) AS "Name", any(customer) AS "Customer", '
        'min(start) AS "Since", max(end) AS "Until"\n'
        f"FROM jobs FINAL WHERE {HELD} AND {condition}\n"
        'GROUP BY job ORDER BY "Since" DESC LIMIT 20'
    )


def held_by_customer() -> str:
    """What each customer held within the range."""
    return (
        'SELECT customer AS "Customer", uniqExact(job) AS "Jobs", uniqExact(resource) AS "GPUs", '
        f'sum({held_seconds()}) / 3600 AS "GPU-hours"\n'
        f"FROM jobs FINAL WHERE {HELD} AND {CHOSEN_CUSTOMERS}\n"
        'GROUP BY customer ORDER BY "GPU-hours" DESC'
    )


def jobs_of_customers() -> str:
    return (
        'SELECT customer AS "Customer", job AS "Job", any(name) AS "Name", uniqExact(resource) AS "GPUs", '
        'min(start) AS "Since", max(end) AS "Until"\n'
        f"FROM jobs FINAL WHERE {HELD} AND {CHOSEN_CUSTOMERS}\n"
        'GROUP BY customer, job ORDER BY "Since" DESC LIMIT 200'
    )


def faults_on_held() -> str:
    """Events on a GPU while a customer held it."""
    return (
        'SELECT held.customer AS "Customer", toFloat64(uniqExact(event.id)) AS "Faults"\n'
        f"FROM (SELECT * FROM jobs FINAL WHERE {HELD} AND {CHOSEN_CUSTOMERS}) AS held\n"
        f"INNER JOIN (SELECT * FROM events FINAL WHERE {IN_RANGE}) AS event ON event.resource = held.resource\n"
        "WHERE event.time >= held.start AND (held.end IS NULL OR event.time <= held.end)\n"
        'GROUP BY held.customer ORDER BY "Faults" DESC'
    )


def held_buckets(inner: str, shown: str, tail: str) -> str:
    """`shown` over buckets of GPUs (`inner` of by_resource), joined with who held each GPU then."""
    return (
        f"SELECT {shown}\nFROM (\n{inner}\n) AS reading\n"
        f"INNER JOIN (SELECT * FROM jobs FINAL WHERE {HELD} AND {CHOSEN_CUSTOMERS}) AS held "
        "ON held.resource = reading.resource\n"
        "WHERE reading.bucket >= held.start AND (held.end IS NULL OR reading.bucket < held.end)\n"
        f"GROUP BY {tail}"
    )

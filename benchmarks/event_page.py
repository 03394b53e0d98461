"""How long an event takes until it stands in an Alertmanager: Apache Kafka, `kvandal incidents`, a real Alertmanager.

One leak after another, each in a rack of its own. The clock starts when the event is handed to the publisher and ends
when the Alertmanager's own API shows the alert; it is asked every 20 ms. Beside it, in the same run, the round trip to
the broker: until the event was acknowledged. Run: `python -m benchmarks.event_page [events]`.
"""

import json
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from alerts.replay_site import ReplaySite
from alerts.routing import TEMPLATE_NAME, Routing, render_routing, render_template
from catalogue.facility import LeakState
from stream.client import KafkaAddress
from stream.messages import EventMessage, encode_message
from stream.publish import Publisher, ensure_topics
from stream.topics import EVENTS
from tests.servers.alertmanager import AlertmanagerServer
from tests.servers.kafka import KafkaCluster
from tests.servers.ports import free_port
from tests.servers.stack import Running, publish_messages

EVENTS_OF_A_RUN = 60
REACH_P99_S = 2.0
_LOOK_S, _LIMIT_S = 0.02, 30.0
_PAUSE_S = 0.5  # between two: a leak in every rack at once would be one incident


def run(*, events: int = EVENTS_OF_A_RUN) -> dict[str, object]:
    """Both delays of one run as a document, in seconds."""
    site = ReplaySite(racks=events + 1)
    with ExitStack() as running:
        folder = Path(running.enter_context(tempfile.TemporaryDirectory()))
        cluster = running.enter_context(KafkaCluster.start(folder / "kafka"))
        ensure_topics(KafkaAddress(cluster.bootstrap), replication=1)
        publish_messages(cluster.bootstrap, list(site.inventory()))
        alertmanager = running.enter_context(_alertmanager(folder / "alertmanager"))
        running.enter_context(_incidents(folder, cluster.bootstrap, alertmanager.url))
        publisher = Publisher(KafkaAddress(cluster.bootstrap))
        running.callback(publisher.close)
        _tell(publisher, alertmanager, site, 0)  # not counted: everything is connected and read after it
        times = [_tell(publisher, alertmanager, site, rack) for rack in range(1, events + 1)]
    round_trips, delays = np.array(times).T
    return {
        "events": events,
        "broker_round_trip_s": _percentiles(round_trips),
        "event_to_alertmanager_s": _percentiles(delays),
    }


def _alertmanager(folder: Path) -> AlertmanagerServer:
    folder.mkdir()
    (folder / TEMPLATE_NAME).write_text(render_template())
    nobody = "http://127.0.0.1:9/"  # who is told in the end is not measured
    routing = Routing(
        mail_to="", webhook_url=nobody, webhook_token_file="", pagerduty_keys="", page_wait_s=0, dead_man_url=nobody
    )
    return AlertmanagerServer(folder, render_routing(routing))


def _incidents(folder: Path, bootstrap: str, alertmanager: str) -> Running:
    return Running.start(
        folder, "incidents", "incidents", "--broker", bootstrap, "--alertmanager", alertmanager,
        "--state", str(folder / "incidents.db"), "--port", str(free_port()),
    )  # fmt: skip


def _tell(publisher: Publisher, alertmanager: AlertmanagerServer, site: ReplaySite, rack: int) -> tuple[float, float]:
    """A leak in this rack: seconds until the broker has it, and until it stands in the Alertmanager."""
    time.sleep(_PAUSE_S)
    now_ms = time.time_ns() // 1_000_000
    message = EventMessage(
        id=f"leak/{rack}/{now_ms}", resource=site.rack(rack), time_ms=now_ms, kind="leak", code=LeakState.CRITICAL,
        attributes={"point": "RackLeakDetect"},
    )  # fmt: skip
    acknowledged: list[float] = []
    failures: list[Exception] = []
    began_s = time.monotonic()
    publisher.publish(
        EVENTS.name, 1, encode_message(message),
        acknowledged=lambda _: acknowledged.append(time.monotonic()), failed=failures.append,
    )  # fmt: skip
    publisher.flush()
    if failures:
        raise failures[0]
    shown_s = _when(lambda: any(alert["labels"].get("rack") == f"rack {rack}" for alert in alertmanager.alerts()))
    return acknowledged[0] - began_s, shown_s - began_s


def _when(holds: Callable[[], bool]) -> float:
    """The monotonic time at which it was first seen to hold. TimeoutError after half a minute."""
    deadline_s = time.monotonic() + _LIMIT_S
    while not holds():
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"the Alertmanager did not show the alert within {_LIMIT_S:g} s")
        time.sleep(_LOOK_S)
    return time.monotonic()


def _percentiles(seconds: np.ndarray) -> dict[str, float]:
    return {f"p{share}": round(float(np.percentile(seconds, share)), 3) for share in (50, 99)} | {
        "max": round(float(seconds.max()), 3)
    }


def main() -> None:
    events = int(sys.argv[1]) if len(sys.argv) > 1 else EVENTS_OF_A_RUN
    sys.stdout.write(json.dumps(run(events=events), indent=1) + "\n")


if __name__ == "__main__":
    main()

"""kafka-python against confluent-kafka: the same GPU frames published to Apache Kafka, and read back.

Each client in a process of its own and in turn, three times; medians. Settings are those of the product
(stream/client.py): acknowledged by all, once and in order, zstd, 20 ms to fill a batch; large fetches. Published by one
process, frames share batches. What agents send does not: so both also read a topic in which each frame is a batch of
its own, and from that stands what the frames of 100,000 GPUs would take. The processor time is the client's alone, with
the broker's beside it. docs/adr/0012-kafka-python.md says what follows.

Run: `python -m benchmarks.kafka_clients`.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import psutil

from benchmarks.kafka_race import ACTIONS, write_frames
from benchmarks.load import make_backlog
from catalogue import GPU
from kvandal.broker import tied_to_parent
from stream.client import KafkaAddress
from stream.publish import ensure_topics
from stream.topics import Topic, topic
from tests.servers.kafka import KafkaCluster

GPUS, SECONDS, TIMES = 4_000, 300, 3
_ROOT = Path(__file__).resolve().parents[1]
_SITE_FRAMES_PER_S = 8_490  # of 100,000 GPUs, all tables: docs/scale.md
_TIMEOUT_S = 300.0


def run(*, gpus: int = GPUS, seconds: int = SECONDS, times: int = TIMES) -> dict[str, object]:
    """All measurements of one run as a document."""
    backlog = make_backlog(gpus=gpus, seconds=seconds, ticks=10)
    runs: dict[str, list[dict[str, Any]]] = {client: [] for client in ACTIONS}
    with tempfile.TemporaryDirectory() as folder, KafkaCluster.start(Path(folder) / "kafka") as cluster:
        frames = Path(folder) / "frames"
        write_frames(frames, ((frame.source.to_bytes(8, "little"), frame.value) for frame in backlog.frames))
        _act("confluent-kafka", "publish-alone", cluster, _topic(cluster, "alone"), frames)
        for number in range(times):
            for client in ACTIONS:
                own = _topic(cluster, f"{client}-{number}")
                act = partial(_act, client, cluster=cluster, frames=frames)
                runs[client].append(
                    {
                        "publish": act("publish", topic=own),
                        "read": act("read", topic=own),
                        "read_alone": act("read", topic="race-alone"),
                    }
                )
    return {
        "frames": len(backlog.frames),
        "bytes_per_frame": round(sum(len(frame.value) for frame in backlog.frames) / len(backlog.frames)),
        "rows_per_frame": round(backlog.rows / len(backlog.frames), 1),
        "clients": {client: _document(some, len(backlog.frames)) for client, some in runs.items()},
    }


def _topic(cluster: KafkaCluster, name: str) -> str:
    gpu = topic(GPU.topic)
    made = Topic(f"race-{name}", "", gpu.content, gpu.partitions)
    ensure_topics(KafkaAddress(cluster.bootstrap), replication=1, topics=[made])
    return made.name


def _act(client: str, action: str, cluster: KafkaCluster, topic: str, frames: Path) -> dict[str, float]:
    """What the action took the client, and in processor time the broker."""
    process = cluster.nodes[0].process
    assert process is not None
    broker = psutil.Process(process.pid)
    before_s = sum(broker.cpu_times()[:2])
    command = [sys.executable, "-m", "benchmarks.kafka_race", client, action, cluster.bootstrap, topic, str(frames)]
    done = subprocess.run(tied_to_parent(command), stdout=subprocess.PIPE, timeout=_TIMEOUT_S, check=True, cwd=_ROOT)
    told: dict[str, float] = json.loads(done.stdout)
    return told | {"broker_s": sum(broker.cpu_times()[:2]) - before_s}


def _document(runs: Sequence[dict[str, Any]], frames: int) -> dict[str, object]:
    def middle(way: str, what: str) -> float:
        return median(float(run[way][what]) for run in runs)

    def told(way: str) -> dict[str, float]:
        return {
            "frames_per_second": round(frames / middle(way, "seconds")),
            "processor_us_per_frame": round(middle(way, "processor_s") / frames * 1e6, 2),
            "broker_processor_us_per_frame": round(middle(way, "broker_s") / frames * 1e6, 2),
        }

    site_s = middle("read_alone", "processor_s") / frames * _SITE_FRAMES_PER_S
    return {
        **{way: told(way) for way in ("publish", "read", "read_alone")},
        "reads_100_000_gpus_percent_of_a_core": round(site_s * 100, 1),
    }


def main() -> None:
    sys.stdout.write(json.dumps(run(), indent=1) + "\n")


if __name__ == "__main__":
    main()

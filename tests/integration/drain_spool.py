"""Drains a spool to a broker, slowly enough to be killed amid it: a process of its own for test_agent_broker_away.

Says the number of every value that is acknowledged, before it lets go of it.
"""

import sys
import time
from contextlib import closing
from pathlib import Path
from threading import Event

from prometheus_client import CollectorRegistry

from collectors.agent import Agent
from collectors.framer import FrameRule
from collectors.spool import Spool, Spooled
from stream.client import KafkaAddress
from stream.clock import SystemClock
from stream.publish import Publisher

PAUSE_S = 0.005


def say(sent: Spooled) -> None:
    sys.stdout.write(f"{sent.number}\n")
    sys.stdout.flush()
    time.sleep(PAUSE_S)


def main(spool_path: str, bootstrap: str) -> None:
    with closing(Spool(Path(spool_path), limit_bytes=50 << 20)) as spool:
        agent = Agent(
            name="test",
            spool=spool,
            publisher=Publisher(KafkaAddress(bootstrap)),
            clock=SystemClock(),
            registry=CollectorRegistry(),
            frames=FrameRule(),
            on_produced=say,
        )
        agent.start_sending()
        Event().wait()


if __name__ == "__main__":
    main(*sys.argv[1:])

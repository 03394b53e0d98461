"""What can be done to a site. A fault does its harm, waits if it has to, and mends it."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from tests.chaos.site import MEMBERS, SESSION_TIMEOUT_S, ChaosSite


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault by its name; of `weight` it comes as often as the others' weights allow. `kills` are its SIGKILLs."""

    name: str
    weight: int
    strike: Callable[[ChaosSite, random.Random], None]
    kills: int = 0


def kill_ingest(site: ChaosSite, dice: random.Random) -> None:
    site.kill_members(dice.choice(sorted(site.members)))


def kill_every_ingest(site: ChaosSite, dice: random.Random) -> None:  # noqa: ARG001 - a fault's signature
    """Nobody is left to take over: every plan waits for those who start."""
    site.kill_members(*site.members)


def kill_agent(site: ChaosSite, dice: random.Random) -> None:
    site.kill_feeder(dice.choice(site.feeders))


def kill_store(site: ChaosSite, dice: random.Random) -> None:  # noqa: ARG001 - a fault's signature
    site.store.kill_and_restart()


def kill_broker(site: ChaosSite, dice: random.Random) -> None:
    """Leaders change at once, and again when it is back."""
    number = dice.randrange(len(site.cluster.nodes))
    site.cluster.kill(number)
    time.sleep(dice.uniform(0.0, 8.0))
    site.cluster.restart(number)


def lose_broker(site: ChaosSite, dice: random.Random) -> None:
    """For minutes, while everything else goes on breaking: the next strike brings it back."""
    lost = [number for number, node in enumerate(site.cluster.nodes) if node.process is None]
    if lost:
        site.cluster.restart(lost[0])
    else:
        site.cluster.kill(dice.randrange(len(site.cluster.nodes)))


def freeze_ingest(site: ChaosSite, dice: random.Random) -> None:
    """Past its session: its partitions go to others, and it wakes with an insert under way."""
    member = site.members[dice.choice(sorted(site.members))]
    member.freeze()
    time.sleep(SESSION_TIMEOUT_S + dice.uniform(1.0, 4.0))
    member.wake()


def leave_and_join(site: ChaosSite, dice: random.Random) -> None:
    name = dice.choice(sorted(site.members))
    site.stop_member(name)
    site.members[name] = site.start_member(name)


def hold_up_store(site: ChaosSite, dice: random.Random) -> None:
    """Requests wait on their way, or answers do: the store is slow, or seems so."""
    site.store_gate.shut(answers=dice.random() < 0.5)
    time.sleep(dice.uniform(0.5, 6.0))
    site.store_gate.open()


def cut_store(site: ChaosSite, dice: random.Random) -> None:
    """Connections end with requests or answers on them."""
    site.store_gate.shut(answers=dice.random() < 0.5)
    time.sleep(dice.uniform(0.1, 1.0))
    site.store_gate.cut()
    site.store_gate.open()


def cut_one_broker(site: ChaosSite, dice: random.Random) -> None:
    """Clients do not reach one broker, which goes on leading its partitions."""
    gate = dice.choice(site.broker_gates)
    gate.shut()
    time.sleep(dice.uniform(1.0, 5.0))
    gate.cut()
    gate.open()


def cut_the_network(site: ChaosSite, dice: random.Random) -> None:
    """Clients reach no broker: agents spool, ingest waits."""
    for gate in site.broker_gates:
        gate.shut()
    time.sleep(dice.uniform(1.0, 8.0))
    for gate in site.broker_gates:
        gate.cut()
        gate.open()


FAULTS = (
    Fault("kill -9 of one ingest", 14, kill_ingest, kills=1),
    Fault("kill -9 of every ingest at once", 4, kill_every_ingest, kills=MEMBERS),
    Fault("kill -9 of an agent", 8, kill_agent, kills=1),
    Fault("kill -9 of the store", 5, kill_store, kills=1),
    Fault("kill -9 of a broker, for up to 8 s", 2, kill_broker, kills=1),
    Fault("one broker lost for minutes, or back", 1, lose_broker),
    Fault("ingest frozen past its session, woken late", 1, freeze_ingest),
    Fault("a member leaves and joins", 1, leave_and_join),
    Fault("store slow for up to 6 s", 1, hold_up_store),
    Fault("connections to the store cut", 2, cut_store),
    Fault("one broker cut off for up to 5 s", 1, cut_one_broker),
    Fault("all brokers cut off for up to 8 s", 1, cut_the_network),
)

"""The verbs that look at what is on its way: topics, frames, dead letters, and a device on its bus."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import click

from kvandal.options import CannotError, client_settings, kafka_options
from kvandal.talk import say, show, show_line

if TYPE_CHECKING:
    from stream.access import KafkaRole
    from stream.deadletter import DeadLetter

P = ParamSpec("P")
R = TypeVar("R")


@click.command(short_help="Print frames as people read them.")
@click.argument("topic", default="gpu")
@click.option("--count", type=click.IntRange(1), help="Stop after so many frames.")
@click.option("--from-start", is_flag=True, help="Begin with the oldest frame instead of the next one.")
@kafka_options
def tail(*, topic: str, count: int | None, from_start: bool, broker: str | None) -> None:
    """Print the frames of a topic as people read them, until Ctrl-C.

    TOPIC is a table's name (gpu, tray, rack, cooling, power) or that of a message topic (inventory,
    events, jobs, deadletter).
    """
    from kvandal.addresses import kafka_address
    from kvandal.serving import stop_on_signals
    from stream.tail import tail_topic

    address = kafka_address(client_settings(broker=broker).kafka)
    lines = tail_topic(address, topic, from_start=from_start, limit=count, stop=stop_on_signals())
    for line in lines:
        show(line)


@click.group()
def topics() -> None:
    """The Kafka topics: create what is missing, and say who may use them."""


@topics.command("apply")
@kafka_options
@click.option("--replication", type=click.IntRange(1, 5), help="Copies of each topic. [setting kafka.replication]")
def topics_apply(*, broker: str | None, replication: int | None) -> None:
    """Create the topics that are missing, with the right settings."""
    from kvandal.addresses import kafka_address
    from stream.publish import ensure_topics

    settings = client_settings(broker=broker).kafka
    created = ensure_topics(
        kafka_address(settings),
        replication=replication or settings.replication,
        partitions=settings.partitions or None,
    )
    for name in created:
        click.echo(name)
    say(f"{len(created)} topics created" if created else "all topics exist")


@topics.command("acls", short_help="Print or make the ACLs that every role needs.")
@kafka_options
@click.option("--principal", "named", multiple=True, metavar="ROLE=PRINCIPAL", help="Instead of User:kvandal-ROLE.")
@click.option("--apply", "make", is_flag=True, help="Make those that are missing, instead of printing kafka-acls.")
def topics_acls(*, broker: str | None, named: tuple[str, ...], make: bool) -> None:
    """Print the kafka-acls commands that let every role do its work and nothing else, or make the ACLs.

    Roles are agent, gateway, ingest, incidents and operator; one may have several principals. ACLs that are there
    already stay, those of others too.
    """
    from kvandal.addresses import kafka_address
    from stream.access import apply_permissions, permissions, principals

    settings = client_settings(broker=broker).kafka
    wanted = list(permissions(principals(_named_principals(named)), group=settings.group))
    if not make:
        for permission in wanted:
            click.echo(permission.command(settings.bootstrap))
        return
    made = apply_permissions(kafka_address(settings), wanted)
    for permission in made:
        click.echo(permission)
    say(f"{len(made)} ACLs made" if made else "all ACLs are there")


def _named_principals(named: tuple[str, ...]) -> "Mapping[KafkaRole, Sequence[str]]":
    from stream.access import KafkaRole

    found: dict[KafkaRole, list[str]] = {}
    for text in named:
        role, _, principal = text.partition("=")
        if role not in set(KafkaRole) or not principal.startswith("User:"):
            raise click.UsageError(f"--principal {text}: give one of {', '.join(KafkaRole)}, and =User:NAME")
        found.setdefault(KafkaRole(role), []).append(principal)
    return found


@click.group("dead-letters")
def dead_letters() -> None:
    """Records that could not be stored."""


def _letter_choice(command: Callable[P, R]) -> Callable[P, R]:
    command = click.option("--topic", help="Only those of this topic or table.")(command)
    return click.option("--reason", help="Only those with this word in their reason.")(command)


def _chosen_letters(broker: str | None, topic: str | None, reason: str | None) -> "Iterator[DeadLetter]":
    from kvandal.addresses import kafka_address
    from stream.deadletter import read_dead_letters

    return (
        letter
        for letter in read_dead_letters(kafka_address(client_settings(broker=broker).kafka))
        if (topic is None or letter.topic.removeprefix("kvandal.") == topic.removeprefix("kvandal."))
        and (reason is None or reason in letter.reason or reason in letter.detail)
    )


@dead_letters.command("list")
@_letter_choice
@kafka_options
def dead_letters_list(*, broker: str | None, topic: str | None, reason: str | None) -> None:
    """List those that were not replayed: when, from where, and why."""
    from kvandal.showing import dead_letter_line

    for letter in _chosen_letters(broker, topic, reason):
        show_line(dead_letter_line(letter))


@dead_letters.command("show", short_help="Print one of them, with its bytes.")
@click.argument("topic")
@click.argument("place", metavar="PARTITION:OFFSET")
@kafka_options
def dead_letters_show(*, topic: str, place: str, broker: str | None) -> None:
    """Print one dead letter as the list names it: why it is here, what it says, and its bytes."""
    from kvandal.showing import show_dead_letter

    found = [
        letter for letter in _chosen_letters(broker, topic, None) if f"{letter.partition}:{letter.offset}" == place
    ]
    if not found:
        raise KeyError(f"no dead letter {topic} {place}; kvandal dead-letters list shows those that exist")
    for letter in found:
        show_dead_letter(letter)


@dead_letters.command("replay", short_help="Send them to their topics again.")
@click.option("--yes", is_flag=True, help="Do it; without this it only says what it would do.")
@_letter_choice
@kafka_options
def dead_letters_replay(*, yes: bool, broker: str | None, topic: str | None, reason: str | None) -> None:
    """Send dead letters to their own topics again, after what was wrong with them has been mended.

    What ingest has stored meanwhile it drops; what it still cannot store becomes a dead letter again.
    """
    from kvandal.addresses import kafka_address
    from stream.deadletter import replay_dead_letters

    letters = list(_chosen_letters(broker, topic, reason))
    if not yes:
        say(f"{len(letters)} dead letters would be sent again; give --yes to do it")
        return
    count = replay_dead_letters(kafka_address(client_settings(broker=broker).kafka), letters)
    say(f"{count} dead letters sent again")


@click.group(short_help="Look at one Modbus device.")
def modbus() -> None:
    """Modbus devices: see what one of them says before it is put into the settings."""


@modbus.command("probe", short_help="Print what a device says.")
@click.argument("host")
@click.option("--port", type=click.IntRange(1, 65_535), default=502, show_default=True)
@click.option("--unit", type=click.IntRange(0, 255), default=1, show_default=True, help="Unit id behind a gateway.")
@click.option("--map", "map_name", help="Register map by name; without it SunSpec is looked for.")
@click.option("--maps", type=click.Path(path_type=Path), help="Folder with register maps of your own.")
@click.option(
    "--timeout", "timeout_s", type=click.FloatRange(0.1, 60), default=2.0, show_default=True, metavar="SECONDS"
)
def modbus_probe(*, host: str, port: int, unit: int, map_name: str | None, maps: Path | None, timeout_s: float) -> None:
    """Print what a Modbus device says: who it is, and each point with its bytes, its value and a verdict.

    It only reads. For 32-bit points it says which word order gives plausible values.
    """
    from collectors.devices import DeviceError
    from collectors.modbus.map_file import load_register_map
    from collectors.modbus.probe import probe

    register_map = load_register_map(map_name, str(maps or "")) if map_name else None
    try:
        found = probe(host, port=port, unit=unit, register_map=register_map, timeout_s=timeout_s)
    except DeviceError as error:
        raise CannotError(f"{host}:{port} unit {unit}: {error}") from error
    show("\n".join(found.text()))

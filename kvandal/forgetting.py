"""`kvandal forget`: from a person's name to what is stored under its pseudonyms, and out with it."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from collectors.pseudonyms import PseudonymKeyError, read_key
from kvandal.addresses import store_address
from kvandal.settings import ClientSettings
from storage.client import connect
from storage.forgetting import Forgotten, find
from storage.forgetting import forget as forget_pseudonyms
from stream.topics import DEAD_LETTERS, JOBS, Topic

_DAY_MS = 86_400_000
MAX_KEYS = 50  # five pseudonyms under each; ClickHouse looks for at most 255 words in a text


@dataclass(frozen=True, slots=True)
class Forgetting:
    """What was found and done; never the name itself."""

    result: Forgotten
    keys: tuple[str, ...]  # the keys' epochs, such as k1
    is_trial: bool

    @property
    def is_done(self) -> bool:
        """Whether nothing that can be reached names the person any more."""
        return not self.is_trial and not self.result.rows_left

    def sentences(self) -> list[str]:
        """The account for whoever asked: what was found and done, table by table, and what is out of reach."""
        verb = "would be" if self.is_trial else "were"
        lines = [
            f"{found.table}: {found.rows} rows {f'{verb} deleted' if found.goes else f'{verb} freed of the pseudonym'}"
            for found in self.result.found
        ]
        if not self.is_trial:
            lines += [f"{left.table}: {left.rows} rows name the person still or again" for left in self.result.left]
            lines.append(
                "looked again: nothing is left under these keys"
                if self.is_done
                else "looked again: NOT all is gone; repeat this when no job of the person runs any more"
            )
        lines.append(f"looked for under the keys {', '.join(self.keys)}; under any other key the person is not found")
        return [*lines, *out_of_reach()]


def forget(settings: ClientSettings, user: str, key_files: Sequence[Path], *, dry_run: bool) -> Forgetting:
    """Take everything out of the store that is under a pseudonym of `user`, by any of the keys; or only count it.

    `user` is what the sources were given: a login name, `uid:NUMBER` where Slurm had no name, an account, or
    `NAMESPACE/POD`. Returns when the store has rewritten the rows. Raises PseudonymKeyError, StoreUnavailableError
    and StoreRefusedError, each with one sentence; the call may be repeated.
    """
    if not user.strip():
        raise PseudonymKeyError("no name to forget was given; give --user NAME")
    if not 1 <= len(key_files) <= MAX_KEYS:
        raise PseudonymKeyError(
            f"{len(key_files)} key files; give those under which names were hashed, 1 to {MAX_KEYS}"
        )
    keys = [read_key(file) for file in key_files]
    pseudonyms = [pseudonym for key in keys for pseudonym in key.all_pseudonyms(user)]
    store = settings.store
    with closing(connect(store_address(store))) as client:
        result = Forgotten(find(client, pseudonyms)) if dry_run else forget_pseudonyms(client, pseudonyms)
    return Forgetting(result, tuple(f"k{key.epoch}" for key in keys), dry_run)


def out_of_reach() -> list[str]:
    """What this verb cannot change, and what to do about it."""
    return [f"not reached: {what}" for what in _out_of_reach()] + [
        "to make all that is left anonymous at once: destroy the keys"
    ]


def _out_of_reach() -> Iterator[str]:
    yield f"Kafka keeps messages of jobs for {_days(JOBS)} days, dead letters for {_days(DEAD_LETTERS)}"
    yield "who reads a topic again from its beginning brings the rows back, and has to repeat this"
    yield "a job of the person that still runs is told again when it changes"
    yield "the agents' spools name jobs that run or ended within the last hours"
    yield "backups, exports, frozen reports, other ClickHouse shards, and copies that others took"
    yield "system.mutations (the last 100) and system.query_log name the pseudonyms until they are rotated"
    yield "ClickHouse keeps the files that it replaced for some minutes (old_parts_lifetime)"
    yield 'names that a source lets through in clear (names, accounts or job_names = "keep")'
    yield "the scheduler's own books"


def _days(topic: Topic) -> int:
    return int(topic.settings["retention.ms"]) // _DAY_MS

"""Events of GPUs from two witnesses, NVML and the kernel's log: what both saw is one event, what one saw is one too."""

from collections import defaultdict
from collections.abc import Mapping

from catalogue.xid import judge, xid
from collectors.bursts import NO_ATTRIBUTES, Burst, Bursts, Occurrence

NVML, KERNEL = "nvml", "kernel"
WITNESS_S = 5  # NVML and the kernel tell of one XID within milliseconds; the log is read once a tick

_Waiting = dict[tuple[int, Burst], int]  # by second and burst: occurrences that the other witness has not seen yet


class GpuEvents:
    """Counts occurrences into bursts, those that two witnesses saw only once.

    Witnesses are paired one to one: of five XIDs in the log and three from NVML there were five.
    """

    def __init__(self, bursts: Bursts) -> None:
        self._bursts = bursts
        self._waiting: defaultdict[tuple[int, int, str], _Waiting] = defaultdict(dict)

    def see_xid(
        self,
        resource: int,
        number: int,
        time_ms: int,
        *,
        witness: str,
        detail: str = "",
        attributes: Mapping[str, str] = NO_ATTRIBUTES,
    ) -> None:
        entry = xid(number)
        facts = {"class": str(judge(number, detail)), "action": str(entry.action)}
        if entry.clears:
            facts["clears"] = ",".join(map(str, entry.clears))
        seen = Occurrence(resource, time_ms, "xid", number, entry.meaning, detail, witness, facts | dict(attributes))
        other = self._waiting.get((resource, number, KERNEL if witness == NVML else NVML))
        burst = _oldest(other, time_ms) if other else None
        if burst is not None:
            self._bursts.confirm(burst, seen)
        else:
            self._wait((resource, number, witness), self._bursts.add(seen), time_ms)

    def see(self, occurrence: Occurrence) -> None:
        """An event that has only one witness."""
        self._bursts.add(occurrence)

    def forget(self, now_ms: int) -> None:
        """Drop occurrences that nobody else will confirm any more."""
        for key in [key for key, waiting in self._waiting.items() if not _prune(waiting, now_ms)]:
            del self._waiting[key]

    def _wait(self, key: tuple[int, int, str], burst: Burst, time_ms: int) -> None:
        waiting = self._waiting[key]
        place = (time_ms // 1000, burst)
        if place not in waiting:
            _prune(waiting, time_ms)
        waiting[place] = waiting.get(place, 0) + 1


def _oldest(waiting: _Waiting, time_ms: int) -> Burst | None:
    """Take one occurrence out, the oldest that is not too old."""
    if not _prune(waiting, time_ms):
        return None
    place, count = next(iter(waiting.items()))
    if count == 1:
        del waiting[place]
    else:
        waiting[place] = count - 1
    return place[1]


def _prune(waiting: _Waiting, time_ms: int) -> bool:
    """Drop what is too old; whether anything is left."""
    while waiting:
        place = next(iter(waiting))
        if place[0] >= time_ms // 1000 - WITNESS_S:
            break
        del waiting[place]
    return bool(waiting)

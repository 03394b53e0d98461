"""What one agent is asked, with the patience and the limits that agents need.

Every way in which an agent fails ends as a DeviceError: which state it is in, and a sentence that says what to do.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from collectors.devices import DeviceError, DeviceState
from collectors.snmp.engine import (
    AUTHORIZATION_ERROR,
    GENERAL_ERROR,
    NO_ACCESS,
    NO_SUCH_NAME,
    TOO_BIG,
    Line,
    NoReplyError,
    RejectedError,
    Reply,
)
from collectors.snmp.map import Oid, dotted
from collectors.snmp.plan import Found
from collectors.snmp.secrets import Secret, UserSecret

MAX_BROKEN = 5  # objects of one request that an agent may fail on before it counts as broken itself
WALKED_AT_ONCE = 8  # columns that are walked side by side: with five rows each it is the usual request

# pysnmp's names of what a REPORT says (RFC 3414, 3.2), and what to do.
_REFUSALS = {
    "UnknownUserName": "it does not know the user",
    "UnknownSecurityName": "it does not know the user",
    "WrongDigest": "the authentication password or auth does not fit",
    "AuthenticationFailure": "the authentication password or auth does not fit",
    "UnsupportedSecurityLevel": "it does not let the user in with this auth and privacy",
    "DecryptionError": "the privacy password or privacy does not fit",
    "UnsupportedAuthProtocol": "it does not support this auth",
    "UnsupportedPrivProtocol": "it does not support this privacy",
    "NoSuchContext": "it does not know the context",
    "UnknownContexts": "it does not know the context",
}

_COMMUNITY_HINT = "the community is wrong, which SNMPv2c does not tell"


@dataclass(frozen=True, slots=True)
class Patience:
    """How long and how often an agent is asked."""

    timeout_s: float
    retries: int

    @property
    def tries(self) -> int:
        return 1 + self.retries


class Session:
    """Requests to one agent, at `peer`, "host port 161" in words, over a line of its own. Methods raise DeviceError."""

    def __init__(self, line: Line, *, peer: str, patience: Patience, values_per_request: int, secret: Secret) -> None:
        self._line = line
        self._peer = peer
        self._patience = patience
        self._size = values_per_request
        self._secret = secret
        self._answered = False

    def close(self) -> None:
        """Let go of the line."""
        self._line.close()

    async def get(self, oids: Sequence[Oid]) -> dict[Oid, Found]:
        """The objects of these names; those that the agent does not have are left out."""
        found: dict[Oid, Found] = {}
        rest = list(oids)
        while rest:
            chunk, rest = rest[: self._size], rest[self._size :]
            reply = await self._get(chunk)
            if reply is None:  # too big for the agent: the rest of this session asks for less at once
                rest = chunk + rest
                continue
            found |= _named(chunk, reply, self._peer)
        return found

    async def walk(self, columns: Sequence[Oid], *, limit: int) -> dict[Oid, Found]:
        """All objects under these names, by GETBULK, several columns side by side; `limit` objects at most."""
        walked = _Walk(columns)
        broken = 0
        while walked.cursors:
            asked = list(walked.cursors)[: min(WALKED_AT_ONCE, self._size)]
            names = [walked.cursors[column] for column in asked]
            repetitions = max(self._size // len(asked), 1)
            reply = await self._ask(lambda names=names, n=repetitions: self._line.get_bulk(names, n))  # type: ignore[misc]
            if reply.error:
                broken += 1
                self._skip_broken(reply, asked, walked, broken)
                continue
            if not reply.objects or len(reply.objects) > repetitions * len(asked):
                raise self._nonsense(f"answered a walk with {len(reply.objects)} objects, not {self._size}")
            try:
                walked.take(reply, asked)
            except _EndlessError as error:
                raise self._nonsense(f"{error}: a walk would never end") from error
            if walked.seen > limit:
                raise self._nonsense(f"has more than {limit} objects in the tables of its map; raise max_instances")
        return walked.found

    async def _get(self, oids: list[Oid]) -> Reply | None:
        """The reply about these objects; those that the agent fails on are as good as not there. None: too big."""
        broken: set[Oid] = set()
        while True:
            asked = [oid for oid in oids if oid not in broken]
            if not asked:
                return Reply(0, 0, tuple((oid, None) for oid in oids))
            reply = await self._ask(lambda asked=asked: self._line.get(asked))  # type: ignore[misc]
            if not reply.error:
                there = dict(reply.objects)
                return reply if not broken else Reply(0, 0, tuple((oid, there.get(oid)) for oid in oids))
            if reply.error == TOO_BIG and self._size > 1:
                self._size = max(min(self._size, len(asked)) // 2, 1)
                return None
            if reply.error not in (NO_SUCH_NAME, GENERAL_ERROR) or not 0 < reply.index <= len(asked):
                raise self._pdu_error(reply)
            broken.add(asked[reply.index - 1])
            if len(broken) > MAX_BROKEN:
                raise self._failing(min(broken))

    def _skip_broken(self, reply: Reply, asked: list[Oid], walked: "_Walk", broken: int) -> None:
        """A column that an agent fails on ends there."""
        is_about_one = reply.error in (NO_SUCH_NAME, GENERAL_ERROR) and 0 < reply.index <= len(asked)
        if reply.error == TOO_BIG and self._size > 1:
            self._size = max(self._size // 2, 1)
        elif not is_about_one:
            raise self._pdu_error(reply)
        elif broken > MAX_BROKEN:
            raise self._failing(asked[reply.index - 1])
        else:
            del walked.cursors[asked[reply.index - 1]]

    async def _ask(self, request: Callable[[], Awaitable[Reply]]) -> Reply:
        """The reply to a request, which is repeated while there is none."""
        heard = rubbish = 0
        for attempt in range(1, self._patience.tries + 1):
            try:
                reply = await request()
            except RejectedError as error:
                raise self._rejected(error) from error
            except NoReplyError as silence:
                heard, rubbish = heard + silence.heard, rubbish + silence.rubbish
                if attempt == self._patience.tries or silence.refused:
                    raise self._silent(heard, rubbish, refused=silence.refused) from silence
            else:
                self._answered = True
                return reply
        raise self._silent(heard, rubbish, refused=False)

    def _silent(self, heard: int, rubbish: int, *, refused: bool) -> DeviceError:
        """What silence means, by what came instead of an answer."""
        if refused:
            text = f"nobody listens at {self._peer}; switch SNMP on, or correct host and port"
            return DeviceError(DeviceState.UNREACHABLE, text)
        if rubbish:
            return self._nonsense(f"sends what fits no question, is no SNMP, or is too large ({rubbish} datagrams)")
        asked = f"{self._peer} was asked {self._patience.tries} times for {self._patience.timeout_s:g} s each"
        encrypts = isinstance(self._secret, UserSecret) and self._secret.privacy != "none"
        if heard and encrypts and not self._answered:
            # RFC 3414 has no report for it: what is decrypted with another key is only not to be parsed.
            text = f"{asked} and is silent to what is encrypted: the privacy password or privacy does not fit"
            return DeviceError(DeviceState.REFUSED, text)
        if heard or self._answered:
            return DeviceError(DeviceState.SLOW, f"{asked} and did not answer in time")
        hint = "it is not SNMPv3" if isinstance(self._secret, UserSecret) else _COMMUNITY_HINT
        text = f"{asked} and is silent: it is off or cut off, does not let this machine in, or {hint}"
        return DeviceError(DeviceState.UNREACHABLE, text)

    def _rejected(self, error: RejectedError) -> DeviceError:
        refusal = _REFUSALS.get(error.reason)
        if refusal:
            return DeviceError(DeviceState.REFUSED, f"{self._peer} refuses: {refusal} ({error.reason})")
        if error.reason in ("NotInTimeWindow", "UnknownEngineID"):
            return self._nonsense("does not keep to one engine id and clock (RFC 3414, 3.2); restart its SNMP agent")
        return self._nonsense(f"cannot be understood: {error} ({error.reason})")

    def _pdu_error(self, reply: Reply) -> DeviceError:
        if reply.error in (NO_ACCESS, AUTHORIZATION_ERROR):
            text = f"{self._peer} lets us in but not read (error-status {reply.error}); set privacy, or widen the view"
            return DeviceError(DeviceState.REFUSED, text)
        return self._nonsense(f"answers with the error-status {reply.error} (RFC 3416, 3)")

    def _failing(self, oid: Oid) -> DeviceError:
        return self._nonsense(f"fails (genErr) on more than {MAX_BROKEN} objects, such as {dotted(oid)}")

    def _nonsense(self, what: str) -> DeviceError:
        return DeviceError(DeviceState.NONSENSE, f"{self._peer} {what}")


def _named(asked: Sequence[Oid], reply: Reply, peer: str) -> dict[Oid, Found]:
    """The objects that are there; DeviceError unless they are those asked for, in order (RFC 3416, 4.2.1)."""
    if [name for name, _ in reply.objects] != list(asked):
        raise DeviceError(DeviceState.NONSENSE, f"{peer} answers with other objects than those asked for")
    return {name: found for name, found in reply.objects if found is not None}


class _EndlessError(Exception):
    """An object came again that was there before."""


class _Walk:
    """A walk under way: what was found, and the last name seen of each column that has not ended."""

    def __init__(self, columns: Sequence[Oid]) -> None:
        self.cursors = {column: column for column in columns}
        self.found: dict[Oid, Found] = {}
        self.seen = 0

    def take(self, reply: Reply, asked: Sequence[Oid]) -> None:
        """Sort the objects of a reply to their columns: they come in turns (RFC 3416, 4.2.3)."""
        for position, (name, value) in enumerate(reply.objects):
            column = asked[position % len(asked)]
            if column in self.cursors:
                self._take(column, name, value)

    def _take(self, column: Oid, name: Oid, value: Found | None) -> None:
        last = self.cursors[column]
        if name[: len(column)] != column or (value is None and name <= last):  # the next column, or endOfMibView
            del self.cursors[column]
            return
        if name <= last:
            raise _EndlessError(f"gives {dotted(name)} after {dotted(last)}")
        self.cursors[column] = name
        self.seen += 1
        if value is not None:  # else of a type that is never a reading
            self.found[name] = value

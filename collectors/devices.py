"""How a device does, in the words of every source. Those that read many devices have `collectors.device_pool`."""

from dataclasses import dataclass
from enum import StrEnum


class DeviceState(StrEnum):
    """How a device does, by what has to be done about it."""

    OK = "ok"
    UNKNOWN = "not asked yet"
    UNREACHABLE = "unreachable"  # nobody listens, or the network is cut
    SLOW = "slow"  # it did not answer in time
    REFUSED = "refused"  # it does not accept our credentials
    UNTRUSTED = "untrusted"  # its certificate is not one that we trust
    NONSENSE = "nonsense"  # it answers, but not what it should


class DeviceError(Exception):
    """A device could not be read; the message says what was asked and what came back."""

    def __init__(self, state: DeviceState, text: str) -> None:
        super().__init__(text)
        self.state = state


@dataclass(frozen=True, slots=True)
class DeviceReport:
    """How one device does, and how long its last answer took."""

    device: str
    state: DeviceState
    why: str = ""
    took_s: float | None = None

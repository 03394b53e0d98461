"""What the kernel knows about its own clock: whether something keeps it in step, and how wrong it may be."""

import ctypes
import sys
from dataclasses import dataclass

_STA_UNSYNC = 0x0040  # linux/timex.h
_MICRO = 1e-6


class _Timex(ctypes.Structure):
    """struct timex of adjtimex(2), as far as it is read; the rest is room."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("room", ctypes.c_byte * 256),
    )


@dataclass(frozen=True, slots=True)
class ClockState:
    """`max_error_s` is the bound that the kernel gives; it grows while nothing keeps the clock in step."""

    synchronised: bool
    max_error_s: float


def read_clock_state() -> ClockState | None:
    """The state by adjtimex(2), which without modes only reads; None where there is none or it is not allowed."""
    if sys.platform != "linux":
        return None
    state = _Timex()
    if ctypes.CDLL(None).adjtimex(ctypes.byref(state)) < 0:
        return None
    return ClockState(not state.status & _STA_UNSYNC, state.maxerror * _MICRO)

"""Settings of the source `topology`, and of how what it says is weighed against other sources."""

from typing import Annotated

import msgspec

File = Annotated[str, msgspec.Meta(min_length=1, max_length=4096)]
SourceName = Annotated[str, msgspec.Meta(pattern="^[a-z][a-z0-9_]{0,31}$")]


class TopologySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which files say what there is and what is part of what.

    The files are one topology: an entry of one may be part of an entry of another. Those that end in .csv are lists,
    all others TOML. They are looked at every `interval_s`, and read when they have changed.
    """

    files: Annotated[tuple[File, ...], msgspec.Meta(min_length=1, max_length=100)]
    interval_s: Annotated[int, msgspec.Meta(ge=1, le=3600)] = 10


class ReconciliationSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whom to believe where sources differ.

    `ranks` are sources by name, the best first; those left out come last, all alike. So long may a source leave out
    what it said before (`silence_s`) until its word yields to others: sources repeat themselves every 600 s.
    """

    ranks: tuple[SourceName, ...] = ("topology", "nvml", "dcgm", "infiniband", "host", "redfish", "dsx")
    silence_s: Annotated[int, msgspec.Meta(ge=900, le=86_400 * 30)] = 1800

    def __post_init__(self) -> None:
        twice = sorted({name for name in self.ranks if self.ranks.count(name) > 1})
        if twice:
            raise ValueError(f"ranks names {twice[0]} twice; name each source once")

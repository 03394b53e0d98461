"""Settings of the Slurm source."""

from typing import Annotated

import msgspec

from collectors.pseudonyms import NamePolicy

Text = Annotated[str, msgspec.Meta(max_length=256)]
FilePath = Annotated[str, msgspec.Meta(max_length=4096)]
Argument = Annotated[str, msgspec.Meta(max_length=4096)]
Command = Annotated[tuple[Argument, ...], msgspec.Meta(max_length=64)]

SINCE = "{since_s}"  # in a command: how many seconds ago the window begins
UNTIL = "{until_s}"  # and ends


# --details: without it the indices of the GPUs are missing. --duplicates: all runs of a job that was requeued.
# --allocations: no steps, which are most of the output.
CONTROLLER = ("scontrol", "--details", "--json", "show", "job")
ACCOUNTING = (
    "sacct", "--json", "--allusers", "--duplicates", "--allocations",
    f"--starttime=now-{SINCE}seconds", f"--endtime=now-{UNTIL}seconds",
)  # fmt: skip


class ListingSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where a listing of jobs comes from: a command that prints it, or a file that somebody else writes anew.

    The command is run as it stands, without a shell; by default it is Slurm's own. An empty one, and no file, means
    that the listing is not read.
    """

    command: Command | None = None
    file: FilePath = ""
    timeout_s: Annotated[int, msgspec.Meta(ge=1, le=600)] = 30
    limit_mb: Annotated[int, msgspec.Meta(ge=1, le=1024)] = 64  # of output; about 40,000 jobs
    file_age_s: Annotated[int, msgspec.Meta(ge=10, le=86_400)] = 600  # an older file says nothing about now

    def __post_init__(self) -> None:
        if self.command and self.file:
            raise ValueError("a listing has both a command and a file; give one of the two")
        if self.command and not self.command[0]:
            raise ValueError("a listing's command begins with an empty word; give the program's name")

    @property
    def is_read(self) -> bool:
        return bool(self.file) or self.command != ()


class SlurmSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the Slurm source reads, and what it tells of whom.

    `controller` says what runs now, and on which GPUs; `accounting` what ended, also while nobody looked.
    """

    interval_s: Annotated[int, msgspec.Meta(ge=10, le=3600)] = 60
    controller: ListingSettings = ListingSettings()
    accounting: ListingSettings = ListingSettings()
    cluster: Text = ""  # goes before the job's number where a site has several clusters
    gpus_file: FilePath = ""  # which GPU is which index of which node
    overlap_s: Annotated[int, msgspec.Meta(ge=60, le=86_400)] = 3600  # accounting is asked again about this long
    longest_window_s: Annotated[int, msgspec.Meta(ge=600, le=604_800)] = 21_600  # at once, after an outage
    pseudonym_key_file: FilePath = ""
    job_names: NamePolicy = NamePolicy.DROP
    accounts: NamePolicy = NamePolicy.HASH
    customers: dict[Text, Text] = {}  # account: customer

    def __post_init__(self) -> None:
        if not (self.controller.is_read or self.accounting.is_read):
            raise ValueError("slurm reads neither controller nor accounting; give one of them a command or a file")
        if self.job_names is NamePolicy.HASH and not self.pseudonym_key_file:
            raise ValueError('slurm.job_names is "hash"; give slurm.pseudonym_key_file')
        if self.overlap_s >= self.longest_window_s:
            raise ValueError("slurm.longest_window_s has to be longer than slurm.overlap_s")

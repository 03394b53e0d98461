"""Pseudonyms of persons: what leaves the collector in place of a name.

A pseudonym is a keyed hash: the same name has the same one under the same key, so that work can be counted by person,
and who does not have the key can neither go back to the name nor try names until one fits. It is still personal data in
the sense of the GDPR (Article 4(5)): who holds the key and a name finds all that is kept of that person, which is what
`kvandal forget` does.

Equation: "k<epoch>-" followed by base32(first 128 bits of HMAC-SHA256(key, kind || 0x00 || name in lower case)), in
lower case and without padding (RFC 2104, truncated as its section 5 allows; RFC 4648, section 6).
"""

import hmac
import os
import re
import stat
from base64 import b32encode
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

KEY_BYTES = 32  # RFC 2104, section 3: a key shorter than the hash weakens it
PSEUDONYM_BYTES = 16  # 128 bits: no two of 1e9 names meet but by a chance of 1e-21
MAX_FILE_BYTES = 4096
_DISTINCT_BYTES = 12  # 32 random bytes have fewer different ones once in 1e25 keys; a typed key has
_KEY = re.compile(r"k([1-9][0-9]{0,3})[ \t]+((?:[0-9a-fA-F]{2})+)")
_MAKE = 'make one with: (umask 077; echo "k1 $(openssl rand -hex 32)" > FILE)'


class PseudonymKeyError(ValueError):
    """A key file cannot be used; the message says which one and what to do, and nothing of its content."""


class NameKind(StrEnum):
    """What a name names. Each kind has pseudonyms of its own: equal names of two kinds cannot be told to be equal."""

    USER = "user"
    ACCOUNT = "account"
    JOB_NAME = "job name"
    POD = "pod"  # namespace/name
    NAMESPACE = "namespace"


class NamePolicy(StrEnum):
    """What becomes of names that may be personal."""

    DROP = "drop"
    HASH = "hash"
    KEEP = "keep"


@dataclass(frozen=True, slots=True)
class PseudonymKey:
    """A secret key and the number under which its pseudonyms are known; never shown."""

    epoch: int
    secret: bytes = field(repr=False)

    def pseudonym(self, kind: NameKind, name: str) -> str:
        """The pseudonym of a name, at most 32 characters; upper and lower case are one, as in Slurm's accounting."""
        message = f"{kind}\0{name.strip().lower()}".encode("utf-8", "surrogatepass")
        digest = hmac.digest(self.secret, message, "sha256")
        return f"k{self.epoch}-{b32encode(digest[:PSEUDONYM_BYTES]).decode().rstrip('=').lower()}"

    def all_pseudonyms(self, name: str) -> tuple[str, ...]:
        """The pseudonyms under which a name may have been stored, whatever it named."""
        return tuple(self.pseudonym(kind, name) for kind in NameKind)


def read_key(file: Path) -> PseudonymKey:
    """The key in `file`: one line, "k<epoch> <at least 64 hexadecimal digits>". Raises PseudonymKeyError."""
    found = _KEY.fullmatch(_read_private(file).strip())
    if found is None:
        raise PseudonymKeyError(f"pseudonym key {file} is not one line of 'k1' and hexadecimal digits; {_MAKE}")
    secret = bytes.fromhex(found[2])
    if len(secret) < KEY_BYTES:
        raise PseudonymKeyError(f"pseudonym key {file} has {len(secret)} bytes, fewer than {KEY_BYTES}; {_MAKE}")
    if len(set(secret)) < _DISTINCT_BYTES:
        raise PseudonymKeyError(f"pseudonym key {file} is not random; {_MAKE}")
    return PseudonymKey(int(found[1]), secret)


def _read_private(file: Path) -> str:
    """The text of a file that others may not read. A symbolic link is followed: mounted secrets are links."""
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise PseudonymKeyError(f"pseudonym key {file} cannot be read: {error.strerror}; {_MAKE}") from error
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            raise PseudonymKeyError(f"pseudonym key {file} is not a file; {_MAKE}")
        if mode & stat.S_IRWXO:
            raise PseudonymKeyError(
                f"pseudonym key {file} is open to everybody on this machine; close it with: chmod o-rwx {file}"
            )
        return os.read(descriptor, MAX_FILE_BYTES).decode("ascii")
    except (OSError, UnicodeDecodeError):
        # Without the cause: it would quote the content.
        raise PseudonymKeyError(f"pseudonym key {file} is not text; {_MAKE}") from None
    finally:
        os.close(descriptor)


class KeyFile:
    """The key of a file that may be replaced while the agent runs.

    Not for use by two threads at once. A key that was good stays in use when the file turns bad, and `trouble` says so:
    without it the holds of running jobs could not be told at all.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._key: PseudonymKey | None = None
        self._version: tuple[int, ...] = ()
        self.trouble = ""

    def current(self) -> PseudonymKey:
        """The key as of now. Raises PseudonymKeyError as long as there never was a good one."""
        version = self._stamp()
        if self._key is not None and version == self._version and not self.trouble:
            return self._key
        try:
            self._key, self.trouble = read_key(self._file), ""
        except PseudonymKeyError as error:
            if self._key is None:
                raise
            self.trouble = f"{error}; the key read before is still in use"
        self._version = version
        return self._key

    def _stamp(self) -> tuple[int, ...]:
        with suppress(OSError):
            status = self._file.stat()
            return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_mode
        return ()


def treat_name(policy: NamePolicy, key: PseudonymKey | None, kind: NameKind, name: str) -> str:
    """What may be told of a name: itself, its pseudonym, or nothing. Nothing, too, where a key is missing."""
    if not name or policy is NamePolicy.DROP:
        return ""
    if policy is NamePolicy.KEEP:
        return name
    return key.pseudonym(kind, name) if key is not None else ""

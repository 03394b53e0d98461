"""What is said to an agent to be let in, read from the files that the settings name.

Read at every connect, so that a rotation needs no restart. A secret is never shown: not in repr, logs or errors.
"""

from dataclasses import dataclass, field
from pathlib import Path

from collectors.devices import DeviceError, DeviceState
from collectors.snmp.settings import AuthName, CommunityCredentials, PrivacyName, UserCredentials

MAX_SECRET_BYTES = 1024
MIN_PASSWORD_BYTES = 8  # RFC 3414, 11.2


@dataclass(frozen=True, slots=True)
class CommunitySecret:
    """What an SNMPv2c agent is told."""

    community: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class UserSecret:
    """What an SNMPv3 agent is told, or rather proven."""

    user: str
    auth: AuthName
    auth_password: bytes = field(repr=False)
    privacy: PrivacyName
    privacy_password: bytes = field(repr=False)
    context: str


Secret = CommunitySecret | UserSecret


def read_secret(credentials: CommunityCredentials | UserCredentials) -> Secret:
    """The secret in the files that the settings name. Raises DeviceError, REFUSED, when there is none that could do."""
    if isinstance(credentials, CommunityCredentials):
        return CommunitySecret(_read(credentials.community_file, "community"))
    return UserSecret(
        user=credentials.user,
        auth=credentials.auth,
        auth_password=b"" if credentials.auth == "none" else _password(credentials.auth_password_file),
        privacy=credentials.privacy,
        privacy_password=b"" if credentials.privacy == "none" else _password(credentials.privacy_password_file),
        context=credentials.context,
    )


def _password(file: str) -> bytes:
    password = _read(file, "password")
    if len(password) < MIN_PASSWORD_BYTES:
        raise _refused(f"the password in {file} is shorter than {MIN_PASSWORD_BYTES} bytes; SNMPv3 needs a longer one")
    return password


def _read(file: str, what: str) -> bytes:
    try:
        with Path(file).open("rb") as stream:
            secret = stream.read(MAX_SECRET_BYTES + 1).rstrip(b"\r\n")
    except OSError as error:
        raise _refused(f"the file of the {what} {file} cannot be read: {error.strerror}") from error
    if not secret or len(secret) > MAX_SECRET_BYTES:
        raise _refused(f"the file of the {what} {file} is empty or longer than {MAX_SECRET_BYTES} bytes")
    return secret


def _refused(text: str) -> DeviceError:
    return DeviceError(DeviceState.REFUSED, text)

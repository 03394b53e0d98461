"""Who is let in at the door: roles by their passwords, and what comes from this machine."""

import hashlib
import hmac
import ipaddress
from base64 import b64decode
from collections.abc import Iterable, Mapping
from email.message import Message
from pathlib import Path

from storage.engine import ErrorCode, QueryRefusedError
from storage.roles import Role, RoleName

_PASSWORD_VARIABLE = "KVANDAL_{role}_PASSWORD"  # noqa: S105 — a pattern for names, no password


class Reception:
    """Knows the roles by their passwords."""

    def __init__(self, roles: Iterable[Role], anonymous: RoleName | None) -> None:
        self._roles = {str(role.name): role for role in roles}
        self._anonymous = self._roles[anonymous] if anonymous is not None else None

    def admit(self, user: str, password: str, *, local: bool) -> Role:
        """Return the role of these credentials, or raise `QueryRefusedError`; takes the same time for every user.

        No credentials mean the anonymous role, if there is one, for a request addressed to this machine by its name
        or loopback address, and not from a page of another site.
        """
        if self._anonymous is not None and local and user in ("", "default") and not password:
            return self._anonymous
        role = self._roles.get(user)
        expected = role.password if role is not None else ""
        given_right = hmac.compare_digest(_digest(password), _digest(expected))
        if role is None or not given_right:
            raise QueryRefusedError.of(
                ErrorCode.AUTHENTICATION_FAILED,
                f"{user or 'default'}: Authentication failed: password is incorrect, or there is no such user.",
            )
        return role


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def read_credentials(headers: Message, params: Mapping[str, str]) -> tuple[str, str]:
    """User and password of a request, by the headers or parameters that clients of ClickHouse use; empty without."""
    user = headers.get("X-ClickHouse-User")
    if user is not None:
        return user, headers.get("X-ClickHouse-Key") or ""
    scheme, _, encoded = (headers.get("Authorization") or "").partition(" ")
    if scheme.lower() == "basic":
        try:
            user, _, password = b64decode(encoded, validate=True).decode().partition(":")
        except ValueError:  # binascii.Error and UnicodeDecodeError too
            return "", encoded
        return user, password
    return params.get("user", ""), params.get("password", "")


def read_passwords(environment: Mapping[str, str]) -> dict[RoleName, str]:
    """The roles' passwords, from KVANDAL_<ROLE>_PASSWORD or from the file that KVANDAL_<ROLE>_PASSWORD_FILE names.

    A role without a password is not among them. Raises `ValueError` for a file that cannot be read.
    """
    found = {name: _read_password(environment, _PASSWORD_VARIABLE.format(role=name.upper())) for name in RoleName}
    return {name: password for name, password in found.items() if password}


def _read_password(environment: Mapping[str, str], variable: str) -> str:
    if variable in environment or f"{variable}_FILE" not in environment:
        return environment.get(variable, "")
    file = Path(environment[f"{variable}_FILE"])
    try:
        return file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ValueError(f"{variable}_FILE names {file}, which cannot be read: {why}; give a readable file") from error


def is_local_name(host: str) -> bool:
    """Whether a Host header names this machine: a page in a browser can reach loopback only under a name of its own."""
    name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
    name = name.strip("[]")
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name in ("localhost", "")


def is_no_other_site(headers: Message) -> bool:
    """Whether no page of another site sent this: it could not read the answer, but make the engine work."""
    return headers.get("Sec-Fetch-Site", "none") in ("none", "same-origin") and "Origin" not in headers


def is_loopback(host: str) -> bool:
    """Whether listening on `host` is out of reach for other machines; an empty host means every interface."""
    return bool(host) and is_local_name(host)

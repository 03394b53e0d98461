"""Ed25519 keys of those who approve reports, as PEM files (PKCS #8 and SubjectPublicKeyInfo)."""

import os
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from reports.publishing.freezing import public_text


def make_key(path: Path, password: str | None = None) -> Path:
    """Write a new private key that only its owner can read, and its public half beside it as `<path>.pub`.

    Returns the path of the public half. FileExistsError where either is there: a key is never overwritten.
    """
    key = Ed25519PrivateKey.generate()
    encryption = BestAvailableEncryption(password.encode()) if password else NoEncryption()
    public_path = path.with_name(path.name + ".pub")
    if public_path.exists():
        raise FileExistsError(f"{public_path} is there already; a key is never overwritten: give another name")
    _write_new(path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption), 0o600)
    _write_new(public_path, key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo), 0o644)
    return public_path


def read_private_key(path: Path, password: str | None = None) -> Ed25519PrivateKey:
    """The key of a PEM file; ValueError says what is wrong with it, OSError."""
    if path.stat().st_mode & 0o077:
        raise ValueError(f"{path} can be read by others than its owner; run chmod 600 on it")
    try:
        key = load_pem_private_key(path.read_bytes(), password.encode() if password else None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ValueError(f"{path} is no private key that can be read: {error}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError(f"{path} is no Ed25519 key; make one with kvandal report key")
    return key


def read_public_key(path: Path) -> str:
    """The public key of a PEM file, in base64; ValueError, OSError."""
    try:
        key = load_pem_public_key(path.read_bytes())
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ValueError(f"{path} is no public key that can be read: {error}") from error
    if not isinstance(key, Ed25519PublicKey):
        raise ValueError(f"{path} is no Ed25519 key; give the .pub that kvandal report key wrote")
    return public_text(key)


def _write_new(path: Path, content: bytes, mode: int) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    except FileExistsError as error:
        raise FileExistsError(f"{path} is there already; a key is never overwritten: give another name") from error
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)

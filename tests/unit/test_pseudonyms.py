"""Pseudonyms: expected values are computed here with the standard library from the equation in the docstring."""

import base64
import hashlib
import hmac
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.pseudonyms import KeyFile, NameKind, NamePolicy, PseudonymKey, PseudonymKeyError, read_key, treat_name

SECRET = bytes(range(32))
KEY = PseudonymKey(1, SECRET)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write(tmp_path / "key", f"k1 {SECRET.hex()}\n")


def write(file: Path, text: str, mode: int = 0o600) -> Path:
    file.write_text(text)
    file.chmod(mode)
    return file


def test_a_pseudonym_is_the_start_of_a_keyed_hash() -> None:
    digest = hmac.new(SECRET, b"user\0alice", hashlib.sha256).digest()
    letters = base64.b32encode(digest[:16]).decode().rstrip("=").lower()
    assert KEY.pseudonym(NameKind.USER, "alice") == f"k1-{letters}"
    assert len(letters) == 26


def test_the_keyed_hash_is_built_as_rfc_2104_says() -> None:
    """Inner and outer hash, with the key filled up to a block of 64 bytes."""
    key = PseudonymKey(7, b"\x0b" * 32)
    block = b"\x0b" * 32 + b"\0" * 32
    inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in block) + b"user\0hi there").digest()
    outer = hashlib.sha256(bytes(byte ^ 0x5C for byte in block) + inner).digest()
    assert key.pseudonym(NameKind.USER, "Hi There") == "k7-" + base64.b32encode(outer[:16]).decode().strip("=").lower()


def test_names_keys_and_kinds_are_told_apart() -> None:
    others = {
        KEY.pseudonym(NameKind.USER, "bob"),
        KEY.pseudonym(NameKind.ACCOUNT, "alice"),
        PseudonymKey(1, SECRET[::-1]).pseudonym(NameKind.USER, "alice"),
        PseudonymKey(2, SECRET).pseudonym(NameKind.USER, "alice"),
    }
    assert len(others) == 4
    assert KEY.pseudonym(NameKind.USER, "alice") not in others


def test_case_and_blanks_make_no_other_name() -> None:
    """Slurm's accounting has names in lower case, its controller as they are."""
    assert KEY.pseudonym(NameKind.USER, " Alice ") == KEY.pseudonym(NameKind.USER, "alice")


@given(st.text(), st.sampled_from(NameKind), st.integers(1, 9999))
def test_every_name_has_a_short_plain_pseudonym(name: str, kind: NameKind, epoch: int) -> None:
    pseudonym = PseudonymKey(epoch, SECRET).pseudonym(kind, name)
    prefix, _, letters = pseudonym.partition("-")
    assert prefix == f"k{epoch}"
    assert len(letters) == 26
    assert set(letters) <= set("abcdefghijklmnopqrstuvwxyz234567")


def test_all_pseudonyms_are_those_of_every_kind() -> None:
    assert set(KEY.all_pseudonyms("alice")) == {KEY.pseudonym(kind, "alice") for kind in NameKind}


def test_the_secret_is_never_shown() -> None:
    assert SECRET.hex() not in repr(KEY)
    assert str(SECRET) not in repr(KEY)


@pytest.mark.parametrize(
    ("policy", "key", "told"),
    [
        (NamePolicy.KEEP, KEY, "Fold 7"),
        (NamePolicy.KEEP, None, "Fold 7"),
        (NamePolicy.HASH, KEY, KEY.pseudonym(NameKind.JOB_NAME, "Fold 7")),
        (NamePolicy.HASH, None, ""),
        (NamePolicy.DROP, KEY, ""),
    ],
)
def test_a_policy_says_what_is_told(policy: NamePolicy, key: PseudonymKey | None, told: str) -> None:
    assert treat_name(policy, key, NameKind.JOB_NAME, "Fold 7") == told
    assert treat_name(policy, key, NameKind.JOB_NAME, "") == ""


# Key files


def test_a_key_is_read_with_its_number(file: Path) -> None:
    key = read_key(file)
    assert (key.epoch, key.secret) == (1, SECRET)


@pytest.mark.parametrize("mode", [0o400, 0o440, 0o600, 0o640])
def test_owner_and_group_may_read_it(file: Path, mode: int) -> None:
    file.chmod(mode)
    assert read_key(file).epoch == 1


@pytest.mark.parametrize("mode", [0o604, 0o644, 0o602, 0o601, 0o666])
def test_a_file_that_is_open_to_everybody_is_refused(file: Path, mode: int) -> None:
    file.chmod(mode)
    with pytest.raises(PseudonymKeyError, match=r"open to everybody.*chmod o-rwx"):
        read_key(file)


def test_a_link_to_a_private_file_is_followed(file: Path, tmp_path: Path) -> None:
    """A secret that Kubernetes mounts is a link, and the link's own mode means nothing."""
    (tmp_path / "link").symlink_to(file)
    assert read_key(tmp_path / "link").secret == SECRET


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not one line"),
        (SECRET.hex(), "not one line"),
        (f"k0 {SECRET.hex()}", "not one line"),
        (f"k1 {SECRET.hex()}0", "not one line"),
        (f"k1 {SECRET.hex()}\nk2 {SECRET.hex()}", "not one line"),
        ("k1 " + "zz" * 32, "not one line"),
        (f"k1 {SECRET[:31].hex()}", "31 bytes, fewer than 32"),
        ("k1 " + "00" * 32, "not random"),
        ("k1 " + "0123456789abcdef" * 4, "not random"),
        ("k1 ø", "not text"),
    ],
)
def test_a_file_without_a_good_key_is_refused_and_its_content_not_told(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(PseudonymKeyError, match=words) as caught:
        read_key(write(tmp_path / "key", text))
    assert "openssl rand -hex 32" in str(caught.value)
    assert SECRET[:8].hex() not in str(caught.value)


def test_what_is_no_file_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    for name, words in (("pipe", "not a file"), (".", "not a file"), ("none", "No such file")):
        with pytest.raises(PseudonymKeyError, match=words):
            read_key(tmp_path / name)


def test_a_key_that_is_replaced_is_taken_up(file: Path, tmp_path: Path) -> None:
    keys = KeyFile(file)
    assert keys.current().epoch == 1
    write(tmp_path / "new", f"k2 {SECRET[::-1].hex()}").replace(file)
    assert keys.current().epoch == 2


def test_a_key_that_turns_bad_stays_in_use_and_is_said(file: Path) -> None:
    keys = KeyFile(file)
    keys.current()
    file.chmod(0o644)
    assert keys.current().epoch == 1
    assert "open to everybody" in keys.trouble
    file.unlink()
    assert keys.current().epoch == 1
    assert "No such file" in keys.trouble
    write(file, f"k3 {SECRET.hex()}")
    assert keys.current().epoch == 3
    assert keys.trouble == ""


def test_without_a_first_good_key_there_is_none(tmp_path: Path) -> None:
    keys = KeyFile(tmp_path / "key")
    for _ in range(2):
        with pytest.raises(PseudonymKeyError):
            keys.current()
    write(tmp_path / "key", f"k1 {SECRET.hex()}")
    assert keys.current().epoch == 1

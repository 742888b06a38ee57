"""An escrow key in a file, and files that are none."""

from __future__ import annotations

import json
import unicodedata
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from hypothesis import given, settings
from hypothesis import strategies as st

from hwkm.errors import ConfigError, EnvelopeError, HwkmError, ParseError
from hwkm.escrow import MAX_FILE_BYTES, SCRYPT_LOG_N, protect, unprotect
from hwkm.keys import SecretBytes

from .keys import CHEAP, PASSPHRASE, key

FILE = protect(key(), PASSPHRASE, CHEAP)


def changed(**fields: Any) -> bytes:
    return json.dumps(json.loads(FILE) | fields).encode()


def test_it_comes_back() -> None:
    found = unprotect(FILE, PASSPHRASE)
    assert found.seed == key().seed
    assert json.loads(FILE)["recipient_id"] == key().recipient.recipient_id.hex()


def test_the_usual_cost() -> None:
    made = protect(key(), PASSPHRASE)
    assert json.loads(made)["scrypt_log_n"] == SCRYPT_LOG_N == 17
    assert unprotect(made, PASSPHRASE).seed == key().seed


def test_it_opens_as_the_document_says() -> None:
    """By hand, with nothing of hwkm."""
    fields = json.loads(FILE)
    salt, log_n = bytes.fromhex(fields["salt"]), fields["scrypt_log_n"]
    passphrase = unicodedata.normalize("NFC", PASSPHRASE.expose().decode()).encode()
    derived = Scrypt(salt=salt, length=32, n=2**log_n, r=8, p=1).derive(passphrase)
    about = b"hwkm/escrow-file/1" + bytes([log_n]) + salt + bytes.fromhex(fields["recipient_id"])
    nonce, sealed = bytes.fromhex(fields["nonce"]), bytes.fromhex(fields["sealed"])
    assert AESGCM(derived).decrypt(nonce, sealed, about) == key().seed.expose()


def test_two_files_of_one_key_have_nothing_in_common() -> None:
    one, other = json.loads(FILE), json.loads(protect(key(), PASSPHRASE, CHEAP))
    for field in ("salt", "nonce", "sealed"):
        assert one[field] != other[field]


def test_an_accent_may_be_a_character_of_its_own() -> None:
    typed = unicodedata.normalize("NFD", PASSPHRASE.expose().decode()).encode()
    assert typed != PASSPHRASE.expose()
    assert unprotect(FILE, SecretBytes(typed)).seed == key().seed


@pytest.mark.parametrize("passphrase", [b"", b"short", b"elevenchars", "ä".encode() * 11])
def test_a_passphrase_that_is_too_short(passphrase: bytes) -> None:
    with pytest.raises(ConfigError, match="12 characters"):
        protect(key(), SecretBytes(passphrase), CHEAP)


@pytest.mark.parametrize("passphrase", [b"", b"zw\xc3\xb6lf Boxk\xc3\xa4mpfer jagen", b"no" * 9])
def test_a_wrong_passphrase(passphrase: bytes) -> None:
    with pytest.raises(EnvelopeError, match="passphrase is wrong"):
        unprotect(FILE, SecretBytes(passphrase))


def test_a_passphrase_that_is_no_text() -> None:
    with pytest.raises(ConfigError, match="UTF-8"):
        unprotect(FILE, SecretBytes(b"\xff" * 12))


@pytest.mark.parametrize(
    "fields",
    [
        {"recipient_id": key(2).recipient.recipient_id.hex()},
        {"scrypt_log_n": CHEAP + 1},
        {"salt": "00" * 16},
        {"nonce": "00" * 12},
        {"sealed": "00" * 48},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_every_field_counts(fields: dict[str, Any]) -> None:
    with pytest.raises(EnvelopeError, match="damaged"):
        unprotect(changed(**fields), PASSPHRASE)


@pytest.mark.parametrize(
    "fields",
    [
        {"format": "hwkm"},
        {"version": 2},
        {"version": True},
        {"version": "1"},
        {"scrypt_log_n": 13},
        {"scrypt_log_n": 20},
        {"scrypt_log_n": 63},
        {"scrypt_log_n": 10**300},
        {"scrypt_log_n": 14.0},
        {"scrypt_log_n": "14"},
        {"scrypt_log_n": True},
        {"salt": "00" * 15},
        {"salt": "0G" * 16},
        {"salt": 5},
        {"nonce": "00 " * 12},
        {"sealed": "AA" * 48},
        {"sealed": None},
        {"recipient_id": ""},
        {"more": 1},
    ],
    ids=str,
)
def test_files_that_are_not_ours(fields: dict[str, Any]) -> None:
    with pytest.raises(ParseError):
        unprotect(changed(**fields), PASSPHRASE)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b"[" * 5000,
        b"\xff",
        FILE[:-3],
        FILE + b"{}",
        b" " * MAX_FILE_BYTES + FILE,
        json.dumps({k: v for k, v in json.loads(FILE).items() if k != "salt"}).encode(),
    ],
    ids=range(10),
)
def test_bytes_that_are_no_file(data: bytes) -> None:
    with pytest.raises(ParseError):
        unprotect(data, PASSPHRASE)


@given(st.binary(max_size=300))
def test_any_bytes_at_all(data: bytes) -> None:
    with pytest.raises(ParseError):
        unprotect(data, PASSPHRASE)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 8 * len(FILE) - 1))
def test_no_bit_can_be_flipped(bit: int) -> None:
    data = bytearray(FILE)
    data[bit // 8] ^= 1 << bit % 8
    if json.loads(FILE) == _loaded(bytes(data)):
        return  # white space
    with pytest.raises(HwkmError):
        unprotect(bytes(data), PASSPHRASE)


def _loaded(data: bytes) -> object:
    try:
        return json.loads(data.decode("ascii"))
    except ValueError:
        return None


def test_the_seed_is_not_in_it() -> None:
    assert key().seed.expose() not in FILE
    assert key().seed.expose().hex().encode() not in FILE

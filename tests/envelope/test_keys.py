"""Volume keys: their lengths, and how they and what hangs on them are derived."""

from __future__ import annotations

import hmac

import pytest
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography_vectors import open_vector_file
from hypothesis import given
from hypothesis import strategies as st

from hwkm.errors import ParseError
from hwkm.keys import MINIMUM_ENTROPY_BYTES, Cipher, VolumeKey, derive_volume_key

from . import strategies, wire

RANDOM = st.binary(min_size=MINIMUM_ENTROPY_BYTES, max_size=100)


def hkdf(secret: bytes, salt: bytes, info: bytes, length: int) -> bytes:
    """HKDF-SHA256 as RFC 5869, section 2, writes it down."""
    extracted = hmac.digest(salt or bytes(32), secret, "sha256")
    block, made, number = b"", b"", 1
    while len(made) < length:
        block = hmac.digest(extracted, block + info + bytes([number]), "sha256")
        made += block
        number += 1
    return made[:length]


def rfc_5869() -> list[dict[str, bytes]]:
    """Return the RFC's own test cases for SHA-256, appendices A.1 to A.3."""
    cases: list[dict[str, bytes]] = []
    with open_vector_file("KDF/rfc-5869-HKDF-SHA256.txt", "r") as file:
        for line in file:
            name, separator, value = (word.strip() for word in line.partition("="))
            if name == "COUNT":
                cases.append({})
            elif separator and name != "Hash":
                cases[-1][name] = value.encode() if name == "L" else bytes.fromhex(value)
    return cases


# the functions that the tests themselves rely on


@pytest.mark.parametrize("case", rfc_5869())
def test_hkdf_is_that_of_rfc_5869(case: dict[str, bytes]) -> None:
    length = int(case["L"])
    assert hkdf(case["IKM"], case["salt"], case["info"], length) == case["OKM"]
    theirs = HKDF(SHA256(), length=length, salt=case["salt"], info=case["info"])
    assert theirs.derive(case["IKM"]) == case["OKM"]


def test_all_the_vectors_of_rfc_5869_are_there() -> None:
    assert [sorted(case) for case in rfc_5869()] == [["IKM", "L", "OKM", "PRK", "info", "salt"]] * 3


# volume keys


@pytest.mark.parametrize(
    ("cipher", "length", "is_xts"),
    [
        (Cipher.AES_128_XTS, 32, True),
        (Cipher.AES_256_XTS, 64, True),
        (Cipher.AES_256_GCM, 32, False),
    ],
)
def test_ciphers(cipher: Cipher, length: int, is_xts: bool) -> None:
    assert (cipher.key_bytes, cipher.is_xts) == (length, is_xts)
    assert Cipher(wire.CIPHERS[cipher.name]) is cipher
    for wrong in (0, length - 1, length + 1, 96 - length):
        with pytest.raises(ParseError, match=rf"a key for {cipher.name} has {length} bytes"):
            VolumeKey(cipher, wire.draw("wrong", wrong))


@pytest.mark.parametrize("cipher", [Cipher.AES_128_XTS, Cipher.AES_256_XTS])
def test_equal_halves_are_refused(cipher: Cipher) -> None:
    half = wire.draw("half", cipher.key_bytes // 2)
    with pytest.raises(ParseError, match="both halves of the XTS key are equal"):
        VolumeKey(cipher, half * 2)
    assert VolumeKey(cipher, half + half[:-1] + bytes([half[-1] ^ 1])).cipher is cipher


def test_a_gcm_key_may_have_equal_halves() -> None:
    assert len(VolumeKey(Cipher.AES_256_GCM, bytes(32))) == 32


@given(st.sampled_from(Cipher), RANDOM, RANDOM)
def test_derived_keys(cipher: Cipher, host: bytes, token: bytes) -> None:
    key = derive_volume_key(cipher, host, token)
    data = key.expose()
    assert key.cipher is cipher
    assert data == hkdf(token, host, b"hwkm/volume-key/1/" + cipher.name.encode(), cipher.key_bytes)
    half = len(data) // 2
    assert data[:half] != data[half:]
    assert derive_volume_key(cipher, host, token) == key


@given(st.sampled_from(Cipher), RANDOM, RANDOM, st.integers(0, 63), st.integers(1, 255))
def test_both_inputs_matter(
    cipher: Cipher, host: bytes, token: bytes, place: int, bits: int
) -> None:
    key = derive_volume_key(cipher, host, token)
    assert derive_volume_key(cipher, _changed(host, place, bits), token) != key
    assert derive_volume_key(cipher, host, _changed(token, place, bits)) != key


@given(RANDOM, RANDOM)
def test_the_cipher_matters(host: bytes, token: bytes) -> None:
    made = [derive_volume_key(cipher, host, token).expose()[:32] for cipher in Cipher]
    assert len(set(made)) == 3


def test_the_inputs_have_their_places() -> None:
    one, other = wire.draw("one", 64), wire.draw("other", 64)
    first = derive_volume_key(Cipher.AES_256_GCM, one, other)
    assert first != derive_volume_key(Cipher.AES_256_GCM, other, one)


@pytest.mark.parametrize("short", [0, 1, 32, 63])
def test_short_input_is_refused(short: int) -> None:
    enough = bytes(MINIMUM_ENTROPY_BYTES)
    for host, token in ((bytes(short), enough), (enough, bytes(short))):
        with pytest.raises(ValueError, match="each random source must give 64 bytes"):
            derive_volume_key(Cipher.AES_256_GCM, host, token)


@given(strategies.keys(), st.binary(max_size=40))
def test_the_mac_key(key: VolumeKey, info: bytes) -> None:
    assert key.mac_key(info) == hkdf(key.expose(), b"", info, 32)
    assert key.mac_key(info) != key.mac_key(info + b"\0")


def _changed(data: bytes, place: int, bits: int) -> bytes:
    return data[:place] + bytes([data[place] ^ bits]) + data[place + 1 :]

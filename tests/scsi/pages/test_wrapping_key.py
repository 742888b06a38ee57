"""The drive's public key, and keys wrapped for it."""

from __future__ import annotations

from functools import cache
from hashlib import sha256

import pytest
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, OAEP
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from hypothesis import given
from hypothesis import strategies as st

from hwkm.errors import DeviceError, ParseError
from hwkm.keys import SecretBytes
from hwkm.scsi.pages.directory import KeyFormat
from hwkm.scsi.pages.set_encryption import SetDataEncryption
from hwkm.scsi.pages.status import DecryptionMode, EncryptionMode, Scope
from hwkm.scsi.pages.wrapping_key import (
    PublicKeyType,
    WrappedKey,
    WrappingKey,
    parse_wrapped,
    wrap,
    wrapped_key_label,
)
from tests.scsi.pages import vectors
from tests.scsi.pages.hostile import hostile, survives

PAGE_HEAD = bytes.fromhex("0031 020A 00000000 00000000 0200")
SEED = bytes(range(0x80, 0xA0))
VOLUME_KEY = SecretBytes(vectors.KEY)

wrapped_keys = st.builds(
    WrappedKey,
    st.integers(0, 0xFFFF),
    st.binary(max_size=64),
    st.binary(max_size=300),
    st.binary(max_size=64),
)


@cache
def drive_key() -> RSAPrivateKey:
    return generate_private_key(65537, 2048)


def page(modulus: int | None = None, exponent: int | None = None) -> bytes:
    numbers = drive_key().public_key().public_numbers()
    n = numbers.n if modulus is None else modulus
    e = numbers.e if exponent is None else exponent
    return PAGE_HEAD + n.to_bytes(256) + e.to_bytes(256)


def unwrapped(wrapped: bytes, label: bytes) -> bytes:
    return drive_key().decrypt(wrapped, OAEP(MGF1(SHA256()), SHA256(), label))


def mask(seed: bytes, length: int) -> bytes:
    blocks = (sha256(seed + number.to_bytes(4)).digest() for number in range(8))
    return b"".join(blocks)[:length]


def xor(one: bytes, other: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(one, other, strict=True))


def encoded(label: bytes) -> bytes:
    """Return the OAEP encoding of KEY (RFC 8017, 7.1.1), made without a library."""
    block = sha256(label).digest() + bytes(158) + b"\x01" + vectors.KEY
    masked_block = xor(block, mask(SEED, 223))
    return b"\0" + xor(SEED, mask(masked_block, 32)) + masked_block


def test_parse() -> None:
    found = WrappingKey.parse(page())
    assert found == WrappingKey(PublicKeyType.RSA_2048, 0, page()[14:])
    assert found.rsa().public_numbers() == drive_key().public_key().public_numbers()
    assert found.pack() == page()


def test_fingerprint() -> None:
    assert WrappingKey.parse(page()).fingerprint() == sha256(page()).digest()


def test_fingerprint_of_a_page_with_wrong_lengths() -> None:
    good = page()
    liar = good[:2] + b"\x02\x20" + good[4:]
    found = WrappingKey.parse(liar)
    assert found.problems == ("page 0031h announces 548 bytes, 526 came",)
    assert found.fingerprint() == WrappingKey.parse(good).fingerprint()


@pytest.mark.parametrize("at", [7, 11, 14, 269, 525])
def test_fingerprint_of_another_key(at: int) -> None:
    other = bytearray(page())
    other[at] ^= 1
    assert WrappingKey.parse(bytes(other)).fingerprint() != sha256(page()).digest()


def test_elliptic_curve() -> None:
    data = bytes.fromhex("0031 008F 00000010 00000000 0085") + b"\x04" + bytes(132)
    found = WrappingKey.parse(data)
    assert found == WrappingKey(PublicKeyType.ECC_521, 0, b"\x04" + bytes(132))
    assert found.pack() == data
    with pytest.raises(ParseError, match=r"not RSA-2048 but of type 10h, format 0h$"):
        found.rsa()


@pytest.mark.parametrize(("key_type", "key_format"), [(0, 1), (1, 0), (0xFFFFFFFF, 0)])
def test_unknown_type_or_format(key_type: int, key_format: int) -> None:
    found = WrappingKey(key_type, key_format, page()[14:])
    assert WrappingKey.parse(found.pack()) == found
    with pytest.raises(ParseError, match="not RSA-2048"):
        found.rsa()


@pytest.mark.parametrize("size", [0, 511, 513, 1024])
def test_rsa_key_of_another_length(size: int) -> None:
    with pytest.raises(ParseError, match=f"has {size} bytes, not 512"):
        WrappingKey(PublicKeyType.RSA_2048, 0, bytes(size)).rsa()


@pytest.mark.parametrize("modulus", [0, 1, 2**2047 - 1, 2**2047, 2**2048 - 2])
def test_impossible_modulus(modulus: int) -> None:
    with pytest.raises(ParseError, match="impossible modulus"):
        WrappingKey.parse(page(modulus)).rsa()


@pytest.mark.parametrize("exponent", [0, 1, 2, 2**64, 2**64 + 1, 2**2048 - 1])
def test_impossible_exponent(exponent: int) -> None:
    with pytest.raises(ParseError, match="impossible exponent"):
        WrappingKey.parse(page(exponent=exponent)).rsa()


def test_even_exponent() -> None:
    with pytest.raises(ParseError, match="not a public key"):
        WrappingKey.parse(page(exponent=65536)).rsa()


@pytest.mark.parametrize("end", range(14))
def test_page_too_short(end: int) -> None:
    with pytest.raises(ParseError, match="page 0031h has"):
        WrappingKey.parse(page()[:end])


def test_public_key_cut_off() -> None:
    found = WrappingKey.parse(page()[:500])
    assert len(found.public_key) == 486
    assert found.problems == (
        "page 0031h announces 526 bytes, 500 came",
        "PUBLIC KEY announces 512 bytes, 486 came",
    )


@pytest.mark.parametrize(("key_type", "size"), [(2**32, 0), (0, 65_536), (-1, 0), (0, 65_526)])
def test_wrapping_key_that_does_not_fit(key_type: int, size: int) -> None:
    with pytest.raises(ValueError, match="too long"):
        WrappingKey(key_type, 0, bytes(size)).pack()


def test_label() -> None:
    label = wrapped_key_label(vectors.DESIGNATOR, 256)
    assert label == vectors.WRAPPED_LABEL
    assert sha256(label).hexdigest() == vectors.WRAPPED_LABEL_SHA256


def test_the_published_encoding_opens_with_the_label() -> None:
    message = encoded(vectors.WRAPPED_LABEL)
    assert sha256(message).hexdigest() == vectors.WRAPPED_EM_SHA256
    numbers = WrappingKey.parse(page()).rsa().public_numbers()
    wrapped = pow(int.from_bytes(message), numbers.e, numbers.n).to_bytes(256)
    assert unwrapped(wrapped, wrapped_key_label(vectors.DESIGNATOR, 256)) == vectors.KEY


def test_wrap() -> None:
    field = wrap(VOLUME_KEY, WrappingKey.parse(page()), vectors.DESIGNATOR)
    assert len(field) == 308
    found = parse_wrapped(field)
    assert found == WrappedKey(PublicKeyType.RSA_2048, vectors.WRAPPED_LABEL, found.wrapped)
    assert unwrapped(found.wrapped, found.label) == vectors.KEY
    with pytest.raises(ValueError, match=r"[Dd]ecryption"):
        unwrapped(found.wrapped, wrapped_key_label(b"another drive", 256))


def test_wrapped_key_in_its_page() -> None:
    field = wrap(VOLUME_KEY, WrappingKey.parse(page()), vectors.DESIGNATOR)
    request = SetDataEncryption(
        Scope.ALL_I_T_NEXUS,
        EncryptionMode.ENCRYPT,
        DecryptionMode.DECRYPT,
        algorithm_index=1,
        key_format=KeyFormat.WRAPPED,
        key=SecretBytes(field),
    )
    packed = request.pack().expose()
    assert len(packed) == 328
    assert packed[:24] == vectors.SET_WRAPPED_HEAD
    assert packed[24:68] == vectors.WRAPPED_LABEL
    assert packed[68:70] == bytes.fromhex("01 00")
    assert packed[-2:] == bytes(2)
    assert vectors.KEY not in packed


def test_wrapped_anew_each_time() -> None:
    key = WrappingKey.parse(page())
    assert wrap(VOLUME_KEY, key, b"drive") != wrap(VOLUME_KEY, key, b"drive")


def test_drive_without_a_name() -> None:
    with pytest.raises(DeviceError, match="does not say which logical unit") as error:
        wrap(VOLUME_KEY, WrappingKey.parse(page()), b"")
    assert "plain format" in error.value.hint


def test_wrapping_to_no_rsa_key() -> None:
    with pytest.raises(ParseError, match="not RSA-2048"):
        wrap(VOLUME_KEY, WrappingKey(PublicKeyType.ECC_521, 0, bytes(133)), b"drive")


@pytest.mark.parametrize("end", range(16))
def test_wrapped_key_cut_off(end: int) -> None:
    packed = WrappedKey(PublicKeyType.RSA_2048, b"lab", b"key", b"si").pack()
    assert len(packed) == 16
    with pytest.raises(ParseError, match=r"cut off|no parameter set"):
        parse_wrapped(packed[:end])


def test_bytes_behind_the_wrapped_key() -> None:
    packed = WrappedKey(PublicKeyType.RSA_2048, b"label", b"key").pack()
    with pytest.raises(ParseError, match="bytes follow"):
        parse_wrapped(packed + b"\0")


def test_wrapped_key_that_does_not_fit() -> None:
    with pytest.raises(ValueError, match="too long"):
        WrappedKey(PublicKeyType.RSA_2048, bytes(65_536), b"").pack()


@given(wrapped_keys)
def test_wrapped_key_round_trip(wrapped: WrappedKey) -> None:
    assert parse_wrapped(wrapped.pack()) == wrapped


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1), st.binary(max_size=600))
def test_wrapping_key_round_trip(key_type: int, key_format: int, public_key: bytes) -> None:
    key = WrappingKey(key_type, key_format, public_key)
    assert WrappingKey.parse(key.pack()) == key


@given(hostile(PAGE_HEAD + bytes(512), PAGE_HEAD + b"\xff" * 512))
def test_hostile_wrapping_key(data: bytes) -> None:
    survives(WrappingKey.parse, data)
    survives(lambda page: WrappingKey.parse(page).rsa(), data)


@given(hostile(WrappedKey(0, vectors.WRAPPED_LABEL, bytes(256)).pack()))
def test_hostile_wrapped_key(data: bytes) -> None:
    survives(parse_wrapped, data)

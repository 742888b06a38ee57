"""Keys wrapped to the drive's own RSA key, put together by hand."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, OAEP
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicNumbers
from cryptography.hazmat.primitives.hashes import SHA1, SHA256

from tests.scsi.emulator.host import KEY, KEY_ID, Host, code, kad, page, spout_cdb

if TYPE_CHECKING:
    from collections.abc import Callable

# For the drive 8031BDC7DB: descriptor 00h with the name of the logical unit, 04h with 256.
LABEL = bytes.fromhex("""
00 00 00 22 48 50 45 20 20 20 20 20 55 6C 74 72
69 75 6D 20 39 2D 53 43 53 49 20 20 38 30 33 31
42 44 43 37 44 42 04 00 00 02 01 00""")


@pytest.fixture(name="hpe")
def _hpe(make: Callable[..., Host]) -> Host:
    return make("hpe-lto-9")


def wrapped(
    host: Host, key: bytes = KEY, label: bytes = LABEL, *, digest: type[SHA256 | SHA1] = SHA256
) -> bytes:
    public = host.spin(0x0031)
    assert public[:14] == bytes.fromhex("00 31 02 0A 00 00 00 00 00 00 00 00 02 00")
    assert len(public) == 526
    numbers = RSAPublicNumbers(n=int.from_bytes(public[14:270]), e=int.from_bytes(public[270:]))
    return numbers.public_key().encrypt(key, OAEP(MGF1(digest()), digest(), label))


def field(
    secret: bytes, label: bytes = LABEL, *, parameters: int = 0, signature: bytes = b"\0\0"
) -> bytes:
    head = parameters.to_bytes(2) + len(label).to_bytes(2) + label
    return head + len(secret).to_bytes(2) + secret + signature


def test_a_wrapped_key_is_taken(hpe: Host) -> None:
    data = page(field(wrapped(hpe)), kad(1, KEY_ID), key_format=2)
    assert spout_cdb(page(field(wrapped(hpe)), key_format=2)) == bytes.fromhex(
        "B5 20 00 10 00 00 00 00 01 48 00 00"
    )
    assert code(hpe.set(data)) == "good"
    assert code(hpe.write(b"block")) == "good"
    hpe.rewind()
    assert code(hpe.set(page(modes=(0, 2), kads=b""))) == "good"
    assert hpe.read().data == b"block"


@pytest.mark.parametrize("profile", ["ibm-lto-8", "quantum-lto-4"])
def test_a_wrapping_key_alone_does_not_make_the_format(
    make: Callable[..., Host], profile: str
) -> None:
    host = make(profile)
    assert host.spin(0x0011) == bytes.fromhex("00 11 00 01 00")
    index = host.spin(0x0010)[20]
    data = page(field(wrapped(host)), key_format=2, index=index)
    assert host.refusal(spout_cdb(data), data) == ("5/26/00", "8f0009")


def test_every_drive_has_its_own_key(make: Callable[..., Host]) -> None:
    assert make("hpe-lto-9").spin(0x0031) != make("hp-lto-6").spin(0x0031)


FOREIGN = LABEL.replace(b"8031BDC7DB", b"8031BDC7DC")
ONE_BYTE_LENGTH = LABEL[:38] + bytes.fromhex("04 00 00 01 20")


@pytest.mark.parametrize(
    "label", [FOREIGN, ONE_BYTE_LENGTH, LABEL[:38], LABEL[38:], LABEL[:-1], b"", LABEL + LABEL[:3]]
)
def test_wrong_labels(hpe: Host, label: bytes) -> None:
    data = page(field(wrapped(hpe, label=label), label), key_format=2)
    assert code(hpe.set(data)) == "5/26/00"
    assert hpe.drive.state()["shared"] is None


def test_a_label_may_say_more(hpe: Host) -> None:
    label = LABEL + bytes.fromhex("03 00 00 02 41 42")
    assert code(hpe.set(page(field(wrapped(hpe, label=label), label), key_format=2))) == "good"


def test_what_does_not_open(hpe: Host) -> None:
    good = wrapped(hpe)
    for secret in (
        os.urandom(255).rjust(256, b"\0"),
        good[:-1] + bytes((good[-1] ^ 1,)),
        wrapped(hpe, label=FOREIGN),
        wrapped(hpe, digest=SHA1),
        wrapped(hpe, key=KEY[:16]),
    ):
        assert code(hpe.set(page(field(secret), key_format=2))) == "5/74/0C"


def test_wrong_structure(hpe: Host) -> None:
    good = wrapped(hpe)
    for broken in (
        b"\0", b"\0\0\0",
        field(good, parameters=0x10), field(good[:-1]), field(good, signature=b""),
        field(good, signature=b"\0\1"), field(good) + b"!", field(good)[:100],
    ):  # fmt: skip
        assert code(hpe.set(page(broken, key_format=2))) == "5/26/00"

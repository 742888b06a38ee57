"""What was sent and what a drive then says, compared field by field."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwkm.checks import Status
from hwkm.drivers import readback
from hwkm.scsi.pages.kad import Authentication, Kad, KadType
from hwkm.scsi.pages.set_encryption import SetDataEncryption
from hwkm.scsi.pages.status import (
    ControlledBy,
    DecryptionMode,
    EncryptionMode,
    EncryptionStatus,
    Scope,
)

# A drive with nothing set, and stenc's "Hello world!" in it: a page captured from a real drive.
NOTHING = EncryptionStatus.parse(bytes.fromhex("00200014 0000000000000000 10") + bytes(11))
HELLO = EncryptionStatus.parse(
    bytes.fromhex("""
00 20 00 24 42 02 02 01 00 00 00 01 18 00 00 00 00 00 00 00 00 00 00 00
00 01 00 0C 48 65 6C 6C 6F 20 77 6F 72 6C 64 21""")
)
SENT = SetDataEncryption(
    scope=Scope.ALL_I_T_NEXUS,
    encryption_mode=EncryptionMode.ENCRYPT,
    decryption_mode=DecryptionMode.DECRYPT,
    algorithm_index=1,
    kads=(Kad(KadType.U_KAD, b"Hello world!"),),
)


def fails(after: EncryptionStatus, sent: SetDataEncryption = SENT) -> list[str]:
    return [c.name for c in readback.compare(sent, NOTHING, after) if c.status is Status.FAIL]


def test_a_real_drives_page() -> None:
    assert fails(HELLO) == []


@pytest.mark.parametrize(
    ("change", "check"),
    [
        ({"encryption_mode": EncryptionMode.DISABLE}, "encryption mode"),
        ({"encryption_mode": 77}, "encryption mode"),
        ({"decryption_mode": DecryptionMode.MIXED}, "decryption mode"),
        ({"algorithm_index": 2}, "algorithm"),
        ({"kads": ()}, "U-KAD"),
        ({"kads": (Kad(KadType.U_KAD, b"Hello world?"),)}, "U-KAD"),
        ({"kads": (Kad(KadType.U_KAD, b"Hello world"),)}, "U-KAD"),
        ({"kads": (*HELLO.kads, Kad(KadType.A_KAD, b"x"))}, "A-KAD"),
        ({"key_instance_counter": 0}, "key instance counter"),
        ({"nexus_scope": Scope.LOCAL}, "scope"),
        ({"key_scope": Scope.PUBLIC}, "scope"),
        ({"key_scope": 7}, "scope"),
        ({"controlled_by": ControlledBy.DEVICE}, "controlled by"),
        ({"controlled_by": ControlledBy.LIBRARY}, "controlled by"),
        ({"controlled_by": ControlledBy.MANAGEMENT}, "controlled by"),
        ({"controlled_by": 6}, "controlled by"),
    ],
)
def test_one_difference(change: dict[str, Any], check: str) -> None:
    assert fails(replace(HELLO, **change)) == [check]


def test_what_makes_no_difference() -> None:
    padded = Kad(KadType.U_KAD, b"Hello world!".ljust(32), Authentication.NOT_ATTEMPTED)
    zeros = Kad(KadType.A_KAD, bytes(12))
    assert fails(replace(HELLO, kads=(padded, zeros))) == []
    assert fails(replace(HELLO, controlled_by=ControlledBy.NOT_REPORTED)) == []


def test_a_counter_that_jumps() -> None:
    checks = readback.compare(SENT, NOTHING, replace(HELLO, key_instance_counter=3))
    assert [c.name for c in checks if c.status is Status.WARN] == ["key instance counter"]


def test_a_counter_that_wraps() -> None:
    before = replace(NOTHING, key_instance_counter=0xFFFF_FFFF)
    after = replace(HELLO, key_instance_counter=0)
    assert all(c.status is Status.OK for c in readback.compare(SENT, before, after))


def test_the_first_of_two_kads() -> None:
    both = replace(SENT, kads=(*SENT.kads, Kad(KadType.A_KAD, b"HWKM00000001")))
    assert readback.keeps_only_the_first(both, HELLO)
    assert not readback.keeps_only_the_first(SENT, HELLO)
    assert not readback.keeps_only_the_first(both, replace(HELLO, kads=()))
    assert not readback.keeps_only_the_first(both, replace(HELLO, kads=both.kads))
    assert not readback.keeps_only_the_first(both, replace(HELLO, kads=both.kads[1:]))


def test_names() -> None:
    a, u = Kad(KadType.A_KAD, b"HWKM00000001"), Kad(KadType.U_KAD, b"Vol001")
    assert readback.names((u, a)) == (a.value, u.value)
    assert readback.names((Kad(KadType.U_KAD, bytes(32)), Kad(KadType.A_KAD, b""))) == ()
    assert readback.show(b"Vol001".ljust(32)) == "'Vol001'"
    assert readback.show(b"\x00\x01") == "0001"
    assert readback.show(b"") == ""


@given(st.binary(max_size=32), st.integers(0, 32), st.sampled_from([b" ", b"\0"]))
def test_a_name_with_fill_is_the_name(name: bytes, more: int, fill: bytes) -> None:
    assert readback.same_name(name, name + fill * more)


@given(st.binary(min_size=12, max_size=12), st.binary(min_size=12, max_size=12))
def test_ids_of_one_length_are_compared_whole(one: bytes, other: bytes) -> None:
    assert readback.same_name(one, other) is (one == other)


@given(st.binary(max_size=80))
def test_any_status_page_is_judged(tail: bytes) -> None:
    page = b"\0\x20" + (20 + len(tail)).to_bytes(2) + tail.ljust(20, b"\xff")
    status = EncryptionStatus.parse(page)
    assert readback.compare(SENT, NOTHING, status)
    assert readback.holding(status, b"HWKM00000001")

"""Real blocks under real keys: what the drive gives out, what it refuses, what lies on the tape."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESCCM, AESGCM

from tests.scsi.emulator.host import (
    CLEAR,
    KEY,
    KEY_ID,
    LABEL,
    OTHER_KEY,
    Host,
    code,
    kad,
    page,
)

if TYPE_CHECKING:
    from collections.abc import Callable

BOTH = kad(0, LABEL) + kad(1, KEY_ID)
READABLE = page(kads=BOTH, flags=0x20)
"""RDMC 10b: what is written may be read raw."""


def on_tape(host: Host, *pages: bytes) -> Host:
    """Write "block" under each of these parameters; return the host, rewound."""
    for data in pages:
        assert code(host.set(data)) == "good"
        assert code(host.write(b"block")) == "good"
    host.rewind()
    return host


def test_ciphertext_lies_on_the_tape(host: Host) -> None:
    on_tape(host, page(kads=BOTH))
    (one,) = host.drive.blocks("HWK001L8")
    assert b"block" not in one.data
    assert AESGCM(KEY).decrypt(one.nonce, one.data, KEY_ID) == b"block"
    assert (one.u_kad, one.a_kad) == (LABEL, KEY_ID)


def test_each_block_has_its_own_nonce(host: Host) -> None:
    on_tape(host, page(), page())
    assert len({one.nonce for one in host.drive.blocks("HWK001L8")}) == 2


def test_the_file_holds_no_plain_block(host: Host) -> None:
    on_tape(host, page())
    assert host.set(CLEAR).status == 0
    assert b"block" not in host.path.read_bytes()


@pytest.mark.parametrize("modes", [(2, 2), (2, 3), (0, 2), (0, 3)])
def test_the_right_key_reads(host: Host, modes: tuple[int, int]) -> None:
    on_tape(host, page(kads=BOTH))
    assert code(host.set(page(modes=modes))) == "good"
    assert host.next_block()[12] == 0x05
    assert host.read().data == b"block"
    assert host.position() == 1


@pytest.mark.parametrize(
    ("now", "refusal", "status"),
    [
        (page(OTHER_KEY), "7/74/03", 0x06),
        (page(OTHER_KEY, modes=(0, 3)), "7/74/03", 0x06),
        (CLEAR, "7/74/01", 0x06),
        (page(modes=(2, 0)), "7/74/01", 0x06),
        (page(b"", modes=(0, 1)), "7/74/0A", 0x06),
        (page(flags=0xC0), "7/74/09", 0x05),
    ],
)
def test_everything_else_does_not(host: Host, now: bytes, refusal: str, status: int) -> None:
    on_tape(host, page(kads=BOTH))
    assert code(host.set(now)) == "good"
    assert host.next_block()[12] == status
    assert (code(end := host.read()), end.data) == (refusal, b"")
    assert host.position() == 0
    assert host.next_block()[16:20] == bytes.fromhex("00 01 00 11")


@pytest.mark.parametrize(
    ("now", "result"),
    [
        (CLEAR, "good"),
        (page(modes=(2, 3)), "good"),
        (page(modes=(2, 2)), "7/74/02"),
        (page(b"", modes=(0, 1)), "7/74/02"),
    ],
)
def test_blocks_in_clear(host: Host, now: bytes, result: str) -> None:
    host.write(b"plain")
    host.rewind()
    assert code(host.set(now)) == "good"
    assert host.next_block()[12] == 0x03
    assert code(host.read()) == result
    assert host.position() == (1 if result == "good" else 0)


def test_a_key_set_after_a_refusal_reads_on(host: Host) -> None:
    on_tape(host, page(), page(OTHER_KEY))
    assert code(host.set(page())) == "good"
    assert host.read().data == b"block"
    assert code(host.read()) == "7/74/03"
    assert code(host.set(page(OTHER_KEY))) == "good"
    assert host.read().data == b"block"


def test_raw_reading_and_a_keyless_copy(make: Callable[..., Host]) -> None:
    host = make("quantum-lto-4")
    u_kad, a_kad = LABEL.ljust(32), KEY_ID
    kads = kad(0, u_kad) + kad(1, a_kad)
    on_tape(host, page(kads=kads, index=0, flags=0x20))
    assert code(host.set(page(b"", modes=(0, 1), index=0))) == "good"
    block = host.next_block()
    assert block[12] == 0x06
    assert block[-68:-64] == bytes.fromhex("03 01 00 40")
    raw = host.read(21).data
    (one,) = host.drive.blocks("HWK001L8")
    assert raw == one.data
    copy = page(b"", kads + kad(3, block[-64:]), modes=(1, 1), index=0)
    assert code(host.set(copy)) == "good"
    assert code(host.write(raw)) == "good"
    assert code(host.set(page(modes=(0, 2), index=0))) == "good"
    host.good("11 00 FF FF FF 00")
    assert host.next_block()[14] & 0x02
    assert host.read().data == b"block"


def test_external_mode_needs_its_metadata(make: Callable[..., Host]) -> None:
    host = make("quantum-lto-4")
    assert code(host.set(page(b"", modes=(1, 1), index=0))) == "5/26/11"
    short = page(b"", kad(3, bytes(63)), modes=(1, 1), index=0)
    assert code(host.set(short)) == "5/26/00"


def test_what_was_written_externally_can_be_kept_from_readers(make: Callable[..., Host]) -> None:
    host = make("quantum-lto-4")
    external = page(b"", kad(3, bytes(64)), modes=(1, 1), index=0)
    on_tape(host, external)
    assert code(host.set(page(flags=0x80, index=0))) == "good"
    assert code(host.read()) == "7/74/09"


def test_ccm(make: Callable[..., Host]) -> None:
    host = make("hp-lto-6")
    on_tape(host, page(index=2))
    (one,) = host.drive.blocks("HWK001L8")
    assert AESCCM(KEY).decrypt(one.nonce, one.data, None) == b"block"
    assert host.read().data == b"block"
    host.rewind()
    assert code(host.set(page(index=1))) == "good"
    assert host.next_block()[12:14] == b"\x06\x02"


def test_an_unknown_algorithm(make: Callable[..., Host]) -> None:
    host, other = make("hp-lto-6", ""), make("ibm-lto-5", "")
    host.drive.insert("HWK001L5", kind="lto-5")
    host.drive.forget_attentions()
    on_tape(host, page(index=2))
    host.drive.give("HWK001L5", other.drive)
    other.drive.insert("HWK001L5")
    other.drive.forget_attentions()
    assert other.next_block()[12:14] == b"\x04\x00"
    assert code(host.ready()) == "2/3A/00"


def test_a_t10000_wants_the_same_u_kad(make: Callable[..., Host]) -> None:
    host = make("t10000")
    on_tape(host, page(kads=kad(0, b"name".ljust(30))))
    assert code(host.set(page(modes=(0, 2), kads=kad(0, b"other".ljust(30))))) == "good"
    assert host.next_block()[12] == 0x06
    assert code(host.read()) == "7/74/03"
    assert code(host.set(page(modes=(0, 2), kads=kad(0, b"name".ljust(30))))) == "good"
    assert host.read().data == b"block"


def test_a_3592_decides_at_the_label(make: Callable[..., Host]) -> None:
    host = make("ibm-3592")
    on_tape(host, page(), page())
    host.rewind()
    assert code(host.set(page(modes=(2, 3)))) == "good"
    assert host.next_block()[12] == 0x03
    assert host.read().data == b"block"
    assert host.next_block()[12] == 0x05
    assert host.read().data == b"block"
    assert code(host.set(CLEAR)) == "good"
    host.rewind()
    host.write(b"label")
    assert code(host.set(page())) == "good"
    assert code(host.write(b"block")) == "7/27/00"


def test_ten_wrong_keys_are_the_limit(host: Host) -> None:
    on_tape(host, page())
    assert code(host.set(page(OTHER_KEY))) == "good"
    assert [code(host.read()) for _ in range(10)] == ["7/74/03"] * 10
    assert code(host.read()) == "7/26/10"
    assert code(host.set(page())) == "7/26/10"
    assert code(host.set(CLEAR)) == "good"
    host.good("1B 00 00 00 00 00")
    host.good("1B 00 00 00 01 00")
    assert code(host.set(page())) == "good"
    assert host.read().data == b"block"


def test_a_right_key_ends_the_row(host: Host) -> None:
    on_tape(host, page())
    for _ in range(3):
        assert code(host.set(page(OTHER_KEY))) == "good"
        assert [code(host.read()) for _ in range(9)] == ["7/74/03"] * 9
        assert code(host.set(page())) == "good"
        assert host.read().data == b"block"
        host.rewind()


def test_power_lifts_the_limit(host: Host) -> None:
    on_tape(host, page())
    assert code(host.set(page(OTHER_KEY))) == "good"
    for _ in range(10):
        host.read()
    host.drive.power_cycle()
    assert code(host.ready()) == "6/29/01"
    assert code(host.set(page())) == "good"


def test_damage_is_not_taken_for_a_wrong_key(host: Host) -> None:
    on_tape(host, page())
    host.drive.damage("HWK001L8", 0)
    assert code(host.read()) == "7/74/04"
    assert host.drive.state()["wrong_keys"] == 0


def test_first_encrypted_and_first_clear_block(host: Host) -> None:
    host.write(b"clear")
    assert code(host.set(page())) == "good"
    host.write(b"block")
    host.filemarks()
    assert host.status()[12] & 0x08
    assert attribute(host, 0x0224) == (1).to_bytes(8)
    assert attribute(host, 0x0225) == b"\xff" * 8
    assert code(host.set(CLEAR)) == "good"
    host.write(b"clear")
    assert attribute(host, 0x0225) == (3).to_bytes(8)
    log = host.good("4D 00 57 00 00 00 00 20 00 00")
    assert log.endswith(
        bytes.fromhex("02 00 43 0A 09 00 00 00 00 00 00 00 00 01 02 01 43 0A 09 00 00 00")
        + (3).to_bytes(6)
    )


def attribute(host: Host, number: int) -> bytes:
    head, tail = bytes.fromhex("8C 00 00 00 00 00 00 00"), bytes.fromhex("00 00 20 00 00 00")
    reply = host.good(head + number.to_bytes(2) + tail)
    assert reply[4:6] == number.to_bytes(2)
    return reply[9 : 9 + int.from_bytes(reply[7:9])]

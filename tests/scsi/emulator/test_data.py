"""Blocks, filemarks and positions, without encryption."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.scsi.emulator.host import Host, code

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture(name="tape")
def _tape(host: Host) -> Host:
    """Two blocks, a filemark, two blocks, a filemark: objects 0 to 5; rewound."""
    for group in ((b"one", b"two"), (b"three", b"four")):
        for block in group:
            host.write(block)
        host.filemarks()
    host.rewind()
    return host


def space(kind: int, count: int) -> bytes:
    return bytes((0x11, kind)) + count.to_bytes(3, signed=True) + b"\0"


def locate(block: int) -> bytes:
    return b"\x2b\0\0" + block.to_bytes(4) + bytes(3)


def test_reading_through(tape: Host) -> None:
    assert tape.read(3).data == b"one"
    assert tape.read(3).data == b"two"
    mark = tape.read(3)
    assert mark.sense == bytes.fromhex("F0 00 80 00 00 00 03 0A 00 00 00 00 00 01 00 00 00 00")
    assert tape.position() == 3
    assert tape.read(5).data == b"three"
    assert tape.read(4).data == b"four"
    assert code(tape.read(4)) == "0/00/01"
    end = tape.read(4)
    assert end.sense == bytes.fromhex("F0 00 08 00 00 00 04 0A 00 00 00 00 00 05 00 00 00 00")
    assert tape.position() == 6


def test_a_longer_block(tape: Host) -> None:
    end = tape.read(2)
    assert (end.data, tape.position()) == (b"on", 1)
    assert end.sense == bytes.fromhex("F0 00 20 FF FF FF FF 0A 00 00 00 00 00 00 00 00 00 00")


def test_a_shorter_block(tape: Host) -> None:
    end = tape.read(10)
    assert (end.data, tape.position()) == (b"one", 1)
    assert end.sense == bytes.fromhex("F0 00 20 00 00 00 07 0A 00 00 00 00 00 00 00 00 00 00")


def test_incorrect_lengths_suppressed(tape: Host) -> None:
    assert tape.good("08 02 00 00 0A 00") == b"one"


def test_reading_nothing(tape: Host) -> None:
    assert tape.good("08 00 00 00 00 00") == b""
    assert tape.position() == 0


def test_blocks_of_fixed_length_are_not_set_up(tape: Host) -> None:
    assert tape.refusal("08 01 00 00 01 00") == ("5/24/00", "c80001")
    assert tape.refusal("0A 01 00 00 01 00", b"x") == ("5/24/00", "c80001")


def test_writing_cuts_the_tape(tape: Host) -> None:
    tape.good(locate(1))
    tape.write(b"new")
    assert [one.data for one in tape.drive.blocks("HWK001L8")] == [b"one", b"new"]
    assert code(tape.read()) == "8/00/05"


def test_writing_nothing(tape: Host) -> None:
    tape.good("0A 00 00 00 00 00")
    tape.good("10 00 00 00 00 00")
    assert len(tape.drive.blocks("HWK001L8")) == 6


def test_more_filemarks_than_anyone_needs(host: Host) -> None:
    assert code(host.filemarks(4096)) == "good"
    assert host.position() == 4096
    assert host.refusal("10 00 00 10 01 00") == ("5/24/00", "c00002")


def test_erase(tape: Host) -> None:
    tape.good(locate(2))
    tape.good("19 00 00 00 00 00")
    assert len(tape.drive.blocks("HWK001L8")) == 2


@pytest.mark.parametrize(
    ("start", "cdb", "result", "position"),
    [
        (0, space(0, 1), "good", 1),
        (0, space(0, 2), "good", 2),
        (0, space(0, 3), "0/00/01", 3),
        (3, space(0, -1), "0/00/01", 2),
        (2, space(0, -2), "good", 0),
        (1, space(0, -2), "0/00/04", 0),
        (3, space(0, 9), "0/00/01", 6),
        (6, space(0, 1), "8/00/05", 6),
        (0, space(1, 1), "good", 3),
        (0, space(1, 2), "good", 6),
        (0, space(1, 3), "8/00/05", 6),
        (6, space(1, -1), "good", 5),
        (6, space(1, -2), "good", 2),
        (5, space(1, -2), "0/00/04", 0),
        (0, space(3, 0), "good", 6),
        (4, space(0, 0), "good", 4),
        (0, space(2, 1), "5/24/00", 0),
        (0, locate(6), "good", 6),
        (0, locate(7), "8/00/05", 6),
        (0, bytes.fromhex("92 00 00 00 00 00 00 00 00 00 00 03 00 00 00 00"), "good", 3),
        (0, bytes.fromhex("2B 02 00 00 00 00 01 00 01 00"), "5/24/00", 0),
    ],
)
def test_moving(tape: Host, start: int, cdb: bytes, result: str, position: int) -> None:
    tape.good(locate(start))
    assert code(tape.run(cdb)) == result
    assert tape.position() == position


def test_what_is_left_of_a_move(tape: Host) -> None:
    assert tape.run(space(1, 5)).sense[3:7] == (3).to_bytes(4)
    assert tape.run(space(0, -3)).sense[3:7] == (3).to_bytes(4)


def test_read_position(tape: Host) -> None:
    assert tape.good("34" + "00" * 9) == bytes.fromhex("80") + bytes(19)
    tape.good(locate(5))
    assert tape.good("34" + "00" * 9) == bytes(4) + bytes.fromhex("00000005 00000005") + bytes(8)
    assert tape.refusal("34 06" + "00" * 8) == ("5/24/00", "cc0001")


def test_next_object(tape: Host) -> None:
    tape.good(locate(2))
    assert tape.next_block() == bytes.fromhex("00 21 00 0C 00 00 00 00 00 00 00 02 02 00 00 00")
    tape.good(locate(6))
    assert tape.next_block()[12] == 0x01


def test_a_blank_tape(make: Callable[..., Host]) -> None:
    assert make("ibm-lto-5").next_block()[12] == 0x01
    assert make("hp-lto-4").refusal("A2 20 00 21 00 00 00 00 20 00 00 00")[0] == "8/14/03"


@pytest.mark.parametrize(
    "cdb",
    [
        "00 00 00 00 00 00", "01 00 00 00 00 00", "08 00 00 00 05 00", "10 00 00 00 01 00",
        "11 00 00 00 01 00", "19 00 00 00 00 00", "2B" + "00" * 9, "34" + "00" * 9,
        "8C" + "00" * 15, "A2 20 00 21 00 00 00 00 20 00 00 00",
    ],
)  # fmt: skip
def test_without_a_cartridge(make: Callable[..., Host], cdb: str) -> None:
    assert make(cartridge="").refusal(cdb)[0] == "2/3A/00"


def test_write_protection(host: Host) -> None:
    host.drive.insert("HWK002L8", write_protected=True)
    host.drive.forget_attentions()
    assert code(host.write(b"x")) == "7/27/00"
    assert code(host.filemarks()) == "7/27/00"
    assert host.good("5A 00 00 00 00 00 00 00 08 00")[3] & 0x80
    assert host.good("1A 00 00 00 04 00")[2] & 0x80
    log = host.good("4D 00 57 00 00 00 00 20 00 00")
    assert bytes.fromhex("00 80 40 01 01") in log
    assert host.good("4D 00 52 00 00 00 00 20 00 00")[8:] == bytes.fromhex("00 80") + bytes(6)


def test_an_older_cartridge_is_read_only(make: Callable[..., Host]) -> None:
    host = make("hp-lto-6", "")
    host.drive.insert("HWK001L4", kind="lto-4")
    host.drive.forget_attentions()
    assert code(host.write(b"x")) == "7/27/00"
    assert host.good("5A 00 00 00 00 00 00 00 10 00")[8] == 0x46


def test_worm(host: Host) -> None:
    host.drive.insert("HWK001LY", worm=True)
    host.drive.forget_attentions()
    assert code(host.write(b"once")) == "good"
    assert code(host.write(b"more")) == "good"
    host.rewind()
    assert code(host.write(b"twice")) == "7/30/0C"
    assert code(host.run("19 00 00 00 00 00")) == "7/30/0C"
    assert len(host.drive.blocks("HWK001LY")) == 2
    assert bytes.fromhex("00 81 40 01 01") in host.good("4D 00 57 00 00 00 00 20 00 00")


def test_cartridges_keep_what_is_on_them(host: Host) -> None:
    host.write(b"one")
    host.drive.insert("HWK002L8")
    host.drive.insert("HWK001L8")
    host.drive.forget_attentions()
    assert host.read(3).data == b"one"
    first, second = host.drive.cartridges()
    assert (first.barcode, first.inside, first.objects) == ("HWK001L8", True, 1)
    assert (second.barcode, second.inside, second.objects) == ("HWK002L8", False, 0)
    assert first.serial != second.serial


@pytest.mark.parametrize(
    "cdb", ["FF" * 6, "00" * 10, "A2" + "00" * 9, "C0" + "00" * 9, "3B" + "00" * 9]
)
def test_commands_that_are_none(host: Host, cdb: str) -> None:
    assert code(host.run(cdb)) in ("5/20/00", "5/24/00")


def test_unknown_operation_code(host: Host) -> None:
    assert host.refusal("3B" + "00" * 9) == ("5/20/00", "c00000")

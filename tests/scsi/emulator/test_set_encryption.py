"""What the drive refuses in Set Data Encryption, where it points, and that nothing changes then."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hwkm.scsi.emulator import QUIRKS, create
from tests.scsi.emulator.host import (
    CKOD,
    CKORL,
    CKORP,
    CLEAR,
    KEY,
    KEY_ID,
    LABEL,
    OTHER_KEY,
    Host,
    code,
    kad,
    page,
    spout_cdb,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

INVALID = "5/26/00"


def patched(data: bytes, at: int, value: int) -> bytes:
    return data[:at] + bytes((value,)) + data[at + 1 :]


def pointer(byte: int, bit: int = 7) -> str:
    return f"{0x88 | bit:02x}{byte:04x}"


PLAIN = page()
FIRST_KAD = 52

# name: page, field pointer (byte, bit)
REFUSED: dict[str, tuple[bytes, tuple[int, int]]] = {
    "page code": (patched(PLAIN, 1, 0x11), (0, 7)),
    "page length too long": (patched(PLAIN, 3, 0x31), (2, 7)),
    "page length too short": (patched(PLAIN, 3, 0x2F), (2, 7)),
    "scope 3": (patched(PLAIN, 4, 0x60), (4, 7)),
    "scope 7": (patched(PLAIN, 4, 0xE0), (4, 7)),
    "reserved bits of the scope": (patched(PLAIN, 4, 0x42), (4, 4)),
    "read control with decryption off": (page(flags=0x80, modes=(2, 0)), (5, 7)),
    "RDMC reserved": (page(flags=0x10), (5, 5)),
    "supplemental key": (page(flags=0x08), (5, 3)),
    "CKORP without a reservation": (page(flags=CKORP), (5, 1)),
    "CKORL without a reservation": (page(flags=CKORL), (5, 0)),
    "encryption mode 3": (page(modes=(3, 2)), (6, 7)),
    "external mode": (page(modes=(1, 2)), (6, 7)),
    "decryption mode 4": (page(modes=(2, 4)), (7, 7)),
    "algorithm index 0": (page(index=0), (8, 7)),
    "algorithm index 2": (page(index=2), (8, 7)),
    "key reference": (page(key_format=1), (9, 7)),
    "wrapped key": (page(key_format=2), (9, 7)),
    "KAD format": (page(kad_format=1), (10, 7)),
    **{f"reserved byte {n}": (patched(PLAIN, n, 1), (n, 7)) for n in range(11, 18)},
    "no key": (page(b""), (18, 7)),
    "no key to read with": (page(b"", modes=(0, 3)), (18, 7)),
    "16 bytes of key": (page(KEY[:16]), (18, 7)),
    "33 bytes of key": (page(KEY + b"!"), (18, 7)),
    "key beyond the page": (patched(PLAIN, 19, 0x21), (18, 7)),
    "KADs in the wrong order": (page(kads=kad(1, KEY_ID) + kad(0, LABEL)), (FIRST_KAD + 16, 7)),
    "two U-KADs": (page(kads=kad(0, b"one") + kad(0, b"two")), (FIRST_KAD + 7, 7)),
    "U-KAD of 33 bytes": (page(kads=kad(0, bytes(33))), (FIRST_KAD + 2, 7)),
    "A-KAD of 13 bytes": (page(kads=kad(1, bytes(13))), (FIRST_KAD + 2, 7)),
    "nonce": (page(kads=kad(2, bytes(12))), (FIRST_KAD, 7)),
    "M-KAD": (page(kads=kad(3, bytes(64))), (FIRST_KAD, 7)),
    "WK-KAD": (page(kads=kad(4, b"x")), (FIRST_KAD, 7)),
    "unknown KAD": (page(kads=kad(9, b"x")), (FIRST_KAD, 7)),
    "authenticated KAD": (page(kads=b"\0\1\0\1x"), (FIRST_KAD + 1, 7)),
    "KAD beyond the page": (page(kads=b"\0\0\0\2x"), (FIRST_KAD + 2, 7)),
    "half a KAD": (page(kads=b"\0\0\0"), (FIRST_KAD, 7)),
    "KAD while encryption is off": (page(kads=kad(0, LABEL), modes=(0, 2)), (FIRST_KAD, 7)),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(host: Host, name: str) -> None:
    data, (byte, bit) = REFUSED[name]
    assert code(host.set(page(OTHER_KEY, kad(0, b"first"), flags=CKOD))) == "good"
    before = host.drive.state()
    assert host.refusal(spout_cdb(data), data) == (INVALID, pointer(byte, bit))
    assert host.drive.state() == before


@pytest.mark.parametrize("length", range(1, 20))
def test_a_page_cut_short(host: Host, length: int) -> None:
    data = PLAIN[:length]
    assert host.refusal(spout_cdb(data), data)[0] == "5/1A/00"


def test_no_page_at_all_is_fine(host: Host) -> None:
    assert host.good("B5 20 00 10 00 00 00 00 00 00 00 00") == b""
    assert host.drive.state()["counter"] == 0


@pytest.mark.parametrize(
    ("cdb", "at"),
    [
        ("B5 21 00 10 00 00 00 00 00 34 00 00", "c00001"),
        ("B5 00 00 10 00 00 00 00 00 34 00 00", "c00001"),
        ("B5 20 00 11 00 00 00 00 00 34 00 00", "c00002"),
        ("B5 20 00 10 80 00 00 00 00 34 00 00", "cf0004"),
    ],
)
def test_wrong_cdb(host: Host, cdb: str, at: str) -> None:
    assert host.refusal(cdb, PLAIN) == ("5/24/00", at)


def test_ckod_needs_a_volume(make: Callable[..., Host]) -> None:
    host = make(cartridge="")
    data = page(flags=CKOD)
    assert host.refusal(spout_cdb(data), data) == (INVALID, pointer(5, 2))
    assert code(host.set(page())) == "good"


def test_an_old_cartridge_makes_the_algorithm_invalid(make: Callable[..., Host]) -> None:
    host = make("hp-lto-4", "")
    host.drive.insert("HWK001L3", kind="lto-3")
    host.drive.forget_attentions()
    assert host.spin(0x0010)[24] & 0x80 == 0
    assert host.refusal(spout_cdb(PLAIN), PLAIN) == (INVALID, pointer(8))
    assert code(host.set(CLEAR)) == "good"


def test_raw_is_not_for_every_algorithm(make: Callable[..., Host]) -> None:
    host = make("t10000")
    raw = page(b"", modes=(0, 1))
    assert host.refusal(spout_cdb(raw), raw) == (INVALID, pointer(7))
    mark = page(flags=0x20)
    assert host.refusal(spout_cdb(mark), mark) == (INVALID, pointer(5, 5))


def test_key_and_associated_data_go_together_on_a_t10000(make: Callable[..., Host]) -> None:
    host = make("t10000")
    assert code(host.set(page(modes=(0, 2)))) == "5/26/11"
    assert code(host.set(page(modes=(0, 2), kads=kad(0, b"x" * 30)))) == "good"
    assert code(host.set(page())) == "good"
    assert host.status()[24:] == bytes.fromhex("00 01 00 1E") + bytes(30)


def test_a_quantum_fills_what_is_missing(make: Callable[..., Host]) -> None:
    host = make("quantum-lto-4")
    assert code(host.set(page(index=0, kads=kad(1, KEY_ID)))) == "good"
    u_kad, a_kad = bytes.fromhex("00 01 00 20") + bytes(32), bytes.fromhex("01 02 00 0C") + KEY_ID
    assert host.status()[24:] == u_kad + a_kad


def test_a_3592_takes_no_u_kad(make: Callable[..., Host]) -> None:
    host = make("ibm-3592")
    data = page(kads=kad(0, b"x"))
    assert host.refusal(spout_cdb(data), data) == (INVALID, pointer(FIRST_KAD + 2))
    assert code(host.set(page(kads=kad(1, KEY_ID)))) == "good"


def test_kads_of_fixed_length(make: Callable[..., Host]) -> None:
    host = make("hp-lto-6")
    short = page(index=2, kads=kad(0, LABEL))
    assert host.refusal(spout_cdb(short), short) == (INVALID, pointer(FIRST_KAD + 2))
    assert code(host.set(page(index=2, kads=kad(0, LABEL.ljust(32))))) == "good"


def test_an_empty_kad_is_none(host: Host) -> None:
    assert code(host.set(page(kads=kad(0, b"")))) == "good"
    assert host.status()[24:] == b""


def test_a_key_is_dropped_when_nothing_needs_it(host: Host) -> None:
    assert code(host.set(page(modes=(0, 0)))) == "good"
    assert not host.drive.state()["shared"]["key"]


def quirky(path: Path, quirk: str, cartridge: str | None = "HWK001L5") -> Host:
    create(path, "ibm-lto-5", cartridge=cartridge, quirks=[quirk])
    return Host(path)


def test_no_ckod(tmp_path: Path) -> None:
    host = quirky(tmp_path / "drive", "no-ckod")
    data = page(flags=CKOD)
    assert host.refusal(spout_cdb(data), data) == (INVALID, pointer(5, 2))
    assert code(host.set(page())) == "good"


def test_one_kad(tmp_path: Path) -> None:
    host = quirky(tmp_path / "drive", "one-kad")
    data = page(kads=kad(0, LABEL) + kad(1, KEY_ID))
    assert host.refusal(spout_cdb(data), data)[0] == INVALID
    assert code(host.set(page(kads=kad(1, KEY_ID)))) == "good"


def test_padded_u_kad(tmp_path: Path) -> None:
    host = quirky(tmp_path / "drive", "padded-ukad")
    assert host.spin(0x0010)[25] & 0x02
    assert code(host.set(page(kads=kad(0, LABEL)))) == INVALID
    assert code(host.set(page(kads=kad(0, LABEL.ljust(32))))) == "good"


def test_late_capabilities(tmp_path: Path) -> None:
    host = quirky(tmp_path / "drive", "late-capabilities", None)
    assert host.refusal("A2 20 00 10 00 00 00 00 20 00 00 00")[0] == "2/3A/00"
    host.drive.insert("HWK001L5")
    assert code(host.ready()) == "6/28/00"
    assert host.spin(0x0010)[24] & 0x80


def test_every_quirk_was_tried() -> None:
    assert {"no-ckod", "one-kad", "padded-ukad", "late-capabilities"} == QUIRKS


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_bytes_are_taken_or_refused(host: Host, data: st.DataObject) -> None:
    draft = bytearray(page(kads=kad(0, LABEL) + kad(1, KEY_ID)))
    changes = st.lists(st.tuples(st.integers(0, len(draft) - 1), st.integers(0, 255)), max_size=3)
    for at, value in data.draw(changes):
        draft[at] = value
    end = host.set(bytes(draft[: data.draw(st.integers(1, len(draft)))]))
    assert code(end) == "good" or code(end).startswith("5/")

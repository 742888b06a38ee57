"""Each lie does what its name says, and nothing of it is left when it is switched off."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from hwkm.errors import ConfigError
from hwkm.scsi.emulator import LIES
from tests.scsi.emulator.host import (
    ALL,
    CLEAR,
    KEY_ID,
    LABEL,
    LOCK,
    OTHER_KEY,
    Host,
    code,
    kad,
    page,
)

if TYPE_CHECKING:
    from collections.abc import Callable

SET = page(kads=kad(0, LABEL) + kad(1, KEY_ID))


def test_mode_ignored(host: Host) -> None:
    host.drive.tell_lie("mode-ignored")
    assert code(host.set(SET)) == "good"
    assert host.status()[5:7] == b"\0\2"
    assert host.write(b"block").status == 0
    assert host.drive.blocks("HWK001L8")[0].data == b"block"


def test_kad_dropped(host: Host) -> None:
    host.drive.tell_lie("kad-dropped")
    assert code(host.set(SET)) == "good"
    assert host.status()[24:] == b""
    assert host.write(b"block").status == 0
    assert host.drive.blocks("HWK001L8")[0].a_kad is None


def test_counter_frozen(host: Host) -> None:
    host.drive.tell_lie("counter-frozen")
    for data in (SET, CLEAR, SET):
        assert code(host.set(data)) == "good"
    assert host.status()[8:12] == bytes(4)


def test_lock_ignored(host: Host) -> None:
    host.drive.tell_lie("lock-ignored")
    assert code(host.set(page(scope=ALL | LOCK))) == "good"
    assert code(Host(host.path, "host-2").set(page(OTHER_KEY))) == "good"
    host.ready()
    assert code(host.write(b"block")) == "good"


def test_key_lost_at_reset(host: Host) -> None:
    host.drive.tell_lie("key-lost-at-reset")
    assert code(host.set(SET)) == "good"
    host.drive.reset()
    assert code(host.ready()) == "good"
    assert host.status()[5:7] == bytes(2)


def test_other_host(host: Host) -> None:
    host.drive.tell_lie("other-host")
    assert code(host.set(SET)) == "good"
    assert code(host.ready()) == "good"
    status = host.status()
    assert (status[5:7], status[8:12]) == (b"\2\3", (2).to_bytes(4))
    assert status[28:] == b"another host"


def test_library_managed(host: Host) -> None:
    host.drive.tell_lie("library-managed")
    assert host.status()[12] >> 4 == 1
    assert host.spin(0x0010)[4] == 0x01
    assert host.spin(0x0010)[4] == 0x02
    assert host.status()[12] >> 4 == 3
    assert code(host.set(SET)) == "5/74/21"
    host.drive.tell_lie("library-managed", False)
    assert code(host.set(SET)) == "good"


def test_no_medium(host: Host) -> None:
    host.drive.tell_lie("no-medium")
    assert code(host.ready()) == "good"
    assert code(host.set(SET)) == "good"
    assert code(host.ready()) == "2/3A/00"
    assert code(host.run("8C" + "00" * 15)) == "2/3A/00"
    host.drive.tell_lie("no-medium", False)
    assert code(host.ready()) == "good"


def test_worm(host: Host) -> None:
    host.write(b"block")
    host.rewind()
    host.drive.tell_lie("worm")
    assert code(host.write(b"again")) == "7/30/0C"
    assert bytes.fromhex("00 81 40 01 01") in host.good("4D 00 57 00 00 00 00 20 00 00")


def test_lto_3_medium(make: Callable[..., Host]) -> None:
    host = make("hp-lto-4")
    host.drive.tell_lie("lto-3-medium")
    assert host.spin(0x0010)[24] & 0x80 == 0
    assert code(host.set(SET)) == "5/26/00"
    assert code(host.write(b"plain")) == "good"
    assert host.good("5A 00 00 00 00 00 00 00 10 00")[8] == 0x44


def test_an_lto_3_cartridge_after_the_key(make: Callable[..., Host]) -> None:
    host = make("hp-lto-4")
    assert code(host.set(SET)) == "good"
    host.drive.tell_lie("lto-3-medium")
    assert code(host.write(b"block")) == "7/74/07"


def test_busy(host: Host) -> None:
    host.drive.tell_lie("busy", times=2)
    assert [code(host.ready()) for _ in range(3)] == ["busy", "busy", "good"]
    assert host.drive.lies() == frozenset()


def test_page_length(host: Host) -> None:
    host.drive.tell_lie("page-length")
    status = host.status()
    assert (len(status), status[2:4]) == (24, (32).to_bytes(2))


def test_an_honest_drive_again(host: Host) -> None:
    for name in LIES:
        host.drive.tell_lie(name)
    assert host.drive.lies() == {*LIES}
    for name in LIES:
        host.drive.tell_lie(name, False)
    assert host.drive.lies() == frozenset()
    assert code(host.set(SET)) == "good"


def test_lies_that_there_are_not(host: Host) -> None:
    with pytest.raises(ConfigError, match="no lie 'sleep'") as caught:
        host.drive.tell_lie("sleep")
    assert all(name in caught.value.hint for name in LIES)

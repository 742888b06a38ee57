"""Whose parameters are in force: scopes, locks, counters, unit attentions, and when keys go."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.scsi.emulator.host import (
    ALL,
    CKOD,
    CKORL,
    CKORP,
    CLEAR,
    LOCAL,
    LOCK,
    OTHER_KEY,
    PUBLIC,
    Host,
    code,
    page,
)

if TYPE_CHECKING:
    from collections.abc import Callable

UNLOAD, LOAD = "1B 00 00 00 00 00", "1B 00 00 00 01 00"
RESERVE, RELEASE = "16 00 00 00 00 00", "17 00 00 00 00 00"


@pytest.fixture(name="other")
def _other(host: Host) -> Host:
    other = Host(host.path, "host-2")
    other.status()  # from now on it is told of changes
    return other


def modes(host: Host) -> str:
    return host.status()[4:7].hex(" ")


def counter(host: Host) -> int:
    return int.from_bytes(host.status()[8:12])


def has_key(host: Host) -> bool:
    return host.status()[5:7] != b"\0\0"


def pr_out(host: Host, action: int, own: int = 0, given: int = 0) -> str:
    data = own.to_bytes(8) + given.to_bytes(8) + bytes(8)
    return code(host.run(bytes((0x5F, action, 3, 0, 0, 0, 0, 0, 24, 0)), data))


def test_all_nexuses_share(host: Host, other: Host) -> None:
    assert code(host.set(page())) == "good"
    assert code(other.ready()) == "6/2A/11"
    assert code(host.ready()) == "good"
    assert (modes(host), modes(other)) == ("42 02 02", "02 02 02")


def test_local_is_for_one_nexus(host: Host, other: Host) -> None:
    assert code(host.set(page(scope=LOCAL))) == "good"
    assert code(other.ready()) == "good"
    assert (modes(host), modes(other)) == ("21 02 02", "00 00 00")
    assert code(other.set(page(OTHER_KEY))) == "good"
    assert code(host.ready()) == "good"
    assert (modes(host), modes(other)) == ("21 02 02", "42 02 02")


def test_public_gives_the_own_set_up(host: Host, other: Host) -> None:
    assert code(other.set(page(OTHER_KEY, modes=(2, 3)))) == "good"
    host.ready()
    assert code(host.set(page(scope=LOCAL))) == "good"
    assert code(host.set(page(scope=PUBLIC))) == "good"
    assert modes(host) == "02 02 03"


def test_only_who_uses_encryption_is_told(host: Host) -> None:
    other = Host(host.path, "host-2")
    assert code(host.set(page())) == "good"
    assert code(other.ready()) == "good"


def test_who_sets_last_owns_the_shared_parameters(host: Host, other: Host) -> None:
    assert code(host.set(page())) == "good"
    other.ready()
    assert code(other.set(page(OTHER_KEY))) == "good"
    assert code(host.ready()) == "6/2A/11"
    assert (modes(host), modes(other)) == ("02 02 02", "42 02 02")


def test_the_counter_counts_what_is_accepted(host: Host) -> None:
    assert counter(host) == 0
    for expected, data in enumerate((page(), page(), CLEAR, page(scope=PUBLIC)), 1):
        assert code(host.set(data)) == "good"
        assert host.drive.state()["counter"] == expected
    assert code(host.set(page(index=9))) == "5/26/00"
    assert host.drive.state()["counter"] == 4


def test_lock(host: Host, other: Host) -> None:
    assert code(host.set(page(scope=ALL | LOCK))) == "good"
    assert code(host.write(b"block")) == "good"
    assert code(other.ready()) == "6/2A/11"
    assert code(other.set(page())) == "good"
    assert code(host.ready()) == "6/2A/11"
    assert code(host.write(b"block")) == "7/2A/13"
    assert host.position() == 1
    assert code(other.write(b"block")) == "good"
    assert code(host.set(page(scope=ALL))) == "good"
    assert code(host.write(b"block")) == "good"


def test_a_lost_key_stops_a_locked_host_too(host: Host) -> None:
    assert code(host.set(page(scope=ALL | LOCK, flags=CKOD))) == "good"
    host.good(UNLOAD)
    host.good(LOAD)
    assert code(host.write(b"block")) == "7/2A/13"


@pytest.mark.parametrize(("flags", "kept"), [(0, True), (CKOD, False)])
def test_demount(host: Host, flags: int, kept: bool) -> None:
    assert code(host.set(page(flags=flags))) == "good"
    host.drive.insert("HWK002L8")
    assert code(host.ready()) == "6/28/00"
    assert has_key(host) is kept
    assert counter(host) == (1 if kept else 2)


def test_unload_is_a_demount(host: Host) -> None:
    assert code(host.set(page(flags=CKOD))) == "good"
    host.good(UNLOAD)
    assert code(host.ready()) == "2/04/02"
    assert not has_key(host)
    host.good(LOAD)
    assert code(host.ready()) == "good"


def test_eject(host: Host) -> None:
    assert code(host.set(page(flags=CKOD))) == "good"
    host.drive.eject()
    assert code(host.ready()) == "2/3A/00"
    assert not has_key(host)
    assert host.refusal(LOAD)[0] == "2/3A/00"


def test_a_load_is_news_for_others(host: Host, other: Host) -> None:
    host.good(UNLOAD)
    host.good(LOAD)
    assert code(other.ready()) == "6/28/00"


def test_ckorl_and_a_legacy_reservation(host: Host) -> None:
    host.good(RESERVE)
    assert code(host.set(page(flags=CKORL))) == "good"
    host.good(RELEASE)
    assert not has_key(host)


def test_ckorp_needs_a_persistent_reservation(host: Host) -> None:
    host.good(RESERVE)
    assert code(host.set(page(flags=CKORP))) == "5/26/00"


@pytest.mark.parametrize(("flags", "kept"), [(0, True), (CKORP, False), (CKORL, False)])
def test_preempted(host: Host, flags: int, kept: bool) -> None:
    assert pr_out(host, 6, 0, 0xA) == "good"
    assert pr_out(host, 1, 0xA) == "good"
    assert code(host.set(page(flags=flags))) == "good"
    host.drive.preempt()
    assert code(host.ready()) == "6/2A/05"
    assert code(host.ready()) == "reservation_conflict"
    shared = host.drive.state()["shared"]
    assert (shared is not None) is kept


@pytest.mark.parametrize(("flags", "kept"), [(CKORP, True), (CKORL, False)])
def test_released(host: Host, flags: int, kept: bool) -> None:
    assert pr_out(host, 6, 0, 0xA) == "good"
    assert pr_out(host, 1, 0xA) == "good"
    assert code(host.set(page(flags=flags))) == "good"
    assert pr_out(host, 2, 0xA) == "good"
    assert has_key(host) is kept


@pytest.mark.parametrize(("event", "attention"), [("reset", "6/29/03"), ("power_cycle", "6/29/01")])
def test_reset_takes_keys_and_locks(host: Host, event: str, attention: str) -> None:
    assert code(host.set(page(scope=LOCAL | LOCK))) == "good"
    getattr(host.drive, event)()
    assert code(host.ready()) == attention
    assert modes(host) == "00 00 00"
    assert code(host.write(b"plain")) == "good"


def test_a_power_cycle_starts_the_counter_anew(host: Host) -> None:
    assert code(host.set(page())) == "good"
    host.drive.power_cycle()
    host.ready()
    assert counter(host) == 0


def test_a_lost_nexus_loses_its_local_key(host: Host, other: Host) -> None:
    assert code(host.set(page(scope=LOCAL | LOCK))) == "good"
    assert code(other.set(page(OTHER_KEY, modes=(2, 3)))) == "good"
    host.drive.lose_nexus()
    assert code(host.ready()) == "6/29/07"
    assert modes(host) == "02 02 03"
    assert code(host.write(b"block")) == "good"


def test_attentions_come_once_and_in_order(host: Host) -> None:
    host.drive.insert("HWK002L8")
    host.drive.insert("HWK003L8")
    host.drive.reset()
    assert code(host.run("12 00 00 00 FC 00")) == "good"
    assert [code(host.ready()) for _ in range(3)] == ["6/28/00", "6/29/03", "good"]


def test_request_sense_takes_an_attention(host: Host) -> None:
    host.drive.reset()
    assert host.good("03 00 00 00 FC 00")[2:14:10].hex() == "0629"
    assert code(host.ready()) == "good"
    assert host.good("03 00 00 00 12 00")[2] == 0


def test_queued_sense(host: Host) -> None:
    host.drive.queue_sense(6, 0x2A, 0x12, times=2)
    assert [code(host.ready()) for _ in range(3)] == ["6/2A/12", "6/2A/12", "good"]


def test_nothing_waits_for_a_new_host(make: Callable[..., Host]) -> None:
    assert code(Host(make().path, "host-7").ready()) == "good"

"""Reservations between two hosts."""

from __future__ import annotations

import pytest

from hwkm.errors import DeviceError
from tests.scsi.emulator.host import CLEAR, Host, code

RESERVE, RELEASE = "16 00 00 00 00 00", "17 00 00 00 00 00"
REGISTER, PR_RESERVE, PR_RELEASE, PR_CLEAR, PREEMPT = 6, 1, 2, 3, 4
CONFLICT = "reservation_conflict"
A, B = 0xA, 0xB


@pytest.fixture(name="other")
def _other(host: Host) -> Host:
    return Host(host.path, "host-2")


def out(host: Host, action: int, own: int = 0, given: int = 0, kind: int = 3) -> str:
    data = own.to_bytes(8) + given.to_bytes(8) + bytes(8)
    return code(host.run(bytes((0x5F, action, kind, 0, 0, 0, 0, 0, 24, 0)), data))


def keys(host: Host) -> str:
    return host.good("5E 00 00 00 00 00 00 20 00 00")[8:].hex()


def test_a_legacy_reservation(host: Host, other: Host) -> None:
    host.good(RESERVE)
    host.good(RESERVE)
    assert code(other.ready()) == CONFLICT
    assert code(other.set(CLEAR)) == CONFLICT
    assert code(other.run("12 00 00 00 FC 00")) == "good"
    other.good(RELEASE)
    assert code(other.run(RESERVE)) == CONFLICT
    host.good(RELEASE)
    other.good(RESERVE)


def test_a_reset_ends_it(host: Host, other: Host) -> None:
    host.good(RESERVE)
    host.drive.reset()
    assert [code(other.ready()) for _ in range(2)] == ["6/29/03", "good"]


def test_a_persistent_reservation(host: Host, other: Host) -> None:
    assert out(host, PR_RESERVE) == CONFLICT
    assert out(host, REGISTER, 0, A) == out(other, REGISTER, 0, B) == "good"
    assert keys(host) == (A.to_bytes(8) + B.to_bytes(8)).hex()
    assert out(host, PR_RESERVE, B) == CONFLICT
    assert out(host, PR_RESERVE, A) == "good"
    assert out(other, PR_RESERVE, B) == CONFLICT
    assert code(other.ready()) == CONFLICT
    assert code(host.run(RESERVE)) == CONFLICT
    reservation = other.good("5E 01 00 00 00 00 00 20 00 00")
    assert reservation[4:] == (16).to_bytes(4) + A.to_bytes(8) + bytes.fromhex(
        "00" * 5 + "03 00 00"
    )
    assert out(other, PR_RELEASE, B) == "good"
    assert out(host, PR_RELEASE, A, kind=1) == "5/26/04"
    assert out(host, PR_RELEASE, A) == "good"
    assert [code(other.ready()) for _ in range(2)] == ["6/2A/04", "good"]
    assert host.good("5E 01 00 00 00 00 00 20 00 00")[4:] == bytes(4)


def test_preempt(host: Host, other: Host) -> None:
    out(host, REGISTER, 0, A)
    out(host, PR_RESERVE, A)
    out(other, REGISTER, 0, B)
    assert out(other, PREEMPT, B, A) == "good"
    assert [code(host.ready()) for _ in range(2)] == ["6/2A/05", CONFLICT]
    assert keys(other) == B.to_bytes(8).hex()


def test_clear(host: Host, other: Host) -> None:
    out(host, REGISTER, 0, A)
    out(host, PR_RESERVE, A)
    out(other, REGISTER, 0, B)
    assert out(other, PR_CLEAR, B) == "good"
    assert [code(host.ready()) for _ in range(2)] == ["6/2A/03", "good"]
    assert keys(host) == ""


def test_unregistering_releases(host: Host, other: Host) -> None:
    out(host, REGISTER, 0, A)
    out(host, PR_RESERVE, A)
    assert out(host, 0, A, 0) == "good"
    assert code(other.ready()) == "good"


def test_power_ends_it_all(host: Host, other: Host) -> None:
    out(host, REGISTER, 0, A)
    out(host, PR_RESERVE, A)
    host.drive.power_cycle()
    assert [code(other.ready()) for _ in range(2)] == ["6/29/01", "good"]
    host.ready()
    assert keys(host) == ""


def test_what_is_refused(host: Host) -> None:
    assert out(host, 5) == "5/24/00"
    out(host, REGISTER, 0, A)
    assert out(host, PR_RESERVE, A, kind=8) == "5/24/00"
    assert code(host.run("5F 01 03 00 00 00 00 00 10 00", bytes(16))) == "5/1A/00"


def test_there_must_be_something_to_preempt(host: Host) -> None:
    with pytest.raises(DeviceError, match="no persistent reservation"):
        host.drive.preempt()

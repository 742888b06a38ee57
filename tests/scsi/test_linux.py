"""The way through /dev/sgN, against a driver that stands at the ioctl and nowhere above it.

The node is an ordinary file: opening, closing and telling open files apart is the real kernel's.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import gc
import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from hwkm.keys import SecretBytes
from hwkm.scsi import linux
from hwkm.scsi.linux import SgTransport
from hwkm.scsi.transport import (
    BusyError,
    CheckConditionError,
    Command,
    CommandTimeoutError,
    DeviceAccessError,
    OutcomeUnknownError,
    ReservationConflictError,
    StatusError,
    TransportError,
)
from tests.scsi.sg import FROM_DEVICE, TO_DEVICE, Reply, SgDriver

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from hwkm.scsi.completion import Completion

KEY = bytes(range(0x40, 0x60))
SPIN = bytes.fromhex("a2 20 00 20 00 00 00 00 20 00 00 00")
SPOUT = bytes.fromhex("b5 20 00 10 00 00 00 00 00 34 00 00")
PARAMETERS = bytes.fromhex("0010 0030 40 40 02 02 01 00 00 00 00 00 00 00 00 00 0020") + KEY
STATUS_PAGE = bytes.fromhex("0020 0014 21 02 02 01 00000001 000000000000000000000000")

# As a drive that knows no SECURITY PROTOCOL IN answers: 5/20/00.
NO_SUCH_COMMAND = bytes.fromhex("f0 00 05 00000000 58 00000000 20 00 00 c0 00 00").ljust(96, b"\0")
# 5/24/00 with field pointer C0 00 02: byte 2 of the CDB.
NO_SUCH_PAGE = bytes.fromhex("f0 00 05 00000000 58 00000000 24 00 00 c0 00 02").ljust(96, b"\0")
# The same in descriptor format: a sense key specific descriptor, SPC-5.
DESCRIPTOR_SENSE = bytes.fromhex("72 05 24 00 00 00 00 08  02 06 00 00 c0 00 02 00")
# Deferred, 3/0C/00: an earlier write failed.
DEFERRED = bytes.fromhex("71 00 03 00000000 0a 00000000 0c 00 00 00 00 00")
DEFERRED_DESCRIPTOR = bytes.fromhex("73 03 0c 00 00 00 00 00")
# Recovered error 1/17/01: the command did its work.
RECOVERED = bytes.fromhex("70 00 01 00000000 0a 00000000 17 01 00 00 00 00")

READ = Command("SECURITY PROTOCOL IN", SPIN, allocation=8192)
LOAD = Command("SECURITY PROTOCOL OUT", SPOUT, SecretBytes(PARAMETERS))
READY = Command("TEST UNIT READY", bytes(6), seconds=1.5)


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> SgDriver:
    made = SgDriver()
    monkeypatch.setattr(linux, "sg_io", made)
    return made


@pytest.fixture
def node(tmp_path: Path) -> Path:
    path = tmp_path / "sg3"
    path.write_bytes(b"")
    return path


@pytest.fixture
def transport(node: Path, driver: SgDriver) -> Iterator[SgTransport]:
    made = SgTransport(node)
    yield made
    made.close()


def answers(driver: SgDriver, reply: Reply) -> None:
    driver.answer = lambda cdb: reply


def open_descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))  # noqa: PTH208


def test_the_header_is_the_kernels() -> None:
    names = ("cmd_len", "dxferp", "sbp", "timeout", "usr_ptr", "status", "host_status", "resid")
    offsets = [getattr(linux.SgHeader, name).offset for name in names]
    assert ctypes.sizeof(linux.SgHeader) == 88
    assert offsets == [8, 16, 32, 40, 56, 64, 68, 72]


def test_a_command_goes_down_as_it_is(transport: SgTransport, driver: SgDriver) -> None:
    answers(driver, Reply(STATUS_PAGE))
    assert transport.execute(READ) == STATUS_PAGE
    (seen,) = driver.seen
    assert (seen.cdb, seen.direction, seen.length) == (SPIN, FROM_DEVICE, 8192)
    assert seen.timeout == 60_000


def test_data_goes_out(transport: SgTransport, driver: SgDriver) -> None:
    assert transport.execute(LOAD) == b""
    (seen,) = driver.seen
    assert (seen.cdb, seen.direction, seen.data_out) == (SPOUT, TO_DEVICE, PARAMETERS)


def test_a_command_without_data(transport: SgTransport, driver: SgDriver) -> None:
    assert transport.execute(READY) == b""
    (seen,) = driver.seen
    assert (seen.direction, seen.length, seen.timeout) == (-1, 0, 1500)


def test_there_is_room_for_all_sense(transport: SgTransport, driver: SgDriver) -> None:
    long = bytes.fromhex("70 00 05 00000000 f4 00000000 24 00 00 00 00 00").ljust(252, b"\xee")
    answers(driver, Reply(status=2, driver_status=8, sense=long))
    assert transport.complete(READ).sense == long


# --- what the sg driver keeps


def test_a_short_transfer_ends_where_it_ends(transport: SgTransport, driver: SgDriver) -> None:
    plain = Command("WRITE ATTRIBUTE", bytes(16), b"what was written before " * 20)
    transport.execute(plain)
    answers(driver, Reply(STATUS_PAGE))
    seen = transport.complete(READ)
    # The driver did put stale bytes behind the page, as the real one does.
    at = driver.seen[-1].header.dxferp
    assert at
    assert seen.data == STATUS_PAGE


def test_stale_bytes_of_a_refused_command_are_no_data(
    transport: SgTransport, driver: SgDriver
) -> None:
    transport.execute(Command("WRITE ATTRIBUTE", bytes(16), b"x" * 8192))
    answers(driver, Reply(b"\0\0", status=2, driver_status=8, sense=NO_SUCH_PAGE))
    with pytest.raises(CheckConditionError) as caught:
        transport.execute(READ)
    assert caught.value.data == b"\0\0"


@pytest.mark.parametrize("residual", [-1, -8192, 8193, 2**31 - 1, -(2**31)])
def test_a_residual_out_of_range(
    transport: SgTransport, driver: SgDriver, monkeypatch: pytest.MonkeyPatch, residual: int
) -> None:
    def lie(descriptor: int, header: linux.SgHeader) -> None:
        driver(descriptor, header)
        header.resid = residual

    monkeypatch.setattr(linux, "sg_io", lie)
    assert len(transport.complete(READ).data) in (0, 8192)


def test_no_data_where_the_host_adapter_failed(transport: SgTransport, driver: SgDriver) -> None:
    answers(driver, Reply(bytes(8192), host_status=7))
    assert transport.complete(READ).data == b""


def every_order(transport: SgTransport, driver: SgDriver) -> None:
    """Bring keys and readings together in every way, the key's command failing too."""
    spoils = [
        Reply(),
        Reply(status=2, driver_status=8, sense=NO_SUCH_PAGE),
        Reply(host_status=3),
        Reply(error=errno.EINTR),
        Reply(error=errno.EPERM),
    ]
    for spoil in spoils:
        for commands in ((READ, LOAD, READ), (LOAD, LOAD, READ, READY, READ)):
            for command in commands:
                answers(driver, spoil if command is LOAD else Reply(STATUS_PAGE))
                with suppress(TransportError, StatusError, CheckConditionError):
                    transport.execute(command)


def test_no_data_comes_in_where_a_key_went_out(transport: SgTransport, driver: SgDriver) -> None:
    before = open_descriptors()
    every_order(transport, driver)
    assert driver.leaks(KEY) == []
    assert open_descriptors() == before
    carriers = [seen.file for seen in driver.seen if KEY in seen.data_out]
    assert len(carriers) == len(set(carriers)) == 15


class KeepsItsDescriptor(SgTransport):
    """What SgTransport must not be."""

    def complete(self, command: Command) -> Completion:
        return self._run(self._descriptor, command)


class SendsTheKeyFirst(SgTransport):
    """Another: a descriptor of its own for each command, but of the same open file."""

    def _open(self) -> int:
        held = getattr(self, "_descriptor", None)
        return super()._open() if held is None else os.dup(held)


@pytest.mark.parametrize("kind", [KeepsItsDescriptor, SendsTheKeyFirst])
def test_the_check_of_descriptors_can_fail(
    node: Path, driver: SgDriver, kind: type[SgTransport]
) -> None:
    transport = kind(node)
    every_order(transport, driver)
    assert SPIN in driver.leaks(KEY)
    transport.close()


def test_the_driver_would_hand_a_key_back(
    node: Path, driver: SgDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    returned = []

    def watch(descriptor: int, header: linux.SgHeader) -> None:
        driver(descriptor, header)
        returned.append(ctypes.string_at(header.dxferp or 0, header.dxfer_len))

    monkeypatch.setattr(linux, "sg_io", watch)
    answers(driver, Reply(b"\0"))
    for kind, leaks in ((KeepsItsDescriptor, True), (SgTransport, False)):
        transport = kind(node)
        transport.execute(LOAD)
        transport.execute(READ)
        assert (KEY in returned[-1]) is leaks
        transport.close()


def test_a_key_is_overwritten_after_use(transport: SgTransport, driver: SgDriver) -> None:
    for reply in (Reply(), Reply(error=errno.EINTR), Reply(host_status=3)):
        answers(driver, reply)
        with suppress(TransportError):
            transport.complete(LOAD)
        seen = driver.seen[-1]  # its header keeps the memory it points to
        assert seen.data_out == PARAMETERS
        gc.collect()
        assert ctypes.string_at(seen.header.dxferp or 0, seen.length) == bytes(len(PARAMETERS))


def test_what_came_in_is_overwritten_too(transport: SgTransport, driver: SgDriver) -> None:
    answers(driver, Reply(b"\xaa" * 8192))
    assert transport.execute(READ) == b"\xaa" * 8192
    assert ctypes.string_at(driver.seen[-1].header.dxferp or 0, 8192) == bytes(8192)


# --- how a command can end


def test_a_timeout_has_status_0(transport: SgTransport, driver: SgDriver) -> None:
    answers(driver, Reply(host_status=3))
    with pytest.raises(CommandTimeoutError, match=r"sg3.*not answered within 60 s") as caught:
        transport.execute(LOAD)
    assert caught.value.host_status == 3


@pytest.mark.parametrize("host_status", [1, 2, 4, 5, 6, 7, 8, 0xB, 0xE, 0xF, 0x42])
def test_host_errors_have_status_0_too(
    transport: SgTransport, driver: SgDriver, host_status: int
) -> None:
    answers(driver, Reply(STATUS_PAGE, host_status=host_status))
    with pytest.raises(TransportError, match=f"{host_status:02x}h") as caught:
        transport.execute(READ)
    assert caught.value.host_status == host_status


@pytest.mark.parametrize("driver_status", [1, 4, 6, 7])
def test_driver_errors(transport: SgTransport, driver: SgDriver, driver_status: int) -> None:
    answers(driver, Reply(STATUS_PAGE, driver_status=driver_status))
    with pytest.raises(TransportError) as caught:
        transport.execute(READ)
    assert caught.value.driver_status == driver_status


@pytest.mark.parametrize(
    ("sense", "code"),
    [
        (NO_SUCH_COMMAND, (5, 0x20, 0)),
        (NO_SUCH_PAGE, (5, 0x24, 0)),
        (DESCRIPTOR_SENSE, (5, 0x24, 0)),
        (DEFERRED, (3, 0x0C, 0)),
        (DEFERRED_DESCRIPTOR, (3, 0x0C, 0)),
    ],
)
def test_sense(
    transport: SgTransport, driver: SgDriver, sense: bytes, code: tuple[int, int, int]
) -> None:
    answers(driver, Reply(status=2, driver_status=8, sense=sense))
    with pytest.raises(CheckConditionError) as caught:
        transport.execute(READ)
    assert caught.value.sense.code == code
    assert caught.value.sense.deferred is (sense[0] & 0x7F in (0x71, 0x73))


@pytest.mark.parametrize("sense", [NO_SUCH_PAGE, DESCRIPTOR_SENSE])
def test_the_field_pointer_survives(transport: SgTransport, driver: SgDriver, sense: bytes) -> None:
    answers(driver, Reply(status=2, driver_status=8, sense=sense))
    with pytest.raises(CheckConditionError) as caught:
        transport.execute(READ)
    pointer = caught.value.sense.field_pointer
    assert pointer
    assert (pointer.in_cdb, pointer.byte) == (True, 2)


def test_a_deferred_error_is_not_success(transport: SgTransport, driver: SgDriver) -> None:
    """Some kernels report it with GOOD and DRIVER_SENSE only."""
    answers(driver, Reply(STATUS_PAGE, driver_status=8, sense=DEFERRED))
    with pytest.raises(CheckConditionError):
        transport.execute(READ)


def test_a_recovered_error_is_success(transport: SgTransport, driver: SgDriver) -> None:
    answers(driver, Reply(STATUS_PAGE, status=2, driver_status=8, sense=RECOVERED))
    assert transport.execute(READ) == STATUS_PAGE


def test_check_condition_without_sense(transport: SgTransport, driver: SgDriver) -> None:
    answers(driver, Reply(status=2))
    with pytest.raises(StatusError) as caught:
        transport.execute(READ)
    assert caught.value.status == 2


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (0x08, BusyError),
        (0x28, BusyError),
        (0x18, ReservationConflictError),
        (0x30, StatusError),
        (0x40, StatusError),
        (0xFE, StatusError),
    ],
)
def test_statuses(
    transport: SgTransport, driver: SgDriver, status: int, error: type[StatusError]
) -> None:
    answers(driver, Reply(STATUS_PAGE, status=status))
    with pytest.raises(StatusError) as caught:
        transport.execute(LOAD)
    assert type(caught.value) is error
    assert caught.value.status == status


# --- what the system says


def test_an_interrupted_command_may_have_been_executed(
    transport: SgTransport, driver: SgDriver
) -> None:
    answers(driver, Reply(error=errno.EINTR))
    with pytest.raises(OutcomeUnknownError, match="may have executed it") as caught:
        transport.execute(LOAD)
    assert "Read the drive's state" in caught.value.hint
    assert len(driver.seen) == 1  # not sent again


@pytest.mark.parametrize(
    ("number", "word"),
    [
        (errno.EPERM, "group"),
        (errno.EACCES, "tape"),
        (errno.ENODEV, "gone"),
        (errno.ENXIO, "gone"),
        (errno.ENOTTY, "no SCSI device"),
        (errno.ENOMEM, "Cannot allocate memory"),
    ],
)
def test_what_the_system_forbids(
    transport: SgTransport, driver: SgDriver, number: int, word: str
) -> None:
    answers(driver, Reply(error=number))
    with pytest.raises(DeviceAccessError) as caught:
        transport.execute(LOAD)
    assert "SECURITY PROTOCOL OUT" in str(caught.value)
    assert word in caught.value.diagnostics()
    assert KEY.hex() not in repr(caught.value)


def test_a_file_is_no_device(node: Path) -> None:
    """The real ioctl, on a file that knows none."""
    transport = SgTransport(node)
    with pytest.raises(DeviceAccessError, match="it is no SCSI device"):
        transport.execute(READ)
    transport.close()


def test_no_such_node(tmp_path: Path) -> None:
    with pytest.raises(DeviceAccessError, match="there is no such device"):
        SgTransport(tmp_path / "sg9")
    assert not (tmp_path / "sg9").exists()


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM])
def test_a_node_of_another_group(node: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def refuse(path: str, flags: int) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(DeviceAccessError, match="not allowed") as caught:
        SgTransport(node)
    assert "tape" in caught.value.hint


def test_how_a_node_is_opened(transport: SgTransport) -> None:
    held = transport._descriptor
    assert os.readlink(f"/proc/self/fd/{held}").endswith("/sg3")  # noqa: PTH115
    flags = fcntl.fcntl(held, fcntl.F_GETFL)
    assert flags & os.O_ACCMODE == os.O_RDWR
    assert flags & os.O_NONBLOCK
    assert fcntl.fcntl(held, fcntl.F_GETFD) & fcntl.FD_CLOEXEC


def test_a_key_goes_to_no_other_node(transport: SgTransport, node: Path, driver: SgDriver) -> None:
    """The name may stand for another device by now."""
    node.rename(node.with_name("away"))
    node.write_bytes(b"")
    with pytest.raises(DeviceAccessError, match="another node"):
        transport.execute(LOAD)
    assert driver.seen == []


def test_nothing_goes_to_a_closed_device(transport: SgTransport, driver: SgDriver) -> None:
    transport.close()
    transport.close()
    for command in (READ, LOAD):
        with pytest.raises(TransportError, match="was closed"):
            transport.execute(command)
    assert driver.seen == []


def test_time_is_in_milliseconds(transport: SgTransport, driver: SgDriver) -> None:
    started = time.monotonic()
    transport.execute(Command("LOAD UNLOAD", bytes(6), seconds=1200))
    assert driver.seen[-1].timeout == 1_200_000
    assert time.monotonic() - started < 5

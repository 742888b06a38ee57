"""A device held by a process of its own, so that a drive that hangs holds up nothing else.

A command that the kernel can't end keeps its process in a state that not even SIGKILL ends. That
process is a child made for it; the parent waits for a limited time, and goes on without it.
"""

from __future__ import annotations

import math
import os
import select
import signal
import socket
import struct
import time
from contextlib import suppress
from typing import TYPE_CHECKING, NoReturn

from hwkm import supervise
from hwkm.errors import HwkmError
from hwkm.scsi.completion import Port
from hwkm.scsi.devices import open_device
from hwkm.scsi.transport import (
    CommandTimeoutError,
    DeviceAccessError,
    OutcomeUnknownError,
    TransportError,
)
from hwkm.scsi.wire import (
    pack_command,
    pack_completion,
    pack_error,
    pack_result,
    unpack_command,
    unpack_completion,
    unpack_result,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from hwkm.scsi.completion import Completion
    from hwkm.scsi.transport import Command

GRACE_SECONDS = 10.0
"""How much longer than its time a command may take: the kernel gives up on it, and says so, first;
then it may still reset the drive."""

OPEN_SECONDS = 30.0
END_SECONDS = 0.5
"""How long a child's end is waited for. One that the kernel does not let go is left behind."""

_FRAME = struct.Struct(">II")  # number of the exchange, length of the message


class WorkerTransport(Port):
    """A transport whose commands run one at a time in a child process.

    Making one forks: so before a PKCS#11 module is loaded, and before threads are started. The
    child ends when this process does, however that ends, once its command has ended.
    """

    def __init__(
        self,
        name: str,
        *,
        keep: Iterable[int] = (),
        grace: float = GRACE_SECONDS,
        deadline: float = math.inf,
        opener: Callable[[str], Port] = open_device,
    ) -> None:
        """Open the device called ``name`` in a child, which keeps the descriptors ``keep`` too.

        At ``deadline`` (of :func:`time.monotonic`) the device is given up, whatever it does.

        :raises DeviceError: as ``opener`` raises it in the child.
        """
        self.name = name
        self._grace = grace
        self._deadline = deadline
        self._exchange = 0
        self._busy_until = 0.0
        self._given_up = ""
        ours, theirs = socket.socketpair()
        self._link = _Link(ours)
        self._child = _fork(theirs, opener, name, keep)
        self._ended = os.pidfd_open(self._child)
        theirs.close()
        try:
            self.name = self._answer("opening it", self._within(OPEN_SECONDS)).decode()
        except BaseException:
            self.close()
            raise

    def complete(self, command: Command) -> Completion:
        """Run ``command`` in the child and return how it ended.

        :raises CommandTimeoutError: if there is no answer in time; the device is then given up.
        :raises OutcomeUnknownError: if the child ended first.
        :raises TransportError: if the device was given up before, or no time is left for it.
        """
        if self._given_up:
            raise TransportError(
                f"{self.name} was given up {self._given_up}: {command.name} was not sent",
                hint="See whether the drive answers again (sg_turs), then start anew",
            )
        if time.monotonic() >= self._deadline:
            raise TransportError(
                f"{self.name}: no time was left for {command.name}, which was not sent",
                hint="The drive is not at fault: what was asked before, such as a key, took the "
                "time. See the log, and hwkm drive status",
            )
        # After an exception here, say KeyboardInterrupt, the child may be busy with what it cut
        # short; the answer to that is dropped when it comes.
        queued = max(0.0, self._busy_until - time.monotonic())
        self._busy_until = self._within(queued + command.seconds + self._grace)
        self._exchange += 1
        self._send(command)
        return unpack_completion(self._answer(command.name, self._busy_until))

    def close(self) -> None:
        """Let the child end; one that is not done soon is killed."""
        if self._given_up:
            return
        self._given_up = "when it was closed"
        self._link.close()
        if not _wait(self._child, self._ended):
            self._kill()
        os.close(self._ended)

    def _within(self, seconds: float) -> float:
        return min(time.monotonic() + seconds, self._deadline)

    def _send(self, command: Command) -> None:
        message = pack_command(command)
        try:
            self._link.send(self._exchange, message, self._busy_until)
        except OSError as error:
            raise self._broken(command.name, error) from error
        except BaseException:  # half a message may be under way
            self._give_up(f"when sending {command.name} was broken off")
            raise
        finally:
            message[:] = bytes(len(message))

    def _answer(self, what: str, deadline: float) -> bytes:
        exchange = -1
        while exchange != self._exchange:
            try:
                exchange, answer = self._link.receive(deadline)
            except OSError as error:
                raise self._broken(what, error) from error
        self._busy_until = 0.0
        return unpack_result(bytes(answer))

    def _broken(self, what: str, error: OSError) -> TransportError:
        if isinstance(error, TimeoutError):
            self._give_up(f"when {what} was not answered in time")
            return CommandTimeoutError(
                f"{self.name}: {what} was not answered in time; the drive was given up",
                hint="What it did is not known: see its display and the kernel's log. A drive that "
                "stays silent needs a power cycle; then run hwkm drive status",
            )
        self._give_up(f"when the process that held it ended during {what}")
        return OutcomeUnknownError(
            f"{self.name}: the process that held the drive ended during {what}",
            hint="Start anew, and read the drive's state before anything else",
        )

    def _give_up(self, when: str) -> None:
        self._given_up = when
        self._link.close()
        self._kill()
        os.close(self._ended)

    def _kill(self) -> None:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._ended, signal.SIGKILL)
        _wait(self._child, self._ended)


class _Link:
    """One end of the socket: numbered messages, whole ones only."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        self._buffer = bytearray()
        self._filled = 0

    def send(self, exchange: int, message: bytes | bytearray, deadline: float | None) -> None:
        """Send ``message``; :class:`OSError` if it does not go in time, or to no one."""
        self._limit(deadline)
        self._socket.sendall(_FRAME.pack(exchange, len(message)))
        self._socket.sendall(message)

    def receive(self, deadline: float | None) -> tuple[int, bytearray]:
        """Return the next message and its number; :class:`OSError` if there is none in time.

        After an exception, the next call goes on where this one was.
        """
        self._fill(_FRAME.size, deadline)
        exchange, length = _FRAME.unpack_from(self._buffer)
        self._fill(_FRAME.size + length, deadline)
        message = self._buffer[_FRAME.size :]
        self._buffer[:] = bytes(len(self._buffer))  # a key, perhaps
        self._buffer.clear()
        self._filled = 0
        return exchange, message

    def close(self) -> None:
        self._socket.close()

    def _fill(self, end: int, deadline: float | None) -> None:
        # Made long enough before anything secret is in it, so that growing it leaves no copy.
        self._buffer.extend(bytes(max(0, end - len(self._buffer))))
        while self._filled < end:
            self._limit(deadline)
            with memoryview(self._buffer) as view:
                count = self._socket.recv_into(view[self._filled : end])
            if not count:
                raise ConnectionResetError("the other end is closed")
            self._filled += count

    def _limit(self, deadline: float | None) -> None:
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            raise TimeoutError
        self._socket.settimeout(left)


def _fork(end: socket.socket, opener: Callable[[str], Port], name: str, keep: Iterable[int]) -> int:
    # Blocked from before the fork on: the parent's handlers shall not run in the child, and a
    # signal would end an ioctl whose command the drive executes all the same.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        child = os.fork()
        if child == 0:
            _be_child(end, opener, name, keep)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    return child


def _be_child(
    end: socket.socket, opener: Callable[[str], Port], name: str, keep: Iterable[int]
) -> NoReturn:
    try:
        _let_go({end.fileno(), *keep})
        _serve(_Link(end), opener, name)
    finally:
        os._exit(0)  # nothing that the parent registered or buffered happens twice


def _let_go(keep: set[int]) -> None:
    """Close what the parent has open: a child that hangs must hold no lock or pipe of others."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for standard in {0, 1, 2} - keep:
        os.dup2(nothing, standard)
    start = 3
    for descriptor in sorted(keep):
        os.closerange(start, descriptor)
        start = descriptor + 1
    os.closerange(start, os.sysconf("SC_OPEN_MAX"))


def _serve(link: _Link, opener: Callable[[str], Port], name: str) -> None:
    """Open the device, then run each command that comes, until the parent is gone."""
    try:
        port = opener(name)
    except Exception as error:  # noqa: BLE001  # the parent shall hear of every kind
        link.send(0, _failure(error, DeviceAccessError), None)
        return
    link.send(0, pack_result(port.name.encode()), None)
    with suppress(ConnectionError):
        while True:
            exchange, message = link.receive(None)
            link.send(exchange, _run(port, message), None)


def _run(port: Port, message: bytearray) -> bytes:
    command = unpack_command(message)
    message[:] = bytes(len(message))
    try:
        return pack_completion(port.complete(command))
    except Exception as error:  # noqa: BLE001  # as above
        return _failure(error, OutcomeUnknownError)


def _failure(error: Exception, unforeseen: type[TransportError]) -> bytes:
    if isinstance(error, HwkmError):
        return pack_error(error)
    where = supervise.where(error)
    return pack_error(unforeseen(f"unforeseen error in the drive's process: {where}"))


def _wait(child: int, ended: int) -> bool:
    """Wait a moment for the end of ``child``; return whether it came."""
    poll = select.poll()
    poll.register(ended, select.POLLIN)
    if not poll.poll(END_SECONDS * 1000):
        return False
    with suppress(ChildProcessError):  # whoever started this process ignores SIGCHLD
        os.waitpid(child, 0)
    return True

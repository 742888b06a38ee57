"""Clients of the agent: what each may take up in time and room, whatever it does.

A connection is idle, or a request comes in, or one is worked on, or its answer goes out; in each of
these but the third its time is limited.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress
from enum import Enum, auto
from typing import TYPE_CHECKING, cast

from hwkm.agent.frames import NO, FrameError, FrameReader, pack
from hwkm.agent.peers import peer_of

if TYPE_CHECKING:
    import socket
    from collections.abc import Awaitable, Callable, Sequence

    from hwkm.agent.limits import Limits
    from hwkm.agent.peers import Peer
    from hwkm.agent.status import Status

    Answer = Callable[[Peer, list[bytes]], Awaitable[Sequence[bytes]]]
    """Answers a request; it never raises."""


class _State(Enum):
    IDLE = auto()
    COMING_IN = auto()
    WORKING = auto()
    GOING_OUT = auto()


class Connections:
    """All that are open, and no more than there may be."""

    def __init__(self, answer: Answer, limits: Limits, status: Status) -> None:
        """Let ``answer`` answer what comes."""
        self.answer = answer
        self.limits = limits
        self.status = status
        self.ending = False
        self.all_closed = asyncio.Event()
        self.all_closed.set()
        self._open: dict[Connection, None] = {}  # the one that was used last is last
        self._by_user: Counter[int] = Counter()

    def make(self) -> Connection:
        """Return the protocol of a new connection."""
        return Connection(self)

    def admit(self, connection: Connection, uid: int) -> bool:
        """Count a new one, closing an idle one for it if need be; return whether it may stay."""
        limits = self.limits
        of_user = self._by_user[uid] < limits.connections_per_user or self._make_room(uid)
        room = of_user and (len(self._open) < limits.connections or self._make_room(None))
        if room and not self.ending:
            self._open[connection] = None
            self._by_user[uid] += 1
            self.all_closed.clear()
            self.status.connections = len(self._open)
            return True
        self.status.refused_connections += 1
        return False

    def used(self, connection: Connection) -> None:
        """Note that it is the one that was used last."""
        self._open[connection] = self._open.pop(connection)

    def forget(self, connection: Connection, uid: int) -> None:
        """Note that it is closed."""
        if connection in self._open:
            del self._open[connection]
            self._by_user[uid] -= 1
            self._by_user += Counter()  # without those at zero
            self.status.connections = len(self._open)
            if not self._open:
                self.all_closed.set()

    def end(self) -> None:
        """Close those that wait for nothing, and each of the others with its answer."""
        self.ending = True
        for connection in list(self._open):
            connection.end()

    def abort(self) -> None:
        """Close all of them."""
        for connection in list(self._open):
            connection.abort()

    def _make_room(self, uid: int | None) -> bool:
        for connection in self._open:
            if connection.is_idle and uid in (None, connection.peer.uid):
                connection.abort()
                return True
        return False


class Connection(asyncio.Protocol):
    """One client."""

    peer: Peer

    def __init__(self, connections: Connections) -> None:
        self._all = connections
        self._limits = connections.limits
        self._loop = asyncio.get_running_loop()
        self._reader = FrameReader()
        self._state = _State.IDLE
        self._timer: asyncio.TimerHandle | None = None
        self._work: asyncio.Task[None] | None = None
        self._last = False  # whether it is closed after the answer
        self._transport: asyncio.Transport

    @property
    def is_idle(self) -> bool:
        """Whether nothing has come since the last answer."""
        return self._state is _State.IDLE

    def end(self) -> None:
        """Close it, after its answer if it waits for one."""
        self._last = True
        if self._state in (_State.IDLE, _State.COMING_IN):
            self.abort()

    def abort(self) -> None:
        """Close it at once."""
        self._enter(_State.GOING_OUT, None)
        self._all.forget(self, self.peer.uid)
        self._transport.abort()

    # asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take it on, or refuse it."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(0)
        try:
            self.peer = peer_of(cast("socket.socket", transport.get_extra_info("socket")))
        except OSError:
            self._transport.abort()
            return
        if self._all.admit(self, self.peer.uid):
            self._enter(_State.IDLE, self._limits.idle_seconds)
        else:
            self._refuse("the agent has no room for one more connection")

    def data_received(self, data: bytes) -> None:
        """Take in what came: a part of a request, or all of one."""
        if self._state is _State.GOING_OUT and self._last:
            return  # it was refused, and is closed when it has heard so
        try:
            fields = next(self._reader.feed(data), None)
        except FrameError as error:
            self._refuse(str(error))
            return
        if self._state in (_State.WORKING, _State.GOING_OUT) or (fields and self._reader.pending):
            self._refuse("one request at a time")
        elif fields:
            self._enter(_State.WORKING, None)
            self._all.used(self)
            self._work = asyncio.create_task(self._answer(fields))
        elif self._state is _State.IDLE:
            self._enter(_State.COMING_IN, self._limits.request_seconds)

    def eof_received(self) -> bool:
        """Close it after the answer; return whether one is still to come."""
        self._last = True
        return self._state in (_State.WORKING, _State.GOING_OUT)

    def resume_writing(self) -> None:
        """Go on: all of the answer has been taken."""
        if self._last:
            self._transport.close()
        elif self._state is _State.GOING_OUT:
            self._enter(_State.IDLE, self._limits.idle_seconds)

    def connection_lost(self, _error: Exception | None) -> None:
        """Forget it."""
        self._cancel_timer()
        with suppress(AttributeError):  # the kernel did not say who it was
            self._all.forget(self, self.peer.uid)

    # below

    async def _answer(self, fields: list[bytes]) -> None:
        answer = await self._all.answer(self.peer, fields)
        if self._state is _State.WORKING:  # else it was closed, or refused
            self._write(answer)

    def _refuse(self, why: str) -> None:
        self._last = True
        self._write((NO, why.encode()))

    def _write(self, fields: Sequence[bytes]) -> None:
        self._enter(_State.GOING_OUT, None)
        self._transport.write(pack(fields))
        if self._transport.get_write_buffer_size():
            self._enter(_State.GOING_OUT, self._limits.take_seconds)
        else:
            self.resume_writing()

    def _enter(self, state: _State, seconds: float | None) -> None:
        self._state = state
        self._cancel_timer()
        if seconds is not None:
            self._timer = self._loop.call_later(seconds, self._time_is_up)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _time_is_up(self) -> None:
        if self._state is _State.COMING_IN:
            self._refuse("the request did not come in time")
        else:
            self.abort()

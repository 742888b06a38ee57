"""The agent's side of the process that owns the token: asking it, and starting it anew."""

from __future__ import annotations

import asyncio
import math
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from hwkm.agent import children
from hwkm.agent.messages import (
    Answer,
    LinkError,
    MessageReader,
    Open,
    Opened,
    pack_ask,
    unpack_result,
)
from hwkm.errors import HwkmError, TokenError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import msgspec

    from hwkm.agent.children import Child
    from hwkm.agent.limits import Limits
    from hwkm.agent.messages import Message, Result
    from hwkm.agent.status import TokenStatus
    from hwkm.log import Log

_CLOSE_SECONDS = 15.0
"""How long the process has to log out when it is no longer needed, or to end a login, for one that
is cut off counts as a try of the PIN."""
_BURIAL_SECONDS = 0.01
"""How often it is looked whether the end of a process was seen to."""
_KILL_SECONDS = 2.0
"""How long the end of a process that was killed is waited for."""
_WHO = "the process that owns the token"
_HANGS = f"{_WHO} did not answer in time"
_NOT_YET = f"{_WHO} was not started yet"
_HINT = "hwkm token probe shows whether the token works"


@dataclass(slots=True)
class _Pending:
    sent: float
    result: asyncio.Future[msgspec.Raw]


class _Running(asyncio.Protocol):
    """One process, from its start to its end; ``problem`` says why it is not to be used any more.

    It hangs if it has answered nothing for ``seconds`` though something was asked of it.
    """

    def __init__(self, child: Child, seconds: float, status: TokenStatus) -> None:
        self.child = child
        self.problem = ""
        self.idle = asyncio.Event()
        self.lost = asyncio.Event()
        self.idle.set()
        self._seconds = seconds
        self._status = status
        self._loop = asyncio.get_running_loop()
        self._reader = MessageReader(Answer)
        self._pending: dict[int, _Pending] = {}
        self._numbers = 0
        self._last_answer = -math.inf
        self._watch: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport | None = None
        self._closing = False

    def ask(self, what: Message | msgspec.Raw, deadline: float) -> asyncio.Future[msgspec.Raw]:
        """Send a question; the answer to it comes, or a :class:`TokenError`."""
        self._numbers += 1
        pending = _Pending(self._loop.time(), self._loop.create_future())
        if self._transport is None or self.problem:
            pending.result.set_exception(TokenError(self.problem or _NOT_YET, hint=_HINT))
            return pending.result
        self._pending[self._numbers] = pending
        self.idle.clear()
        self._transport.write(pack_ask(self._numbers, deadline, what))
        if self._watch is None:
            self._watch = self._loop.call_later(self._seconds, self._look)
        return pending.result

    def give_up(self, problem: str) -> None:
        """Refuse what was asked and what will be, and end the process."""
        self.problem = self.problem or problem
        self.child.kill()
        if self._watch is not None:
            self._watch.cancel()
        pending, self._pending = self._pending, {}
        for one in pending.values():
            if not one.result.done():
                one.result.set_exception(TokenError(self.problem, hint=_HINT))
        self.idle.set()
        self.lost.set()

    def close(self) -> None:
        """Let the process end by itself, when it has done what it is doing."""
        self._closing = True
        if self._transport is not None:
            self._transport.close()

    # asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take it on."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        try:
            for message in self._reader.feed(data):
                if isinstance(message, Answer):
                    self._take(message)
        except LinkError as error:
            self.give_up(str(error))

    def connection_lost(self, _error: Exception | None) -> None:
        if not self._closing:
            self.give_up(f"{_WHO} ended")

    def _take(self, answer: Answer) -> None:
        self._last_answer = self._loop.time()
        self._status.used(answer.token_seconds, answer.logins)
        pending = self._pending.pop(answer.number, None)
        if not self._pending:
            self.idle.set()
        if pending is not None and not pending.result.done():
            pending.result.set_result(answer.result)

    def _look(self) -> None:
        """See whether the process still answers."""
        self._watch = None
        oldest = next(iter(self._pending.values()), None)
        if oldest is None:
            return
        left = max(oldest.sent, self._last_answer) + self._seconds - self._loop.time()
        if left <= 0:
            self.give_up(_HANGS)
        else:
            self._watch = self._loop.call_later(left, self._look)


class TokenLink:
    """Whoever owns the token at present, started anew when it fails."""

    def __init__(
        self, start: Callable[[], Child], limits: Limits, status: TokenStatus, log: Log
    ) -> None:
        """Start nothing yet; ``start`` forks the process."""
        self._start = start
        self._limits = limits
        self._status = status
        self._log = log
        self._running: _Running | None = None
        self._problem = _NOT_YET
        self._due = 0.0  # before that no process is started in place of one that failed
        self._settled = asyncio.Event()
        self._burying = asyncio.Lock()
        self._keeper: asyncio.Task[None] | None = None

    async def begin(self) -> list[HwkmError]:
        """Start the process and let it log in; return what it could not open.

        :raises OSError: if no process can be started.
        """
        problems = await self._begin()
        self._keeper = asyncio.create_task(self._keep())
        return problems

    async def ask(self, what: Message | msgspec.Raw, deadline: float) -> msgspec.Raw:
        """Return the answer to ``what``, packed.

        :param deadline: of CLOCK_MONOTONIC, until when it is waited for.
        :raises TokenError: if there is none.
        """
        try:
            async with asyncio.timeout_at(deadline):
                running = await self._ready()
                # Its answer may still come after the deadline, and tells that it does not hang.
                return await asyncio.shield(running.ask(what, deadline))
        except TimeoutError:
            raise TokenError(_HANGS, hint=_HINT) from None

    async def result(self, what: Message, deadline: float) -> Result:
        """Return the result of ``what``.

        :raises TokenError: as :meth:`ask` does.
        """
        return unpack_result(await self.ask(what, deadline))

    async def replace(self, start: Callable[[], Child]) -> list[HwkmError]:
        """Let the process finish what was asked of it, then put another in its place.

        What is asked in the meantime waits for the other. Returns what that could not open.
        """
        self._settled.clear()
        if self._running is not None:
            await self._running.idle.wait()
        await self.end()
        self._start = start
        try:
            return await self.begin()
        except OSError as error:
            # Whoever asks is told so, and it is tried again as after any other failure.
            self._problem = f"{_WHO} can't be started: {error.strerror}"
            self._due = asyncio.get_running_loop().time() + self._limits.restart_seconds
            self._settled.set()
            self._keeper = asyncio.create_task(self._begin_again_and_keep())
            return [TokenError(self._problem)]

    async def end(self) -> None:
        """Let the process log out and end; one that is not done soon is killed."""
        self._settled.clear()
        async with self._burying:
            if self._keeper is not None:
                self._keeper.cancel()
            running, self._running = self._running, None
            if running is not None:
                await _end(running)
                self._status.pid = None

    # below

    async def _ready(self) -> _Running:
        """Return the process, waiting for it if another is just being started.

        :raises TokenError: if none is to be started soon.
        """
        while True:
            await self._settled.wait()
            if self._running is None:
                raise TokenError(f"{self._problem}{self._next()}", hint=_HINT)
            if not self._running.problem:
                return self._running
            await asyncio.sleep(_BURIAL_SECONDS)

    async def _begin(self) -> list[HwkmError]:
        loop = asyncio.get_running_loop()
        child = self._start()
        running = _Running(child, self._limits.answer_seconds, self._status)
        await loop.create_unix_connection(lambda: running, sock=child.link)
        self._status.started(child.pid)
        self._running = running
        self._settled.set()
        with suppress(TokenError):  # the keeper sees it too
            opened = await self.result(Open(), loop.time() + self._limits.answer_seconds)
            if isinstance(opened, Opened):
                return [refusal.error for refusal in opened.problems]
        return []

    async def _keep(self) -> None:
        """Start the process anew whenever it fails, but not too often."""
        while self._running is not None:
            await self._running.lost.wait()
            async with self._burying:
                await self._bury(self._running)
            self._report(await self._begin_again())

    async def _begin_again_and_keep(self) -> None:
        self._report(await self._begin_again())
        await self._keep()

    def _report(self, problems: Sequence[HwkmError]) -> None:
        for error in problems:
            fields = {"event": "token", "outcome": "failed", "reason": error.diagnostics()}
            self._log.error(f"a token can't be used: {error.diagnostics()}", **fields)

    async def _bury(self, failed: _Running) -> None:
        now = asyncio.get_running_loop().time()
        self._running, self._problem = None, failed.problem
        if self._due <= now:
            self._settled.clear()  # who asks in the meantime waits for the next one
        how = await _end_of(failed.child)
        if failed.problem != _HANGS:
            self._problem += f": {how}"
        self._due = max(self._due, asyncio.get_running_loop().time())
        self._status.failed(self._problem)
        fields = {"event": "token process", "outcome": "failed", "reason": self._problem}
        self._log.error(f"{self._problem}{self._next()}", **fields)

    async def _begin_again(self) -> list[HwkmError]:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self._due - loop.time())
            self._due = loop.time() + self._limits.restart_seconds
            try:
                return await self._begin()
            except OSError as error:
                self._problem = f"{_WHO} can't be started: {error.strerror}"
                self._settled.set()
                self._log.error(self._problem)

    def _next(self) -> str:
        left = self._due - asyncio.get_running_loop().time()
        return f"; it is started anew in {left:.0f} s" if left >= 1 else "; it is started anew"


async def _end(running: _Running) -> None:
    running.close()
    end = children.see_to(running.child)
    await asyncio.wait([end], timeout=_CLOSE_SECONDS)
    running.child.kill()
    await asyncio.wait([end], timeout=_KILL_SECONDS)


async def _end_of(child: Child) -> str:
    """Return how a process ended that was killed; one that the kernel holds is left behind."""
    end = children.see_to(child)
    await asyncio.wait([end], timeout=_KILL_SECONDS)
    return end.result() if end.done() else "it does not end: the kernel holds it"

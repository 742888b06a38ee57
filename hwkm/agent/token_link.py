"""The agent's side of the process that owns the token: asking it, and starting it anew."""

from __future__ import annotations

import asyncio
import math
import signal
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import msgspec

from hwkm.agent import children
from hwkm.agent.messages import (
    Answer,
    Done,
    DriveKey,
    FindDelivery,
    GetKey,
    Label,
    LinkError,
    MessageReader,
    Open,
    Opened,
    Read,
    RecordFailure,
    Release,
    pack_ask,
    raw,
    unpack_result,
    unpack_what,
)
from hwkm.errors import HwkmError, PinError, TokenError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hwkm.agent.children import Child
    from hwkm.agent.limits import Limits
    from hwkm.agent.messages import Message, Result
    from hwkm.agent.status import TokenStatus
    from hwkm.log import Log

_CLOSE_SECONDS = 15.0
"""How long the process has to log out when it is no longer needed, or to end a login, for one that
is cut off may count as a try of the PIN."""
_BURIAL_SECONDS = 0.01
"""How often it is looked whether the end of a process was seen to."""
_KILL_SECONDS = 2.0
"""How long the end of a process that was killed is waited for."""
_WHO = "the process that owns the token"
_HANGS = f"{_WHO} did not answer in time"
_NOT_YET = f"{_WHO} was not started yet"
_HINT = "hwkm token probe shows whether the token works"
_FROM_OUTSIDE = (signal.SIGKILL, signal.SIGTERM)
"""How somebody else ends a process, be it the kernel for want of memory; what a module does wrong
ends it by another signal."""
_FOR_TOKENS = (GetKey, Label, Read, DriveKey)
_REPEATABLE = (*_FOR_TOKENS, FindDelivery)
"""What may be asked again of another process, as long as no answer to it has come: who asked was
given nothing, and a LABEL that was committed leaves no more than a generation that nobody uses."""


class _EndedError(TokenError):
    """The process ended by itself, or somebody else ended it."""


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
        self.buried = asyncio.Event()
        self.was_killed = False
        """Whether somebody else ended it; known when it is buried."""
        self.has_ended = False
        self.idle.set()
        self._seconds = seconds
        self._status = status
        self._loop = asyncio.get_running_loop()
        self._reader = MessageReader(Answer)
        self._pending: dict[int, _Pending] = {}
        self._numbers = 0
        self._unsent: list[bytes] = []
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
        # What is asked in the same turn of the loop goes there in one piece, for READs that arrive
        # together are served together; and it costs both sides one system call.
        if not self._unsent:
            self._loop.call_soon(self._send)
        self._unsent.append(pack_ask(self._numbers, deadline, what))
        if self._watch is None:
            self._watch = self._loop.call_later(self._seconds, self._look)
        return pending.result

    def give_up(self, problem: str, kind: type[TokenError] = TokenError) -> None:
        """Refuse what was asked and what will be, and end the process."""
        self.problem = self.problem or problem
        self.child.kill()
        if self._watch is not None:
            self._watch.cancel()
        pending, self._pending = self._pending, {}
        for one in pending.values():
            if not one.result.done():
                one.result.set_exception(kind(self.problem, hint=_HINT))
        self.idle.set()
        self.lost.set()

    def close(self) -> None:
        """Let the process end by itself, when it has done what it is doing."""
        self._closing = True
        if self._transport is not None:
            self._transport.close()

    def _send(self) -> None:
        unsent, self._unsent = self._unsent, []
        if self._transport is not None:
            self._transport.write(b"".join(unsent))

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
            # Unless it was given up before: then it is this process that ended it.
            self.has_ended = not self.problem
            self.give_up(f"{_WHO} ended", _EndedError)

    def _take(self, answer: Answer) -> None:
        self._last_answer = self._loop.time()
        self._status.used(answer.token_seconds, answer.logins, answer.last_login)
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
        self._stays_out: PinError | None = None
        self.put_aside: Callable[[RecordFailure], None] | None = None
        """Takes failures that can't be put on record just now."""

    async def begin(self) -> list[HwkmError]:
        """Start the process and let it log in; return what it could not open.

        :raises OSError: if no process can be started.
        """
        problems = await self._begin()
        self._keeper = asyncio.create_task(self._keep())
        self._settled.set()
        return problems or []

    async def stay_out(self, why: PinError) -> None:
        """Let the process log out; neither it nor a later one logs in without being told to.

        It is there for what needs no token; all else is refused with ``why``. :meth:`replace` ends
        this.
        """
        self._stays_out = why
        with suppress(TokenError):
            now = asyncio.get_running_loop().time()
            await self.result(Release(), now + self._limits.answer_seconds)

    async def ask(self, what: Message | msgspec.Raw, deadline: float) -> msgspec.Raw:
        """Return the answer to ``what``, packed.

        If somebody ends the process meanwhile, the next one is asked, once. A failure that can't be
        put on record is put aside.

        :param deadline: of CLOCK_MONOTONIC, until when it is waited for.
        :raises TokenError: if there is none.
        :raises PinError: if it needs a token, and none takes its PIN.
        """
        if self._stays_out is not None and isinstance(_unpacked(what), _FOR_TOKENS):
            raise PinError(str(self._stays_out), hint=self._stays_out.hint)
        try:
            return await self._ask(what, deadline)
        except TokenError:
            failure = _unpacked(what)
            if self.put_aside is None or not isinstance(failure, RecordFailure):
                raise
            self.put_aside(failure)
            return raw(Done())

    async def record(self, failure: RecordFailure, deadline: float) -> Result:
        """Return the result of putting a failure on record; it is not put aside.

        :raises TokenError: if there is none.
        """
        return unpack_result(await self._ask(failure, deadline))

    async def _ask(self, what: Message | msgspec.Raw, deadline: float) -> msgspec.Raw:
        try:
            async with asyncio.timeout_at(deadline):
                running = await self._ready()
                try:
                    # Its answer may come after the deadline, and tells that it does not hang.
                    return await asyncio.shield(running.ask(what, deadline))
                except _EndedError:
                    repeatable = isinstance(_unpacked(what), _REPEATABLE)
                    if not repeatable or not await _was_killed(running):
                        raise
                self._log.warning("a request is asked again of another process with the token")
                running = await self._ready()
                return await asyncio.shield(running.ask(what, deadline))
        except _EndedError as error:
            raise TokenError(str(error), hint=error.hint) from None
        except TimeoutError:
            raise TokenError(_HANGS, hint=_HINT) from None

    async def result(self, what: Message, deadline: float) -> Result:
        """Return the result of ``what``.

        :raises TokenError: as :meth:`ask` does.
        """
        return unpack_result(await self.ask(what, deadline))

    async def replace(
        self, start: Callable[[], Child], is_good: Callable[[Sequence[HwkmError] | None], bool]
    ) -> tuple[list[HwkmError], bool]:
        """Let the process finish what was asked of it, then put another in its place.

        What is asked in the meantime waits. ``is_good`` is given what the other could not open, or
        None if it failed as a whole; if it says no, one like the first takes its place again.
        Returns what could not be opened, and whether the other one stays.
        """
        self._settled.clear()
        if self._running is not None:
            await self._running.idle.wait()
        before = self._start, self._stays_out
        try:
            await self.end()
            self._start, self._stays_out = start, None
            problems = await self._put()
            found: list[HwkmError] = problems or []
            if problems is None:
                found = [TokenError(self._problem, hint=_HINT)]
            good = is_good(problems)
            if not good:
                await self.end()
                self._start, self._stays_out = before
                self._report(await self._put() or [])
        except Exception:
            self._start, self._stays_out = before
            self._put_later("it could not be replaced")
            raise
        self._settled.set()
        return found, good

    async def end(self) -> None:
        """Let the process log out and end; one that is not done soon is killed."""
        self._settled.clear()
        async with self._burying:
            if self._keeper is not None:
                self._keeper.cancel()
            running, self._running = self._running, None
            if running is not None:
                await _end(running)
                running.buried.set()
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

    async def _put(self) -> list[HwkmError] | None:
        """Start the process; if none can be started, that is tried again in the background."""
        try:
            problems = await self._begin()
        except OSError as error:
            self._put_later(f"{_WHO} can't be started: {error.strerror}")
            return None
        self._keeper = asyncio.create_task(self._keep())
        return problems

    def _put_later(self, problem: str) -> None:
        """Let whoever asks be told, and try again as after any other failure."""
        if self._keeper is not None:
            self._keeper.cancel()
        self._problem = problem
        self._due = asyncio.get_running_loop().time() + self._limits.restart_seconds
        self._settled.set()
        self._keeper = asyncio.create_task(self._begin_again_and_keep())

    async def _begin(self) -> list[HwkmError] | None:
        """Start the process; return what it can't open, or None if it fails as a whole.

        Whoever asks waits until :attr:`_settled` is set, which is the caller's.
        """
        loop = asyncio.get_running_loop()
        child = self._start()
        running = _Running(child, self._limits.answer_seconds, self._status)
        await loop.create_unix_connection(lambda: running, sock=child.link)
        self._status.started(child.pid)
        self._running = running
        if self._stays_out is not None:
            return []
        try:
            packed = await running.ask(Open(), loop.time() + self._limits.answer_seconds)
        except TokenError as error:  # the keeper sees it too
            self._problem = str(error)
            return None
        opened = unpack_result(packed)
        return [one.error for one in opened.problems] if isinstance(opened, Opened) else []

    async def _keep(self) -> None:
        """Start the process anew whenever it fails, but not too often."""
        while self._running is not None:
            await self._running.lost.wait()
            async with self._burying:
                await self._bury(self._running)
            await self._begin_again()

    async def _begin_again_and_keep(self) -> None:
        await self._begin_again()
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
        failed.was_killed = failed.has_ended and failed.child.signal in _FROM_OUTSIDE
        failed.buried.set()
        if failed.problem != _HANGS:
            self._problem += f": {how}"
        self._due = max(self._due, asyncio.get_running_loop().time())
        self._status.failed(self._problem)
        fields = {"event": "token process", "outcome": "failed", "reason": self._problem}
        self._log.error(f"{self._problem}{self._next()}", **fields)

    async def _begin_again(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self._due - loop.time())
            self._due = loop.time() + self._limits.restart_seconds
            try:
                self._report(await self._begin() or [])
                self._settled.set()
            except OSError as error:
                self._problem = f"{_WHO} can't be started: {error.strerror}"
                self._settled.set()
                self._log.error(self._problem)
            else:
                return

    def _next(self) -> str:
        left = self._due - asyncio.get_running_loop().time()
        return f"; it is started anew in {left:.0f} s" if left >= 1 else "; it is started anew"


def _unpacked(what: Message | msgspec.Raw) -> Message:
    return unpack_what(what) if isinstance(what, msgspec.Raw) else what


async def _was_killed(ended: _Running) -> bool:
    await ended.buried.wait()
    return ended.was_killed


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

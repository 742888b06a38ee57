"""Failures that the agent answered by itself, put on record as soon as a process can do that.

Who has no answer from the process with the token is told so by the agent's first process, which has
no keystore. So it keeps what it said, and gives it to the next process that answers.
"""

from __future__ import annotations

import asyncio
from collections import deque
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from hwkm.agent.messages import By, RecordFailure, Refusal
from hwkm.bacula import Request, parse_options
from hwkm.errors import HwkmError, TokenError

if TYPE_CHECKING:
    from hwkm.agent.limits import Limits
    from hwkm.agent.messages import GetKey
    from hwkm.agent.token_link import TokenLink
    from hwkm.log import Log

MOST = 1024
"""How many are kept; the log has those beyond."""
_PAUSE_SECONDS = 1.0
"""How long to wait before it is tried again."""


class Unrecorded:
    """Failures that no event tells of yet, in the order in which they happened."""

    def __init__(self, tokens: TokenLink, limits: Limits, log: Log) -> None:
        self._tokens = tokens
        self._seconds = limits.answer_seconds
        self._log = log
        self._waiting: deque[RecordFailure] = deque()
        self._left_out = 0
        self._is_empty = asyncio.Event()
        self._is_empty.set()
        self._some = asyncio.Event()

    def note(self, asked: GetKey, error: HwkmError) -> None:
        """Keep that ``asked`` was answered with ``error``; requests without a sense are not."""
        if (failure := _failure(asked, error)) is not None:
            self.keep(failure)

    def keep(self, failure: RecordFailure) -> None:
        """Keep a failure, and when it was."""
        if len(self._waiting) >= MOST:
            self._left_out += 1
            return
        self._waiting.append(_dated(failure))
        self._is_empty.clear()
        self._some.set()

    async def run(self) -> None:
        """Give them on, for ever."""
        while True:
            await self._some.wait()
            if self._waiting and not await self._record(self._waiting[0]):
                await asyncio.sleep(_PAUSE_SECONDS)
                continue
            if self._waiting:
                self._waiting.popleft()
            if not self._waiting:
                self._some.clear()
                self._is_empty.set()
                self._tell_left_out()

    async def finish(self, seconds: float) -> None:
        """Wait until they are on record, but not for long; the log says how many are not."""
        try:
            async with asyncio.timeout(seconds):
                await self._is_empty.wait()
        except TimeoutError:
            self._left_out += len(self._waiting)
        self._tell_left_out()

    async def _record(self, failure: RecordFailure) -> bool:
        """Return whether that is done, or can't be."""
        deadline = asyncio.get_running_loop().time() + self._seconds
        try:
            result = await self._tokens.record(failure, deadline)
        except TokenError:
            return False  # there is no such process; it may come twice, but does not go missing
        if isinstance(result, Refusal):
            why = result.error.diagnostics()
            self._log.error(f"that no key was given could not be recorded: {why}")
        return True

    def _tell_left_out(self) -> None:
        if self._left_out:
            self._log.error(f"{self._left_out} refusals in this log are not in the keystore")
            self._left_out = 0


def _failure(asked: GetKey, error: HwkmError) -> RecordFailure | None:
    try:
        request = Request.parse(asked.environment)
        job = parse_options(asked.words, {}).job
    except HwkmError:
        return None  # nobody knows what it was about; the log has it
    by = By(asked.who, job or None)
    return RecordFailure(request.operation.lower(), request.volume, by, Refusal.of(error))


def _dated(failure: RecordFailure) -> RecordFailure:
    when = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    of = failure.error
    said = Refusal(of.kind, f"{of.text} (said at {when} by the agent, and recorded later)", of.hint)
    return RecordFailure(failure.operation, failure.volume, failure.by, said)

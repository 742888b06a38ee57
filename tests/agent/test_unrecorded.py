"""Failures that nobody can put on record just now: kept, put on record later, never without end."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

from hwkm import config
from hwkm.agent import token_process, unrecorded
from hwkm.agent.limits import Limits
from hwkm.agent.messages import By, Done, RecordFailure, Refusal, raw, unpack_result
from hwkm.agent.status import TokenStatus
from hwkm.agent.token_link import TokenLink
from hwkm.agent.unrecorded import Unrecorded
from hwkm.errors import PolicyError
from hwkm.installation import Installation
from hwkm.log import Log
from hwkm.token.pin import PinReader

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.getkey.home import Home

FAILURE = RecordFailure("read", "A", By("me", "7"), Refusal.of(PolicyError("on purpose")))
DETAILS = "SELECT who, job, operation, outcome, detail FROM event WHERE detail LIKE 'on purpose%'"


@asynccontextmanager
async def linked(home: Home) -> AsyncIterator[tuple[TokenLink, TokenStatus, Log]]:
    log, limits, status = Log(str(home.log_file)), Limits(), TokenStatus()
    site = Installation(config.load(home.config), PinReader())
    link = TokenLink(partial(token_process.start, site), limits, status, log)
    assert await link.begin() == []
    try:
        yield link, status, log
    finally:
        await link.end()


def soon(seconds: float) -> float:
    return asyncio.get_running_loop().time() + seconds


def test_what_a_drive_job_can_not_put_on_record(home: Home) -> None:
    """It comes packed, and there is no process that answers; later there is."""

    async def work() -> None:
        async with linked(home) as (link, status, log):
            waiting = Unrecorded(link, Limits(), log)
            link.put_aside = waiting.keep
            assert status.pid is not None
            os.kill(status.pid, signal.SIGSTOP)
            for failure in (FAILURE, raw(FAILURE)):
                assert unpack_result(await link.ask(failure, soon(0.2))) == Done()
            os.kill(status.pid, signal.SIGCONT)
            running = asyncio.create_task(waiting.run())
            await waiting.finish(30)
            running.cancel()

    asyncio.run(work())
    rows = home.query(DETAILS)
    assert {row[:4] for row in rows} == {("me", "7", "read", "refused")}
    said = [row[4] for row in rows if "(said at 2" in row[4]]
    assert len(said) == 2


def test_not_without_end(home: Home) -> None:
    async def work() -> None:
        async with linked(home) as (link, _, log):
            waiting = Unrecorded(link, Limits(), log)
            for _ in range(unrecorded.MOST + 2):
                waiting.keep(FAILURE)
            await waiting.finish(0)  # nobody gives them on

    asyncio.run(work())
    assert f"{unrecorded.MOST + 2} refusals in this log are not in the keystore" in home.log[-1]
    assert home.query(DETAILS) == []

"""READs that wait together are served together: much of what one takes is needed once for all.

That is the keystore's two transactions above all. Only READs with a label are, of volumes that no
drive concerns, as they come one after the other: so what is asked of a volume stays in its order.
No answer leaves before all of them are recorded.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hwkm.agent.messages import Ask, GetKey, unpack_what
from hwkm.agent.requests import job_for, reply_of
from hwkm.bacula import Job, Request, concerns_a_drive, serve
from hwkm.errors import HwkmError
from hwkm.manager import Wanted

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Sequence

    from hwkm.agent.messages import Message, Reply
    from hwkm.installation import Installation
    from hwkm.log import Log
    from hwkm.manager import Handout, KeyManager

MOST = 64
"""How many are served together at most."""
SECONDS = 0.1
"""How long the first of them may wait for the last; a slow token serves fewer together."""
SHORTEST = 1e-5


@dataclass(frozen=True, slots=True)
class WaitingRead:
    """One of Bacula's READs, with all that it needs."""

    ask: Ask
    request: Request
    job: Job

    @property
    def wanted(self) -> Wanted:
        """What is asked of the key manager."""
        return Wanted(self.request.volume, self.request.label, self.job.caller)


class Reads:
    """Serves READs together, as many as are served soon enough."""

    def __init__(self, installation: Installation, manager: KeyManager, log: Log) -> None:
        self._installation = installation
        self._manager = manager
        self._log = log
        self._most = 2

    def take(self, queue: deque[Message]) -> list[WaitingRead]:
        """Take the READs that ``queue`` begins with out of it, but none that has to be alone."""
        taken: list[WaitingRead] = []
        while queue and len(taken) < self._most and (read := self._read(queue[0])):
            taken.append(read)
            queue.popleft()
        return taken

    def serve(self, reads: Sequence[WaitingRead]) -> list[Reply]:
        """Return the replies.

        :raises KeystoreError: if the keystore does not work, or not with one of them; each is to be
            served by itself then.
        """
        start = time.monotonic()
        results = self._manager.read_all([read.wanted for read in reads])
        pairs = zip(reads, results, strict=True)
        replies = [self._reply(read, result, start) for read, result in pairs]
        each = (time.monotonic() - start) / len(reads)
        self._most = max(2, min(2 * self._most, MOST, int(SECONDS / max(each, SHORTEST))))
        return replies

    def _read(self, ask: Message) -> WaitingRead | None:
        if not isinstance(ask, Ask) or time.monotonic() > ask.deadline:
            return None
        what = unpack_what(ask.what)
        if not isinstance(what, GetKey) or what.environment.get(b"OPERATION") != b"READ":
            return None
        try:
            job = job_for(what, self._installation, self._manager, ask.deadline)
            request = Request.parse(what.environment)
            if request.label is None or concerns_a_drive(request, job):
                return None
        except HwkmError:
            return None  # by itself it is told why, and that is recorded
        return WaitingRead(ask, request, job)

    def _reply(self, read: WaitingRead, result: Handout | HwkmError, begun: float) -> Reply:
        def give(_request: Request, _job: Job) -> tuple[Handout, str]:
            if isinstance(result, HwkmError):
                raise result
            return result, ""

        return reply_of(serve(read.request, read.job, self._log, give, begun))

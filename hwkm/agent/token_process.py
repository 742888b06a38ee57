"""The process that owns the token: the only one with a PKCS#11 module, one login, the keystore.

It works on one request at a time, in the order in which they come. It may be killed at any point,
and ends when the agent does.
"""

from __future__ import annotations

import select
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hwkm import supervise
from hwkm.agent import children
from hwkm.agent.hardening import harden
from hwkm.agent.messages import (
    Ask,
    By,
    Done,
    DriveKey,
    FindDelivery,
    Found,
    GetKey,
    Key,
    Label,
    MessageReader,
    NeedsDrive,
    Open,
    Opened,
    Read,
    RecordFailure,
    Refusal,
    Release,
    pack_answer,
    unpack_what,
)
from hwkm.agent.reads import Reads
from hwkm.agent.requests import failed_reply, fields_of, job_for, reply_of
from hwkm.agent.structured_log import log_of
from hwkm.bacula import Job, Request, concerns_a_drive, described, serve
from hwkm.errors import HwkmError, KeystoreError, TokenError
from hwkm.keys import Cipher
from hwkm.keystore.records import Operation
from hwkm.manager import Caller
from hwkm.policy import Delivery
from hwkm.token import lock

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

    from hwkm.agent.children import Child
    from hwkm.agent.messages import Message, Result, What
    from hwkm.agent.reads import WaitingRead
    from hwkm.installation import Installation
    from hwkm.log import Log
    from hwkm.manager import Handout, KeyManager
    from hwkm.tokens import Tokens

LET_IN_SECONDS = 0.05
"""How long the token is left alone after a knock, so that the other process gets in first."""

_CHUNK = 65536
_TOO_LATE = Refusal.of(TokenError("the token was busy with others for too long"))


def start(installation: Installation) -> Child:
    """Fork the process that owns the tokens of ``installation``."""
    log = log_of(installation.config)
    return children.fork(lambda link: work(link, installation, log), log)


def work(link: socket.socket, installation: Installation, log: Log) -> None:
    """Answer what comes over ``link`` until its other end is closed."""
    harden()
    knock = lock.open_knock(installation.config.runtime_dir)
    with installation.tokens() as tokens:
        manager = installation.manager(tokens, installation.keystore(keep=True))
        _Loop(link, knock, _Service(installation, tokens, manager, log)).run()


@dataclass(frozen=True, slots=True)
class _Service:
    """What can be asked of this process."""

    installation: Installation
    tokens: Tokens
    manager: KeyManager
    log: Log

    def answer(self, what: What, deadline: float) -> Result:
        """Return the result; an error is one too."""
        try:
            match what:
                case GetKey():
                    return self._getkey(what, deadline)
                case Open():
                    return Opened(self._open())
                case Release():
                    self.tokens.release()
                    return Done()
            return self._key_call(what)
        except HwkmError as error:
            return Refusal.of(error)
        except Exception as error:  # noqa: BLE001  # one request's fault is not the others'
            self.log.error(f"internal error: {supervise.where(error)}")
            text = f"hwkm failed: {type(error).__name__}; its log says more"
            return Refusal.of(HwkmError(text))

    def _open(self) -> list[Refusal]:
        problems = []
        for settings in self.installation.config.tokens:
            try:
                _ = self.tokens.session(settings.name).info
            except HwkmError as error:
                problems.append(Refusal.of(error))
        return problems

    def _getkey(self, asked: GetKey, deadline: float) -> Result:
        try:
            job = job_for(asked, self.installation, self.manager, deadline)
        except HwkmError as error:
            self.log.error(f"getkey refused: {error}", **fields_of(asked, error))
            return failed_reply(error.diagnostics())
        try:
            request = Request.parse(asked.environment)
        except HwkmError as error:
            what = f"getkey refused {described(job.options)}"
            self.log.error(f"{what}: {error}", **fields_of(asked, error))
            return failed_reply(error.diagnostics())
        if _concerns_a_drive(request, job):
            return NeedsDrive()
        return reply_of(serve(request, job, self.log))

    def _key_call(self, what: What) -> Result:
        match what:
            case Label(volume, by, cipher, delivery, reason):
                own = None if cipher is None else Cipher(cipher)
                way = Delivery(delivery)
                return key_of(self.manager.label(volume, _caller(by), own, way, reason))
            case Read(volume, label, by):
                return key_of(self.manager.read(volume, label, _caller(by)))
            case DriveKey(volume, by, key_id, label):
                caller = _caller(by)
                found = self.manager.drive_key(volume, caller, key_id=key_id, label=label)
                return key_of(found)
            case FindDelivery(volume, label):
                return Found(self.manager.delivery(volume, label))
            case RecordFailure(operation, volume, by, refusal):
                kind = Operation(operation)
                self.manager.record_failure(kind, volume, _caller(by), refusal.error)
                return Done()
        raise TypeError(type(what).__name__)


def _concerns_a_drive(request: Request, job: Job) -> bool:
    try:
        return concerns_a_drive(request, job)
    except HwkmError:
        return False  # the request itself says so too, and then it is recorded


def _caller(by: By) -> Caller:
    return Caller(by.who, by.job)


def key_of(handout: Handout) -> Key:
    """Return a key that is handed out as a message."""
    return Key(handout.key.expose(), handout.envelope.encode(), list(handout.notes))


class _Loop:
    """Waits for questions and for knocks, and sees to one at a time."""

    def __init__(self, link: socket.socket, knock: int, service: _Service) -> None:
        self._link = link
        self._knock = knock
        self._service = service
        self._reads = Reads(service.installation, service.manager, service.log)
        self._reader = MessageReader(Ask)
        self._queue: deque[Message] = deque()
        self._poll = select.poll()
        for descriptor in (link.fileno(), knock):
            self._poll.register(descriptor, select.POLLIN)

    def run(self) -> None:
        """Go on until the other end of the link is closed."""
        while self._take_in():
            if self._queue:
                self._see_to_some()

    def _take_in(self) -> bool:
        """Take in what there is, waiting if there is nothing to do; return whether to go on."""
        ready = [descriptor for descriptor, _ in self._poll.poll(0 if self._queue else None)]
        if self._knock in ready:
            self._let_in()
        if self._link.fileno() not in ready:
            return True
        try:
            data = self._link.recv(_CHUNK)
        except ConnectionError:
            return False
        self._queue.extend(self._reader.feed(data))
        return bool(data)

    def _let_in(self) -> None:
        """Let another process have the token, which knocked for it."""
        lock.drain(self._knock)
        self._service.tokens.release()
        time.sleep(LET_IN_SECONDS)

    def _see_to_some(self) -> None:
        """See to the READs that wait together, or to one question."""
        reads = self._reads.take(self._queue)
        if not reads:
            self._answer(self._queue.popleft())
        elif len(reads) == 1 or not self._answer_together(reads):
            for read in reads:
                self._answer(read.ask)

    def _answer_together(self, reads: Sequence[WaitingRead]) -> bool:
        """Answer several READs; return whether that could be done.

        By then the keystore has their events. The log's lines come after the answers.
        """
        with self._service.log.held():
            return self._try_together(reads)

    def _try_together(self, reads: Sequence[WaitingRead]) -> bool:
        tokens = self._service.tokens
        seconds, logins = tokens.seconds, tokens.logins
        try:
            replies = self._reads.serve(reads)
        except KeystoreError:
            return False
        except Exception as error:  # noqa: BLE001  # one request's fault is not the others'
            self._service.log.error(f"internal error: {supervise.where(error)}")
            return False
        spent, tried = (tokens.seconds - seconds) / len(reads), tokens.logins - logins
        logged_in = [tried] + [0] * (len(reads) - 1)  # for all of them
        parts = zip(reads, replies, logged_in, strict=True)
        last = tokens.last_login
        answers = [pack_answer(read.ask.number, reply, spent, n, last) for read, reply, n in parts]
        self._link.sendall(b"".join(answers))
        return True

    def _answer(self, ask: Message) -> None:
        if not isinstance(ask, Ask):
            raise TypeError(type(ask).__name__)
        result: Result
        tokens = self._service.tokens
        seconds, logins = tokens.seconds, tokens.logins
        if time.monotonic() > ask.deadline:
            result = _TOO_LATE  # nobody waits for it any more
        else:
            result = self._service.answer(unpack_what(ask.what), ask.deadline)
        spent, tried = tokens.seconds - seconds, tokens.logins - logins
        last = tokens.last_login
        self._link.sendall(pack_answer(ask.number, result, spent, tried, last))

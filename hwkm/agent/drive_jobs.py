"""Requests that concern a tape drive: each in a process of its own.

So a drive that hangs holds up nothing else. Such a process has no token: it asks for keys over its
link, and the agent passes that on to the process that owns the token. What the drive proves it
writes into the keystore itself. It goes on to its end though whoever asked may be gone.
"""

from __future__ import annotations

import asyncio
import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar, cast

from hwkm import drive_verbs, supervise
from hwkm.agent import children, strays, verbs
from hwkm.agent.hardening import harden
from hwkm.agent.messages import (
    Answer,
    Ask,
    By,
    Done,
    DriveKey,
    FindDelivery,
    Found,
    GetKey,
    JobDone,
    Key,
    Label,
    LinkError,
    MessageReader,
    Read,
    RecordFailure,
    Refusal,
    Reply,
    VerbDone,
    pack,
    pack_answer,
    pack_ask,
    unpack_result,
)
from hwkm.agent.requests import failed_reply, job_for, reply_of
from hwkm.agent.structured_log import log_of
from hwkm.bacula import DRIVE_MARGIN_SECONDS, Request, parse_options, serve
from hwkm.deliveries import Deliveries
from hwkm.envelope import Envelope
from hwkm.errors import DeviceError, HwkmError, TokenError
from hwkm.keys import VolumeKey
from hwkm.manager import Caller, Handout
from hwkm.policy import Delivery

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from hwkm.agent.limits import Limits
    from hwkm.agent.messages import KeyCall, Result
    from hwkm.agent.token_link import TokenLink
    from hwkm.agent.verbs import Asked
    from hwkm.drive_verbs import Outcome
    from hwkm.installation import Installation
    from hwkm.keys import Cipher
    from hwkm.keystore.records import Operation
    from hwkm.log import Log

_R = TypeVar("_R", bound="Result")
_CHUNK = 65536


# In the process of its own.


@dataclass(slots=True)
class RemoteKeys:
    """Keys out of the tokens of the process at the other end of ``link``, until ``deadline``.

    No answer is waited for longer than ``seconds``.
    """

    link: socket.socket
    deadline: float
    seconds: float = math.inf
    _reader: MessageReader = field(default_factory=lambda: MessageReader(Answer), init=False)
    _asked: int = field(default=0, init=False)

    def label(
        self,
        volume: str,
        caller: Caller,
        cipher: Cipher | None = None,
        delivery: Delivery = Delivery.SOFTWARE,
        reason: str = "",
    ) -> Handout:
        """See :meth:`hwkm.manager.KeyManager.label`."""
        return self._key(Label(volume, _by(caller), cipher, delivery, reason))

    def read(self, volume: str, label: bytes | None, caller: Caller) -> Handout:
        """See :meth:`hwkm.manager.KeyManager.read`."""
        return self._key(Read(volume, label, _by(caller)))

    def drive_key(
        self,
        volume: str,
        caller: Caller,
        *,
        key_id: bytes | None = None,
        label: bytes | None = None,
    ) -> Handout:
        """See :meth:`hwkm.manager.KeyManager.drive_key`."""
        return self._key(DriveKey(volume, _by(caller), key_id, label))

    def delivery(self, volume: str, label: bytes | None) -> Delivery:
        """See :meth:`hwkm.manager.KeyManager.delivery`."""
        return Delivery(self._result(FindDelivery(volume, label), Found).delivery)

    def uses_drives(self) -> bool:
        """See :meth:`hwkm.manager.KeyManager.uses_drives`: otherwise there were no such job."""
        return True

    def record_failure(
        self, operation: Operation, volume: str | None, caller: Caller, error: Exception
    ) -> None:
        """See :meth:`hwkm.manager.KeyManager.record_failure`."""
        known = error if isinstance(error, HwkmError) else HwkmError(str(error))
        self._result(RecordFailure(operation, volume, _by(caller), Refusal.of(known)), Done)

    def _key(self, call: Label | Read | DriveKey) -> Handout:
        found = self._result(call, Key)
        envelope = Envelope.parse(found.envelope)
        if envelope.header.volume != call.volume:
            raise LinkError(f"a key of volume {envelope.header.volume!r} for {call.volume!r}")
        return Handout(VolumeKey(envelope.header.cipher, found.key), envelope, tuple(found.notes))

    def _result(self, call: KeyCall, kind: type[_R]) -> _R:
        now = time.monotonic()
        deadline = min(self.deadline, now + self.seconds)
        try:
            self.link.settimeout(max(0.001, deadline - now))
            self._asked += 1
            self.link.sendall(pack_ask(self._asked, deadline, call))
            result = unpack_result(self._receive().result)
        except OSError as error:
            raise TokenError("the process that owns the token did not answer in time") from error
        if isinstance(result, Refusal):
            raise result.error
        if not isinstance(result, kind):
            raise LinkError(f"{type(result).__name__} in place of {kind.__name__}")
        return result

    def _receive(self) -> Answer:
        """Return the answer to what was asked last; those that came too late are dropped."""
        while data := self.link.recv(_CHUNK):
            for message in self._reader.feed(data):
                if isinstance(message, Answer) and message.number == self._asked:
                    return message
        raise ConnectionResetError("the agent is gone")


def _by(caller: Caller) -> By:
    return By(caller.who, caller.job)


def work(link: socket.socket, installation: Installation, asked: GetKey, deadline: float) -> None:
    """Serve one request, and send what it comes to."""
    harden()
    log = log_of(installation.config)
    keys = RemoteKeys(link, deadline)
    job = job_for(asked, installation, keys, deadline)
    try:
        reply = reply_of(serve(Request.parse(asked.environment), job, log))
    except Exception as error:  # noqa: BLE001  # there is one answer, whatever happens
        log.error(f"internal error: {supervise.where(error)}")
        reply = failed_reply(f"hwkm failed: {type(error).__name__}; its log says more")
    link.settimeout(None)
    link.sendall(pack(JobDone(reply)))


def work_verb(
    link: socket.socket, installation: Installation, asked: Asked, deadline: float, seconds: float
) -> None:
    """Do what ``hwkm drive`` asks for, log what it comes to, and send that."""
    harden()
    log, begun = log_of(installation.config), time.monotonic()
    try:
        outcome = _outcome(installation, asked, deadline, RemoteKeys(link, deadline, seconds))
    except Exception as error:  # noqa: BLE001  # there is one answer, whatever happens
        log.error(f"internal error: {supervise.where(error)}")
        text = f"hwkm failed: {type(error).__name__}; the agent's log says more"
        outcome = verbs.failed(HwkmError(text))
    _log_outcome(log, asked, outcome, begun)
    link.settimeout(None)
    link.sendall(pack(VerbDone(verbs.document_of(outcome), verbs.in_a_word(outcome))))


def _outcome(
    installation: Installation, asked: Asked, deadline: float, keys: RemoteKeys
) -> Outcome:
    deliveries = Deliveries.of(installation, Caller(asked.who, asked.job or None), keys)
    try:
        return drive_verbs.run(asked.request, deliveries, deadline - DRIVE_MARGIN_SECONDS)
    except HwkmError as error:
        return verbs.failed(error)


def _log_outcome(log: Log, asked: Asked, outcome: Outcome, begun: float) -> None:
    what, fields = verbs.described(asked), verbs.fields_of(asked)
    if outcome.error is not None:
        fields = verbs.failure_fields(asked, outcome.error)
    told = {name: outcome.shown.get(name) for name in ("volume", "generation", "key_id")}
    fields |= {name: value for name, value in told.items() if value is not None}
    fields["milliseconds"] = round(1000 * (time.monotonic() - begun), 3)
    if outcome.error is not None:
        log.error(f"{what}: {outcome.error.diagnostics()}", **fields)
        return
    fields["outcome"] = word = verbs.in_a_word(outcome)
    key = told["key_id"] and f"; {told['volume']}, key id {told['key_id']}"
    (log.info if outcome.ok else log.warning)(f"{what}: {word}{key or ''}", **fields)


# In the agent.


async def run(
    installation: Installation, asked: GetKey, deadline: float, tokens: TokenLink
) -> Reply:
    """Serve a request in a new process; at ``deadline`` that is killed, whatever it does.

    :raises HwkmError: if it ends without an answer.
    :raises OSError: if it can't be started.
    """
    done = await _job(
        lambda link: work(link, installation, asked, deadline), installation, deadline, tokens
    )
    if not isinstance(done, JobDone):
        # The Storage Daemon does not wait for that.
        task = asyncio.create_task(_tidied(installation, parse_options(asked.words, {}).device))
        _tidying.add(task)
        task.add_done_callback(_tidying.discard)
        raise HwkmError(f"the process that served the drive: {done}", hint=_HINT)
    return done.reply


async def run_verb(
    installation: Installation, asked: Asked, limits: Limits, tokens: TokenLink
) -> VerbDone:
    """Do what ``hwkm drive`` asks for in a new process, which has a limited time.

    :raises HwkmError: if it ends without an answer.
    :raises OSError: if it can't be started.
    """
    deadline, seconds = time.monotonic() + limits.verb_seconds, limits.answer_seconds
    done = await _job(
        lambda link: work_verb(link, installation, asked, deadline, seconds),
        installation,
        deadline,
        tokens,
    )
    if not isinstance(done, VerbDone):
        await _tidied(installation, asked.request.device)
        raise DeviceError(f"the process that served the drive: {done}", hint=_HINT)
    return done


_tidying: set[asyncio.Task[None]] = set()
"""What goes on in the background; asyncio itself does not keep its tasks."""


async def _tidied(installation: Installation, device: str) -> None:
    """Look after a drive whose job ended in the middle."""
    log = log_of(installation.config)
    await strays.look_after(device, installation, log, strays.JOB_SECONDS, strays.BY_A_JOB)


async def _job(
    work: Callable[[socket.socket], None],
    installation: Installation,
    deadline: float,
    tokens: TokenLink,
) -> JobDone | VerbDone | str:
    """Do ``work`` in a new process; return what it leaves behind, or in words how it ended."""
    loop = asyncio.get_running_loop()
    child = children.fork(work, log_of(installation.config))
    relay = _Relay(tokens)
    transport, _ = await loop.create_unix_connection(lambda: relay, sock=child.link)
    try:
        async with asyncio.timeout_at(deadline):
            done = await relay.done
    except TimeoutError:
        raise DeviceError("there was no answer in time", hint=_HINT) from None
    finally:
        transport.abort()
        child.kill()
        end = children.see_to(child)
    return await end if done is None else done


_HINT = "hwkm drive status shows what the drive does"


class _Relay(asyncio.Protocol):
    """Passes on what a drive job asks; ``done`` is its last word, or None if it ended without."""

    def __init__(self, tokens: TokenLink) -> None:
        loop = asyncio.get_running_loop()
        self.done: asyncio.Future[JobDone | VerbDone | None] = loop.create_future()
        self._tokens = tokens
        self._reader = MessageReader(Ask | JobDone | VerbDone)
        self._transport: asyncio.Transport | None = None
        self._asking: set[asyncio.Task[None]] = set()

    # asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take it on."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        try:
            for message in self._reader.feed(data):
                match message:
                    case Ask():
                        task = asyncio.create_task(self._pass_on(message))
                        self._asking.add(task)
                        task.add_done_callback(self._asking.discard)
                    case JobDone() | VerbDone():
                        self._end(message)
        except LinkError:
            self._end(None)

    def connection_lost(self, _error: Exception | None) -> None:
        self._end(None)

    async def _pass_on(self, ask: Ask) -> None:
        try:
            answer = pack_answer(ask.number, await self._tokens.ask(ask.what, ask.deadline))
        except HwkmError as error:
            answer = pack_answer(ask.number, Refusal.of(error))
        if self._transport is not None:
            self._transport.write(answer)

    def _end(self, done: JobDone | VerbDone | None) -> None:
        if not self.done.done():
            self.done.set_result(done)

"""Requests that concern a tape drive: each in a process of its own.

So a drive that hangs holds up nothing else. Such a process has no token: it asks for keys over its
link, and the agent passes that on to the process that owns the token. What the drive proves it
writes into the keystore itself.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar, cast

from hwkm import supervise
from hwkm.agent import children
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
    pack,
    pack_answer,
    pack_ask,
    unpack_result,
)
from hwkm.agent.requests import failed_reply, job_for, reply_of
from hwkm.agent.structured_log import log_of
from hwkm.bacula import Request, serve
from hwkm.envelope import Envelope
from hwkm.errors import HwkmError, TokenError
from hwkm.keys import VolumeKey
from hwkm.manager import Handout
from hwkm.policy import Delivery

if TYPE_CHECKING:
    import socket

    from hwkm.agent.messages import KeyCall, Result
    from hwkm.agent.token_link import TokenLink
    from hwkm.installation import Installation
    from hwkm.keys import Cipher
    from hwkm.keystore.records import Operation
    from hwkm.manager import Caller

_R = TypeVar("_R", bound="Result")
_CHUNK = 65536


# In the process of its own.


@dataclass(slots=True)
class RemoteKeys:
    """Keys out of the tokens of the process at the other end of ``link``, until ``deadline``."""

    link: socket.socket
    deadline: float
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
        try:
            self.link.settimeout(max(0.001, self.deadline - time.monotonic()))
            self._asked += 1
            self.link.sendall(pack_ask(self._asked, self.deadline, call))
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


# In the agent.


async def run(
    installation: Installation, asked: GetKey, deadline: float, tokens: TokenLink
) -> Reply:
    """Serve a request in a new process; at ``deadline`` that is killed, whatever it does.

    :raises HwkmError: if it ends without an answer.
    :raises OSError: if it can't be started.
    """
    loop = asyncio.get_running_loop()
    log = log_of(installation.config)
    child = children.fork(lambda link: work(link, installation, asked, deadline), log)
    relay = _Relay(tokens)
    transport, _ = await loop.create_unix_connection(lambda: relay, sock=child.link)
    try:
        async with asyncio.timeout_at(deadline):
            reply = await relay.reply
    except TimeoutError:
        raise HwkmError("there was no answer in time", hint=_HINT) from None
    finally:
        transport.abort()
        child.kill()
        end = children.see_to(child)
    if reply is None:
        raise HwkmError(f"the process that served the drive: {await end}", hint=_HINT)
    return reply


_HINT = "hwkm drive status shows what the drive does"


class _Relay(asyncio.Protocol):
    """Passes on what a drive job asks; ``reply`` is its answer, or None if it ended without."""

    def __init__(self, tokens: TokenLink) -> None:
        self.reply: asyncio.Future[Reply | None] = asyncio.get_running_loop().create_future()
        self._tokens = tokens
        self._reader = MessageReader(Ask | JobDone)
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
                    case JobDone(reply):
                        self._done(reply)
        except LinkError:
            self._done(None)

    def connection_lost(self, _error: Exception | None) -> None:
        self._done(None)

    async def _pass_on(self, ask: Ask) -> None:
        try:
            answer = pack_answer(ask.number, await self._tokens.ask(ask.what, ask.deadline))
        except HwkmError as error:
            answer = pack_answer(ask.number, Refusal.of(error))
        if self._transport is not None:
            self._transport.write(answer)

    def _done(self, reply: Reply | None) -> None:
        if not self.reply.done():
            self.reply.set_result(reply)

"""What the agent's own processes say to each other: msgpack behind a length, over a socket pair.

Errors cross by their kind, text and hint. Key bytes cross in :class:`Key`, to a drive job, and in
the reply to a Storage Daemon; nothing here is ever written anywhere.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, TypeVar

import msgspec

from hwkm import errors
from hwkm.errors import HwkmError

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_MESSAGE_BYTES = 2**20
"""Far more than a request with all that belongs to it; what is longer is a fault of ours."""

_LENGTH = struct.Struct(">I")
_KINDS: dict[str, type[HwkmError]] = {
    kind.__name__: kind
    for kind in (
        HwkmError,
        errors.NotFoundError,
        errors.ConfigError,
        errors.TokenError,
        errors.PinError,
        errors.DeviceError,
        errors.KeystoreError,
        errors.PolicyError,
        errors.ParseError,
        errors.EnvelopeError,
    )
}
_T = TypeVar("_T")


class LinkError(Exception):
    """What came over the link is no message: the two ends don't fit together."""


class Message(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Whatever crosses. None is shown with what is in it: that may be a key."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


class By(Message, frozen=True):
    """See :class:`hwkm.manager.Caller`."""

    who: str
    job: str | None


class Refusal(Message, frozen=True):
    """An error in place of a result."""

    kind: str
    text: str
    hint: str

    @classmethod
    def of(cls, error: HwkmError) -> Refusal:
        """Return what crosses of ``error``: the nearest of its kinds that is known there."""
        names = [kind.__name__ for kind in type(error).__mro__]
        return cls(next(name for name in names if name in _KINDS), str(error), error.hint)

    @property
    def error(self) -> HwkmError:
        """The error, to be raised."""
        return _KINDS.get(self.kind, HwkmError)(self.text, hint=self.hint)


# What is asked of the process that owns the token.


class Open(Message, frozen=True):
    """Log in everywhere, and open the keystore, before the first key is asked for."""


class GetKey(Message, frozen=True):
    """Bacula's request: its environment by name, and the command's words."""

    environment: dict[bytes, bytes]
    words: list[str]
    who: str


class Release(Message, frozen=True):
    """Log out, and let other processes have the token."""


class Label(Message, frozen=True):
    """See :meth:`hwkm.service.KeyService.label`."""

    volume: str
    by: By
    cipher: int | None
    delivery: str
    reason: str


class Read(Message, frozen=True):
    """See :meth:`hwkm.service.KeyService.read`."""

    volume: str
    label: bytes | None
    by: By


class DriveKey(Message, frozen=True):
    """See :meth:`hwkm.service.KeyService.drive_key`."""

    volume: str
    by: By
    key_id: bytes | None
    label: bytes | None


class FindDelivery(Message, frozen=True):
    """See :meth:`hwkm.service.KeyService.delivery`."""

    volume: str
    label: bytes | None


class RecordFailure(Message, frozen=True):
    """See :meth:`hwkm.service.KeyService.record_failure`."""

    operation: str
    volume: str | None
    by: By
    error: Refusal


KeyCall = Label | Read | DriveKey | FindDelivery | RecordFailure
What = Open | GetKey | Release | KeyCall


# What it answers.


class Opened(Message, frozen=True):
    """What could not be opened; nothing if all is well."""

    problems: list[Refusal]


class Reply(Message, frozen=True):
    """The bytes for the Storage Daemon, and whether a key is in them."""

    text: bytes
    given: bool


class NeedsDrive(Message, frozen=True):
    """The request concerns a drive, and so is not for this process."""


class Key(Message, frozen=True):
    """See :class:`hwkm.manager.Handout`."""

    key: bytes
    envelope: bytes
    notes: list[str]


class Found(Message, frozen=True):
    """The delivery of a volume."""

    delivery: str


class Done(Message, frozen=True):
    """There is nothing more to say."""


Result = Opened | Reply | NeedsDrive | Key | Found | Done | Refusal


# Around both: numbers, so that answers find their questions.


class Ask(Message, frozen=True):
    """A question, :data:`What`. After ``deadline``, of CLOCK_MONOTONIC, nobody waits for it."""

    number: int
    deadline: float
    what: msgspec.Raw


class Answer(Message, frozen=True):
    """A :data:`Result`, and how long tokens were used for it, and how often one was opened.

    ``last_login`` is when one was last opened with success, in seconds since 1970; 0 if never.
    """

    number: int
    result: msgspec.Raw
    token_seconds: float = 0.0
    logins: int = 0
    last_login: float = 0.0


class JobDone(Message, frozen=True):
    """What a drive job leaves behind for the Storage Daemon."""

    reply: Reply


class VerbDone(Message, frozen=True):
    """What a drive job for ``hwkm drive`` leaves behind: the answer, and in a word how it went."""

    document: bytes
    outcome: str


# What the process that counts says.


class Count(Message, frozen=True):
    """How many envelopes a master key can open."""

    token: str
    master: str
    number: int


class Figures(Message, frozen=True):
    """See :class:`hwkm.keystore.figures.Figures`."""

    size: int
    volumes: int
    keys: int
    envelopes: list[Count]
    volumes_with_one_recipient: int
    last_backup: int | None = None


_encode = msgspec.msgpack.Encoder().encode


def pack(message: Message) -> bytes:
    """Return ``message`` as it goes over a link.

    :raises LinkError: if it is too long.
    """
    body = _encode(message)
    if len(body) > MAX_MESSAGE_BYTES:
        raise LinkError(f"a message of {len(body)} bytes is too long")
    return _LENGTH.pack(len(body)) + body


def pack_ask(number: int, deadline: float, what: Message | msgspec.Raw) -> bytes:
    """Return a question as it goes over a link."""
    return pack(Ask(number, deadline, raw(what)))


def pack_answer(
    number: int,
    result: Message | msgspec.Raw,
    token_seconds: float = 0.0,
    logins: int = 0,
    last_login: float = 0.0,
) -> bytes:
    """Return an answer as it goes over a link."""
    return pack(Answer(number, raw(result), token_seconds, logins, last_login))


def raw(message: Message | msgspec.Raw) -> msgspec.Raw:
    """Return ``message`` packed, to be put into another."""
    return message if isinstance(message, msgspec.Raw) else msgspec.Raw(_encode(message))


class MessageReader:
    """Puts messages of one type together out of bytes as they arrive."""

    def __init__(self, kind: object) -> None:
        """Read messages of the type ``kind``, which may be a union."""
        self._decoder = msgspec.msgpack.Decoder(kind)
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Message]:
        """Take bytes in, and yield every message that is now whole.

        :raises LinkError: if it is none, or too long.
        """
        self._buffer += data
        while len(self._buffer) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._buffer)
            if length > MAX_MESSAGE_BYTES:
                raise LinkError(f"a message of {length} bytes is too long")
            end = _LENGTH.size + length
            if len(self._buffer) < end:
                return
            body = bytes(self._buffer[_LENGTH.size : end])
            del self._buffer[:end]
            yield _decoded(self._decoder, body)


_what: msgspec.msgpack.Decoder[What] = msgspec.msgpack.Decoder(What)
_result: msgspec.msgpack.Decoder[Result] = msgspec.msgpack.Decoder(Result)


def unpack_what(packed: msgspec.Raw) -> What:
    """Return the question in an :class:`Ask`.

    :raises LinkError: if it is none.
    """
    return _decoded(_what, packed)


def unpack_result(packed: msgspec.Raw) -> Result:
    """Return the result in an :class:`Answer`.

    :raises LinkError: if it is none.
    """
    return _decoded(_result, packed)


def _decoded(decoder: msgspec.msgpack.Decoder[_T], body: bytes | msgspec.Raw) -> _T:
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, RecursionError) as error:
        raise LinkError(f"not a message: {type(error).__name__}") from None

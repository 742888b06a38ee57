"""What the agent's processes say to each other."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import msgspec
import pytest

from hwkm import errors
from hwkm.agent import messages
from hwkm.agent.messages import (
    Answer,
    Ask,
    By,
    GetKey,
    Key,
    LinkError,
    MessageReader,
    Read,
    Refusal,
    Release,
    pack,
    pack_answer,
    pack_ask,
    unpack_result,
    unpack_what,
)
from hwkm.envelope import StanzaError

if TYPE_CHECKING:
    from collections.abc import Iterator

KEY = b"a key that is not to be shown"
BY = By("bacula", "7")


def asks(data: bytes, size: int) -> Iterator[Ask]:
    reader = MessageReader(Ask)
    for start in range(0, len(data), size):
        for message in reader.feed(data[start : start + size]):
            assert isinstance(message, Ask)
            yield message


@pytest.mark.parametrize("size", [1, 7, 4096])
def test_questions_come_whole_and_in_order(size: int) -> None:
    whats = [Release(), Read("V", None, BY), GetKey({b"OPERATION": b"READ"}, ["--job", "7"], "me")]
    data = b"".join(pack_ask(number, 1.5, what) for number, what in enumerate(whats))
    found = list(asks(data, size))
    assert [ask.number for ask in found] == [0, 1, 2]
    assert [unpack_what(ask.what) for ask in found] == whats


def test_what_is_passed_on_stays_as_it_is() -> None:
    (ask,) = asks(pack_ask(1, 2.0, Read("V", b"\0label", BY)), 4096)
    (again,) = asks(pack_ask(9, ask.deadline, ask.what), 4096)
    assert (again.number, again.deadline) == (9, 2.0)
    assert unpack_what(again.what) == Read("V", b"\0label", BY)


@pytest.mark.parametrize(
    "kind",
    [
        errors.HwkmError,
        errors.NotFoundError,
        errors.ConfigError,
        errors.TokenError,
        errors.PinError,
        errors.DeviceError,
        errors.KeystoreError,
        errors.PolicyError,
        errors.ParseError,
        errors.EnvelopeError,
    ],
)
def test_an_error_stays_what_it_is(kind: type[errors.HwkmError]) -> None:
    result = unpack_result(msgspec.Raw(msgspec.msgpack.encode(Refusal.of(kind("why", hint="do")))))
    assert isinstance(result, Refusal)
    found = result.error
    assert (type(found), str(found), found.hint) == (kind, "why", "do")


def test_all_kinds_are_known() -> None:
    """Every error of hwkm's own crosses at least as the kind that it belongs to."""
    found = (kind for kind in vars(errors).values() if isinstance(kind, type))
    own = {kind for kind in found if issubclass(kind, errors.HwkmError)}
    assert {type(Refusal.of(kind("x")).error) for kind in own} == own


def test_a_narrower_error_becomes_the_next_wider() -> None:
    assert type(Refusal.of(StanzaError("x")).error) is errors.EnvelopeError


def test_a_forged_kind_is_no_class_of_the_process() -> None:
    assert type(Refusal("SystemExit", "x", "").error) is errors.HwkmError


def test_keys_are_not_shown() -> None:
    message = Key(KEY, b"envelope", [])
    assert KEY.decode() not in f"{message} {message!r} {[message]}"


@pytest.mark.parametrize(
    "data",
    [
        struct.pack(">I", messages.MAX_MESSAGE_BYTES + 1),
        struct.pack(">I", 3) + b"\xc1\xc1\xc1",
        struct.pack(">I", 1) + b"\x90",
        pack(Answer(1, messages.raw(Release()))),
    ],
)
def test_what_is_no_question(data: bytes) -> None:
    with pytest.raises(LinkError):
        list(asks(data, 4096))


def test_an_answer_is_no_question() -> None:
    with pytest.raises(LinkError):
        unpack_what(messages.raw(Refusal("TokenError", "x", "")))


def test_too_long_a_message() -> None:
    with pytest.raises(LinkError):
        pack_answer(1, Refusal("TokenError", "x" * messages.MAX_MESSAGE_BYTES, ""))

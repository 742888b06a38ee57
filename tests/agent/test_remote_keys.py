"""Keys that a drive job asks for: the answer to one question is never taken for another's."""

from __future__ import annotations

import socket
import time
from contextlib import closing
from threading import Thread
from typing import TYPE_CHECKING

import pytest

from hwkm.agent.drive_jobs import RemoteKeys
from hwkm.agent.messages import Ask, Found, Key, LinkError, MessageReader, Refusal, pack_answer
from hwkm.envelope import Header, Scheme, Stanza, seal
from hwkm.errors import PolicyError, TokenError
from hwkm.keys import Cipher, VolumeKey
from hwkm.manager import Caller
from hwkm.policy import Delivery

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from hwkm.agent.messages import Result

CALLER = Caller("tester")


@pytest.fixture(name="ends")
def _ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    near, far = socket.socketpair()
    with closing(near), closing(far):
        yield near, far


def asked(far: socket.socket) -> Ask:
    (ask,) = MessageReader(Ask).feed(far.recv(65536))
    assert isinstance(ask, Ask)
    return ask


def answering(far: socket.socket, *answers: Callable[[Ask], bytes]) -> Thread:
    def answer() -> None:
        ask = asked(far)
        for one in answers:
            far.sendall(one(ask))

    thread = Thread(target=answer)
    thread.start()
    return thread


def saying(result: Result, late: int = 0) -> Callable[[Ask], bytes]:
    return lambda ask: pack_answer(ask.number - late, result)


def key_of(volume: str) -> Key:
    key = VolumeKey(Cipher.AES_256_GCM, bytes(range(32)))
    header = Header(bytes(12), volume, 1, key.cipher, 1)
    stanza = Stanza(Scheme.GCM, b"master", b"blob")
    return Key(key.expose(), seal(header, [stanza], key).encode(), [])


def test_an_answer_that_comes_too_late(ends: tuple[socket.socket, socket.socket]) -> None:
    near, far = ends
    keys = RemoteKeys(near, time.monotonic() + 0.1)
    with pytest.raises(TokenError, match="in time"):
        keys.delivery("Vol-1", None)
    asked(far)
    keys.deadline = time.monotonic() + 10
    answers = saying(Found(Delivery.DRIVE), late=1), saying(Found(Delivery.SOFTWARE))
    thread = answering(far, *answers)
    assert keys.delivery("Vol-2", None) is Delivery.SOFTWARE
    thread.join()


def test_a_key_of_another_volume(ends: tuple[socket.socket, socket.socket]) -> None:
    near, far = ends
    keys = RemoteKeys(near, time.monotonic() + 10)
    thread = answering(far, saying(key_of("Vol-2")))
    with pytest.raises(LinkError, match="Vol-2"):
        keys.drive_key("Vol-1", CALLER)
    thread.join()


def test_a_refusal_stays_what_it_is(ends: tuple[socket.socket, socket.socket]) -> None:
    near, far = ends
    keys = RemoteKeys(near, time.monotonic() + 10)
    thread = answering(far, saying(Refusal.of(PolicyError("no rule", hint="add one"))))
    with pytest.raises(PolicyError, match="no rule"):
        keys.label("Vol-1", CALLER)
    thread.join()

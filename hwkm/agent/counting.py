"""Counting what is in the keystore, for the metrics: in a process of its own.

All envelopes are read, which takes a while where there are many. The process that owns the token
could answer nobody meanwhile; so it has no part in it.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

from hwkm.agent import children
from hwkm.agent.hardening import harden
from hwkm.agent.messages import Count, Figures, LinkError, MessageReader, Refusal, pack
from hwkm.agent.structured_log import log_of
from hwkm.errors import HwkmError, KeystoreError
from hwkm.keystore.figures import count

if TYPE_CHECKING:
    import socket

    from hwkm.installation import Installation

LONGEST_SECONDS = 3600.0
_LAST_IN_LINE = 19
_CHUNK = 65536


def work(link: socket.socket, installation: Installation) -> None:
    """Count, and send what it comes to."""
    harden()
    os.nice(_LAST_IN_LINE)
    try:
        with installation.keystore().open().reading() as transaction:
            found = count(transaction)
    except HwkmError as error:
        link.sendall(pack(Refusal.of(error)))
        return
    envelopes = [Count(*names, number) for names, number in sorted(found.envelopes.items())]
    alone = found.volumes_with_one_recipient
    figures = Figures(found.size, found.volumes, found.keys, envelopes, alone, found.last_backup)
    link.sendall(pack(figures))


async def run(installation: Installation) -> Figures:
    """Count in a new process.

    :raises HwkmError: if the keystore can't be read.
    :raises OSError: if there can't be another process.
    """
    log = log_of(installation.config)
    child = children.fork(lambda link: work(link, installation), log)
    try:
        async with asyncio.timeout(LONGEST_SECONDS):
            return await _receive(child.link)
    except TimeoutError:
        raise KeystoreError("what is in the keystore could not be counted in time") from None
    except LinkError as error:
        raise KeystoreError(str(error)) from None
    finally:
        child.link.close()
        child.kill()
        await asyncio.shield(children.see_to(child))


async def _receive(link: socket.socket) -> Figures:
    loop = asyncio.get_running_loop()
    reader = MessageReader(Figures | Refusal)
    link.setblocking(False)
    while data := await loop.sock_recv(link, _CHUNK):
        for message in reader.feed(data):
            if isinstance(message, Refusal):
                raise message.error
            if isinstance(message, Figures):
                return message
    raise LinkError("what is in the keystore could not be counted: its process ended")

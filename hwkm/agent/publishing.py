"""Where the metrics go: a file for node_exporter, or HTTP over a Unix socket or at localhost.

Without metrics no key is less good: whatever fails here is logged, and the agent goes on.
"""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from hwkm.agent import counting, listening
from hwkm.agent.metrics import CONTENT_TYPE
from hwkm.errors import HwkmError

if TYPE_CHECKING:
    from hwkm.agent.limits import Limits
    from hwkm.agent.metrics import Metrics
    from hwkm.installation import Installation
    from hwkm.log import Log

MOST_CLIENTS = 16
REQUEST_SECONDS = 5.0
"""How long a client has for its request, and again for its answer."""
MAX_REQUEST_BYTES = 8192
COUNT_SHARE = 20
"""Counting takes at most one part in so many of the time."""


class Publisher:
    """Leaves the metrics where a configuration wants them."""

    def __init__(self, metrics: Metrics, limits: Limits, log: Log) -> None:
        self._metrics = metrics
        self._limits = limits
        self._log = log
        self._tasks: list[asyncio.Task[None]] = []
        self._server: asyncio.Server | None = None
        self._file: Path | None = None
        self._socket: Path | None = None
        self._clients = 0
        self._problems: dict[str, str] = {}

    async def start(self, installation: Installation, group: int | None) -> None:
        """Begin, if the configuration wants metrics at all; ``group`` is that of a socket."""
        place = installation.config.agent.metrics
        if not place:
            return
        self._tasks = [asyncio.create_task(self._count(installation))]
        if place.startswith("/"):
            self._file = Path(place)
            self._tasks.append(asyncio.create_task(self._write_on()))
            return
        try:
            self._server = await self._listen(installation, group)
        except (HwkmError, OSError) as error:
            self._note("listening", f"the metrics can't be had at {place}: {_text(error)}")

    async def stop(self) -> None:
        """End; what is in the file then is the last."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        if self._server is not None:
            self._server.close()
        if self._socket is not None:
            self._socket.unlink(missing_ok=True)
        if self._file is not None:
            self._write(self._file)
        self._server = self._socket = self._file = None

    # the keystore's figures

    async def _count(self, installation: Installation) -> None:
        while True:
            begun = time.monotonic()
            try:
                found = await counting.run(installation)
                self._metrics.counted(found)
                self._note("counting", "")
            except (HwkmError, OSError) as error:
                self._metrics.figures = None
                self._note("counting", f"the keystore can't be counted: {_text(error)}")
            self._metrics.counted_at = time.time()
            spent = time.monotonic() - begun
            await asyncio.sleep(max(self._limits.count_seconds, COUNT_SHARE * spent))

    # the file

    async def _write_on(self) -> None:
        while self._file is not None:
            self._write(self._file)
            await asyncio.sleep(self._limits.textfile_seconds)

    def _write(self, path: Path) -> None:
        try:
            write_file(path, self._metrics.text())
            self._note("writing", "")
        except OSError as error:
            self._note("writing", f"the metrics can't be written to {path}: {error.strerror}")

    # HTTP

    async def _listen(self, installation: Installation, group: int | None) -> asyncio.Server:
        settings = installation.config.agent
        if settings.metrics.startswith("unix:"):
            path = Path(settings.metrics.removeprefix("unix:"))
            listener = listening.listen(replace(settings, socket=path), group)
            self._socket = path
            return await asyncio.start_unix_server(
                self._serve, sock=listener, limit=MAX_REQUEST_BYTES
            )
        address = urlsplit(settings.metrics)
        # A name would be looked up in a thread, and this process must have one only: it forks.
        host = "127.0.0.1" if address.hostname == "localhost" else address.hostname
        return await asyncio.start_server(self._serve, host, address.port, limit=MAX_REQUEST_BYTES)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._clients += 1
        try:
            if self._clients <= MOST_CLIENTS:
                async with asyncio.timeout(REQUEST_SECONDS):
                    request = await reader.readuntil(b"\r\n\r\n")
                writer.write(self._answer(request))
                async with asyncio.timeout(REQUEST_SECONDS):
                    await writer.drain()
                    writer.close()
                    await writer.wait_closed()
        except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # it is none that is of use
        finally:
            self._clients -= 1
            writer.transport.abort()

    def _answer(self, request: bytes) -> bytes:
        method, path, *_ = [*request.split(b"\r\n", 1)[0].split(b" "), b"", b""]
        if method not in (b"GET", b"HEAD"):
            return _response("405 Method Not Allowed", b"", is_head=False)
        if path.partition(b"?")[0] not in (b"/", b"/metrics"):
            return _response("404 Not Found", b"", is_head=False)
        return _response("200 OK", self._metrics.text(), is_head=method == b"HEAD")

    # below

    def _note(self, what: str, problem: str) -> None:
        """Log a problem, but not again and again."""
        if problem and problem != self._problems.get(what):
            self._log.warning(problem, event="metrics", outcome="failed", reason=problem)
        self._problems[what] = problem


def write_file(path: Path, text: bytes) -> None:
    """Put ``text`` in the place of a file, at once and for all to read.

    :raises OSError: if that fails; then the file is as it was.
    """
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    with suppress(FileNotFoundError):
        scratch.unlink()
    descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "wb") as file:  # noqa: PTH123  # a descriptor
            file.write(text)
            os.fchmod(descriptor, 0o644)
        scratch.rename(path)
    except OSError:
        scratch.unlink(missing_ok=True)
        raise


def _response(status: str, body: bytes, *, is_head: bool) -> bytes:
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: {CONTENT_TYPE}\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + (b"" if is_head else body)


def _text(error: HwkmError | OSError) -> str:
    return error.diagnostics() if isinstance(error, HwkmError) else error.strerror or str(error)

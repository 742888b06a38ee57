"""The agent's first process: it takes requests from the socket, and lets others serve them.

It runs one thread, has no PKCS#11 module and no keystore open, and so can fork at any time.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import json
import os
import signal
import sys
import time
from contextlib import suppress
from dataclasses import asdict, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from hwkm import config as configuration
from hwkm import supervise
from hwkm.agent import drive_jobs, listening, requests, strays, systemd, token_process, verbs
from hwkm.agent.connections import Connections
from hwkm.agent.frames import CHANGER, DRIVE, GETKEY, NO, OK, RELEASE, STATUS, STOP
from hwkm.agent.hardening import harden
from hwkm.agent.limits import Limits
from hwkm.agent.messages import Done, NeedsDrive, Refusal, Release, Reply
from hwkm.agent.metrics import Metrics
from hwkm.agent.people import People, look_up_names, names_of
from hwkm.agent.publishing import Publisher
from hwkm.agent.refusals import Refusals
from hwkm.agent.status import FAILED, GIVEN, REFUSED, Status
from hwkm.agent.structured_log import log_of
from hwkm.agent.token_link import TokenLink
from hwkm.agent.unrecorded import Unrecorded
from hwkm.errors import ConfigError, HwkmError, PinError
from hwkm.log import one_line
from hwkm.token import pin_guard

if TYPE_CHECKING:
    import socket
    from collections.abc import Awaitable, Callable, Coroutine, Sequence
    from pathlib import Path

    from hwkm.agent.children import Child
    from hwkm.agent.messages import GetKey
    from hwkm.agent.peers import Peer
    from hwkm.config import Config
    from hwkm.installation import Installation
    from hwkm.token.pin_guard import GuardState

    Serve = Callable[[Peer, list[bytes], float], Awaitable[tuple[str, Sequence[bytes]]]]
    """Returns the outcome, for the figures, and the answer's fields."""


_PRELOADED = (
    "hwkm.mounts",
    "hwkm.recipients.token_gcm",
    "hwkm.recipients.token_hmac",
    "hwkm.recipients.token_oaep",
)
"""What is otherwise imported when it is first needed. A child that is forked later shall be quick,
and of the same release as this process even if another was installed in between."""


def run(installation: Installation, limits: Limits | None = None) -> None:
    """Be the agent of ``installation`` until SIGTERM.

    :raises AlreadyRunningError: if there is one already.
    :raises ConfigError: if the socket can't be had, or names are unknown.
    :raises PinError: if no token takes its PIN; it is not to be tried again by starting again.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ignored, children could not be waited for
    for name in _PRELOADED:
        importlib.import_module(name)
    gc.freeze()  # modules stay: the collector need not go through them, here and in each child
    notes = harden()
    lock = listening.lock(installation.config.runtime_dir)
    try:
        asyncio.run(_run(installation, limits or Limits(), notes))
    finally:
        os.close(lock)


async def _run(installation: Installation, limits: Limits, notes: Sequence[str]) -> None:
    await Front(installation, limits).run(notes)


_RECORD_SECONDS = 2.0
"""How long the last failures have to be put on record when the agent ends."""


class Front:
    """The agent, as far as the outside sees it."""

    def __init__(self, installation: Installation, limits: Limits) -> None:
        """Look names up; nothing is opened yet.

        :raises ConfigError: if the configuration names unknown users or groups.
        """
        self._installation = replace(installation, reload_seconds=limits.reload_seconds)
        self._limits = limits
        self._names = names_of(installation.config)
        self._log = log_of(installation.config)
        self._people = People(self._log)
        self._status = Status()
        self._refusals = Refusals(self._log)
        self._connections = Connections(self.answer, limits, self._status)
        self._tokens = TokenLink(self._starter(), limits, self._status.token, self._log)
        self._unrecorded = Unrecorded(self._tokens, limits, self._log)
        self._has_service_socket = False
        self._tokens.put_aside = self._unrecorded.keep
        self._metrics = Publisher(Metrics(self._status, self._guard), limits, self._log)
        self._idle = asyncio.Event()
        self._idle.set()
        self._told_to_end = asyncio.Event()
        self._reloading = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._serve: dict[bytes, Serve] = {
            GETKEY: self._getkey,
            STATUS: self._show_status,
            RELEASE: self._release,
            STOP: self._stop,
            DRIVE: self._drive,
            CHANGER: self._drive,
        }

    async def run(self, notes: Sequence[str]) -> None:
        """Serve until SIGTERM; ``notes`` are what could not be had of its protection."""
        handed_over = systemd.listen_fds()
        path = self._installation.config.agent.socket
        self._has_service_socket = bool(handed_over)
        group = self._names.socket_group
        listeners = handed_over or [listening.listen(self._installation.config.agent, group)]
        if handed_over:
            self._admit(path)
        servers: list[asyncio.Server] = []
        for note in notes:
            self._log.warning(note)
        try:
            self._heed_signals()
            servers = [await self._serve_at(listener) for listener in listeners]
            await self._until_told(self._begin())
        finally:
            if not handed_over:
                path.unlink(missing_ok=True)
            await self._end(servers)

    async def answer(self, peer: Peer, fields: list[bytes]) -> Sequence[bytes]:
        """Return the fields of the answer to a request; never raises."""
        peer = await self._people.known(peer)
        verb = fields[0]
        serve = self._serve.get(verb)
        if serve is None or not self._names.allowed.admits(peer, verb):
            return self._refuse(peer, verb, known=serve is not None)
        if self._status.in_flight >= self._limits.in_flight:
            return NO, b"the agent has too many requests to answer"
        begun = time.monotonic()
        deadline = begun + self._limits.answer_seconds
        self._status.in_flight += 1
        self._idle.clear()
        try:
            outcome, answer = await serve(peer, fields, deadline)
        except HwkmError as error:
            outcome, answer = FAILED, (NO, error.diagnostics().encode())
        except Exception as error:  # noqa: BLE001  # one request's fault is not the others'
            self._log.error(f"internal error: {supervise.where(error)}")
            outcome, answer = FAILED, (NO, b"the agent failed; its log says more")
        finally:
            self._status.in_flight -= 1
            if not self._status.in_flight:
                self._idle.set()
        operation = _operation(fields)
        self._status.finished(verb.decode(), operation, outcome, time.monotonic() - begun)
        return answer

    # the verbs

    async def _getkey(
        self, peer: Peer, fields: list[bytes], deadline: float
    ) -> tuple[str, Sequence[bytes]]:
        asked = requests.parse(fields, peer.user)
        try:
            reply = await self._reply(asked, deadline)
        except HwkmError as error:
            fields_of = requests.fields_of(asked, error)
            what = requests.described(asked)
            self._log.error(f"{what}: no key given: {error.diagnostics()}", **fields_of)
            self._unrecorded.note(asked, error)
            return FAILED, (OK, requests.failed_reply(error.diagnostics()).text)
        return GIVEN if reply.given else REFUSED, (OK, reply.text)

    async def _reply(self, asked: GetKey, deadline: float) -> Reply:
        result = await self._tokens.result(asked, deadline)
        if isinstance(result, NeedsDrive):
            return await self._drive_job(asked, deadline)
        if isinstance(result, Refusal):
            raise result.error
        if not isinstance(result, Reply):
            raise TypeError(type(result).__name__)
        return result

    async def _drive_job(self, asked: GetKey, deadline: float) -> Reply:
        if self._status.drive_jobs >= self._limits.drive_jobs:
            raise HwkmError("too many requests concern drives at the same time")
        self._status.drive_jobs += 1
        try:
            return await drive_jobs.run(self._installation, asked, deadline, self._tokens)
        finally:
            self._status.drive_jobs -= 1

    async def _drive(
        self, peer: Peer, fields: list[bytes], _deadline: float
    ) -> tuple[str, Sequence[bytes]]:
        asked, verb = verbs.parse(fields, peer.user), fields[0].decode()
        most = self._limits.changes if fields[0] == CHANGER else self._limits.drive_verbs
        if self._status.verb_jobs[verb] >= most:
            raise HwkmError("too many requests concern drives at the same time")
        self._status.verb_jobs[verb] += 1
        try:
            done = await drive_jobs.run_verb(self._installation, asked, self._limits, self._tokens)
        except HwkmError as error:
            fields_of = verbs.failure_fields(asked, error)
            self._log.error(f"{verbs.described(asked)}: {error.diagnostics()}", **fields_of)
            return verbs.FAILED, (OK, verbs.document_of(verbs.failed(error)))
        finally:
            self._status.verb_jobs[verb] -= 1
        return done.outcome, (OK, done.document)

    async def _show_status(
        self, _peer: Peer, _fields: list[bytes], _deadline: float
    ) -> tuple[str, Sequence[bytes]]:
        document = {"config": str(self._installation.config.path), **self._status.document()}
        if (guard := self._guard()) is not None:
            document["pin_guard"] = asdict(guard)
        return "ok", (OK, json.dumps(document).encode())

    async def _release(
        self, peer: Peer, _fields: list[bytes], deadline: float
    ) -> tuple[str, Sequence[bytes]]:
        result = await self._tokens.result(Release(), deadline)
        if isinstance(result, Refusal):
            raise result.error
        if not isinstance(result, Done):
            raise TypeError(type(result).__name__)
        fields = {"event": "release", "user": peer.user, "peer": str(peer)}
        self._log.info(f"the token was released for {peer}", **fields)
        return "ok", (OK,)

    async def _stop(
        self, peer: Peer, _fields: list[bytes], _deadline: float
    ) -> tuple[str, Sequence[bytes]]:
        self._log.info(f"told to end by {peer}", event="stop", user=peer.user, peer=str(peer))
        self._told_to_end.set()
        return "ok", (OK,)

    def _refuse(self, peer: Peer, verb: bytes, *, known: bool) -> Sequence[bytes]:
        shown = one_line(verb.decode("utf-8", "replace"), 32)
        why = f"{peer.user} may not ask for {shown!r}" if known else f"there is no {shown!r}"
        self._refusals.note(peer, shown, why, known=known)
        self._status.finished(shown if known else "unknown", "", "not admitted", 0)
        return NO, why.encode()

    # beginning and end

    def _heed_signals(self) -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self._unforeseen)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._told_to_end.set)
        loop.add_signal_handler(signal.SIGHUP, lambda: self._in_background(self._reload()))

    def _admit(self, path: Path) -> None:
        """Give a socket of the service manager's the group and mode that are configured."""
        try:
            settings = self._installation.config.agent
            listening.admit(settings, path, self._names.socket_group)
        except ConfigError as error:
            self._log.warning(error.diagnostics())

    async def _serve_at(self, listener: socket.socket) -> asyncio.Server:
        # By itself a newer asyncio takes the name of a socket away that may be systemd's.
        more: dict[str, Any] = {"cleanup_socket": False} if sys.version_info >= (3, 13) else {}
        return await asyncio.get_running_loop().create_unix_server(
            self._connections.make, sock=listener, backlog=listening.BACKLOG, **more
        )

    async def _until_told(self, begin: Coroutine[object, object, None]) -> None:
        """Wait until this process is told to end, or can't begin."""
        told = asyncio.create_task(self._told_to_end.wait())
        begun = asyncio.create_task(begin)
        await asyncio.wait({told, begun}, return_when=asyncio.FIRST_COMPLETED)
        if begun.done():
            await begun
        await told
        begun.cancel()

    async def _begin(self) -> None:
        async with self._reloading:
            problems = await self._tokens.begin()
            self._report(problems)
            if refused := _refused_everywhere(self._installation.config, problems):
                if not self._has_service_socket:
                    raise refused
                await self._stay_out(refused)
        if seconds := systemd.watchdog_seconds():
            self._in_background(_watchdog(seconds))
        self._in_background(strays.clear(self._installation, self._log))
        self._in_background(self._unrecorded.run())
        systemd.notify("READY=1")
        await self._metrics.start(self._installation, self._names.socket_group)
        ready = f"the agent is ready at {self._installation.config.agent.socket}"
        self._log.info(ready, event="ready")

    async def _stay_out(self, refused: PinError) -> None:
        """Refuse all requests for keys: no token takes its PIN, and none is tried again by itself.

        Ending would not help where systemd listens: it would start the agent at the next request.
        """
        error = _until_reloaded(refused)
        await self._tokens.stay_out(error)
        why = error.diagnostics()
        systemd.notify(f"STATUS={one_line(why)}")
        self._log.error(why, event="token", outcome="stays out", reason=why)

    async def _end(self, servers: Sequence[asyncio.Server]) -> None:
        """Take nothing more on, and give what is under way a while to be answered."""
        systemd.notify("STOPPING=1")
        for server in servers:
            server.close()
        self._connections.end()
        with suppress(TimeoutError):
            async with asyncio.timeout(self._limits.end_seconds):
                await self._idle.wait()
                await self._connections.all_closed.wait()
        self._connections.abort()
        await self._unrecorded.finish(_RECORD_SECONDS)
        for task in self._tasks:
            task.cancel()
        await self._tokens.end()
        await self._metrics.stop()
        self._log.info("the agent has ended", event="end")

    # a new configuration

    async def _reload(self) -> None:
        """Take on the configuration as it is now; a bad one is refused, and the old one stays."""
        async with self._reloading:
            systemd.notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
            try:
                await self._take_on(configuration.load(self._installation.config.path))
            except HwkmError as error:
                self._refuse_reload(error.diagnostics())
            except OSError as error:
                self._refuse_reload(error.strerror or str(error))
            except Exception as error:  # noqa: BLE001  # the agent works on with what it has
                self._refuse_reload(f"internal error: {supervise.where(error)}")
            finally:
                if not self._told_to_end.is_set():
                    systemd.notify("READY=1")

    def _refuse_reload(self, text: str) -> None:
        self._status.refused_reloads += 1
        fields = {"event": "reload", "outcome": "refused", "reason": text}
        self._log.error(f"the new configuration is not taken on: {text}", **fields)

    async def _take_on(self, config: Config) -> None:
        old = self._installation.config
        if _fixed(config) != _fixed(old):
            raise ConfigError(
                "runtime_dir, log, agent.socket and agent.log_format take effect only at a restart"
            )
        names = await look_up_names(config, self._log)
        if (config.agent.mode, config.agent.group) != (old.agent.mode, old.agent.group):
            listening.admit(config.agent, config.agent.socket, names.socket_group)
        new = replace(self._installation, config=config)
        await self._replace_tokens(new)
        self._installation, self._names = new, names
        self._people.forget()
        await self._metrics.stop()
        await self._metrics.start(self._installation, names.socket_group)
        self._status.reloads += 1
        taken = {"event": "reload", "outcome": "taken on"}
        self._log.info(f"the configuration {config.path} was taken on", **taken)

    async def _replace_tokens(self, new: Installation) -> None:
        """Let a process of the ``new`` configuration take over, if it opens any token.

        :raises ConfigError: if it does not; then one of the old configuration is there again.
        """
        old, config = self._installation.config, new.config

        def is_good(problems: Sequence[HwkmError] | None) -> bool:
            # With the same tokens the old one would fare no better: the fault is not in the file.
            some = problems is not None and len(problems) < len(config.tokens)
            return some or config.tokens == old.tokens

        problems, good = await self._tokens.replace(partial(token_process.start, new), is_good)
        if not good:
            self._admit(old.agent.socket)
            raise ConfigError(
                "none of its tokens can be opened: "
                + "; ".join(error.diagnostics() for error in problems)
            )
        self._report(problems)
        systemd.notify("STATUS=")
        if refused := _refused_everywhere(config, problems):
            await self._stay_out(refused)

    # below

    def _starter(self) -> Callable[[], Child]:
        return partial(token_process.start, self._installation)

    def _report(self, problems: Sequence[HwkmError]) -> None:
        for error in problems:
            fields = {"event": "token", "outcome": "failed", "reason": error.diagnostics()}
            self._log.error(f"a token can't be used: {error.diagnostics()}", **fields)

    def _guard(self) -> GuardState | None:
        try:
            return pin_guard.state_of(self._installation.config.runtime_dir)
        except OSError:
            return None  # who asks for figures gets the others

    def _in_background(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _unforeseen(self, _loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
        error = context.get("exception")
        where = supervise.where(error) if isinstance(error, BaseException) else ""
        self._log.error(f"internal error: {context.get('message')} {where}")


async def _watchdog(seconds: float) -> None:
    while True:
        systemd.notify("WATCHDOG=1")
        await asyncio.sleep(seconds)


def _refused_everywhere(config: Config, problems: Sequence[HwkmError]) -> PinError | None:
    """Return why the first token did not take its PIN, if none took it."""
    refused = [error for error in problems if isinstance(error, PinError)]
    return refused[0] if len(refused) == len(config.tokens) else None


def _until_reloaded(refused: PinError) -> PinError:
    return PinError(
        f"no token takes its PIN ({refused}), and none is tried until the agent is told to",
        hint=f"{refused.hint}. Then systemctl reload hwkm-agent",
    )


def _fixed(config: Config) -> tuple[object, ...]:
    return config.runtime_dir, config.log, config.agent.socket, config.agent.log_format


def _operation(fields: list[bytes]) -> str:
    """Return what kind of key is asked for, or what of a drive: one of few words in any case."""
    if fields[0] in (DRIVE, CHANGER):
        return verbs.verb_of(fields)
    if fields[0] != GETKEY:
        return ""
    known = {b"LABEL": "label", b"READ": "read"}
    return known.get(fields[1], "other") if len(fields) > 1 else "other"

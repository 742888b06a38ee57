"""``hwkm-getkey`` as Bacula starts it, and agents of the tests' own for it to ask."""

from __future__ import annotations

import base64
import os
import shlex
import shutil
import socket
import struct
import subprocess
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import hwkm
from hwkm.agent.frames import FrameError, FrameReader, pack
from tests.getkey import process
from tests.getkey.home import OPTIONS, STORAGE_ENV, VOLUME, Answer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from tests.getkey.process import User

SCRIPT = Path(hwkm.__file__).parent / "agent" / "hwkm-getkey"
WRAPPED = b"\x5a" * 300
REQUEST: dict[str, str | bytes] = {
    "OPERATION": "READ",
    "VOLUME_NAME": VOLUME,
    "ENC_CIPHER_KEY": base64.b64encode(WRAPPED),
    "MASTER_KEYID": "bWFzdGVy",
}
REPLY = (
    f"volume_name: {VOLUME}\n"
    "cipher: AES_256_XTS\n"
    f"cipher_key: {base64.b64encode(bytes(range(64))).decode()}\n"
    f"enc_cipher_key: {base64.b64encode(WRAPPED).decode()}\n"
    "master_keyid: bWFzdGVy\n"
).encode()
GIVEN = pack([b"ok", REPLY])
# Takes the place of the one-shot command, and keeps what it was called with.
STUB = r"""#!/bin/sh
printf '%s\0' "$@" >{kept}
/usr/bin/env -0 >{kept}.env
ulimit -c >{kept}.core
echo "error: from the one-shot command"
"""
SETTLE_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Client:
    """A folder with the script, a Python and a one-shot command beside it, as pip makes it."""

    bin: Path
    socket: Path

    @classmethod
    def create(cls, path: Path) -> Client:
        """Make the folder, with a command that only keeps what it is called with."""
        made = cls(path / "bin", path / "agent.sock")
        made.bin.mkdir(parents=True)
        shutil.copy(SCRIPT, made.script)
        interpreter = shutil.which(process.command().interpreter)
        assert interpreter is not None
        (made.bin / "python3").symlink_to(interpreter)
        made.set_one_shot(STUB.format(kept=shlex.quote(str(made.kept))))
        return made

    @property
    def script(self) -> Path:
        """The program under test."""
        return self.bin / "hwkm-getkey"

    @property
    def kept(self) -> Path:
        """Where the one-shot command notes its arguments."""
        return self.bin / "kept"

    def set_one_shot(self, text: str) -> None:
        """Put another command beside the script, under the name of hwkm."""
        (self.bin / "hwkm").write_text(text)
        (self.bin / "hwkm").chmod(0o755)

    def use_hwkm(self) -> None:
        """Put hwkm itself there."""
        found = process.command()
        path = f"export PYTHONPATH={shlex.quote(found.python_path)}\n" if found.python_path else ""
        self.set_one_shot(f'#!/bin/sh\n{path}exec {shlex.join(found.words)} "$@"\n')

    def set_seconds(self, **constants: int) -> None:
        """Shorten what the script waits for."""
        text = self.script.read_text()
        for name, value in constants.items():
            (line,) = (one for one in text.splitlines() if one.startswith(f"{name} = "))
            text = text.replace(line, f"{name} = {value}")
        self.script.write_text(text)

    def start(
        self,
        *,
        options: Sequence[str | bytes] = OPTIONS,
        before: Sequence[str | bytes] | None = None,
        env: Mapping[str, str | bytes] | None = None,
        command: Sequence[str | bytes | Path] | None = None,
        stdout: int = subprocess.PIPE,
        stderr: int = subprocess.PIPE,
        cwd: str | Path = "/",
        prepare: Callable[[], object] | None = None,
        user: User | None = None,
    ) -> subprocess.Popen[bytes]:
        """Start it in a session of its own, as Bacula does. ``before`` instead of ``--socket``."""
        words = ["--socket", str(self.socket)] if before is None else before
        return subprocess.Popen(
            [*(command or [self.script]), *words, *options],
            env={**STORAGE_ENV, **REQUEST, **(env or {})},
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
            preexec_fn=prepare,
            user=user.uid if user else None,
            group=user.gid if user else None,
            extra_groups=[] if user else None,
        )

    def ask(self, **how: object) -> Answer:
        """Return the answer of a call, having checked what must hold for each."""
        return Answer.of(process.finish(self.start(**how)))  # type: ignore[arg-type]

    def one_shot(self) -> list[str]:
        """Return the arguments that the one-shot command got; none if it was not started."""
        if not self.kept.exists():
            return []
        return self.kept.read_text(errors="surrogateescape").split("\0")[:-1]

    def one_shot_env(self) -> dict[bytes, bytes]:
        """Return the environment that the one-shot command got."""
        lines = Path(f"{self.kept}.env").read_bytes().split(b"\0")[:-1]
        return {name: value for name, _, value in (line.partition(b"=") for line in lines)}

    def one_shot_core(self) -> str:
        """Return how large a core dump the one-shot command may leave."""
        return Path(f"{self.kept}.core").read_text().strip()


@dataclass(frozen=True, slots=True)
class Agent:
    """What an agent of the tests' own was asked: whole frames, and the bytes that followed them."""

    requests: list[list[bytes]] = field(default_factory=list)
    after: list[bytes] = field(default_factory=list)


@contextmanager
def agent(path: Path, answer: Callable[[socket.socket], object]) -> Iterator[Agent]:
    """Listen at ``path``: read one request of each client, and let ``answer`` do the rest."""
    with listening(path) as listener:
        found = Agent()
        thread = threading.Thread(target=_serve, args=(listener, answer, found), daemon=True)
        thread.start()
        try:
            yield found
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(SETTLE_SECONDS)
            assert not thread.is_alive()


@contextmanager
def listening(path: Path, backlog: int = 16) -> Iterator[socket.socket]:
    """Listen at ``path``, and do nothing else."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(backlog)
        try:
            yield listener
        finally:
            path.unlink()


def gives(data: bytes) -> Callable[[socket.socket], None]:
    """Return what answers with ``data`` at once."""
    return lambda connection: connection.sendall(data)


def _serve(
    listener: socket.socket, answer: Callable[[socket.socket], object], found: Agent
) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        # A client that has had enough closes, whatever there is still to send or to read.
        with connection, suppress(ConnectionError):
            connection.settimeout(SETTLE_SECONDS)
            _read_request(connection, found)
            answer(connection)
            with suppress(OSError):
                connection.shutdown(socket.SHUT_WR)
            while rest := connection.recv(4096):
                found.after.append(rest)


def _read_request(connection: socket.socket, found: Agent) -> None:
    reader = FrameReader()
    while True:
        data = connection.recv(4096)
        try:
            frames = list(reader.feed(data))
        except FrameError:
            found.after.append(data)
            return
        found.requests.extend(frames)
        if frames or not data:
            return


def framed(body: bytes) -> bytes:
    """Return a frame's header and a body of any kind."""
    return b"HWK\x01" + struct.pack(">I", len(body)) + body


def close_all(*descriptors: int) -> Callable[[], None]:
    """Return what closes descriptors, for ``prepare``."""

    def close() -> None:
        for one in descriptors:
            os.close(one)

    return close

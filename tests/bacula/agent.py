"""An installation of hwkm whose keys the agent gives, and a witness of all that it gives."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwkm.agent import client

from .bacula import wait_for
from .chroot import BASE_ENV, User
from .keymanager import KeyManager
from .volume import Label

if TYPE_CHECKING:
    import subprocess

    from .chroot import Chroot

CLIENT = "/opt/hwkm/bin/hwkm-getkey"
DEFAULT_SOCKET = "/run/hwkm/agent.sock"
HWKM_USER = User("hwkm", "hwkm", ("hwkm", "tape"))
BACULA_USER = User("bacula", "bacula", ("bacula", "tape"))


class Agent(KeyManager):
    """An installation of ``user``'s, and its agent, which may run or not."""

    def __init__(self, chroot: Chroot, home: str, user: User, socket: str = "") -> None:
        super().__init__(chroot, home)
        self.user = user
        self.owner = user.name
        self.socket = socket or f"{home}/run/agent.sock"
        self._running: subprocess.Popen[bytes] | None = None

    @property
    def command(self) -> str:
        """The Encryption Command."""
        where = "" if self.socket == DEFAULT_SOCKET else f"--socket {self.socket} "
        return f"{CLIENT} {where}--config {self.home}/config.toml --device %a --job %i"

    def configure(self, text: str) -> None:
        """Add to the configuration."""
        with self.path("config.toml").open("a") as file:
            file.write(text)

    # --- the process -----------------------------------------------------------------------

    @property
    def output(self) -> Path:
        """The file that holds what the agent printed."""
        return self.chroot.path(f"/var/log/agent-of-{self.owner}.out")

    def start(self) -> None:
        """Start the agent as a unit would, and wait until it answers."""
        argv = self.argv("agent", "run")
        self._running = self.chroot.spawn(argv, self.output, user=self.user, env=BASE_ENV)
        wait_for(self._answers, "the agent's answer")

    def _answers(self) -> bool:
        assert self.process.poll() is None, self.output.read_text()
        try:
            return bool(self.status())
        except client.NoAgentError:
            return False

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The agent's first process."""
        assert self._running is not None, "the agent was not started"
        return self._running

    def kill(self) -> None:
        """End the agent by kill -9."""
        self.process.kill()
        assert self.process.wait(20) == -signal.SIGKILL

    def stop(self) -> None:
        """Tell the agent to end, if it runs."""
        if self._running is not None and self._running.poll() is None:
            self._running.terminate()
            assert self._running.wait(20) == 0, self.output.read_text()

    def restart(self) -> None:
        """Start the agent anew, which then remembers nothing."""
        self.stop()
        self.start()

    def status(self) -> dict[str, Any]:
        """Return what the agent says of itself."""
        path = self.chroot.path(self.socket)
        folder = os.open(path.parent, os.O_PATH)  # a socket's path must be short
        try:
            return client.status(Path(f"/proc/self/fd/{folder}", path.name))
        finally:
            os.close(folder)

    def given(self) -> int:
        """Return how many keys this process of the agent has given."""
        return int(self.status()["requests"].get("getkey", {}).get("given", 0))

    def reload(self) -> None:
        """Have the agent take on the files as they are, as ``systemctl reload`` does."""
        before = self.status()["reloads"]
        self.process.send_signal(signal.SIGHUP)
        wait_for(lambda: self.status()["reloads"] > before, "the agent's reload")

    # --- the process that owns the token -----------------------------------------------------

    @property
    def token_pid(self) -> int:
        """The process that owns the token at present; 0 if there is none."""
        return int(self.status()["token_process"]["pid"] or 0)

    def take_on(self, gate: Path) -> int:
        """Let a call that is held up come to the agent, and have it in flight.

        Returns the process that owns the token, which is stopped and will not answer.
        """
        wait_for(gate.exists, "the call that is to be held up")
        pid = self.token_pid
        os.kill(pid, signal.SIGSTOP)
        gate.unlink()
        wait_for(lambda: self.status()["in_flight"] > 1, "a request in flight beside our own")
        return pid


GATE = "/srv/gate"
GIVEN = "/srv/given.jsonl"
WITNESS = "/srv/witness"
# Runs the command in its arguments; waits before that where it is told to, and writes down what it
# gave: of keys, a digest.
WITNESS_SCRIPT = f"""#!/usr/bin/python3
import base64, hashlib, json, os, subprocess, sys, time
call = {{"operation": os.environ["OPERATION"], "volume": os.environ["VOLUME_NAME"]}}
with open("{GIVEN}") as file:
    gate = "{GATE}/" + str(len(file.readlines()) + 1)
if os.path.exists(gate):
    os.rename(gate, gate + ".here")
    while os.path.exists(gate + ".here"):
        time.sleep(0.01)
output = subprocess.run(sys.argv[1:], stdout=subprocess.PIPE).stdout
fields = dict(line.split(": ", 1) for line in output.decode().splitlines())
key = base64.b64decode(fields.pop("cipher_key", ""))
call["digest"] = hashlib.sha256(key).hexdigest() if key else ""
call["fields"] = fields
file = os.open("{GIVEN}", os.O_WRONLY | os.O_APPEND)
os.write(file, json.dumps(call).encode() + b"\\n")
os.close(file)
os.write(1, output)
"""


@dataclass(frozen=True, slots=True)
class Call:
    """A call of the Encryption Command: what was asked, and the answer without the key itself."""

    operation: str
    volume: str
    digest: str
    fields: dict[str, str]

    @property
    def error(self) -> str:
        """Why no key was given; empty if one was."""
        return self.fields.get("error", "")

    @property
    def label(self) -> Label:
        """What the volume's label is to hold."""
        wrapped, master = (self.fields[name] for name in ("enc_cipher_key", "master_keyid"))
        return Label(self.volume, "", base64.b64decode(wrapped), base64.b64decode(master))


class Witness:
    """Sees all calls of the Encryption Command, and holds up those that it is told to."""

    def __init__(self, chroot: Chroot) -> None:
        self._chroot = chroot

    def install(self) -> None:
        """Put it into the chroot."""
        self._chroot.path(WITNESS).write_text(WITNESS_SCRIPT)
        self._chroot.path(WITNESS).chmod(0o755)
        self._chroot.path(GATE).mkdir()
        self._chroot.path(GATE).chmod(0o777)
        self._chroot.path(GIVEN).touch()
        self._chroot.path(GIVEN).chmod(0o666)

    def of(self, manager: KeyManager) -> str:
        """Return the Encryption Command of an installation, as the witness sees it."""
        return f"{WITNESS} {manager.command}"

    def hold(self, number: int) -> Path:
        """Hold up a call, counted from now on; return what appears when it is there.

        It goes on when that is deleted.
        """
        self.take()
        gate = self._chroot.path(f"{GATE}/{number}")
        gate.touch()
        return gate.with_name(f"{number}.here")

    def take(self) -> list[Call]:
        """Return the calls since the last time."""
        file = self._chroot.path(GIVEN)
        calls = [Call(**json.loads(line)) for line in file.read_text().splitlines()]
        file.write_text("")
        return calls


def found_again(manager: KeyManager, calls: list[Call]) -> int:
    """Ask for every key that was given, by its envelope; return how many there were."""
    given = [call for call in calls if not call.error]
    for call in given:
        key = manager.getkey("READ", call.volume, call.label).key
        assert hashlib.sha256(key).hexdigest() == call.digest, call.volume
    return len(given)

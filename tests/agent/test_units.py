"""The agent's units: what they say of an installation, and what systemd says of them."""

from __future__ import annotations

import base64
import os
import pwd
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import hwkm
from hwkm import config as configuration
from hwkm.agent.unit_files import DROP_IN, SERVICE, SOCKET, Service, unit_files
from hwkm.errors import ConfigError
from tests.agent.sandbox import Unit
from tests.getkey import process
from tests.getkey.conftest import _copy_of, base, others, owned  # noqa: F401  # fixtures
from tests.getkey.home import Answer

if TYPE_CHECKING:
    from collections.abc import Callable

    from hwkm.config import Config
    from tests.getkey.home import Home

MOST_EXPOSURE = 0.8
"""What ``systemd-analyze security`` of systemd 252 says, of 10 for a unit without any sandbox."""

CLIENT = Path(hwkm.__file__).parent / "agent" / "hwkm-getkey"
NOT_AS_ANOTHER = process.why_not_as_another()
as_nobody = pytest.mark.skipif(bool(NOT_AS_ANOTHER), reason=NOT_AS_ANOTHER)

CONFIG = """\
keystore = "sqlite:///{home}/keystore.db"
runtime_dir = "{home}/run"
[token.main]
uri = "pkcs11:token=x?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source={pin}"
environment = {{ SOFTHSM2_CONF = "{home}/softhsm2.conf" }}
[[policy]]
delivery = "{delivery}"
[agent]
{agent}
"""


def make_config(
    home: Path,
    *,
    pin: str = "credential:hwkm-pin",
    delivery: str = "software",
    agent: str = "",
    keystore: str = "",
) -> Config:
    (home / "run").mkdir(exist_ok=True, parents=True)
    (home / "tokens").mkdir(exist_ok=True)
    (home / "softhsm2.conf").write_text(f"directories.tokendir = {home}/tokens\n")
    text = CONFIG.format(home=home, pin=pin, delivery=delivery, agent=agent)
    if keystore:
        text = re.sub(r"^keystore = .*", f'keystore = "{keystore}"', text)
    return configuration.parse(text, home / "config.toml")


def rendered(config: Config, hwkm: str = "/bin/true") -> dict[str, str]:
    return unit_files(Service(config, Path(hwkm)))


def service(config: Config, hwkm: str = "/bin/true") -> Unit:
    return Unit(rendered(config, hwkm)[SERVICE])


def analyze(folder: Path, files: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    """Let systemd-analyze look at units as files."""
    paths = []
    for name in (SERVICE, SOCKET):
        (folder / name).write_text(files[name])
        paths.append(f"./{name}")
    chosen = paths[:1] if "security" in words else paths
    return subprocess.run(
        ["systemd-analyze", *words, *chosen],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": os.defpath, "LC_ALL": "C.UTF-8", "SYSTEMD_COLORS": "0"},
    )


class TestWords:
    def test_what_the_agent_writes(self, tmp_path: Path) -> None:
        agent = f'metrics = "{tmp_path}/metrics/hwkm.prom"\nsocket = "/run/hwkm/agent.sock"'
        unit = service(make_config(tmp_path / "home", agent=agent))
        assert unit.words("ReadWritePaths") == [f"{tmp_path}/home", f"{tmp_path}/metrics"]
        assert unit.one("RuntimeDirectory") == "hwkm"
        assert unit.one("RuntimeDirectoryPreserve") == "yes"

    def test_what_it_must_not_change(self, tmp_path: Path) -> None:
        (tmp_path / "so-pin").touch()
        unit = service(make_config(tmp_path, pin=f"file:{tmp_path}/user-pin"))
        names = ("config.toml", "softhsm2.conf", "tokens", "user-pin")
        assert unit.words("ReadOnlyPaths") == [f"-{tmp_path}/{name}" for name in names]
        assert unit.words("InaccessiblePaths") == [f"-{tmp_path}/so-pin"]
        assert unit.all("LoadCredential") == []

    def test_the_pin_comes_from_systemd(self, tmp_path: Path) -> None:
        unit = service(make_config(tmp_path))
        assert unit.one("LoadCredential") == "hwkm-pin:/etc/credstore/hwkm-pin"

    def test_the_pin_is_encrypted(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("hwkm.agent.unit_files.ENCRYPTED_CREDENTIALS", tmp_path)
        (tmp_path / "hwkm-pin").touch()
        unit = service(make_config(tmp_path / "home"))
        assert unit.one("LoadCredentialEncrypted") == f"hwkm-pin:{tmp_path}/hwkm-pin"

    @pytest.mark.parametrize("delivery", ["software", "drive", "auto"])
    def test_drives(self, tmp_path: Path, delivery: str) -> None:
        unit = service(make_config(tmp_path, delivery=delivery))
        drives = delivery != "software"
        assert unit.one("DevicePolicy") == "closed"
        assert unit.all("DeviceAllow") == (["char-sg rw"] if drives else [])
        assert unit.words("SupplementaryGroups") == (["tape"] if drives else [])

    def test_users_and_groups(self, tmp_path: Path) -> None:
        files = rendered(make_config(tmp_path, agent='group = "disk"\nmode = "0660"'))
        unit, socket = Unit(files[SERVICE]), Unit(files[SOCKET])
        me = pwd.getpwuid(os.geteuid()).pw_name
        assert (unit.one("User"), socket.one("SocketUser")) == (me, me)
        assert unit.words("SupplementaryGroups") == ["disk"]
        assert (socket.one("SocketGroup"), socket.one("SocketMode")) == ("disk", "0660")
        assert socket.one("ListenStream") == f"{tmp_path}/run/agent.sock"

    @pytest.mark.parametrize(
        ("keystore", "metrics", "families"),
        [
            ("", "", ["AF_UNIX"]),
            ("postgresql+psycopg:///hwkm", "", ["AF_UNIX"]),
            ("postgresql+psycopg://host/hwkm", "", ["AF_UNIX", "AF_INET", "AF_INET6"]),
            ("", "http://127.0.0.1:9876", ["AF_UNIX", "AF_INET", "AF_INET6"]),
        ],
    )
    def test_network(
        self, tmp_path: Path, keystore: str, metrics: str, families: list[str]
    ) -> None:
        config = make_config(tmp_path, keystore=keystore, agent=f'metrics = "{metrics}"')
        unit = service(config)
        assert unit.words("RestrictAddressFamilies") == families
        assert bool(unit.all("PrivateNetwork")) == (families == ["AF_UNIX"])
        assert bool(unit.all("IPAddressAllow")) == bool(metrics)

    def test_a_wrong_pin_is_not_tried_again(self, tmp_path: Path) -> None:
        assert service(make_config(tmp_path)).one("RestartPreventExitStatus") == "4"

    def test_what_is_in_homes_stays_in_sight(self, tmp_path: Path) -> None:
        config = make_config(tmp_path)
        assert service(config, "/home/you/hwkm").one("ProtectHome") == "read-only"

    def test_characters_of_systemd(self, tmp_path: Path) -> None:
        config = make_config(tmp_path / "50% $x y")
        unit = service(config, "/opt/a b/hwkm")
        path = f"{tmp_path}/50%% $$x y/config.toml"
        assert unit.one("ExecStart") == f'"/opt/a b/hwkm" --config "{path}" agent run'
        assert unit.one("ReadWritePaths") == f'"{tmp_path}/50%% $x y"'

    def test_a_path_of_two_lines(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="can't stand in a unit"):
            service(make_config(tmp_path), "/opt/a\nExecStartPre=/bin/x")

    def test_the_storage_daemon_waits_for_it(self, tmp_path: Path) -> None:
        drop_in = Unit(rendered(make_config(tmp_path))[DROP_IN])
        assert drop_in.one("Wants") == SERVICE
        assert drop_in.words("After") == [SERVICE, SOCKET]


@pytest.mark.parametrize("delivery", ["software", "drive"])
class TestSystemd:
    def test_the_units_are_sound(self, tmp_path: Path, delivery: str) -> None:
        files = rendered(make_config(tmp_path / "50% x y", delivery=delivery))
        done = analyze(tmp_path, files, "verify")
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")

    def test_how_much_is_left_open(
        self, tmp_path: Path, delivery: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        config = make_config(tmp_path, delivery=delivery)
        if process.IS_ROOT:
            shutil.chown(config.runtime_dir, "daemon")
        for name in ("prefix", "base_prefix"):
            monkeypatch.setattr(sys, name, "/usr")  # the tests' own may be in somebody's home
        threshold = f"--threshold={int(MOST_EXPOSURE * 10)}"
        done = analyze(tmp_path, rendered(config), "security", "--offline=true", threshold)
        assert done.returncode == 0, done.stdout + done.stderr

    def test_a_fault_is_seen(self, tmp_path: Path, delivery: str) -> None:
        files = rendered(make_config(tmp_path, delivery=delivery))
        broken = files[SERVICE].replace("LimitMEMLOCK", "LimitMEMORYLOCK")
        assert analyze(tmp_path, {**files, SERVICE: broken}, "verify").stderr
        open_one = files[SERVICE].replace("CapabilityBoundingSet=\n", "")
        done = analyze(
            tmp_path, {**files, SERVICE: open_one}, "security", "--offline=true", "--threshold=14"
        )
        assert done.returncode != 0


TRIES = """
import errno, mmap, os, socket, sys
def tried(name, what):
    try:
        what()
        print(name, "done")
    except OSError as error:
        print(name, errno.errorcode[error.errno])
home = sys.argv[1]
opened = lambda path, flags: os.close(os.open(path, flags, 0o600))
tried("keystore", lambda: opened(home + "/keystore.db", os.O_RDWR))
tried("runtime", lambda: opened(home + "/run/new", os.O_WRONLY | os.O_CREAT))
tried("token", lambda: opened(home + "/tokens/new", os.O_WRONLY | os.O_CREAT))
tried("config", lambda: opened(home + "/config.toml", os.O_RDWR))
tried("so-pin", lambda: print(os.path.getsize(home + "/so-pin"), end=" "))
tried("system", lambda: opened("/var/tmp/hwkm-new", os.O_WRONLY | os.O_CREAT))
tried("code", lambda: mmap.mmap(-1, 4096, prot=7))
tried("inet", lambda: socket.socket(socket.AF_INET))
tried("unix", lambda: socket.socket(socket.AF_UNIX))
tried("chroot", lambda: os.chroot("/"))
tried("nice", lambda: os.nice(1))
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print("rights", status["CapEff"].strip("\\t0\\n"), status["CapBnd"].strip("\\t0\\n"), end=".\\n")
print("seccomp", status["Seccomp"].strip(), status["NoNewPrivs"].strip())
print("others", os.path.exists("/proc/1"), os.path.exists("/proc/meminfo"))
"""
CONFINED = """\
keystore done
runtime done
token EROFS
config EROFS
0 so-pin done
system EROFS
code EPERM
inet EAFNOSUPPORT
unix done
chroot EPERM
nice done
rights  .
seccomp 2 1
others False False
"""


@as_nobody
class TestSandbox:
    """Whole processes in the unit's sandbox, as far as root can build it without systemd."""

    @pytest.fixture
    def start(
        self,
        owned: Home,  # noqa: F811
        tmp_path: Path,
    ) -> Callable[..., subprocess.Popen[bytes]]:
        """Return what starts a command in the sandbox."""
        unit = tmp_path / SERVICE
        unit.write_text(rendered(configuration.load(owned.config))[SERVICE])
        launcher = Path(__file__).with_name("sandbox.py")
        before = ["unshare", "--mount", "--net", sys.executable, str(launcher), str(unit)]

        def start(*words: str, **env: str) -> subprocess.Popen[bytes]:
            path = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", **process.command().env}
            return subprocess.Popen(
                [*before, *words],
                env={**path, **env},
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )

        return start

    @pytest.fixture
    def inside(self, start: Callable[..., subprocess.Popen[bytes]]) -> Callable[..., process.Run]:
        """Return what runs a command in the sandbox to its end."""
        return lambda *words, **env: process.finish(start(*words, **env))

    def test_it_confines(self, inside: Callable[..., process.Run], owned: Home) -> None:  # noqa: F811
        done = inside(process.command().interpreter, "-c", TRIES, str(owned.path))
        assert (done.out.decode(), done.err) == (CONFINED, b"")

    def test_the_whole_check(self, inside: Callable[..., process.Run], owned: Home) -> None:  # noqa: F811
        option = ("--config", str(owned.path / "config.toml"))
        done = inside(*process.command().words, *option, "check")
        assert done.status == 0, done
        assert b"opens its canary" in done.out

    def test_a_key(self, inside: Callable[..., process.Run], owned: Home) -> None:  # noqa: F811
        given = owned.getkey("LABEL", "Vol-0002").given
        request = {"OPERATION": "READ", "VOLUME_NAME": "Vol-0002", "MASTER_KEYID": ""}
        wrapped = base64.b64encode(given.wrapped).decode()
        option = ("--config", str(owned.config))
        words = (*process.command().words, *option, "getkey")
        again = Answer.of(inside(*words, **request, ENC_CIPHER_KEY=wrapped)).given
        assert again.key == given.key

    def test_the_agent(
        self,
        start: Callable[..., subprocess.Popen[bytes]],
        owned: Home,  # noqa: F811
    ) -> None:
        where = owned.path / "run" / "notify"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.bind(str(where))
            where.chmod(0o666)
            manager.settimeout(60)
            option = ("--config", str(owned.config))
            agent = start(
                *process.command().words, *option, "agent", "run", NOTIFY_SOCKET=str(where)
            )
            try:
                assert b"READY=1" in manager.recv(4096).splitlines()
                given = self.ask(owned, "LABEL", b"").given
                assert self.ask(owned, "READ", given.wrapped).given.key == given.key
            finally:
                agent.terminate()
                done = process.finish(agent)
        assert (done.status, done.left) == (0, ()), done

    @staticmethod
    def ask(home: Home, operation: str, wrapped: bytes) -> Answer:
        """Ask the agent by the lean client, alone in a folder: there is nothing to fall back to."""
        client = shutil.copy(CLIENT, home.path / "run" / "hwkm-getkey")
        Path(client).chmod(0o755)
        socket_path = configuration.load(home.config).agent.socket
        request = {"OPERATION": operation, "VOLUME_NAME": "Vol-0003", "MASTER_KEYID": ""}
        started = subprocess.Popen(
            [client, "--socket", str(socket_path), "--job", "7"],
            env={**request, "ENC_CIPHER_KEY": base64.b64encode(wrapped).decode()},
            cwd="/",
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            user=home.user.uid,
            group=home.user.gid,
            extra_groups=[],
        )
        return Answer.of(process.finish(started))

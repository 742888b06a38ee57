"""``hwkm bacula setup``: what it says, what it writes, and what it tries as the daemon's user."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import hwkm
from hwkm import bacula_setup
from hwkm import config as configuration
from hwkm.agent.unit_files import DROP_IN, SERVICE, SOCKET, Service
from hwkm.bacula_config import read_configuration
from hwkm.bacula_setup import Setup
from hwkm.checks import Status
from hwkm.errors import ConfigError, PolicyError
from tests.getkey import process

if TYPE_CHECKING:
    from collections.abc import Iterator

NOT_AS_ANOTHER = process.why_not_as_another()
as_another = pytest.mark.skipif(bool(NOT_AS_ANOTHER), reason=NOT_AS_ANOTHER)
ME = process.ME.name
CLIENT = Path(hwkm.__file__).parent / "agent" / "hwkm-getkey"

CONFIG = """\
keystore = "sqlite:///{home}/keystore.db"
runtime_dir = "{home}/run"
[token.main]
uri = "pkcs11:token=x?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source={pin}"
[[policy]]
delivery = "{delivery}"
[agent]
{agent}
"""
SD_CONFIG = """\
Storage {{
  Name = sd
  Encryption Command = "{command}"
}}
Autochanger {{
  Name = library
  Device = LTO-0
  Changer Device = /dev/sg9
  Changer Command = "{changer}"
}}
Device {{
  Name = LTO-0
  Device Type = Tape
  Media Type = LTO
  Archive Device = /dev/nst0
  Volume Encryption = yes
}}
"""


@dataclass
class Place:
    """An installation, a folder of programs, and a Storage Daemon's user."""

    path: Path
    sd_user: str = ME
    agent: str = ""
    delivery: str = "software"
    pin: str = "protected"

    @property
    def hwkm(self) -> Path:
        return self.path / "bin" / "hwkm"

    @property
    def socket(self) -> Path:
        return self.path / "run" / "agent.sock"

    @property
    def config(self) -> Path:
        path = self.path / "config.toml"
        values = {"agent": self.agent, "delivery": self.delivery, "pin": self.pin}
        path.write_text(CONFIG.format(home=self.path, **values))
        return path

    def setup(self, sd_config: Path | None = None) -> Setup:
        service = Service(configuration.load(self.config), self.hwkm)
        return Setup(service, self.sd_user, sd_config)

    def storage_daemon(self, command: str, changer: str = "/x/mtx-changer %c") -> Path:
        path = self.path / "bacula-sd.conf"
        path.write_text(SD_CONFIG.format(command=command, changer=changer))
        return path

    def found(self, name: str, sd_config: Path | None = None) -> list[tuple[str, str]]:
        """Return how a check came out, and what it says with its advice."""
        checks = [check for check in self.setup(sd_config).checks() if check.name == name]
        return [(str(check.status), f"{check.detail} {check.advice}") for check in checks]

    @contextmanager
    def listening(self, mode: int = 0o660) -> Iterator[None]:
        """Have something listen where the agent would."""
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(self.socket))
            self.socket.chmod(mode)
            server.listen()
            yield
        self.socket.unlink()


@pytest.fixture
def place() -> Iterator[Place]:
    """A folder that every user can enter, unlike pytest's own."""
    folder = Path(tempfile.mkdtemp(prefix="hwkm-", dir="/var/tmp"))
    folder.chmod(0o755)
    for name in ("bin", "run"):
        (folder / name).mkdir(mode=0o755)
    hwkm = folder / "bin" / "hwkm"
    hwkm.write_text(f"#!{sys.executable}\nfrom hwkm.__main__ import main\nmain()\n")
    hwkm.chmod(0o755)
    shutil.copy(CLIENT, folder / "bin" / "hwkm-getkey")
    (folder / "bin" / "hwkm-getkey").chmod(0o755)
    yield Place(folder)
    shutil.rmtree(folder)


class TestDirective:
    def test_only_what_is_not_the_default_is_named(
        self, place: Place, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        client = place.path / "bin" / "hwkm-getkey"
        ours = f"--socket {place.socket} --config {place.path}/config.toml"
        assert place.setup().encryption_command == f"{client} {ours} --device %a --job %i"
        monkeypatch.setattr(bacula_setup, "DEFAULT_PATH", place.path / "config.toml")
        place.agent = 'socket = "/run/hwkm/agent.sock"'
        assert place.setup().encryption_command == f"{client} --device %a --job %i"

    @pytest.mark.parametrize(("more", "status"), [(0, "ok"), (1, "fail")])
    def test_what_bacula_reads_at_most(self, place: Place, more: int, status: str) -> None:
        place.agent = 'socket = "/run/hwkm/agent.sock"'
        command = place.setup().encryption_command
        place.agent = f'socket = "/{"s" * (127 - len(command) - len(" --socket /") + more)}"'
        assert len(place.setup().encryption_command) == 127 + more
        ((found, _),) = place.found("encryption-command")
        assert found == status

    def test_bacula_reads_what_was_meant(self, place: Place) -> None:
        place.agent = 'socket = "/run/50% x/agent.sock"'
        command = place.setup().encryption_command
        (storage,) = read_configuration(str(place.storage_daemon(command))).of_kind("storage")
        assert storage.get("encryptioncommand") == command
        assert " --socket '/run/50%% x/agent.sock' " in command

    @pytest.mark.parametrize("odd", ["'", '\\"', "\\\\"])
    def test_a_path_that_bacula_can_not_read(self, place: Place, odd: str) -> None:
        place.agent = f'socket = "/run/{odd}/agent.sock"'
        with pytest.raises(ConfigError, match="can't stand in Bacula's configuration"):
            _ = place.setup().encryption_command

    def test_changers_only_for_drives(self, place: Place) -> None:
        assert place.setup().changer_commands == []
        place.delivery = "drive"
        (command,) = place.setup().changer_commands
        assert command.startswith(
            f"{place.hwkm} --config {place.path}/config.toml drive changer --"
        )

    def test_the_changer_in_use_is_kept(self, place: Place) -> None:
        place.delivery = "auto"
        (command,) = place.setup(place.storage_daemon("x", "/x/my-changer %c")).changer_commands
        assert command.endswith(" drive changer -- /x/my-changer %c")
        again = place.setup(place.storage_daemon("x", command))
        assert again.changer_commands == [command]

    def test_a_changer_of_a_user_who_can_not_read_the_configuration(self, place: Place) -> None:
        """It gets the socket in its place; a wrapper that is there already is put right."""
        place.delivery, place.sd_user = "auto", "nobody"
        expected = f"{place.hwkm} drive changer --socket {place.socket} -- /x/mtx-changer %c"
        for used in (
            "/x/mtx-changer %c",
            "/old/hwkm --config /x drive changer -- /x/mtx-changer %c",
        ):
            (command,) = place.setup(place.storage_daemon("x", used)).changer_commands
            assert command == expected
        place.agent = 'socket = "/run/hwkm/agent.sock"'
        (command,) = place.setup().changer_commands
        assert command.startswith(f"{place.hwkm} drive changer -- ")

    @pytest.mark.parametrize(("more", "status"), [(0, "ok"), (1, "fail")])
    def test_what_bacula_reads_at_most_of_a_changers(
        self, place: Place, more: int, status: str
    ) -> None:
        place.delivery = "auto"
        (command,) = place.setup(place.storage_daemon("x", "/x/")).changer_commands
        used = "/x/" + "c" * (127 - len(command) + more)
        ((found, text),) = place.found("changer-command", place.storage_daemon("x", used))
        assert found == status
        assert f"{127 + more} of 127 bytes" in text


class TestChecks:
    def test_everything_is_there(self, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(bacula_setup, "DEFAULT_PATH", place.path / "config.toml")
        monkeypatch.setattr("hwkm.agent.unit_files._TEMPORARY", ())
        place.agent = f'getkey = ["{ME}"]'
        with place.listening():
            setup = place.setup(place.storage_daemon(place.setup().encryption_command))
            checks = setup.checks()
        assert [check for check in checks if check.status is Status.FAIL] == []
        names = [check.name for check in checks]
        assert {"hwkm-getkey", "socket", "allow-list", "groups", "sd-directive"} <= set(names)

    def test_no_client(self, place: Place) -> None:
        (place.path / "bin" / "hwkm-getkey").unlink()
        ((status, text),) = place.found("hwkm-getkey")
        assert (status, "is not there" in text) == ("fail", True)

    @as_another
    def test_a_client_that_can_not_be_run(self, place: Place) -> None:
        place.sd_user = "nobody"
        assert [status for status, _ in place.found("hwkm-getkey")] == ["ok"]
        (place.path / "bin").chmod(0o700)
        assert [status for status, _ in place.found("hwkm-getkey")] == ["fail"]

    def test_nobody_listens(self, place: Place) -> None:
        ((status, text),) = place.found("socket")
        assert status == "fail"
        assert "No such file or directory Start the agent" in text

    @as_another
    @pytest.mark.parametrize(("mode", "status"), [(0o660, "fail"), (0o666, "ok")])
    def test_a_socket_out_of_reach(self, place: Place, mode: int, status: str) -> None:
        place.sd_user = "nobody"
        with place.listening(mode):
            ((found, text),) = place.found("socket")
        assert found == status
        assert ("Permission denied" in text) == (status == "fail")

    @as_another
    def test_a_folder_out_of_reach(self, place: Place) -> None:
        place.sd_user = "nobody"
        (place.path / "run").chmod(0o700)
        with place.listening(0o666):
            assert [status for status, _ in place.found("socket")] == ["fail"]

    @as_another
    def test_an_interpreter_out_of_reach(self, place: Place) -> None:
        place.sd_user = "nobody"
        python = place.path / "bin" / "python3"
        python.write_text("#!/bin/sh\n")
        python.chmod(0o700)
        with place.listening(0o666):
            ((status, text),) = place.found("socket")
        assert status == "fail"
        assert f"{python} can't be run: Permission denied" in text

    def test_who_may_ask(self, place: Place) -> None:
        assert place.found("allow-list") == [("ok", f"{ME} may ask for keys ")]
        place.sd_user = "daemon"
        ((status, text),) = place.found("allow-list")
        assert status == "fail"
        assert '[agent] getkey = ["daemon"]' in text
        place.agent = 'getkey = ["@daemon"]'
        assert [status for status, _ in place.found("allow-list")] == ["ok"]

    @pytest.mark.parametrize(
        ("sd_user", "agent", "about"),
        [
            ("no-such-user", "", "there is no user no-such-user"),
            (ME, 'getkey = ["no-such-user"]', "names the unknown user"),
        ],
    )
    def test_unknown_users(self, place: Place, sd_user: str, agent: str, about: str) -> None:
        place.sd_user, place.agent = sd_user, agent
        ((status, text),) = place.found("allow-list")
        assert (status, about in text) == ("fail", True)

    def test_a_user_who_can_not_be_tried(self, place: Place) -> None:
        place.sd_user = "no-such-user"
        for name in ("hwkm-getkey", "socket"):
            assert [status for status, _ in place.found(name)] == ["warn"]

    def test_groups(self, place: Place) -> None:
        place.sd_user = "daemon"
        place.agent = 'group = "disk"'
        assert place.setup().group_commands == ["usermod -aG disk daemon"]
        ((status, text),) = place.found("groups")
        assert (status, "usermod -aG disk daemon" in text) == ("fail", True)
        place.agent = 'group = "disk"\nmode = "0666"'
        assert place.setup().group_commands == []
        place.agent = 'group = "daemon"'
        assert place.setup().group_commands == []

    def test_the_agent_reaches_drives(self, place: Place) -> None:
        place.delivery = "drive"
        assert place.setup().group_commands == [f"usermod -aG tape {ME}"]

    @pytest.mark.parametrize("pin", ["prompt", "fd:7"])
    def test_nobody_to_ask_for_the_pin(self, place: Place, pin: str) -> None:
        place.pin = pin
        assert [status for status, _ in place.found("pin")] == ["fail"]

    def test_a_credential(self, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("hwkm.agent.unit_files.CREDENTIALS", place.path)
        place.pin = "credential:hwkm-pin"
        ((status, text),) = place.found("pin")
        assert (status, f"not at {place.path}/hwkm-pin" in text) == ("fail", True)
        (place.path / "hwkm-pin").touch()
        assert place.found("pin") == []

    def test_what_the_unit_does_not_see(self, place: Place) -> None:
        assert ("fail", True) in [
            (status, str(place.path) in text) for status, text in place.found("sandbox")
        ]

    def test_another_command_is_set(self, place: Place) -> None:
        ((status, text),) = place.found("sd-directive", place.storage_daemon("/opt/x getkey"))
        assert status == "warn"
        assert place.setup().encryption_command in text

    def test_a_daemon_that_can_not_be_read(self, place: Place) -> None:
        assert [status for status, _ in place.found("sd-config", place.path / "none")] == ["fail"]

    def test_the_lean_client_is_a_key_manager(
        self, place: Place, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(bacula_setup, "DEFAULT_PATH", place.path / "config.toml")
        setup = place.setup(place.storage_daemon(place.setup().encryption_command))
        found = [check for check in setup.checks() if check.name == "sd-encryption-command"]
        assert [check.status for check in found] == [Status.OK]


class TestWrite:
    def test_into_a_new_folder(self, tmp_path: Path) -> None:
        files = {"a.service": "a\n", "b.d/c.conf": "ü\n"}
        folder = tmp_path / "new"
        done = bacula_setup.write(files, folder, force=False)
        assert done == dict.fromkeys(files, "written")
        assert {name: (folder / name).read_text() for name in files} == files
        assert (folder / "a.service").stat().st_mode & 0o777 == 0o644
        again = bacula_setup.write(files, folder, force=False)
        assert again == dict.fromkeys(files, "unchanged")

    def test_nothing_that_differs_is_overwritten(self, tmp_path: Path) -> None:
        (tmp_path / "b").write_text("mine\n")
        with pytest.raises(PolicyError, match="b is there and differs; nothing was written"):
            bacula_setup.write({"a": "a\n", "b": "b\n"}, tmp_path, force=False)
        assert [path.name for path in tmp_path.iterdir()] == ["b"]
        assert (tmp_path / "b").read_text() == "mine\n"

    def test_but_with_force(self, tmp_path: Path) -> None:
        (tmp_path / "b").write_text("mine\n")
        assert bacula_setup.write({"b": "b\n"}, tmp_path, force=True) == {"b": "written"}
        assert [path.name for path in tmp_path.iterdir()] == ["b"]
        assert (tmp_path / "b").read_text() == "b\n"


class TestCommand:
    """The whole command, by the name that people call it by."""

    @staticmethod
    def run(place: Place, *words: str) -> process.Run:
        command = [str(place.hwkm), "--config", str(place.config), "bacula", "setup", *words]
        env = {"PATH": os.defpath, "PYTHONPATH": str(process.PROJECT), "LC_ALL": "C.UTF-8"}
        done = subprocess.run(command, capture_output=True, check=False, env=env, timeout=60)
        return process.Run(done.stdout, done.stderr, done.returncode, 0, ())

    def test_shown(self, place: Place) -> None:
        done = self.run(place, "--sd-user", ME)
        out = done.out.decode()
        assert done.status == 1, done  # nobody listens, and this is in a temporary folder
        assert f'Encryption Command = "{place.setup().encryption_command}"' in out
        assert all(f"# --- /etc/systemd/system/{name} ---" in out for name in (SERVICE, SOCKET))
        assert f"ExecStart={place.hwkm} --config" in out
        assert f"fail socket: user {ME} does not reach" in out

    def test_json(self, place: Place) -> None:
        with place.listening():
            done = self.run(place, "--sd-user", ME, "--json")
        document: dict[str, Any] = json.loads(done.out)
        assert document["encryption_command"] == place.setup().encryption_command
        assert document["changer_commands"] == document["groups"] == []
        assert document["written"] == {}
        assert document["files"] == place.setup().files()
        statuses = {check["name"]: check["status"] for check in document["checks"]}
        assert statuses["socket"] == statuses["hwkm-getkey"] == "ok"
        assert document["ok"] == all(check["ok"] for check in document["checks"])
        assert done.status == (0 if document["ok"] else 1)

    def test_written(self, place: Place) -> None:
        folder = place.path / "units"
        done = self.run(place, "--sd-user", ME, "--write", str(folder))
        assert f"written: {folder}/{DROP_IN}" in done.out.decode()
        assert (folder / SERVICE).read_text() == place.setup().files()[SERVICE]
        assert b"ExecStart" not in done.out
        (folder / SERVICE).write_text("mine")
        refused = self.run(place, "--sd-user", ME, "--write", str(folder))
        assert refused.status == 7
        assert b"--force overwrites it" in refused.err
        self.run(place, "--sd-user", ME, "--write", str(folder), "--force")
        assert (folder / SERVICE).read_text() == place.setup().files()[SERVICE]

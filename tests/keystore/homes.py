"""Installations to test on, each with a SoftHSM, a configuration and a keystore of its own."""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hwkm import config as configuration
from hwkm.envelope import Envelope
from hwkm.installation import Installation
from hwkm.keystore import migrate
from hwkm.keystore.engine import Keystore
from hwkm.manager import Caller, KeyManager
from hwkm.token.pin import PinReader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from hwkm.config import Config
    from hwkm.manager import Handout
    from hwkm.tokens import Tokens

ROOT = Path(__file__).parents[2]
HWKM = (sys.executable, "-m", "hwkm")
OBEYING_MODES: tuple[str, ...] = (
    ("setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all", "--")
    if os.geteuid() == 0
    else ()
)
"""Runs a command as this user, but without root's right to ignore the modes of files."""
CALLER = Caller("tester", "7")
COMMAND_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Answer:
    """What the Encryption Command said, one field a line."""

    fields: dict[str, str]

    @classmethod
    def parse(cls, output: bytes) -> Answer:
        lines = output.decode().splitlines()
        return cls(dict(line.split(": ", 1) for line in lines))

    @property
    def error(self) -> str:
        return self.fields.get("error", "")

    @property
    def has_key(self) -> bool:
        return "cipher_key" in self.fields

    @property
    def key(self) -> bytes:
        return base64.b64decode(self.fields["cipher_key"])

    @property
    def label(self) -> bytes:
        """The envelope, as it goes into the volume's label."""
        return base64.b64decode(self.fields["enc_cipher_key"])

    @property
    def envelope(self) -> Envelope:
        return Envelope.parse(self.label)

    @property
    def generation(self) -> int:
        return self.envelope.header.generation

    @property
    def key_id(self) -> bytes:
        return self.envelope.header.key_id


@dataclass(frozen=True, slots=True)
class Home:
    """An installation in ``folder``, as ``hwkm init`` makes it."""

    folder: Path

    @property
    def config_path(self) -> Path:
        return self.folder / "config.toml"

    @property
    def database(self) -> Path:
        """The keystore's file, as long as it is a SQLite one."""
        return self.folder / "keystore.db"

    @property
    def log(self) -> Path:
        return self.folder / "hwkm.log"

    def config(self) -> Config:
        return configuration.load(self.config_path)

    def edit(self, old: str, new: str) -> None:
        """Replace ``old`` in the configuration; it must be there."""
        text = self.config_path.read_text()
        assert old in text
        self.config_path.write_text(text.replace(old, new))

    def use_keystore(self, url: str) -> None:
        self.edit(f'keystore = "{self.config().keystore}"', f'keystore = "{url}"')

    def installation(self) -> Installation:
        return Installation(self.config(), PinReader())

    def keystore(self) -> Keystore:
        config = self.config()
        return Keystore.open(config.keystore, config.installation)

    @contextmanager
    def manager(self, clock: Callable[[], float] = time.time) -> Iterator[KeyManager]:
        """Yield a key manager in this process; leaving the block unloads SoftHSM again."""
        with self.tokens() as tokens:
            site = self.installation()
            yield KeyManager(site.config, tokens, site.keystore(), clock=clock)

    @contextmanager
    def tokens(self) -> Iterator[Tokens]:
        with self.installation().tokens() as tokens:
            yield tokens

    def label(self, volume: str) -> Handout:
        with self.manager() as manager:
            return manager.label(volume, CALLER)

    def read(self, volume: str, label: bytes | None = None) -> Handout:
        with self.manager() as manager:
            return manager.read(volume, label, CALLER)

    # the real command

    def hwkm(self, *arguments: str, prefix: tuple[str, ...] = ()) -> tuple[int, str]:
        """Run ``hwkm``; return its exit status, and what it printed."""
        done = subprocess.run(
            [*prefix, *HWKM, "--config", str(self.config_path), *arguments],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=COMMAND_SECONDS,
            check=False,
            text=True,
        )
        return done.returncode, done.stdout

    def start(
        self, operation: str, volume: str, label: bytes = b"", prefix: tuple[str, ...] = ()
    ) -> subprocess.Popen[bytes]:
        """Start the Encryption Command as the leader of its own process group."""
        return subprocess.Popen(
            [*prefix, *HWKM, "--config", str(self.config_path), "getkey"],
            cwd=ROOT,
            env={**os.environ, **request(operation, volume, label)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )

    def ask(
        self, operation: str, volume: str, label: bytes = b"", prefix: tuple[str, ...] = ()
    ) -> Answer:
        """Run the Encryption Command and return its answer."""
        output, _ = self.start(operation, volume, label, prefix).communicate(
            timeout=COMMAND_SECONDS
        )
        return Answer.parse(output)


def request(operation: str, volume: str, label: bytes = b"") -> dict[str, str]:
    """Return what Bacula puts into the environment of its Encryption Command."""
    wrapped = base64.b64encode(label).decode()
    return {"OPERATION": operation, "VOLUME_NAME": volume, "ENC_CIPHER_KEY": wrapped}


def initialize(folder: Path) -> Home:
    """Make an installation with the real command; its log is a file in it."""
    home = Home(folder)
    subprocess.run([*HWKM, "init", "--home", str(folder), "--softhsm"], cwd=ROOT, check=True)
    home.edit('log = "syslog"', f'log = "{home.log}"')
    return home


def copy(home: Home, folder: Path) -> Home:
    """Copy an installation; the copy knows nothing of the original's folder."""
    shutil.copytree(home.folder, folder)
    for name in ("config.toml", "softhsm2.conf"):
        path = folder / name
        path.write_text(path.read_text().replace(str(home.folder), str(folder)))
    return Home(folder)


def move_to(home: Home, url: str) -> None:
    """Give a home without volumes the keystore ``url``, with the same master keys."""
    with home.keystore().reading() as transaction:
        masters = transaction.masters()
    keystore = migrate.create(url, home.config().installation, now=1, who="tester")
    with keystore.writing() as transaction:
        for master in masters:
            transaction.add_master(master)
    home.use_keystore(url)

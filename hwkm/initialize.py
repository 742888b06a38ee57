"""``hwkm init``: a complete private installation in one folder, without questions.

The mark of an unfinished installation becomes ``config.toml`` in the last step. A folder with the
mark holds nothing that anyone was given, and is made anew by the next run.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from typing import TYPE_CHECKING

from hwkm import config as configuration
from hwkm.errors import ConfigError, PolicyError
from hwkm.installation import Installation
from hwkm.keystore import migrate
from hwkm.provision import Provisioner
from hwkm.token import softhsm
from hwkm.token.change_pin import generate_pin
from hwkm.token.pin import PinReader, write_pin

if TYPE_CHECKING:
    from pathlib import Path

    from hwkm.envelope import Scheme
    from hwkm.keystore.records import MasterKey
    from hwkm.manager import Caller
    from hwkm.token.module import TokenInfo

TOKEN_NAME = "main"
TOKEN_LABEL = "hwkm"
_UNFINISHED = ".unfinished"
_ODD = re.compile(r"[^A-Za-z0-9/._+@~-]")
_OURS = ("tokens", "run", "softhsm2.conf", "user-pin", "so-pin", "keystore.db")

_CONFIG = """\
# hwkm's configuration; docs/configuration.md explains every key.
installation = "{installation}"
keystore = "sqlite:///{home}/keystore.db"
runtime_dir = "{home}/run"
log = "syslog"

[token.{name}]
uri = "pkcs11:token={label};serial={serial}?module-path={module}&pin-source=file:{home}/user-pin"
environment = {{ SOFTHSM2_CONF = "{home}/softhsm2.conf" }}

# The first rule whose pattern matches the whole name of a volume decides.
[[policy]]
volumes = ".*"
cipher = "AES_256_XTS"
delivery = "software"
recipients = ["{name}"]
"""


def initialize(home: Path, scheme: Scheme | None, caller: Caller) -> MasterKey:
    """Make an installation with SoftHSM in ``home`` (absolute), and return its master key.

    :raises ConfigError: if the path of ``home`` can't be written into every file that names it.
    :raises PolicyError: if ``home`` holds an installation already, or files that are not ours.
    :raises TokenError, KeystoreError: if a part can't be made; running it again starts anew.
    """
    _refuse_odd_path(home)
    _prepare(home)
    info = _make_token(home)
    text = _CONFIG.format(
        installation=migrate.new_installation(),
        home=home,
        name=TOKEN_NAME,
        label=TOKEN_LABEL,
        serial=info.serial,
        module=softhsm.module_path(),
    )
    path = home / "config.toml"
    made = _make_master(configuration.parse(text, path), scheme, caller)
    _finish(home / _UNFINISHED, text, path)
    return made


def _refuse_odd_path(home: Path) -> None:
    # It stands in TOML strings, in PKCS#11 and database URLs, and in SoftHSM's configuration.
    if odd := _ODD.search(str(home)):
        raise ConfigError(
            f"the folder's path holds the character {odd[0]!r}",
            hint="Choose a path of letters, digits and . _ - + @ ~ only",
        )


def _prepare(home: Path) -> None:
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    if (home / "config.toml").exists():
        raise PolicyError(
            f"{home} already holds an installation",
            hint="Use it with --config, or choose another folder; nothing was changed",
        )
    if not (home / _UNFINISHED).exists() and any(home.iterdir()):
        raise PolicyError(f"{home} is not empty", hint="Choose a new folder; nothing was changed")
    (home / _UNFINISHED).touch(mode=0o600)
    for name in _OURS:
        _remove(home / name)
    for name in ("keystore.db-wal", "keystore.db-shm"):
        _remove(home / name)
    (home / "run").mkdir(mode=0o700)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _make_token(home: Path) -> TokenInfo:
    pins = {}
    for name in ("so-pin", "user-pin"):
        pins[name] = generate_pin()
        write_pin(home / name, pins[name])
    return softhsm.create(home, TOKEN_LABEL, pins["so-pin"], pins["user-pin"])


def _make_master(config: configuration.Config, scheme: Scheme | None, caller: Caller) -> MasterKey:
    now = int(time.time())
    keystore = migrate.create(config.keystore, config.installation, now=now, who=caller.who)
    with Installation(config, PinReader()).tokens(writable=True) as tokens:
        return Provisioner(keystore, tokens.session(), caller, now).create(scheme)


def _finish(unfinished: Path, text: str, config: Path) -> None:
    """Turn the mark of an unfinished installation into the configuration, in one step."""
    with unfinished.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(config)
    folder = os.open(config.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)

"""The files of a SoftHSM in the backup of the keystore, for whoever wants both in one file.

They hold the master key, behind the token's PIN: who has such a backup and the PIN has everything.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from hwkm import kept
from hwkm.errors import ConfigError, KeystoreError, TokenError
from hwkm.keystore import backup, workplace
from hwkm.keystore.backup import Attached
from hwkm.keystore.engine import Keystore
from hwkm.keystore.records import Operation
from hwkm.token import lock

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from hwkm.config import Config
    from hwkm.keystore.backup import Manifest
    from hwkm.token.settings import TokenSettings

CONFIGURATION = "SOFTHSM2_CONF"
MOST_BYTES = 2**26
"""More than thousands of objects take."""
_FOLDER_KEY = "directories.tokendir"


def softhsms(config: Config) -> list[TokenSettings]:
    """Return the tokens that are a SoftHSM with a configuration of their own.

    :raises ConfigError: if there is none.
    """
    found = [token for token in config.tokens if CONFIGURATION in token.environment]
    if not found:
        raise ConfigError(
            f"no token is a SoftHSM with {CONFIGURATION} in its environment",
            hint="Others are backed up in their maker's way: docs/tokens.md",
        )
    return found


def make_backup(
    config: Config, path: Path, seconds: float, *, now: int, who: str
) -> tuple[Manifest, list[str]]:
    """Back up the keystore with all SoftHSMs; return what is in it, and the tokens' names.

    That tokens were copied is noted, unless a master key was made since. ``seconds`` is how long to
    wait for other processes that use a token.

    :raises ConfigError: if no token is a SoftHSM.
    :raises HwkmError: as :func:`collect` and :func:`hwkm.keystore.backup.make` do.
    """
    tokens = softhsms(config)
    keystore = Keystore.open(config.keystore, config.installation)
    with lock.held(config.runtime_dir, seconds):
        files = collect(tokens)
        with keystore.reading() as transaction:
            before = transaction.last_event(Operation.MASTER_CREATE)
    url, installation = config.keystore, config.installation
    manifest = backup.make(url, installation, path, now=now, who=who, attached=files)
    with keystore.writing() as transaction:
        if transaction.last_event(Operation.MASTER_CREATE) == before:
            for token in tokens:
                kept.tick(transaction, kept.Item.TOKEN, token, now, who)
    return manifest, [token.name for token in tokens]


def collect(tokens: Sequence[TokenSettings]) -> list[Attached]:
    """Read the files of SoftHSMs; the tokens' lock must be held.

    :raises TokenError: if they can't be read, or somebody changes them all the same.
    """
    first, second = (_read_all(tokens) for _ in range(2))
    if first != second:
        raise TokenError(
            "somebody changes the token's files",
            hint="No other program may use the token during a backup with it",
        )
    return first


def refuse_used(folder: Path) -> None:
    """Refuse a folder for :func:`unpack` that is there.

    :raises KeystoreError: if it is.
    """
    if os.path.lexists(folder):
        raise workplace.exists(folder)


def unpack(files: Iterable[Attached], folder: Path) -> None:
    """Write the files of tokens into a new folder, each token's into one of its name.

    :raises KeystoreError: if the folder is there, or can't be made, or there are no files; then
        there is nothing.
    """
    refuse_used(folder)
    with workplace.private(folder.parent) as scratch:
        made = scratch / "tokens"
        made.mkdir(mode=0o700)
        try:
            for file in files:
                _write(made / _safe(file.name), file.content)
            if not any(made.iterdir()):
                raise KeystoreError("the backup was made without --with-token: no token is in it")
            made.rename(folder)
            workplace.sync(folder.parent)
        except OSError as error:
            raise KeystoreError(f"{folder} can't be written: {error.strerror}") from error


def _read_all(tokens: Sequence[TokenSettings]) -> list[Attached]:
    found: list[Attached] = []
    try:
        for token in tokens:
            configuration = Path(token.environment[CONFIGURATION])
            text = configuration.read_bytes()
            found.append(Attached(f"{token.name}/softhsm2.conf", text))
            found += _read_folder(_folder(text, configuration), f"{token.name}/tokens")
    except OSError as error:
        raise TokenError(f"{error.filename} can't be read: {error.strerror}") from error
    if sum(len(file.content) for file in found) > MOST_BYTES:
        raise TokenError(f"the token's files have more than {MOST_BYTES:,} bytes")
    return found


def _read_folder(folder: Path, name: str) -> Iterator[Attached]:
    for path in sorted(folder.rglob("*")):
        mode = path.lstat().st_mode
        if stat.S_ISREG(mode):
            yield Attached(f"{name}/{path.relative_to(folder)}", path.read_bytes())
        elif not stat.S_ISDIR(mode):
            raise TokenError(f"{path} in the token's folder is neither file nor folder")


def _folder(text: bytes, path: Path) -> Path:
    for line in text.decode(errors="replace").splitlines():
        key, _, value = line.partition("=")
        if key.strip() == _FOLDER_KEY:
            return Path(value.strip())
    raise TokenError(f"{path} does not say {_FOLDER_KEY}")


def _safe(name: str) -> PurePosixPath:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts or "\0" in name:
        raise KeystoreError(f"the backup names a file that leads elsewhere: {name!r}")
    return path


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as file:  # noqa: PTH123  # a descriptor
        file.write(content)
        file.flush()
        os.fsync(descriptor)

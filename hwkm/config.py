"""The configuration file: read once, checked whole, then frozen."""

from __future__ import annotations

import os
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec

from hwkm.errors import ConfigError
from hwkm.keys import Cipher
from hwkm.log import SYSLOG
from hwkm.policy import Delivery, Policy, Rule, check_recipients, compile_pattern
from hwkm.token.pin_source import PinSource
from hwkm.token.settings import TokenSettings, locate_module
from hwkm.token.uri import TokenUri

if TYPE_CHECKING:
    from collections.abc import Iterator

DEFAULT_PATH = Path("/etc/hwkm/config.toml")
MAX_SOCKET_PATH = 107
"""What struct sockaddr_un holds beside its last byte."""


class _Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A table of the file, in which every unknown key is an error."""


class _Token(_Table, frozen=True):
    uri: str
    environment: dict[str, str] = {}


class _Policy(_Table, frozen=True):
    volumes: str = ".*"
    cipher: Literal["AES_128_XTS", "AES_256_XTS"] = "AES_256_XTS"
    delivery: Literal["software", "drive", "auto"] = "software"
    recipients: list[str] | None = None


class _Agent(_Table, frozen=True):
    socket: str = ""
    mode: str = "0660"
    group: str | None = None
    getkey: list[str] | None = None
    admin: list[str] | None = None
    metrics: str = ""
    log_format: Literal["text", "json"] = "text"
    drives: list[str] | None = None


class _File(_Table, frozen=True):
    keystore: str
    runtime_dir: str
    token: dict[str, _Token]
    installation: str = ""
    log: str = SYSLOG
    backup_days: int = 7
    escrow_key: str = ""
    policy: list[_Policy] = msgspec.field(default_factory=lambda: [_Policy()])
    agent: _Agent = _Agent()


@dataclass(frozen=True, slots=True)
class AgentSettings:
    """Where the agent listens, for whom, and where it leaves its figures.

    ``getkey`` and ``admin`` name users and, after an ``@``, groups; without any, they mean root and
    the owner of the runtime directory. ``group`` None leaves the socket to the agent's own.
    ``log_format`` is ``json`` if its log's lines are to have fields. ``drives`` are looked at when
    it starts; None means all of the machine's.
    """

    socket: Path
    mode: int
    group: str | None
    getkey: tuple[str, ...]
    admin: tuple[str, ...]
    metrics: str
    log_format: str = "text"
    drives: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Config:
    """The whole configuration.

    ``keystore`` is a SQLAlchemy URL; if ``installation`` is given, the keystore must carry the
    same. ``runtime_dir`` holds locks and remembered wrong PINs; its owner is the user that hwkm
    runs as. ``log`` is ``syslog`` or a file. After ``backup_days`` a backup of the keystore is old.
    ``escrow_key`` is the id of the only escrow key that may be used, and then must be.
    """

    path: Path
    keystore: str
    installation: str
    runtime_dir: Path
    log: str
    tokens: tuple[TokenSettings, ...]
    policy: Policy
    agent: AgentSettings
    backup_days: int = 7
    escrow_key: bytes | None = None

    def token(self, name: str | None) -> TokenSettings:
        """Return the token called ``name``, or the only one if ``name`` is None.

        :raises ConfigError: if there is no such token, or several and no name.
        """
        found = [token for token in self.tokens if name in (None, token.name)]
        if len(found) == 1:
            return found[0]
        names = ", ".join(token.name for token in self.tokens)
        what = f"there is no token {name!r}" if name else "there are several tokens"
        raise ConfigError(f"{what} in {self.path}", hint=f"Choose one of: {names}")


def load(path: Path) -> Config:
    """Read the configuration file at ``path``.

    :raises ConfigError: if it can't be read, or anything in it is wrong; the text names the line
        where that is known.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        hint = "Name it with --config FILE or HWKM_CONFIG, or make one with hwkm init"
        if isinstance(error, PermissionError):
            hint = "It and its folder must be open to the user that hwkm runs as"
        raise ConfigError(f"the configuration {path} can't be read: {why}", hint=hint) from error
    return parse(text, path)


def parse(text: str, path: Path) -> Config:
    """Return the configuration that ``text``, read from ``path``, stands for.

    :raises ConfigError: as :func:`load` does.
    """
    try:
        file = msgspec.convert(tomllib.loads(text), _File)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error
    except msgspec.ValidationError as error:
        raise ConfigError(f"{path}{_line_of(str(error), text)}: {_in_words(str(error))}") from error
    try:
        return _checked(file, path)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}", hint=error.hint) from error


def _checked(file: _File, path: Path) -> Config:
    if file.log != SYSLOG and not Path(file.log).is_absolute():
        raise ConfigError(f"log = {file.log!r} is neither 'syslog' nor an absolute path")
    if not Path(file.runtime_dir).is_absolute():
        raise ConfigError(f"runtime_dir = {file.runtime_dir!r} is not an absolute path")
    if file.backup_days < 1:
        raise ConfigError(f"backup_days = {file.backup_days} is less than one day")
    tokens = tuple(_token(name, token) for name, token in file.token.items())
    names = [token.name for token in tokens]
    rules = tuple(_rule(rule, names) for rule in file.policy)
    check_recipients(rules, names)
    runtime_dir = Path(file.runtime_dir)
    return Config(
        path=path,
        keystore=file.keystore,
        installation=file.installation,
        runtime_dir=runtime_dir,
        log=file.log,
        tokens=tokens,
        policy=Policy(rules),
        agent=_agent(file.agent, runtime_dir),
        backup_days=file.backup_days,
        escrow_key=_escrow_key(file.escrow_key),
    )


def _token(name: str, token: _Token) -> TokenSettings:
    uri = TokenUri.parse(token.uri)
    PinSource.parse(uri.pin_source)  # a bad one is an error now, not at the first mount
    return TokenSettings(name, uri, locate_module(uri), token.environment)


def _rule(rule: _Policy, tokens: list[str]) -> Rule:
    return Rule(
        volumes=compile_pattern(rule.volumes),
        cipher=Cipher[rule.cipher],
        delivery=None if rule.delivery == "auto" else Delivery(rule.delivery),
        recipients=tuple(tokens if rule.recipients is None else rule.recipients),
    )


def _escrow_key(text: str) -> bytes | None:
    if not text:
        return None
    if not re.fullmatch("[0-9a-f]{64}", text):
        raise ConfigError(
            f"escrow_key = {text!r} is not the id of an escrow key",
            hint="It has 64 hex digits: hwkm escrow list shows it",
        )
    return bytes.fromhex(text)


def _agent(agent: _Agent, runtime_dir: Path) -> AgentSettings:
    socket = Path(agent.socket) if agent.socket else runtime_dir / "agent.sock"
    if not socket.is_absolute():
        raise ConfigError(f"agent.socket = {agent.socket!r} is not an absolute path")
    if len(os.fsencode(socket)) > MAX_SOCKET_PATH:
        raise ConfigError(
            f"the agent's socket {str(socket)!r} has a path of more than {MAX_SOCKET_PATH} bytes",
            hint="Give it a shorter one: socket, in [agent]",
        )
    return AgentSettings(
        socket=socket,
        mode=_mode(agent.mode),
        group=agent.group,
        getkey=_peers("getkey", agent.getkey),
        admin=_peers("admin", agent.admin),
        metrics=_metrics(agent.metrics),
        log_format=agent.log_format,
        drives=None if agent.drives is None else tuple(agent.drives),
    )


def _mode(text: str) -> int:
    if not re.fullmatch("0?[0-7]{3}", text) or int(text, 8) & 0o600 != 0o600:
        raise ConfigError(
            f"agent.mode = {text!r} is no mode for a socket", hint='Like "0660"; its owner has 6'
        )
    return int(text, 8)


def _peers(key: str, names: list[str] | None) -> tuple[str, ...]:
    if names is None:
        return ()
    if not names or not all(name.removeprefix("@") for name in names):
        raise ConfigError(
            f"agent.{key} = {names!r} does not say who may",
            hint='Name users, or groups like "@tape"; without this key it is root and the owner '
            "of runtime_dir",
        )
    return tuple(names)


def _metrics(text: str) -> str:
    place = text.removeprefix("unix:")
    is_path = place.startswith("/") and (place != text or text.endswith(".prom"))
    # Figures about keys are nobody else's business: no address but this machine's own.
    local = re.fullmatch(r"http://(127\.0\.0\.1|\[::1\]|localhost):([1-9][0-9]{0,4})", text)
    if text and not is_path and not (local and int(local[2]) < 2**16):
        raise ConfigError(
            f"agent.metrics = {text!r} is not understood",
            hint="Use /path/of/a/file.prom, unix:/path or http://127.0.0.1:PORT",
        )
    return text


_WORDS = {
    "Object contains unknown field": "unknown key",
    "Object missing required field": "missing key",
    "Invalid enum value": "unknown value",
    "Expected": "expected",
}


def _in_words(message: str) -> str:
    """Return msgspec's message in the words of a configuration file, without its JSON path."""
    place = re.search(r" - at `\$\.?([^`]*)`", message)
    text = message[: place.start()] if place else message
    for theirs, ours in _WORDS.items():
        text = text.replace(theirs, ours)
    return f"{text} in {place[1]}" if place else text


def _line_of(message: str, text: str) -> str:
    """Return ``", line N"`` for the place that msgspec's message names, if it can be found."""
    unknown = re.search(r"unknown field `([^`]+)`", message)
    where = re.search(r" - at `\$\.?([^`]*)`", message)
    path = re.findall(r"\.\.\.|[^.\[\]]+", where[1] if where else "")
    if unknown:
        path.append(unknown[1])
    for number, place in _places(text):
        if path and _same(place[: len(path)], path):
            return f", line {number}"
    return ""


def _same(place: list[str], path: list[str]) -> bool:
    # msgspec writes [...] for any key of a dictionary.
    pairs = zip(place, path, strict=False)
    return len(place) == len(path) and all(wanted in (key, "...") for key, wanted in pairs)


def _places(text: str) -> Iterator[tuple[int, list[str]]]:
    """Yield each line's number with the path of the key or table that it opens."""
    table: list[str] = []
    counts: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if header := re.match(r"\s*(\[\[?)\s*([^\]]+?)\s*\]", line):
            table = [part.strip(" \"'") for part in header[2].split(".")]
            if header[1] == "[[":
                counts[header[2]] = counts.get(header[2], -1) + 1
                table.append(str(counts[header[2]]))
            yield number, table
        elif key := re.match(r"\s*[\"']?([\w-]+)[\"']?\s*=", line):
            yield number, [*table, key[1]]

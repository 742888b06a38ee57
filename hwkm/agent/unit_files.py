"""The agent's units for systemd, with the paths and users of one installation.

The templates are in ``units/``; what they hold is one installation's answer to systemd.exec(5).
"""

from __future__ import annotations

import grp
import pwd
import re
import sys
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Final

from hwkm.config import DEFAULT_PATH
from hwkm.errors import ConfigError
from hwkm.keystore import sqlite
from hwkm.keystore.engine import parse_url
from hwkm.log import SYSLOG
from hwkm.token.pin_source import PinKind, PinSource

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from hwkm.config import Config

SERVICE: Final = "hwkm-agent.service"
SOCKET: Final = "hwkm-agent.socket"
DROP_IN: Final = "bacula-sd.service.d/hwkm.conf"

DRIVE_GROUP: Final = "tape"
"""Group of the nodes of tape drives, as udev makes them."""

CREDENTIALS: Final = Path("/etc/credstore")
ENCRYPTED_CREDENTIALS: Final = Path("/etc/credstore.encrypted")
"""Where systemd looks for what it hands to services, as in systemd.exec(5)."""

_RUN: Final = Path("/run")
_HOMES: Final = (Path("/home"), Path("/root"), Path("/run/user"))
_TEMPORARY: Final = (Path("/tmp"), Path("/var/tmp"))  # noqa: S108  # only looked for


@dataclass(frozen=True, slots=True)
class Service:
    """The agent of one installation as a service. ``hwkm`` is the program, by its full path.

    It runs as the owner of the runtime directory.
    """

    config: Config
    hwkm: Path

    @property
    def account(self) -> pwd.struct_passwd:
        """The user that the agent runs as.

        :raises ConfigError: if there is no such user, or no runtime directory.
        """
        folder = self.config.runtime_dir
        try:
            return pwd.getpwuid(folder.stat().st_uid)
        except OSError as error:
            raise ConfigError(
                f"the runtime directory {folder} can't be used: {error.strerror}",
                hint="Make it, and give it to the user that hwkm runs as",
            ) from error
        except KeyError:
            raise ConfigError(f"the owner of {folder} is no user of this machine") from None

    @property
    def group(self) -> str:
        """The agent's own group."""
        return _group_name(self.account.pw_gid)

    @property
    def socket_group(self) -> str:
        """The group that may use the socket, as far as its mode allows that."""
        return self.config.agent.group or self.group

    @property
    def command(self) -> list[str]:
        """How the agent is started."""
        path = self.config.path
        option = [] if path == DEFAULT_PATH else ["--config", str(path)]
        return [str(self.hwkm), *option, "agent", "run"]

    @property
    def supplementary_groups(self) -> list[str]:
        """Groups beside the agent's own: of tape drives, and the one it gives its socket to."""
        wanted = {self.socket_group} | ({DRIVE_GROUP} if self.config.policy.uses_drives else set())
        return sorted(wanted - {self.group})

    @property
    def writable(self) -> list[Path]:
        """Folders that the agent writes into."""
        config = self.config
        files = [config.agent.socket, *_keystore_files(config), *_metrics_files(config)]
        if config.log != SYSLOG:
            files.append(Path(config.log))
        return _outermost({config.runtime_dir, *(file.parent for file in files)})

    @property
    def runtime_directories(self) -> list[Path]:
        """Those of the writable folders that systemd makes at every start, since /run is new."""
        return [path for path in self.writable if path.parent == _RUN]

    @property
    def read_only(self) -> list[Path]:
        """What the agent must not change, though it lies in a folder that it writes into."""
        return sorted({self.config.path, *self._token_files(), *self.pin_files})

    def _token_files(self) -> Iterator[Path]:
        for token in self.config.tokens:
            if conf := token.environment.get("SOFTHSM2_CONF"):
                yield Path(conf)
                yield from _softhsm_folder(Path(conf))

    @property
    def inaccessible(self) -> list[Path]:
        """What the agent must not even read: the PINs of the tokens' security officers."""
        files = (path.parent / "so-pin" for path in (*self._token_files(), *self.pin_files))
        return sorted({path for path in files if path.exists()})

    @property
    def pin_sources(self) -> list[PinSource]:
        """Where the tokens' PINs come from."""
        return [PinSource.parse(token.uri.pin_source) for token in self.config.tokens]

    @property
    def pin_files(self) -> list[Path]:
        """Files that hold PINs, by the configuration."""
        return [Path(source.name) for source in self.pin_sources if source.kind is PinKind.FILE]

    @property
    def credentials(self) -> dict[str, Path]:
        """What systemd hands to the agent, and from which files."""
        kind = PinKind.CREDENTIAL
        names = sorted({source.name for source in self.pin_sources if source.kind is kind})
        return {name: _stored_credential(name) for name in names}

    @property
    def uses_network(self) -> bool:
        """Whether the agent talks to anything over a network, were it this machine's own."""
        url = parse_url(self.config.keystore)
        local = sqlite.is_sqlite(url) or (url.host or "/").startswith("/")
        return not local or self.config.agent.metrics.startswith("http:")

    @property
    def paths(self) -> list[Path]:
        """Everything that the agent must find, as far as the configuration tells."""
        modules = (Path(token.module_path) for token in self.config.tokens)
        interpreter = (Path(sys.prefix), Path(sys.base_prefix))
        return sorted({self.hwkm, *interpreter, *modules, *self.writable, *self.read_only})

    @property
    def in_homes(self) -> list[Path]:
        """Those that ProtectHome=yes would hide."""
        return [path for path in self.paths if _is_below(path, _HOMES)]

    @property
    def in_temporary(self) -> list[Path]:
        """Those that PrivateTmp=yes hides."""
        return [path for path in self.paths if _is_below(path, _TEMPORARY)]


def unit_files(service: Service) -> dict[str, str]:
    """Return the text of each file, by its name below a folder of units.

    :raises ConfigError: if the agent's user is unknown, or a path can't stand in a unit.
    """
    mounts = _words({service.config.path.parent, *service.writable})
    socket = service.config.agent.socket
    return {
        SERVICE: _filled(SERVICE, {"mounts": mounts, **_service_values(service)}),
        SOCKET: _filled(
            SOCKET,
            {
                "mounts": _words([socket.parent]),
                "socket": _specifiers(str(socket)),
                "user": service.account.pw_name,
                "group": service.socket_group,
                "mode": f"{service.config.agent.mode:04o}",
            },
        ),
        DROP_IN: _template(DROP_IN),
    }


def _service_values(service: Service) -> dict[str, str]:
    made = service.runtime_directories
    others = [path for path in service.writable if path not in made]
    groups = service.supplementary_groups
    drives = service.config.policy.uses_drives
    return {
        "command": _command(service.command),
        "user": service.account.pw_name,
        "group": service.group,
        "supplementary_groups": _line("SupplementaryGroups", " ".join(groups)),
        "credentials": "\n".join(_credential_lines(service.credentials)),
        "runtime_directories": "\n".join(_runtime_lines(made)),
        "writable": _line("ReadWritePaths", _words(others)),
        "read_only": _words(service.read_only, "-"),
        "inaccessible": _line("InaccessiblePaths", _words(service.inaccessible, "-")),
        "protect_home": "read-only" if service.in_homes else "yes",
        "devices": _line("DeviceAllow", "char-sg rw" if drives else ""),
        "network": "\n".join(_network_lines(service)),
    }


def _credential_lines(credentials: dict[str, Path]) -> Iterator[str]:
    for name, path in credentials.items():
        encrypted = path.is_relative_to(ENCRYPTED_CREDENTIALS)
        setting = "LoadCredentialEncrypted" if encrypted else "LoadCredential"
        yield f"{setting}={_specifiers(name)}:{_specifiers(str(path))}"


def _runtime_lines(folders: list[Path]) -> Iterator[str]:
    if not folders:
        return
    modes = {folder.stat().st_mode & 0o777 for folder in folders if folder.exists()}
    yield f"RuntimeDirectory={' '.join(_specifiers(folder.name) for folder in folders)}"
    yield f"RuntimeDirectoryMode={max(modes, default=0o755):04o}"
    # The remembered wrong PINs must outlive the process that met them.
    yield "RuntimeDirectoryPreserve=yes"


def _network_lines(service: Service) -> Iterator[str]:
    if not service.uses_network:
        yield from ("RestrictAddressFamilies=AF_UNIX", "PrivateNetwork=yes", "IPAddressDeny=any")
        return
    yield "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6"
    if sqlite.is_sqlite(parse_url(service.config.keystore)):
        yield from ("IPAddressDeny=any", "IPAddressAllow=localhost")


def _outermost(folders: set[Path]) -> list[Path]:
    return sorted(path for path in folders if folders.isdisjoint(path.parents))


def _keystore_files(config: Config) -> list[Path]:
    url = parse_url(config.keystore)
    return [sqlite.file_of(url)] if sqlite.is_sqlite(url) else []


def _metrics_files(config: Config) -> list[Path]:
    place = config.agent.metrics.removeprefix("unix:")
    return [Path(place)] if place.startswith("/") else []


def _softhsm_folder(conf: Path) -> Iterator[Path]:
    """Yield the token folder that a SoftHSM's configuration names."""
    try:
        text = conf.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return
    if found := re.search(r"^\s*directories\.tokendir\s*=\s*(/.*?)\s*$", text, re.MULTILINE):
        yield Path(found[1])


def _stored_credential(name: str) -> Path:
    encrypted = ENCRYPTED_CREDENTIALS / name
    return encrypted if encrypted.exists() else CREDENTIALS / name


def _group_name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def _is_below(path: Path, folders: Iterable[Path]) -> bool:
    places = {path, path.resolve()}
    return any(place.is_relative_to(folder) for place in places for folder in folders)


# --- the syntax of unit files: systemd.syntax(7), systemd.unit(5), "Specifiers" ---


def _template(name: str) -> str:
    folder = resources.files("hwkm.agent") / "units"
    return (folder / name.replace("/", "-")).read_text(encoding="utf-8")


def _filled(name: str, values: dict[str, str]) -> str:
    """Return a template with its values; lines that come out empty are left out, but for one."""
    text = Template(_template(name)).substitute(values)
    return re.sub(r"\n{3,}", "\n\n", text)


def _line(setting: str, value: str) -> str:
    return f"{setting}={value}" if value else ""


def _words(paths: Iterable[Path], prefix: str = "") -> str:
    return " ".join(_quoted(prefix + str(path)) for path in sorted(paths))


def _command(words: list[str]) -> str:
    # $ stands for a variable in commands, and nowhere else.
    return " ".join(_quoted(word).replace("$", "$$") for word in words)


def _quoted(word: str) -> str:
    text = _specifiers(word).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"' if re.search(r"[\s\"'\\;]", word) else text


def _specifiers(text: str) -> str:
    if not text.isprintable():
        raise ConfigError(f"{text!r} can't stand in a unit of systemd", hint="Choose another path")
    return text.replace("%", "%%")

"""What a Storage Daemon, its users and systemd are told, so that the agent gives it keys.

Nothing here changes anything but files in a folder that was asked for. What can be tried is tried
as the Storage Daemon's user.
"""

from __future__ import annotations

import grp
import os
import pwd
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from hwkm.agent.client import DEFAULT_SOCKET
from hwkm.agent.frames import GETKEY
from hwkm.agent.peers import AllowList, Peer, look_up
from hwkm.agent.unit_files import DRIVE_GROUP, Service, unit_files
from hwkm.bacula_config import printable, read_configuration
from hwkm.bacula_host import can_run, trouble_connecting
from hwkm.bacula_sd import MAX_COMMAND_LENGTH, check_storage_daemon
from hwkm.checks import Check, fail, ok, warn
from hwkm.config import DEFAULT_PATH
from hwkm.errors import ConfigError, ParseError, PolicyError
from hwkm.token.pin_source import PinKind

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CHANGER: Final = "/etc/bacula/scripts/mtx-changer %c %o %S %a %d"
"""Bacula's own script with the arguments that its manual gives, where none is known."""

ROOT: Final = "root"
ROOTS_GROUP: Final = "root"

_WRAPPER = re.compile(r"^.*\bhwkm\b.* changer\b.*? -- ")


@dataclass(frozen=True, slots=True)
class Setup:
    """An agent and the Storage Daemon that it is for.

    ``sd_config`` is the daemon's configuration, if that is to be looked at.
    """

    service: Service
    sd_user: str
    sd_config: Path | None = None

    @property
    def getkey(self) -> Path:
        """The lean client, which lies beside hwkm."""
        return self.service.hwkm.parent / "hwkm-getkey"

    @property
    def encryption_command(self) -> str:
        """What Bacula is to run for keys.

        :raises ConfigError: if a path can't stand in Bacula's configuration.
        """
        words = [str(self.getkey), *self._socket_option, *self._config_option]
        return " ".join([*map(_quoted, words), "--device %a --job %i"])

    @property
    def _config_option(self) -> list[str]:
        path = self.service.config.path
        return [] if path == DEFAULT_PATH else ["--config", str(path)]

    @property
    def _socket_option(self) -> list[str]:
        path = self.service.config.agent.socket
        return [] if path == DEFAULT_SOCKET else ["--socket", str(path)]

    @property
    def changer_commands(self) -> list[str]:
        """What Bacula is to run for tape changers, where the policy lets drives encrypt.

        Those that are wrapped already are wrapped anew. One option at most says where the agent is,
        as Bacula reads no more of it than of the Encryption Command: the configuration if the
        Storage Daemon's user may read it, and so can do without an agent, else the socket.

        :raises ConfigError: as :attr:`encryption_command` does.
        """
        if not self.service.config.policy.uses_drives:
            return []
        own = self.sd_user in (ROOT, self.service.account.pw_name)
        before = [str(self.service.hwkm), *(self._config_option if own else [])]
        words = [*before, "drive", "changer", *([] if own else self._socket_option), "--"]
        wrapper = " ".join(map(_quoted, words))
        found = self._changers_in_use() or [CHANGER]
        return [f"{wrapper} {_WRAPPER.sub('', command)}" for command in found]

    def _changers_in_use(self) -> list[str]:
        found: dict[str, None] = {}
        for kind in ("autochanger", "device"):
            found.update(dict.fromkeys(self.directives(kind, "changercommand")))
        return list(found)

    def directives(self, kind: str, key: str) -> Iterator[str]:
        """Yield what resources of a kind in the daemon's configuration set ``key`` to."""
        if self.sd_config is None:
            return
        try:
            config = read_configuration(str(self.sd_config))
        except ParseError:
            return  # the checks say so
        for resource in config.of_kind(kind):
            if value := resource.get(key):
                yield value

    @property
    def group_commands(self) -> list[str]:
        """Commands for root that put users into groups, where they are not yet."""
        service, wanted = self.service, []
        if self._needs_socket_group and not self.shares_roots_group:
            wanted.append((service.socket_group, self.sd_user))
        if service.config.policy.uses_drives:
            wanted.append((DRIVE_GROUP, service.account.pw_name))
        return [f"usermod -aG {group} {user}" for group, user in wanted if not _is_in(user, group)]

    @property
    def shares_roots_group(self) -> bool:
        """Whether only members of root's own group would reach the socket."""
        return self._needs_socket_group and self.service.socket_group == ROOTS_GROUP

    @property
    def _needs_socket_group(self) -> bool:
        mode, agent = self.service.config.agent.mode, self.service.account.pw_name
        return self.sd_user not in ("root", agent) and not mode & 0o002

    def files(self) -> dict[str, str]:
        """Return the units, by their names below a folder of units.

        :raises ConfigError: as :func:`unit_files` does.
        """
        return unit_files(self.service)

    def checks(self) -> list[Check]:
        """Try what can be tried; never raises for what it finds."""
        looks = (
            _command_length,
            _changer_lengths,
            _client,
            _allow_list,
            _groups,
            _connection,
            _agent_user,
            _pins,
            _hidden_paths,
        )
        found = [check for look in looks for check in look(self)]
        return found + _storage_daemon(self)


# --- what is tried ---


def _command_length(setup: Setup) -> Iterator[Check]:
    name, command = "encryption-command", setup.encryption_command
    length = len(command.encode("utf-8", "surrogateescape"))
    detail = f"{length} of {MAX_COMMAND_LENGTH} bytes"
    if length <= MAX_COMMAND_LENGTH:
        yield ok(name, detail)
        return
    yield fail(
        name,
        f"it is {detail} long: the Storage Daemon would not start",
        f"Let the socket be {DEFAULT_SOCKET}, or the configuration {DEFAULT_PATH}, by a link too",
    )


def _changer_lengths(setup: Setup) -> Iterator[Check]:
    for command in setup.changer_commands:
        name, length = "changer-command", len(command.encode("utf-8", "surrogateescape"))
        detail = f"{length} of {MAX_COMMAND_LENGTH} bytes"
        if length <= MAX_COMMAND_LENGTH:
            yield ok(name, detail)
            continue
        yield fail(
            name,
            f"it is {detail} long: the Storage Daemon would not start",
            "Name a short script that runs it; or shorten paths by links, as of the Encryption "
            "Command",
        )


def _client(setup: Setup) -> Iterator[Check]:
    name, path, user = "hwkm-getkey", setup.getkey, printable(setup.sd_user)
    if not path.exists():
        advice = "Install hwkm again: it puts hwkm-getkey beside hwkm"
        yield fail(name, f"{path} is not there", advice)
        return
    match can_run(str(path), setup.sd_user):
        case None:
            yield _untried(name, f"user {user} can run {path}")
        case False:
            advice = "Each folder above it must be searchable for that user"
            yield fail(name, f"user {user} can't run {path}", advice)
        case True:
            yield ok(name, f"{user} can run {path}")


def _allow_list(setup: Setup) -> Iterator[Check]:
    name, user = "allow-list", printable(setup.sd_user)
    try:
        account = pwd.getpwnam(setup.sd_user)
        person = look_up(account.pw_uid)
        peer = Peer(account.pw_uid, account.pw_gid, os.getpid(), person.name, person.groups)
        admitted = AllowList.from_config(setup.service.config).admits(peer, GETKEY)
    except (KeyError, ValueError):
        yield fail(name, f"there is no user {user}", "Name the right one with --sd-user")
    except ConfigError as error:
        yield fail(name, str(error), error.hint)
    else:
        advice = f'Add it in {setup.service.config.path}: [agent] getkey = ["{user}"]'
        yield (
            ok(name, f"{user} may ask for keys")
            if admitted
            else fail(name, f"{user} may not ask the agent for keys", advice)
        )


def _groups(setup: Setup) -> Iterator[Check]:
    for command in setup.group_commands:
        _, _, group, user = command.split(" ", 3)
        advice = f"{command}, and start what runs as that user anew"
        yield fail("groups", f"user {printable(user)} is not in group {printable(group)}", advice)
    if setup.shares_roots_group:
        yield fail(
            "groups",
            f"the agent's socket belongs to the group {ROOTS_GROUP}, which nobody should join",
            "Name another in the configuration ([agent] group), or give the installation a user "
            "of its own (hwkm init --owner)",
        )
    elif not setup.group_commands:
        yield ok("groups", "everyone is in the groups that are needed")


def _connection(setup: Setup) -> Iterator[Check]:
    name, socket = "socket", setup.service.config.agent.socket
    user = printable(setup.sd_user)
    match trouble_connecting(socket, setup.sd_user, _interpreter(setup.getkey)):
        case None:
            yield _untried(name, f"user {user} reaches {socket}")
        case "":
            yield ok(name, f"{user} reaches {socket}")
        case why:
            yield fail(
                name,
                f"user {user} does not reach {socket}: {why}",
                "Start the agent (systemctl start hwkm-agent); the folders above the socket must "
                "be searchable for that user, and the socket open to its group",
            )


def _agent_user(setup: Setup) -> Iterator[Check]:
    name, agent = "agent-user", setup.service.account.pw_name
    if agent == "root":
        advice = "Give the installation to a user of its own: hwkm init --owner USER"
        yield warn(name, "the agent would run as root", advice)
    elif agent == setup.sd_user:
        yield ok(name, f"{agent}, the Storage Daemon's own: it can read PIN and keystore itself")
    else:
        yield ok(name, f"{agent}: the Storage Daemon gets keys, and neither PIN nor keystore")


def _pins(setup: Setup) -> Iterator[Check]:
    name, service = "pin", setup.service
    asking = (PinKind.PROMPT, PinKind.DESCRIPTOR)
    if any(source.kind in asking for source in service.pin_sources):
        advice = "Set pin-source=credential:NAME or file:/path in the token's URI"
        yield fail(
            name, "a token's PIN is to be asked for, and a service has nobody to ask", advice
        )
    for credential, path in service.credentials.items():
        if not _is_there(path):
            advice = f"Put it there, mode 0600, or encrypted: systemd-creds encrypt - {credential}"
            yield fail(name, f"the credential {credential} is not at {path}", advice)


def _is_there(path: Path) -> bool:
    try:
        path.stat()
    except PermissionError:
        return True  # only root can tell
    except OSError:
        return False
    return True


def _hidden_paths(setup: Setup) -> Iterator[Check]:
    name, service = "sandbox", setup.service
    if hidden := service.in_temporary:
        advice = "Move it: the unit has a /tmp and a /var/tmp of its own"
        yield fail(name, f"the agent does not see {_listed(hidden)}", advice)
    if shown := service.in_homes:
        advice = "Install hwkm in /opt, and its files in /var/lib, to have homes hidden from it"
        yield warn(name, f"the agent sees people's homes: {_listed(shown)} is there", advice)
    if not service.in_temporary and not service.in_homes:
        yield ok(name, "homes and temporary files of others are hidden from the agent")


def _storage_daemon(setup: Setup) -> list[Check]:
    if setup.sd_config is None:
        return []
    drives = setup.service.config.policy.uses_drives
    found = check_storage_daemon(setup.sd_config, sd_user=setup.sd_user, by_drives=drives)
    wanted = ("sd-config", "sd-encryption-command", "sd-drives")
    return [check for check in found if check.name in wanted] + list(_directive(setup))


def _directive(setup: Setup) -> Iterator[Check]:
    name, ours = "sd-directive", setup.encryption_command
    theirs = next(setup.directives("storage", "encryptioncommand"), None)
    if theirs == ours:
        yield ok(name, "the Encryption Command asks the agent")
    elif theirs is not None:
        advice = f'Set Encryption Command = "{ours}"'
        yield warn(name, f"the Encryption Command is {printable(theirs)}", advice)


def _untried(name: str, what: str) -> Check:
    return warn(
        name,
        f"whether {what} was not found out",
        "Run this as root or as the Storage Daemon's user, and check that this user exists",
    )


def _listed(paths: list[Path]) -> str:
    return ", ".join(map(str, paths))


def _interpreter(client: Path) -> str:
    """Return the interpreter that the lean client looks for."""
    beside = client.resolve().parent / "python3"
    return str(beside) if beside.exists() else "/usr/bin/python3"


def _is_in(user: str, group: str) -> bool:
    try:
        account, wanted = pwd.getpwnam(user), grp.getgrnam(group).gr_gid
        return wanted in os.getgrouplist(user, account.pw_gid)
    except (KeyError, ValueError):
        return False


def _quoted(word: str) -> str:
    """Return a word of a command as Bacula takes it, inside a directive's own quotes.

    :raises ConfigError: if there is no way to.
    """
    if re.search(r"[\"'\\]", word) or not word.isprintable():
        raise ConfigError(
            f"the path {word!r} can't stand in Bacula's configuration", hint="Choose another path"
        )
    text = word.replace("%", "%%")
    return f"'{text}'" if " " in text else text


# --- writing ---


def write(files: dict[str, str], folder: Path, *, force: bool) -> dict[str, str]:
    """Write files below ``folder``; return what became of each: ``written`` or ``unchanged``.

    :raises PolicyError: if one is there with other contents, unless ``force`` is set. Then nothing
        was written.
    """
    there = {name: _contents(folder / name) for name in files}
    others = [name for name, text in files.items() if there[name] not in (None, text.encode())]
    if others and not force:
        raise PolicyError(
            f"{folder / others[0]} is there and differs; nothing was written",
            hint="Look at it; --force overwrites it. Changes of your own belong in a drop-in",
        )
    new = [name for name, text in files.items() if there[name] != text.encode()]
    for name in new:
        _replace(folder / name, files[name])
    return {name: "written" if name in new else "unchanged" for name in files}


def _contents(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _replace(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(path.name + ".new")
    new.write_text(text, encoding="utf-8")
    new.chmod(0o644)
    new.replace(path)

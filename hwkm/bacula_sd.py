"""What in a Bacula Storage Daemon's set-up undoes the encryption of its volumes.

Bacula 15 encrypts blocks on their way to a device, no sooner and nowhere else. What it writes
beside them (a data spool, deduplicated data, a trace of its own doing) is in clear, and a set-up
that can't call its key manager stops jobs. Each function here looks for one such thing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hwkm.bacula_config import Configuration, boolean, printable, read_configuration, size
from hwkm.bacula_host import can_run, debug_levels, find_program, is_safe_at_rest
from hwkm.checks import Check, fail, ok, warn
from hwkm.errors import ParseError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hwkm.bacula_config import Resource

MAX_COMMAND_LENGTH: Final = 127
"""Longest Encryption Command that Bacula reads, in bytes (its MAX_RES_NAME_LENGTH)."""

MAX_BLOCK_SIZE: Final = 16 * 1024 * 1024
"""Longest data unit of AES-XTS: 2^20 blocks of 16 bytes (IEEE 1619; NIST SP 800-38E)."""

KEY_TRACING_LEVEL: Final = 200
"""Debug level from which the Storage Daemon writes volume keys into its trace file."""


@dataclass(frozen=True, slots=True)
class _Daemon:
    """The Storage Daemon that is looked at. ``root`` is where its machine's files begin.

    ``by_drives`` is whether the policy lets tape drives encrypt.
    """

    config: Configuration
    user: str
    root: Path
    by_drives: bool

    @property
    def devices(self) -> tuple[Resource, ...]:
        return self.config.of_kind("device")

    @property
    def encrypting(self) -> tuple[Resource, ...]:
        """Devices whose blocks the daemon itself encrypts."""
        return tuple(device for device in self.devices if _encryption(device) in ("yes", "strong"))

    def setting(self, key: str) -> str | None:
        """Return what a directive of the daemon's own (Storage) resource is set to."""
        values = (storage.get(key) for storage in self.config.of_kind("storage"))
        return next((value for value in values if value is not None), None)

    def missing(self, name: str, detail: str, advice: str) -> Check:
        """Return a failure; a warning if what is missing may stand in a part that was not read."""
        if self.config.unread:
            return warn(name, f"{detail} in the part that was looked at", advice)
        return fail(name, detail, advice)


def check_storage_daemon(
    path: Path, *, sd_user: str, root: Path = Path("/"), by_drives: bool = False
) -> list[Check]:
    """Look through a Storage Daemon's configuration file and the files it includes.

    ``sd_user`` is the user that the daemon runs as; whether it can run the Encryption Command is
    tried as that user where this process may (as root, or being it). ``root`` is the root folder
    of the machine whose /proc, /sys and /etc tell the rest. ``by_drives`` is whether hwkm's policy
    lets tape drives encrypt.

    Never raises for what it finds: a file that is missing or broken is a failed Check.
    """
    try:
        config = read_configuration(str(path))
    except ParseError as error:
        return [fail("sd-config", str(error), error.hint)]
    daemon = _Daemon(config, sd_user, root, by_drives)
    checks = [ok("sd-config", f"{printable(str(path))}: {len(daemon.devices)} devices")]
    for look in (_unread, _volume_encryption, _any_encryption, _encryption_command):
        checks.extend(look(daemon))
    for look, name, good in (*_LOOKS, *(_DRIVE_LOOKS if by_drives else ())):
        checks.extend(list(look(daemon)) or [ok(name, good)])
    return checks


def _unread(daemon: _Daemon) -> Iterator[Check]:
    for part in daemon.config.unread:
        yield warn(
            "sd-config",
            f"{part.place}: {part.what} is included there and was not looked at",
            "Nothing is run or guessed here: write that part to a file and have it checked too",
        )


# --- what is encrypted ---


def _encryption(device: Resource) -> str:
    return (device.get("volumeencryption") or "no").lower()


def _volume_encryption(daemon: _Daemon) -> Iterator[Check]:
    for device in daemon.devices:
        name, setting = "sd-volume-encryption", _encryption(device)
        if setting in ("yes", "strong"):
            hides = ", which hides the host name in its labels too" if setting == "strong" else ""
            yield ok(name, f"device {device.name}: Volume Encryption = {setting}{hides}")
        elif setting != "no":
            yield fail(
                name,
                f"device {device.name}: Volume Encryption is neither yes, strong nor no",
                "The Storage Daemon does not start: set it to yes",
            )
        else:
            yield warn(
                name,
                f"device {device.name} writes its volumes in clear",
                "Set Volume Encryption = yes in it, unless that is meant",
            )


def _any_encryption(daemon: _Daemon) -> Iterator[Check]:
    if daemon.encrypting:
        return
    what = "no device encrypts its volumes" if daemon.devices else "there is no device"
    advice = "Set Volume Encryption = yes in the Device resources"
    yield daemon.missing("sd-volume-encryption", what, advice)


# --- the Encryption Command ---


def _encryption_command(daemon: _Daemon) -> list[Check]:
    command = daemon.setting("encryptioncommand") or ""
    if not command:
        return list(_no_command(daemon))
    words = _words(command)
    looks = (_length(command), _program(words, daemon), _key_manager(words), _job_id(command))
    found = [check for check in looks if check is not None]
    return found or [ok("sd-encryption-command", f"{daemon.user} can run {printable(words[0])}")]


def _no_command(daemon: _Daemon) -> Iterator[Check]:
    if daemon.encrypting:
        yield daemon.missing(
            "sd-encryption-command",
            f"device {daemon.encrypting[0].name} encrypts, and there is no Encryption Command",
            "Jobs fail at once. Set it in the Storage resource: "
            'Encryption Command = "/opt/hwkm/bin/hwkm getkey --device %a --job %i"',
        )


def _length(command: str) -> Check | None:
    length = len(command.encode("utf-8", "replace"))
    if length <= MAX_COMMAND_LENGTH:
        return None
    return fail(
        "sd-encryption-command",
        f"the Encryption Command is {length} bytes long, and Bacula reads {MAX_COMMAND_LENGTH}",
        "The Storage Daemon does not start: leave out options that hwkm's configuration can hold",
    )


def _program(words: list[str], daemon: _Daemon) -> Check | None:
    name, written = "sd-encryption-command", words[0] if words else ""
    program = find_program(written)
    if program is None:
        return fail(name, f"{printable(written)} is not there", "Give the full path of hwkm")
    runnable = can_run(program, daemon.user)
    if runnable is None:
        return warn(
            name,
            f"whether user {printable(daemon.user)} can run {printable(program)} was not found out",
            "Run this as root or as the Storage Daemon's user, and check that this user exists",
        )
    if not runnable:
        return fail(
            name,
            f"user {printable(daemon.user)} can't run {printable(program)}",
            "Make the file executable for that user, and each folder above it searchable",
        )
    return None


def _key_manager(words: list[str]) -> Check | None:
    lean = any(word.rpartition("/")[2] == "hwkm-getkey" for word in words)
    if lean or _runs_hwkm(words, "getkey"):
        return None
    return warn(
        "sd-encryption-command",
        f"the Encryption Command is {printable(words[0]) if words else 'empty'}, not hwkm getkey",
        "Set it to hwkm getkey, or leave this be if another key manager is meant",
    )


def _job_id(command: str) -> Check | None:
    if "%i" in command.replace("%%", ""):
        return None
    return warn(
        "sd-encryption-command",
        "the Encryption Command does not pass %i, so the audit can't tell which job took a key",
        "Add --job %i (in a quoted command: what is not quoted ends at its first blank)",
    )


def _words(command: str) -> list[str]:
    """Split a command as Bacula does: at blanks, with no shell; quotes keep words together."""
    found = re.findall(r"\"([^\"]*)\"?|'([^']*)'?|(\S+)", command)
    return ["".join(word) for word in found]


def _runs_hwkm(words: list[str], *arguments: str) -> bool:
    """Tell whether hwkm is run, by itself or by another program, with these among its arguments."""
    names = [word.rpartition("/")[2] for word in words]
    return "hwkm" in names and set(arguments) <= set(words[names.index("hwkm") + 1 :])


# --- keys in tape drives ---


def _device_option(daemon: _Daemon) -> Iterator[Check]:
    command = daemon.setting("encryptioncommand") or ""
    if daemon.encrypting and "%a" not in command.replace("%%", ""):
        yield fail(
            "sd-drives",
            "the policy lets tape drives encrypt, and the Encryption Command does not pass %a",
            "Add --device %a: without it no drive is given a key",
        )


def _changer_commands(daemon: _Daemon) -> Iterator[Check]:
    for device in daemon.encrypting:
        if not _is_tape(device):
            continue
        command = _changer_command(daemon, device)
        if command is None:
            yield warn(
                "sd-drives",
                f"device {device.name} has no Changer Command that could bring a key in",
                "Run hwkm drive auto after a tape is loaded by hand, hwkm drive clear before it "
                "is taken out",
            )
        elif not _runs_hwkm(_words(command), "drive", "changer"):
            yield fail(
                "sd-drives",
                f"the Changer Command of device {device.name} is not hwkm drive changer: no key is "
                "in the drive when the label of an encrypted tape is read",
                f'Changer Command = "/opt/hwkm/bin/hwkm drive changer -- {printable(command)}"',
            )


def _is_tape(device: Resource) -> bool:
    kind, node = (device.get("devicetype") or "").lower(), device.get("archivedevice") or ""
    return kind == "tape" or (not kind and node.startswith("/dev/"))


def _changer_command(daemon: _Daemon, device: Resource) -> str | None:
    """Return the device's own Changer Command, or that of the autochanger that lists it."""
    own = device.get("name")
    changers = daemon.config.of_kind("autochanger")
    holders = (device, *(one for one in changers if own in one.values("device")))
    return next((found for one in holders if (found := one.get("changercommand"))), None)


# --- what is written beside the encrypted blocks ---


def _data_spool(daemon: _Daemon) -> Iterator[Check]:
    for device in daemon.devices:
        limits = ("maximumspoolsize", "maximumjobspoolsize")
        folder = device.get("spooldirectory")
        if folder is None and not any(device.values(key) for key in limits):
            continue
        folder = folder or daemon.setting("workingdirectory") or "its working directory"
        if is_safe_at_rest(folder, daemon.root):
            yield ok(
                "sd-data-spool",
                f"device {device.name}: {printable(folder)} is encrypted or in memory",
            )
        else:
            yield warn(
                "sd-data-spool",
                f"device {device.name} spools data in clear into {printable(folder)}",
                "Put the spool directory on LUKS or in a tmpfs, or set Spool Data = no in the Jobs",
            )


def _deduplication(daemon: _Daemon) -> Iterator[Check]:
    for device in daemon.devices:
        kind = (device.get("devicetype") or "").lower()
        if kind in ("dedup", "aligned") or device.get("aligneddevice"):
            yield warn(
                "sd-deduplication",
                f"device {device.name} keeps file data apart from its volumes, in clear: only "
                "names and attributes are in the encrypted blocks",
                "Use a device of type File or Tape, or put the data folder on LUKS",
            )


# --- what makes encrypted blocks unsafe ---


def _block_checksum(daemon: _Daemon) -> Iterator[Check]:
    for device in daemon.encrypting:
        if boolean(device.get("blockchecksum") or "yes") is not True:
            yield fail(
                "sd-block-checksum",
                f"device {device.name} has no Block Checksum: AES-XTS does not notice a changed "
                "block, so its damage is restored as if it were right",
                "Set Block Checksum = yes (Bacula's default)",
            )


def _block_size(daemon: _Daemon) -> Iterator[Check]:
    for device in daemon.encrypting:
        values = device.values("maximumblocksize")
        length = size(values) if values else 0
        if length is None or length > MAX_BLOCK_SIZE:
            yield fail(
                "sd-block-size",
                f"device {device.name}: Maximum Block Size {printable(''.join(values))} is more "
                "than AES-XTS can encrypt, or no size",
                "Set it to 16 MiB (16777216) or less; 1 MiB is common for tapes",
            )


# --- a daemon that writes keys into its trace ---


def _debug_level(daemon: _Daemon) -> Iterator[Check]:
    for where, level in debug_levels(daemon.root):
        if level >= KEY_TRACING_LEVEL:
            yield warn(
                "sd-debug-level",
                f"{printable(where)} has debug level {level}: from {KEY_TRACING_LEVEL} on, "
                "a Storage Daemon writes volume keys in clear into its trace",
                "Run it without -d, and 'setdebug level=0 trace=0 storage=…' in bconsole",
            )


def _trace_files(daemon: _Daemon) -> Iterator[Check]:
    name, folder = "sd-trace-file", daemon.setting("workingdirectory")
    if folder is None:
        return
    try:
        traces = [path for path in Path("/", folder).iterdir() if path.suffix == ".trace"]
        written = sorted(path for path in traces if path.stat().st_size)
    except FileNotFoundError:
        return
    except OSError as error:
        what = f"{printable(folder)} could not be searched for trace files: {error.strerror}"
        yield warn(name, what, "Run this as root or as the Storage Daemon's user")
        return
    for path in written:
        yield warn(
            name,
            f"{printable(str(path))} was written by a Storage Daemon with tracing on, and holds "
            f"volume keys in clear if its debug level was {KEY_TRACING_LEVEL} or more",
            "Switch tracing off and remove the file; if it holds 'cipher_key', treat the keys of "
            "the volumes used meanwhile as known to others",
        )


_LOOKS = (
    (_data_spool, "sd-data-spool", "no device has a data spool of its own"),
    (_deduplication, "sd-deduplication", "no device keeps data apart from its volumes"),
    (_block_checksum, "sd-block-checksum", "every device that encrypts has one"),
    (_block_size, "sd-block-size", "within what AES-XTS can encrypt"),
    (_debug_level, "sd-debug-level", f"none of {KEY_TRACING_LEVEL} or more is set"),
    (_trace_files, "sd-trace-file", "none was written"),
)

_DRIVE_LOOKS = (
    (_device_option, "sd-drives", "the Encryption Command names the drive"),
    (_changer_commands, "sd-drives", "the Changer Command brings keys into drives and out"),
)

"""What Bacula asks of its Encryption Command, and what it is answered (docs/bacula-protocol.md)."""

from __future__ import annotations

import base64
import binascii
import re
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from hwkm import config as configuration
from hwkm.errors import ConfigError, HwkmError, KeystoreError, ParseError
from hwkm.log import one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from hwkm.installation import Installation
    from hwkm.keys import Cipher
    from hwkm.log import Log
    from hwkm.manager import Caller, Handout
    from hwkm.service import KeyService

    Give = Callable[["Request", "Job"], tuple[Handout, str]]

MAX_FIELD_BYTES = 2048
"""Bacula's own limit on what a label holds: MAX_ENC_CIPHER_KEY_LEN."""
DRIVE_MARGIN_SECONDS = 5.0
"""How long before a request's deadline a drive that does not answer is given up, so that the reason
can be said."""
NULL_KEY_BYTES = 16
"""What Bacula wants for its cipher NULL, with which the Storage Daemon encrypts nothing."""

_VOLUME_NAME = re.compile(rb"[A-Za-z0-9:._-]{1,127}")
_SHOWN = 300


@dataclass(frozen=True, slots=True)
class Options:
    """The command's options: Bacula's %a, %i, and a cipher that overrides the policy.

    ``no_agent`` is why ``hwkm-getkey`` did without the agent.
    """

    config: Path
    device: str = ""
    job: str = ""
    cipher: str = ""
    no_agent: str = ""


@dataclass(frozen=True, slots=True)
class Request:
    """What the Storage Daemon asks for. ``label`` is the wrapped key in the volume's label."""

    operation: str
    volume: str
    label: bytes | None

    @classmethod
    def parse(cls, environ: Mapping[bytes, bytes]) -> Request:
        """Read the request out of the environment, all of which may be hostile.

        :raises ParseError: if anything in it is malformed.
        """
        operation = environ.get(b"OPERATION", b"")
        if operation not in (b"LABEL", b"READ"):
            raise ParseError("OPERATION is neither LABEL nor READ: this command is for Bacula")
        volume = environ.get(b"VOLUME_NAME", b"")
        if not _VOLUME_NAME.fullmatch(volume):
            raise ParseError("VOLUME_NAME is not a name that Bacula allows")
        _decode("MASTER_KEYID", environ.get(b"MASTER_KEYID", b""))
        label = _decode("ENC_CIPHER_KEY", environ.get(b"ENC_CIPHER_KEY", b""))
        is_read = operation == b"READ"
        return cls(operation.decode(), volume.decode(), label if is_read and label else None)


def parse_options(arguments: Sequence[str], environ: Mapping[str, str]) -> Options:
    """Read the command line by hand: what is needed for it would take longer to import.

    :raises ConfigError: if an option is unknown or lacks its value.
    """
    options = Options(Path(environ.get("HWKM_CONFIG") or configuration.DEFAULT_PATH))
    words = iter(arguments)
    for word in words:
        if word in ("getkey", "--debug"):
            continue
        name, equals, value = word.partition("=")
        if name not in ("--config", "--device", "--job", "--cipher", "--no-agent"):
            raise ConfigError(f"getkey has no option {name!r}", hint="See hwkm getkey --help")
        value = value if equals else next(words, "")
        if not value:
            raise ConfigError(f"the option {name} lacks its value")
        options = _with_option(options, name, value)
    return options


@dataclass(frozen=True, slots=True)
class Job:
    """All that a request needs beside itself; ``deadline`` is by :func:`time.monotonic`."""

    installation: Installation
    keys: KeyService
    caller: Caller
    options: Options
    deadline: float

    @property
    def drive_deadline(self) -> float:
        """When a drive must be done."""
        return self.deadline - DRIVE_MARGIN_SECONDS


def _give(request: Request, job: Job) -> tuple[Handout, str]:
    """Return the key, and what was done about the drive."""
    cipher = _cipher(job.options)
    if concerns_a_drive(request, job):
        # Only here: it takes time to import. And no token is in use yet, for this forks.
        from hwkm import mounts
        from hwkm.deliveries import Deliveries

        deliveries = Deliveries.of(job.installation, job.caller, job.keys)
        with mounts.at(job.options.device, deliveries, job.drive_deadline) as mount:
            if request.operation == "LABEL":
                return mount.label(request.volume, cipher)
            return mount.read(request.volume, request.label)
    if request.operation == "LABEL":
        return job.keys.label(request.volume, job.caller, cipher), ""
    return job.keys.read(request.volume, request.label, job.caller), ""


def concerns_a_drive(request: Request, job: Job) -> bool:
    """Return whether a drive may have to be looked at for this request.

    :raises HwkmError: if that can't be told, as the request itself would.
    """
    from hwkm.policy import Delivery

    if not job.options.device:
        return False
    if job.keys.uses_drives():
        return True
    on_medium = request.operation == "READ" and job.keys.delivery(request.volume, request.label)
    return on_medium is Delivery.DRIVE


def serve(
    request: Request,
    job: Job,
    log: Log,
    give: Give | None = None,
    begun: float | None = None,
) -> bytes:
    """Answer one request: the reply with the key, or the line that says why there is none.

    ``give`` stands for what would get the key, where that was done already, and ``begun`` is when.
    """
    what = f"{request.operation} {request.volume} {described(job.options)}"
    fields = fields_of(request.operation, request.volume, job.options)
    fields |= {"user": job.caller.who}
    begun = begun or time.monotonic()
    try:
        handout, drive = (give or _give)(request, job)
    except HwkmError as error:
        _record_failure(request, job, error, log)
        fields |= {"milliseconds": _since(begun), **failure_fields(error)}
        log.error(f"{what}: no key given: {error.diagnostics()}", **fields)
        return error_line(error.diagnostics())
    header = handout.envelope.header
    given = f"{what}: gave generation {header.generation}, key id {header.key_id.hex()}"
    said = [given, *([drive] if drive else []), *handout.notes]
    fields |= {"milliseconds": _since(begun), **_given_fields(handout, said[1:])}
    (log.warning if handout.notes else log.info)("; ".join(said), **fields)
    return reply_lines(handout)


def fields_of(operation: str, volume: str, options: Options) -> dict[str, object]:
    """Return what is asked for, and for which job, as fields of the log."""
    asked: dict[str, object] = {"event": "key", "operation": operation.lower(), "volume": volume}
    return asked | {"job": options.job, "device": options.device}


def failure_fields(error: HwkmError) -> dict[str, object]:
    """Return why no key is given, as fields of the log."""
    why = {"error": type(error).__name__, "reason": error.diagnostics()}
    return {"outcome": "not given", **why}


def _given_fields(handout: Handout, notes: Sequence[str]) -> dict[str, object]:
    header = handout.envelope.header
    return {
        "outcome": "given",
        "generation": header.generation,
        "key_id": header.key_id.hex(),
        "cipher": header.cipher.name,
        "notes": "; ".join(notes),
    }


def _since(begun: float) -> float:
    return round(1000 * (time.monotonic() - begun), 3)


def _record_failure(request: Request, job: Job, error: HwkmError, log: Log) -> None:
    from hwkm.keystore.records import Operation

    if isinstance(error, KeystoreError):
        return  # it would fail again, and again take its time
    try:
        operation = Operation(request.operation.lower())
        job.keys.record_failure(operation, request.volume, job.caller, error)
    except HwkmError as second:
        log.error(f"that no key was given could not be recorded: {second}")


def reply_lines(handout: Handout) -> bytes:
    """Return the reply that hands out a key: all five fields, each ended by a newline.

    A field that is left out would keep its value from the volume's previous label. The key of a
    tape drive is not given to the Storage Daemon, which is told to encrypt nothing.
    """
    by_drive = not handout.cipher.is_xts
    key = bytes(NULL_KEY_BYTES) if by_drive else handout.key.expose()
    fields = {
        "volume_name": handout.envelope.header.volume.encode(),
        "cipher": b"NULL" if by_drive else handout.cipher.name.encode(),
        "cipher_key": base64.b64encode(key),
        "enc_cipher_key": base64.b64encode(handout.envelope.encode()),
        "master_keyid": base64.b64encode(handout.master_id),
    }
    return b"".join(name.encode() + b": " + value + b"\n" for name, value in fields.items())


def error_line(text: str) -> bytes:
    """Return the reply that gives a reason instead of a key, on one line."""
    return f"error: {one_line(text, limit=500)}\n".encode()


def _with_option(options: Options, name: str, value: str) -> Options:
    shown = one_line(value, _SHOWN)
    match name:
        case "--config":
            return replace(options, config=Path(value))
        case "--device":
            return replace(options, device=shown)
        case "--job":
            return replace(options, job=shown)
        case "--no-agent":
            return replace(options, no_agent=shown)
        case _:
            return replace(options, cipher=shown)


def _cipher(options: Options) -> Cipher | None:
    from hwkm.keys import Cipher

    if not options.cipher:
        return None
    if options.cipher not in ("AES_128_XTS", "AES_256_XTS"):
        raise ConfigError(
            f"--cipher {options.cipher} is not for Bacula", hint="Use AES_256_XTS or AES_128_XTS"
        )
    return Cipher[options.cipher]


def _decode(name: str, value: bytes) -> bytes:
    if len(value) > 4 * MAX_FIELD_BYTES:
        raise ParseError(f"{name} is too long")
    try:
        decoded = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise ParseError(f"{name} is not base64") from None
    if len(decoded) > MAX_FIELD_BYTES:
        raise ParseError(f"{name} is too long")
    return decoded


def described(options: Options) -> str:
    """Return for whom a request is, for the log."""
    return f"(job {options.job or '-'}, device {options.device or '-'})"

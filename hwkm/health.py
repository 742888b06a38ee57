"""``hwkm check``: everything that a key depends on, looked at before a job needs it."""

from __future__ import annotations

import os
import shutil
import stat
import time
from pathlib import Path
from typing import TYPE_CHECKING

from pkcs11 import TokenFlag

from hwkm import kept, proofs
from hwkm.checks import Check, fail, ok, warn
from hwkm.envelope import Scheme
from hwkm.errors import HwkmError, PolicyError
from hwkm.issuing import active_escrow
from hwkm.keys import Cipher
from hwkm.keystore import sqlite
from hwkm.keystore.engine import parse_url
from hwkm.keystore.records import State
from hwkm.log import SYSLOG
from hwkm.policy import Delivery
from hwkm.recipients import canary
from hwkm.recipients.token import recorded_master
from hwkm.token import master

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hwkm.config import Config
    from hwkm.installation import Installation
    from hwkm.keystore.engine import Keystore
    from hwkm.keystore.records import MasterKey
    from hwkm.keystore.store import Transaction
    from hwkm.policy import Rule
    from hwkm.token.session import TokenSession

MEBIBYTE = 2**20
LOW_SPACE_BYTES = 100 * MEBIBYTE
NO_SPACE_BYTES = 5 * MEBIBYTE
_SYSLOG_SOCKETS = (Path("/dev/log"), Path("/run/systemd/journal/dev-log"))


def check_installation(installation: Installation) -> list[Check]:
    """Look at configuration, policy, keystore, tokens, master keys, log and room on disk."""
    config = installation.config
    findings = [ok("configuration", str(config.path)), _runtime_dir(config), _log(config)]
    findings += _policy(config)
    keystore, masters, about_keystore = _keystore(installation)
    findings += about_keystore
    with installation.tokens() as tokens:
        for settings in config.tokens:
            known = [record for record in masters if record.token == settings.name]
            if keystore is not None and not any(r.state is State.ACTIVE for r in known):
                findings.append(_no_master(settings.name))
            findings += _token(tokens.session(settings.name), known)
    return findings


def _runtime_dir(config: Config) -> Check:
    name, path = "runtime directory", config.runtime_dir
    status = path.stat()
    if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o022:
        advice = f"chown it to the user that hwkm runs as, and chmod 0700 {path}"
        return fail(name, f"{path} is not this user's alone", advice)
    return ok(name, str(path))


def _log(config: Config) -> Check:
    if config.log == SYSLOG:
        if any(socket.exists() for socket in _SYSLOG_SOCKETS):
            return ok("log", "syslog")
        advice = "Start a syslog daemon or journald, or name a file as log in the configuration"
        return warn("log", "nothing listens for syslog: reasons for failures are lost", advice)
    path = Path(config.log)
    place = path if path.exists() else path.parent
    if os.access(place, os.W_OK):
        return ok("log", config.log)
    return fail("log", f"{config.log} can't be written", f"Give {place} to the user of hwkm")


def _policy(config: Config) -> list[Check]:
    findings = []
    for rule in config.policy.rules:
        name = f"policy {rule.volumes.pattern!r}"
        detail = f"{_encryption(rule)}, for {', '.join(rule.recipients)}"
        if len(set(rule.recipients)) == 1:
            advice = "If that token is lost, so are the volumes: add a second token"
            findings.append(warn(name, f"{detail}: one recipient only", advice))
        else:
            findings.append(ok(name, detail))
    return findings


def _encryption(rule: Rule) -> str:
    match rule.delivery:
        case Delivery.SOFTWARE:
            return f"{rule.cipher.name}, software"
        case Delivery.DRIVE:
            return f"{Cipher.AES_256_GCM.name}, drive"
        case None:
            return f"{Cipher.AES_256_GCM.name} where the drive can, else {rule.cipher.name}"


def _keystore(installation: Installation) -> tuple[Keystore | None, list[MasterKey], list[Check]]:
    try:
        keystore = installation.keystore().open()
        problems = keystore.problems()
        with keystore.writing() as transaction:
            masters = transaction.masters()
            tapes = proofs.check_all(transaction)
            copies = kept.check_all(installation.config, transaction, time.time())
            escrow = _escrow(installation.config, transaction)
    except HwkmError as error:
        return None, [], [fail("keystore", str(error), error.hint)]
    advice = "Restore the keystore from its backup"
    findings = [fail("keystore", problem, advice) for problem in problems]
    findings = findings or [ok("keystore", "sound, and can be written")]
    url = parse_url(installation.config.keystore)
    if sqlite.is_sqlite(url):
        findings += [_private(sqlite.file_of(url)), _room(sqlite.file_of(url).parent)]
    return keystore, masters, findings + escrow + copies + tapes


def _escrow(config: Config, transaction: Transaction) -> list[Check]:
    """Look whether new volume keys are wrapped for the right escrow key; there may be none."""
    try:
        key = active_escrow(transaction, config.escrow_key)
    except PolicyError as error:
        return [fail("escrow key", str(error), error.hint)]
    if key is None:
        return []
    name = key.recipient_id.hex()
    if config.escrow_key is None:
        detail = f"{name}, which the configuration does not name"
        advice = (
            f'Write escrow_key = "{name}" into it, if that is yours: the keystore alone says so'
        )
        return [warn("escrow key", detail, advice)]
    return [ok("escrow key", f"{name}, for every new volume key")]


def _private(path: Path) -> Check:
    if path.stat().st_mode & 0o077:
        return warn("keystore file", f"{path} can be read by others", f"chmod 0600 {path}")
    return ok("keystore file", f"{path}, private")


def _room(folder: Path) -> Check:
    free = shutil.disk_usage(folder).free
    detail = f"{free // MEBIBYTE:,} MiB free in {folder}"
    advice = "Make room: without it no key is given, because the event can't be written"
    if free < NO_SPACE_BYTES:
        return fail("room on disk", detail, advice)
    return (
        warn("room on disk", detail, advice)
        if free < LOW_SPACE_BYTES
        else ok("room on disk", detail)
    )


def _no_master(token: str) -> Check:
    advice = (
        f"hwkm master create --token {token}; after the loss of a keystore adopt the key that is "
        "there by --existing (hwkm token lint shows it)"
    )
    return fail(f"token {token}", "it has no active master key on record", advice)


def _token(session: TokenSession, masters: Sequence[MasterKey]) -> list[Check]:
    name = f"token {session.settings.name}"
    try:
        info = session.info
    except HwkmError as error:
        return [fail(name, str(error), error.hint)]
    findings = [ok(name, f"{info.label!r}, serial {info.serial}: logged in")]
    if info.flags & TokenFlag.USER_PIN_COUNT_LOW:
        advice = "Find out who tried a wrong PIN"
        findings.append(warn(name, "a wrong PIN was tried since the last login", advice))
    return findings + [check_master(session, record) for record in masters]


def check_master(session: TokenSession, record: MasterKey) -> Check:
    """Let a master key open its canary, and compare it with its record."""
    name = f"master key {record.master_id.hex()}"
    if record.state is State.PRE_ACTIVE or record.canary is None:
        advice = "Run hwkm master create again: it finishes what was interrupted"
        return warn(name, "unfinished", advice)
    try:
        canary.check(recorded_master(session, record), record.canary)
        now = master.look_at(session, record.scheme, record.master_id).attributes
        same_public = record.scheme is not Scheme.OAEP or _has_public_key(session, record)
    except HwkmError as error:
        return fail(name, str(error), error.hint)
    changed = sorted(key for key in record.attributes if now.get(key) != record.attributes[key])
    if changed:
        advice = "Somebody gave this key other rights; see hwkm token lint"
        return fail(name, f"its attributes changed: {', '.join(changed)}", advice)
    if not same_public:
        advice = "Somebody changed the record: new volumes would be wrapped to another's key"
        return fail(name, "the public key on record is not the token's", advice)
    return ok(name, f"{record.scheme.label}, {record.state}: opens its canary")


def _has_public_key(session: TokenSession, record: MasterKey) -> bool:
    from hwkm.recipients.token_oaep import encode_public, read_public

    return encode_public(read_public(session, record.master_id)) == record.public_key

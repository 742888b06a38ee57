"""What must be kept apart from the machine, so that its loss is no disaster: a list to be ticked.

The keystore notes its own backups. Of the rest hwkm sees nothing, so somebody says that it is kept,
and that holds until there is something new.
"""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum, unique
from typing import TYPE_CHECKING

from hwkm.checks import Check, ok, warn
from hwkm.keystore.records import Event, Operation, Outcome

if TYPE_CHECKING:
    from hwkm.config import Config
    from hwkm.keystore.store import Transaction
    from hwkm.token.settings import TokenSettings

DAY = 86400


@unique
class Item(StrEnum):
    """What can be ticked. Token and PIN are those of one token."""

    TOKEN = "token"
    PIN = "pin"
    CONFIGURATION = "configuration"

    def of(self, token: TokenSettings | None) -> str:
        """Return what the event says of it."""
        return self.value if token is None or self is Item.CONFIGURATION else f"{self} {token.name}"


def tick(
    transaction: Transaction, item: Item, token: TokenSettings | None, now: int, who: str
) -> None:
    """Note that there is a copy of something in a safe place."""
    transaction.add_event(Event(now, who, Operation.KEPT, Outcome.OK, detail=item.of(token)))


def check_all(config: Config, transaction: Transaction, now: float) -> list[Check]:
    """Say of everything that must be kept whether it is."""
    findings = [_keystore(transaction, config.backup_days, now)]
    for token in config.tokens:
        findings += [_token(transaction, token), _pin(transaction, token)]
    return [*findings, _configuration(config, transaction)]


def _keystore(transaction: Transaction, days: int, now: float) -> Check:
    name, found = "kept: keystore", transaction.last_event(Operation.KEYSTORE_BACKUP)
    advice = "hwkm keystore backup FILE, every day; take FILE to another machine"
    if found is None:
        return warn(name, "no backup was made yet", advice)
    detail = f"last backup {_shown(found[1])}"
    if now - found[1] > days * DAY:
        return warn(name, f"{detail}, more than {days} days ago", advice)
    return ok(name, detail)


def _token(transaction: Transaction, token: TokenSettings) -> Check:
    name, found = f"kept: token {token.name}", _ticked(transaction, Item.TOKEN, token)
    command = f"hwkm keystore kept token --token {token.name}"
    advice = f"Back it up, or have a second one (docs/tokens.md); then say so: {command}"
    if found is None:
        return warn(name, "nobody has noted a copy of it", advice)
    made = transaction.last_event(Operation.MASTER_CREATE, ending=f" in {token.name}")
    if made is not None and made[0] > found[0]:
        return warn(name, f"copy noted {_shown(found[1])}, before the last master key", advice)
    return ok(name, f"copy noted {_shown(found[1])}")


def _pin(transaction: Transaction, token: TokenSettings) -> Check:
    name, found = f"kept: PIN of {token.name}", _ticked(transaction, Item.PIN, token)
    if found is None:
        command = f"hwkm keystore kept pin --token {token.name}"
        advice = f"Put PIN and SO PIN into a safe, on paper; then say so: {command}"
        return warn(name, "nobody has noted a copy of it", advice)
    return ok(name, f"copy noted {_shown(found[1])}")


def _configuration(config: Config, transaction: Transaction) -> Check:
    name, found = "kept: configuration", _ticked(transaction, Item.CONFIGURATION, None)
    advice = f"Keep a copy of {config.path}; then say so: hwkm keystore kept configuration"
    if found is None:
        return warn(name, "nobody has noted a copy of it", advice)
    if config.path.stat().st_mtime >= found[1] + 1:
        return warn(name, f"copy noted {_shown(found[1])}; it was changed since", advice)
    return ok(name, f"copy noted {_shown(found[1])}")


def _ticked(
    transaction: Transaction, item: Item, token: TokenSettings | None
) -> tuple[int, int] | None:
    return transaction.last_event(Operation.KEPT, item.of(token))


def _shown(at: int) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%dT%H:%M:%SZ}"

"""What a case of the vector kit is, and what all of them are built with."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from . import wire

if TYPE_CHECKING:
    from .wire import Volume

SUCCESS = "success"
MALFORMED = "malformed"
NO_RECIPIENT = "no recipient"
STANZA_FAILURE = "stanza failure"
MAC_FAILURE = "MAC failure"
EXPECTATIONS = (SUCCESS, MALFORMED, NO_RECIPIENT, STANZA_FAILURE, MAC_FAILURE)

MASTERS = wire.masters()
CREATED = 1767225600
"""2026-01-01 00:00:00 UTC."""

NAMES = {number: name for name, number in wire.CIPHERS.items()}


@dataclass(frozen=True, slots=True)
class Case:
    """One envelope, the master keys in the token, and what must come of it."""

    name: str
    comment: str
    expect: str
    token: tuple[str, ...]
    envelope: bytes
    volume: Volume | None = None
    opened_by: str = ""
    requires: tuple[str, ...] = ()

    def document(self) -> dict[str, Any]:
        """Return what the case's file holds."""
        found: dict[str, Any] = {"comment": self.comment, "expect": self.expect}
        found["token"] = list(self.token)
        if self.requires:
            found["requires"] = list(self.requires)
        found["envelope"] = base64.b64encode(self.envelope).decode()
        if self.volume is not None:
            found |= _opened(self.volume, self.opened_by)
        return found


def _opened(volume: Volume, opened_by: str) -> dict[str, Any]:
    master = MASTERS[opened_by]
    return {
        "header": {
            "key_id": volume.key_id.hex(),
            "volume": volume.name,
            "generation": volume.generation,
            "cipher": NAMES[volume.cipher],
            "created": volume.created,
        },
        "opened_by": opened_by,
        "context": wire.context(volume, master.scheme, master.master_id).hex(),
        "key": volume.key.hex(),
        "mac_key": wire.mac_key(volume.key).hex(),
    }


def volume(seed: str, cipher: str = "AES_256_XTS", **changes: Any) -> Volume:
    """Return the volume that belongs to ``seed``."""
    number = wire.CIPHERS[cipher]
    made = wire.Volume(
        key=wire.draw(f"{seed}/key", wire.KEY_BYTES[number]),
        key_id=wire.draw(f"{seed}/key id", 12),
        name="Vol-00042",
        generation=1,
        cipher=number,
        created=CREATED,
    )
    return made.but(**changes)


def wrap(about: Volume, seed: str, *masters: str) -> list[wire.Copy]:
    """Return the volume's key wrapped by each of the master keys named."""
    return [wire.wrap(about, MASTERS[name], seed=f"{seed}/{name}") for name in masters]


def success(
    name: str,
    comment: str,
    about: Volume,
    copies: list[wire.Copy],
    token: tuple[str, ...],
    opened_by: str = "",
    requires: tuple[str, ...] = (),
) -> Case:
    sealed = wire.seal(about, copies)
    opener = opened_by or token[0]
    return Case(name, comment, SUCCESS, token, sealed, about, opener, requires)


def changed(data: bytes, position: int, bit: int = 1) -> bytes:
    """Return ``data`` with one bit of the byte at ``position`` turned over."""
    index = position % len(data)
    return data[:index] + bytes([data[index] ^ bit]) + data[index + 1 :]


def escrow(seed: str) -> wire.Copy:
    """Return a stanza that looks like one for an escrow key."""
    return foreign(f"{seed}/escrow", wire.ESCROW, length=1200, id_length=32)


def foreign(seed: str, scheme: int = wire.GCM, length: int = 92, id_length: int = 16) -> wire.Copy:
    """Return a stanza for somebody who is in none of the tokens."""
    return wire.Copy(
        scheme, wire.draw(f"{seed}/foreign id", id_length), wire.draw(f"{seed}/blob", length)
    )

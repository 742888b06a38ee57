"""What the emulated drive remembers: everything but the blocks on its cartridges.

It is stored as one JSON document, with bytes in hexadecimal, and read and written whole.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from hwkm.scsi.emulator.cartridges import KINDS, Kind

if TYPE_CHECKING:
    from collections.abc import Mapping

PUBLIC, LOCAL, ALL_I_T_NEXUS = 0, 1, 2
"""SCOPE of the page Set Data Encryption."""

DISABLE, EXTERNAL, ENCRYPT = 0, 1, 2
"""ENCRYPTION MODE."""

RAW, DECRYPT, MIXED = 1, 2, 3
"""DECRYPTION MODE; its 0 is DISABLE too."""

U_KAD, A_KAD, NONCE, M_KAD = 0, 1, 2, 3
"""KEY DESCRIPTOR TYPE."""

KEY_FAIL_LIMIT = 10
"""After so many wrong keys in a row an HP LTO-4 takes none until the cartridge is unloaded."""


@dataclass(slots=True)
class Parameters:
    """A set of data encryption parameters (SSC-5, section 4.2.22). The key is never shown."""

    scope: int = PUBLIC
    encryption_mode: int = DISABLE
    decryption_mode: int = DISABLE
    algorithm_index: int = 0
    key: bytes = field(default=b"", repr=False)
    kads: dict[int, bytes] = field(default_factory=dict)
    kad_format: int = 0
    ceem: int = 0
    raw_disabled: bool = False
    ckod: bool = False
    ckorp: bool = False
    ckorl: bool = False
    owner: str = ""
    counter: int = 0


@dataclass(slots=True)
class Nexus:
    """What is kept for each I_T nexus, which is one host's way to the drive.

    ``locked_at`` is the key instance counter at LOCK; ``registration`` is its reservation key.
    """

    scope: int = PUBLIC
    locked_at: int | None = None
    local: Parameters | None = None
    uses_encryption: bool = False
    registration: int = 0
    attentions: list[list[int]] = field(default_factory=list)

    def attend(self, code: tuple[int, int, int]) -> None:
        """Report this sense code before the next command, once."""
        if list(code) not in self.attentions:
            self.attentions.append(list(code))


@dataclass(slots=True)
class Attribute:
    """An attribute in a cartridge's chip that a host wrote."""

    format: int
    value: bytes


@dataclass(slots=True)
class Cartridge:
    """A cartridge, in the drive or in its slot."""

    barcode: str
    kind_name: str
    serial: str
    worm: bool = False
    write_protected: bool = False
    loads: int = 0
    encrypted_format: bool = False
    attributes: dict[int, Attribute] = field(default_factory=dict)

    @property
    def kind(self) -> Kind:
        """What kind of cartridge it is."""
        return KINDS[self.kind_name]


@dataclass(slots=True)
class State:
    """The drive: who it is, what is in it, and what was set.

    ``inside`` is the barcode of the cartridge that is in it, "" for none; ``mounted`` says whether
    that one is ready. ``counter`` is the last key instance counter. ``reservation`` is "",
    "legacy" or "persistent", and ``holder`` the nexus that has it.
    """

    profile: str
    serial: str
    quirks: list[str] = field(default_factory=list)
    wrapping_key: bytes = field(default=b"", repr=False)
    inside: str = ""
    mounted: bool = False
    gone: bool = False
    managed: bool = False
    position: int = 0
    counter: int = 0
    wrong_keys: int = 0
    shared: Parameters | None = None
    reservation: str = ""
    reservation_type: int = 0
    holder: str = ""
    generation: int = 0
    nexuses: dict[str, Nexus] = field(default_factory=dict)
    cartridges: dict[str, Cartridge] = field(default_factory=dict)
    lies: dict[str, int] = field(default_factory=dict)


def dump(state: State) -> str:
    """Return ``state`` as JSON."""
    return json.dumps(asdict(state), default=bytes.hex)


def load(text: str) -> State:
    """Return what :func:`dump` made into text.

    :raises ValueError, KeyError, TypeError: if it is something else.
    """
    data = json.loads(text)
    data["wrapping_key"] = bytes.fromhex(data["wrapping_key"])
    data["shared"] = _parameters(data["shared"])
    data["nexuses"] = {name: _nexus(one) for name, one in data["nexuses"].items()}
    data["cartridges"] = {name: _cartridge(one) for name, one in data["cartridges"].items()}
    return State(**data)


def public(state: State) -> dict[str, Any]:
    """Return ``state`` for people and tests: every key left out, bytes in hexadecimal."""
    shown: dict[str, Any] = json.loads(dump(state))
    del shown["wrapping_key"]
    for parameters in (shown["shared"], *(one["local"] for one in shown["nexuses"].values())):
        if parameters is not None:
            parameters["key"] = bool(parameters["key"])
    return shown


def _parameters(data: Mapping[str, Any] | None) -> Parameters | None:
    if data is None:
        return None
    kads = {int(kind): bytes.fromhex(value) for kind, value in data["kads"].items()}
    return Parameters(**{**data, "key": bytes.fromhex(data["key"]), "kads": kads})


def _nexus(data: Mapping[str, Any]) -> Nexus:
    return Nexus(**{**data, "local": _parameters(data["local"])})


def _cartridge(data: Mapping[str, Any]) -> Cartridge:
    attributes = {
        int(number): Attribute(one["format"], bytes.fromhex(one["value"]))
        for number, one in data["attributes"].items()
    }
    return Cartridge(**{**data, "attributes": attributes})

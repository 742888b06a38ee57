"""Key-associated data: descriptors that name a key, stored with every block (SSC-5)."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from enum import IntEnum, unique
from operator import attrgetter
from typing import TYPE_CHECKING

from hwkm.scsi.pages.base import bits, member

if TYPE_CHECKING:
    from collections.abc import Iterable

HEAD_BYTES = 4
"""Type, AUTHENTICATED, and the length of the value in two bytes."""

MAX_VALUE_BYTES = 0xFFFF


@unique
class KadType(IntEnum):
    """KEY DESCRIPTOR TYPE. IBM calls the A-KAD "DKi", data key identifier."""

    U_KAD = 0
    A_KAD = 1
    NONCE = 2
    M_KAD = 3
    WK_KAD = 4

    @property
    def label(self) -> str:
        """The name people use: ``U-KAD``, ``nonce``."""
        return "nonce" if self is KadType.NONCE else self.name.replace("_", "-")


@unique
class Authentication(IntEnum):
    """AUTHENTICATED in data from the drive; zero stands in data to it."""

    UNSTATED = 0
    NOT_COVERED = 1
    NOT_ATTEMPTED = 2
    AUTHENTICATED = 3
    FAILED = 4


@unique
class KadFormat(IntEnum):
    """KAD FORMAT: what the U-KAD or A-KAD holds. Drives before SSC-4 know only zero."""

    UNSPECIFIED = 0
    BINARY_KEY_NAME = 1
    ASCII_KEY_NAME = 2


@dataclass(frozen=True, slots=True)
class Kad:
    """One descriptor; ``value`` has up to 65,535 bytes, far fewer on any drive (page 0010h)."""

    type: KadType | int
    value: bytes
    authenticated: Authentication | int = Authentication.UNSTATED

    def __post_init__(self) -> None:
        if not 0 <= self.type <= 0xFF or not 0 <= self.authenticated <= 7:
            raise ValueError("the type of a KAD has one byte, AUTHENTICATED has three bits")
        if len(self.value) > MAX_VALUE_BYTES:
            raise ValueError(f"a KAD has at most {MAX_VALUE_BYTES} bytes")


def parse_kads(data: bytes) -> tuple[tuple[Kad, ...], tuple[str, ...]]:
    """Return the descriptors in ``data`` and what is wrong with them; nothing is raised.

    One that is cut off is left out, and so is all that follows it.
    """
    found: list[Kad] = []
    while len(data) >= HEAD_BYTES:
        end = HEAD_BYTES + int.from_bytes(data[2:4])
        if end > len(data):
            break
        authenticated = member(Authentication, bits(data[1], 2, 0))
        found.append(Kad(member(KadType, data[0]), data[HEAD_BYTES:end], authenticated))
        data = data[end:]
    problems = ("the last KAD is cut off",) if data else ()
    return tuple(found), problems + _twice(found)


def find_kad(kads: Iterable[Kad], kind: KadType) -> bytes | None:
    """Return the value of the first descriptor of type ``kind``; None if there is none."""
    return next((kad.value for kad in kads if kad.type == kind), None)


def pack_kads(kads: Iterable[Kad]) -> bytes:
    """Return the descriptors as a drive takes them: by ascending type, AUTHENTICATED zero.

    :raises ValueError: if a type stands twice.
    """
    ordered = sorted(kads, key=attrgetter("type"))
    if twice := _twice(ordered):
        raise ValueError("; ".join(twice))
    return b"".join(_pack(kad) for kad in ordered)


def _pack(kad: Kad) -> bytes:
    return bytes((kad.type, 0)) + len(kad.value).to_bytes(2) + kad.value


def _twice(kads: list[Kad]) -> tuple[str, ...]:
    repeated = [kind for kind, times in Counter(kad.type for kad in kads).items() if times > 1]
    return tuple(f"{_name(kind)} stands more than once" for kind in repeated)


def _name(kind: KadType | int) -> str:
    return kind.label if isinstance(kind, KadType) else f"the KAD of type {kind}"

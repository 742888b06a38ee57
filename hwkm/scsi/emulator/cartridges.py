"""The kinds of cartridges, and which drive takes which."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hwkm.scsi.emulator.profiles import Profile

FIRST_ENCRYPTING_LTO = 4


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of cartridge: its format, its density code and its capacity in MiB."""

    name: str
    family: str
    generation: int
    density: int
    capacity: int
    personality: str

    @property
    def encrypts(self) -> bool:
        """Whether blocks on it can be encrypted."""
        return self.family != "lto" or self.generation >= FIRST_ENCRYPTING_LTO


_LTO = {
    3: (0x44, 381_469), 4: (0x46, 762_939), 5: (0x58, 1_430_511), 6: (0x5A, 2_384_185),
    7: (0x5C, 5_722_045), 8: (0x5E, 11_444_091), 9: (0x60, 17_166_137),
}  # fmt: skip

_KINDS = (
    *(
        Kind(f"lto-{number}", "lto", number, density, capacity, f"Ultrium-{number}")
        for number, (density, capacity) in _LTO.items()
    ),
    Kind("t10000-t1", "t10000", 2, 0x4B, 953_674, "T10000-T1"),
    Kind("3592-jb", "3592", 3, 0x53, 953_674, "3592-JB"),
)

KINDS = {kind.name: kind for kind in _KINDS}
"""The kinds of cartridges, by name."""


def own_kind(profile: Profile) -> Kind:
    """Return the kind of cartridge that a drive was made for."""
    return next(
        kind
        for kind in _KINDS
        if (kind.family, kind.generation) == (profile.family, profile.generation)
    )


def can_read(profile: Profile, kind: Kind) -> bool:
    """Return whether a drive takes such a cartridge: two generations back, one from LTO-8 on."""
    back = profile.generation - kind.generation
    furthest = 0 if profile.family != "lto" else 1 if profile.generation >= 8 else 2
    return kind.family == profile.family and 0 <= back <= furthest


def can_write(profile: Profile, kind: Kind) -> bool:
    """Return whether a drive writes on such a cartridge: of its own generation or the last."""
    return can_read(profile, kind) and profile.generation - kind.generation <= 1

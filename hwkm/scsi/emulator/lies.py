"""The ways in which an emulated drive can be told to lie, or to be in a state that nobody expects.

Each is something that a drive, its firmware, another host or an operator does to those who trust
a GOOD status. A program that handles keys has to notice every one of them.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

LIES: Mapping[str, str] = MappingProxyType(
    {
        "mode-ignored": "a key is taken with GOOD, but the encryption mode stays DISABLE",
        "kad-dropped": "key-associated data is taken with GOOD and forgotten",
        "counter-frozen": "the key instance counter never moves",
        "lock-ignored": "LOCK is taken, but a changed counter does not stop a locked host's writes",
        "key-lost-at-reset": "a reset takes the key away without any unit attention",
        "other-host": "right after a key, another host sets its own, and nobody is told",
        "library-managed": "once its capabilities were read, the drive belongs to a library",
        "no-medium": "right after a key was set, the cartridge is gone",
        "worm": "the cartridge is a WORM one: nothing on it can be written again",
        "lto-3-medium": "the cartridge is an LTO-3 one, which can't be encrypted",
        "busy": "the next commands end with BUSY",
        "page-length": "page 0020h gives a PAGE LENGTH that is 12 too many",
    }
)
"""What each lie does, by name."""

BUSY = "busy"
BUSY_TIMES = 3
"""How many commands end with BUSY, unless another number is given."""

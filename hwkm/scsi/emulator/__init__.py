"""A tape drive that encrypts, in a file: for trying things out, and for tests.

It answers SCSI commands as an LTO, 3592 or T10000 drive does (SPC-5, SSC-5), with real AES-256 on
its blocks, and it can be told to lie. It shares no code with hwkm's own encoder and decoder of
pages, so that a mistake in those does not cancel out. See docs/emulator.md.
"""

from __future__ import annotations

from hwkm.scsi.emulator.cartridges import KINDS
from hwkm.scsi.emulator.drive import DEFAULT_PROFILE, Drive, Loaded, create
from hwkm.scsi.emulator.lies import LIES
from hwkm.scsi.emulator.port import DEFAULT_NEXUS, EmulatorTransport
from hwkm.scsi.emulator.profiles import PROFILES, QUIRKS, Profile
from hwkm.scsi.emulator.tape import MediumObject

__all__ = [
    "DEFAULT_NEXUS",
    "DEFAULT_PROFILE",
    "KINDS",
    "LIES",
    "PROFILES",
    "QUIRKS",
    "Drive",
    "EmulatorTransport",
    "Loaded",
    "MediumObject",
    "Profile",
    "create",
]

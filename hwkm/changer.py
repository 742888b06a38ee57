"""The Changer Command's wrapper: after a load the key is in the drive, before an unload it is out.

Bacula calls ``mtx-changer CHANGER OPERATION SLOT DRIVE INDEX``. Only ``load`` and ``unload`` are
more than handed on; everything else passes untouched, output and exit status too.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from enum import StrEnum, unique
from typing import TYPE_CHECKING, Protocol

from hwkm.errors import ConfigError, HwkmError

if TYPE_CHECKING:
    from collections.abc import Sequence

OPERATION, DEVICE = 2, 4
"""Where Bacula's mtx-changer takes these, counted from the command itself."""


@unique
class Operation(StrEnum):
    """The operations that move a cartridge into or out of a drive."""

    LOAD = "load"
    UNLOAD = "unload"


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a Changer Command; ``operation`` is None where nothing is to be done about it."""

    words: tuple[str, ...]
    operation: Operation | None
    device: str

    @classmethod
    def parse(cls, words: Sequence[str], device: str = "") -> Call:
        """Read the words of a call; ``device`` takes the place of the one among them.

        :raises ConfigError: if there is no command, or a cartridge is moved and no drive named.
        """
        if not words:
            raise ConfigError(
                "no changer command is given",
                hint="Write hwkm drive changer -- /path/mtx-changer %c %o %S %a %d",
            )
        operation = _operation(words)
        named = device or (words[DEVICE] if len(words) > DEVICE else "")
        if operation is not None and not named:
            raise ConfigError(
                "the changer command names no drive to take the key in or out",
                hint="Give Bacula's %a as its fourth argument, or hwkm drive changer --device DEV",
            )
        return cls(tuple(words), operation, named)

    def run(self) -> int:
        """Run the command with our standard streams; return its exit status."""
        try:
            status = subprocess.run(self.words, check=False).returncode
        except OSError as error:
            raise ConfigError(
                f"the changer command {self.words[0]} can't be run: {error.strerror}",
                hint="Correct the Changer Command in the Storage Daemon's configuration",
            ) from error
        # A shell gives the same for a program that a signal ended.
        return 128 - status if status < 0 else status

    def reversed(self) -> Call:
        """Return the call that takes a cartridge back to the slot it was loaded from."""
        words = list(self.words)
        words[OPERATION] = Operation.UNLOAD
        return Call(tuple(words), Operation.UNLOAD, self.device)


class Keys(Protocol):
    """Whoever brings keys into drives and takes them out."""

    def loaded(self, device: str) -> None:
        """See :meth:`hwkm.deliveries.Deliveries.loaded`."""

    def unloading(self, device: str) -> None:
        """See :meth:`hwkm.deliveries.Deliveries.unloading`."""


def change(call: Call, keys: Keys) -> int:
    """Run a Changer Command with the key following the cartridge; return its exit status.

    :raises HwkmError: if the key can't be brought in, or out. A cartridge whose key is not in the
        drive was taken back; one whose key is not out was not moved.
    """
    match call.operation:
        case Operation.LOAD:
            return _load(call, keys)
        case Operation.UNLOAD:
            return _unload(call, keys)
        case None:
            return call.run()


def _load(call: Call, keys: Keys) -> int:
    status = call.run()
    if status != 0:
        return status
    try:
        keys.loaded(call.device)
    except HwkmError:
        call.reversed().run()
        raise
    return 0


def _unload(call: Call, keys: Keys) -> int:
    keys.unloading(call.device)
    return call.run()


def _operation(words: Sequence[str]) -> Operation | None:
    word = words[OPERATION] if len(words) > OPERATION else ""
    return Operation(word) if word in set(Operation) else None

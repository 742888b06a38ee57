"""The memory of wrong PINs, so that none is tried twice.

Some tokens lock after two wrong PINs. A PIN that a token refused once is remembered, as a salted
scrypt hash, and refused here from then on; so a job that runs every minute can't lock a token.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hwkm.errors import HwkmError, PinError
from hwkm.token.p11 import WrongPinError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from hwkm.keys import SecretBytes
    from hwkm.token.module import TokenInfo

SALT_BYTES = 16
HASH_BYTES = 32
SLOTS = 8
UNDER_WAY = SALT_BYTES + SLOTS * HASH_BYTES
"""Where one byte says that a login was begun, and not yet ended."""
FILE_BYTES = UNDER_WAY + 1
"""The file has a fixed size and its blocks are reserved before the first login, so that a full
disk can't keep a wrong PIN from being remembered."""

_NAME = "refused-pins-"


class RefusedBeforeError(PinError):
    """The token refused this PIN before, and was not asked again."""


@dataclass(frozen=True, slots=True)
class RefusedPins:
    """A salt, and the hashes of up to eight refused PINs, newest first."""

    salt: bytes
    hashes: tuple[bytes, ...] = ()

    @classmethod
    def parse(cls, data: bytes) -> RefusedPins:
        """Read the file's bytes; zeros stand for nothing remembered."""
        slots = [data[at : at + HASH_BYTES] for at in range(SALT_BYTES, UNDER_WAY, HASH_BYTES)]
        used = tuple(slot for slot in slots if len(slot) == HASH_BYTES and any(slot))
        return cls(data[:SALT_BYTES], used) if used else cls(os.urandom(SALT_BYTES))

    def pack(self) -> bytes:
        """Return the file's bytes, always 273 of them; no login is under way."""
        return (self.salt + b"".join(self.hashes)).ljust(FILE_BYTES, b"\0")

    def hold(self, pin: SecretBytes) -> bool:
        """Return whether ``pin`` is among the refused ones."""
        if not self.hashes:
            return False  # the costly hash is only computed after a refusal
        hashed = self._hash(pin)
        return any(hmac.compare_digest(hashed, known) for known in self.hashes)

    def with_pin(self, pin: SecretBytes) -> RefusedPins:
        """Return these and ``pin``; the oldest of more than eight is dropped."""
        return RefusedPins(self.salt, (self._hash(pin), *self.hashes)[:SLOTS])

    def _hash(self, pin: SecretBytes) -> bytes:
        return hashlib.scrypt(pin.expose(), salt=self.salt, n=2**14, r=8, p=1, dklen=HASH_BYTES)


@dataclass(frozen=True, slots=True)
class GuardState:
    """What is remembered of all tokens together: refused PINs, and logins that never ended.

    A login that is under way just now counts as one.
    """

    refused: int
    unfinished: int


def state_of(directory: Path) -> GuardState:
    """Return what is remembered in a runtime directory.

    :raises OSError: if it can't be read.
    """
    remembered = [path.read_bytes() for path in directory.glob(f"{_NAME}*")]
    return GuardState(
        sum(len(RefusedPins.parse(data).hashes) for data in remembered),
        sum(any(data[UNDER_WAY:]) for data in remembered),
    )


@dataclass(frozen=True, slots=True)
class PinGuard:
    """Lets a PIN be tried on a token unless the token refused it before.

    ``role`` keeps the user's PIN and the security officer's apart.
    """

    directory: Path
    token: TokenInfo
    role: str = "user"

    @property
    def path(self) -> Path:
        """Where the refused PINs of this token are remembered."""
        token = self.token
        identity = "\0".join((token.manufacturer, token.serial, token.label, self.role))
        digest = hashlib.sha256(identity.encode()).hexdigest()
        return self.directory / f"{_NAME}{digest[:16]}"

    @contextmanager
    def attempt(self, pin: SecretBytes) -> Iterator[None]:
        """Allow one login with ``pin``: the block does it, and a refusal is remembered.

        Where a login was begun and never ended (its process was killed), the token may have
        refused the PIN. It is tried once more, but remembered as refused before that.

        :raises RefusedBeforeError: before the block runs, if this PIN was refused before.
        :raises PinError: before the block runs, if a refusal could not be remembered.
        """
        descriptor = self._open()
        try:
            data = os.pread(descriptor, FILE_BYTES, 0)
            refused = RefusedPins.parse(data)
            if refused.hold(pin):
                raise RefusedBeforeError(
                    f"token {self.token.label!r} refused this very PIN before; not tried again",
                    hint="Correct the PIN. If it is right (two logins that hung count too), remove "
                    f"{self.path}",
                )
            if any(data[UNDER_WAY:]):
                os.pwrite(descriptor, refused.with_pin(pin).pack(), 0)
            os.pwrite(descriptor, b"\x01", UNDER_WAY)
            with _remembering(descriptor, refused, pin):
                yield
        finally:
            os.close(descriptor)

    def _open(self) -> int:
        try:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            os.posix_fallocate(descriptor, 0, FILE_BYTES)
        except OSError as error:
            raise PinError(
                f"no PIN is tried, because {self.path} can't be written: {error.strerror}",
                hint="A wrong PIN could not be remembered, and a loop could lock the token",
            ) from error
        return descriptor


@contextmanager
def _remembering(descriptor: int, refused: RefusedPins, pin: SecretBytes) -> Iterator[None]:
    """Write down how the login ended; after an error that is none of ours nothing is known."""
    try:
        yield
    except WrongPinError:
        os.pwrite(descriptor, refused.with_pin(pin).pack(), 0)
        raise
    except HwkmError:
        os.pwrite(descriptor, refused.pack(), 0)
        raise
    os.pwrite(descriptor, bytes(FILE_BYTES), 0)

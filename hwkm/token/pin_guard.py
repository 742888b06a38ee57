"""The memory of wrong PINs, so that none is tried twice.

Some tokens lock after two wrong PINs. A PIN that a token refused once is remembered, as a salted
scrypt hash, and refused here from then on; so a job that runs every minute can't lock a token.

A login that was cut off (its process was killed, or the token hung) is no refusal, but it may have
been one that nobody saw. So before each login the PIN is written down as begun, with what the token
said of wrong PINs by then (CKF_USER_PIN_COUNT_LOW: one was entered since the last right one). If
it is still there at the next login with the same PIN:

- the flag was down and is up now: the token refused the PIN, which is not tried again;
- the flag was up before: it tells nothing of this PIN, which is taken for refused after the second
  login that was cut off;
- the flag is down: the token counted no wrong PIN, or is one of those that never say so (PKCS #11
  allows that). Such a PIN is not taken for refused. It is tried anew, after the third login that
  was cut off once an hour.

Where one more wrong PIN would lock the token (CKF_USER_PIN_FINAL_TRY) none is tried at all: see
:func:`hwkm.token.pin.check_flags`.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import os
import struct
import time
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from pkcs11 import TokenFlag

from hwkm.errors import HwkmError, PinError
from hwkm.token.p11 import WrongPinError
from hwkm.token.pace import TokenUnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from hwkm.keys import SecretBytes
    from hwkm.token.module import TokenInfo

SALT_BYTES = 16
HASH_BYTES = 32
SLOTS = 8
UNDER_WAY = SALT_BYTES + SLOTS * HASH_BYTES
"""Where the login stands that was begun, and not yet ended."""
_BEGUN = struct.Struct(f">B?d{HASH_BYTES}s")
FILE_BYTES = UNDER_WAY + _BEGUN.size
"""The file has a fixed size and its blocks are reserved before the first login, so that a full
disk can't keep a wrong PIN from being remembered."""
FREE_TRIES = 3
"""How often a PIN is tried of which the token says nothing, without a pause."""
PAUSE_SECONDS = 3600.0
_UNCLEAR = 2
"""After how many logins that were cut off a PIN is refused, if the token counts wrong ones."""
_MOST = 255

_NAME = "refused-pins-"


class RefusedBeforeError(PinError):
    """The token refused this PIN before, and was not asked again."""


class CutOffError(TokenUnavailableError):
    """Logins with this PIN never ended; it is not tried again just now, and may well be right."""


@dataclass(frozen=True, slots=True)
class Begun:
    """Logins with one PIN that were begun one after the other, none of which has ended.

    ``wrong_before``: the token said before the last of them that wrong PINs were entered.
    """

    times: int = 0
    wrong_before: bool = False
    at: float = 0.0
    pin: bytes = bytes(HASH_BYTES)

    @classmethod
    def parse(cls, data: bytes) -> Begun:
        """Read it out of the file's bytes; zeros, and fewer bytes, stand for none."""
        return cls(*_BEGUN.unpack(data)) if len(data) == _BEGUN.size else cls()

    def pack(self) -> bytes:
        """Return it as it stands in the file."""
        return _BEGUN.pack(min(self.times, _MOST), self.wrong_before, self.at, self.pin)


@dataclass(frozen=True, slots=True)
class Memory:
    """A salt, the hashes of up to eight refused PINs, newest first, and a login under way."""

    salt: bytes = field(default_factory=lambda: os.urandom(SALT_BYTES))
    refused: tuple[bytes, ...] = ()
    begun: Begun = Begun()

    @classmethod
    def parse(cls, data: bytes) -> Memory:
        """Read the file's bytes; zeros stand for nothing remembered."""
        slots = [data[at : at + HASH_BYTES] for at in range(SALT_BYTES, UNDER_WAY, HASH_BYTES)]
        used = tuple(slot for slot in slots if len(slot) == HASH_BYTES and any(slot))
        begun = Begun.parse(data[UNDER_WAY:])
        return cls(data[:SALT_BYTES], used, begun) if used or begun.times else cls()

    def pack(self) -> bytes:
        """Return the file's bytes, always as many."""
        hashes = b"".join(self.refused).ljust(UNDER_WAY - SALT_BYTES, b"\0")
        return self.salt + hashes + self.begun.pack()

    def hash(self, pin: SecretBytes) -> bytes:
        """Return what stands for ``pin`` here; on purpose that takes a while."""
        salt = self.salt
        return hashlib.scrypt(pin.expose(), salt=salt, n=2**14, r=8, p=1, dklen=HASH_BYTES)

    def holds(self, hashed: bytes) -> bool:
        """Return whether a PIN is among the refused ones."""
        return any(hmac.compare_digest(hashed, known) for known in self.refused)

    def ended(self) -> Memory:
        """Return these without a login under way."""
        return replace(self, begun=Begun())

    def with_refused(self, hashed: bytes) -> Memory:
        """Return these and one more, whose login has ended; of more than eight the oldest goes."""
        return Memory(self.salt, (hashed, *self.refused)[:SLOTS])


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
        sum(len(Memory.parse(data).refused) for data in remembered),
        sum(bool(Memory.parse(data).begun.times) for data in remembered),
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

        ``token`` must be as it is just before. What holds for a PIN whose login was begun and never
        ended stands at the top of this module.

        :raises RefusedBeforeError: before the block runs, if this PIN was refused before.
        :raises CutOffError: before the block runs, if it is to be tried again only later.
        :raises PinError: before the block runs, if a refusal could not be remembered.
        """
        descriptor = self._open()
        try:
            memory = Memory.parse(os.pread(descriptor, FILE_BYTES, 0))
            hashed = memory.hash(pin)
            if memory.holds(hashed) or self._was_refused(memory.begun, hashed):
                # Also what the flags have told just now is remembered: they may not say so later.
                known = memory if memory.holds(hashed) else memory.with_refused(hashed)
                os.pwrite(descriptor, known.pack(), 0)
                raise self._refused_before()
            memory = replace(memory, begun=self._begin(memory.begun, hashed))
            os.pwrite(descriptor, memory.pack(), 0)
            with _remembering(descriptor, memory, hashed):
                yield
        finally:
            os.close(descriptor)

    @property
    def _counts_wrong_pins(self) -> bool:
        """Whether the token says that a wrong PIN was entered since the last right one."""
        is_user = self.role == "user"
        low = TokenFlag.USER_PIN_COUNT_LOW if is_user else TokenFlag.SO_PIN_COUNT_LOW
        return bool(self.token.flags & low)

    def _was_refused(self, last: Begun, hashed: bytes) -> bool:
        """Return whether logins that were cut off have to be taken for refusals of this PIN."""
        if not self._counts_wrong_pins or not _is_of(last, hashed):
            return False
        return not last.wrong_before or last.times >= _UNCLEAR

    def _begin(self, last: Begun, hashed: bytes) -> Begun:
        now, wrong = time.time(), self._counts_wrong_pins
        if not _is_of(last, hashed):
            return Begun(1, wrong, now, hashed)
        wait = last.at + PAUSE_SECONDS - now
        if last.times >= FREE_TRIES and 0 < wait <= PAUSE_SECONDS:  # clocks are set back, too
            raise CutOffError(
                f"{last.times} logins to token {self.token.label!r} were cut off, and what it made "
                f"of the PIN is not known; it is tried again in {math.ceil(wait / 60)} minutes",
                hint=f"See why the token hangs. If it works, and the PIN is right, remove "
                f"{self.path} to log in at once",
            )
        return Begun(last.times + 1, wrong, now, hashed)

    def _refused_before(self) -> RefusedBeforeError:
        return RefusedBeforeError(
            f"token {self.token.label!r} refused this very PIN before; not tried again",
            hint=f"Correct the PIN. If it is right all the same, remove {self.path}",
        )

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


def _is_of(begun: Begun, hashed: bytes) -> bool:
    return bool(begun.times) and hmac.compare_digest(begun.pin, hashed)


@contextmanager
def _remembering(descriptor: int, memory: Memory, hashed: bytes) -> Iterator[None]:
    """Write down how the login ended; after an error that is none of ours nothing is known."""
    try:
        yield
    except WrongPinError:
        os.pwrite(descriptor, memory.with_refused(hashed).pack(), 0)
        raise
    except HwkmError:
        os.pwrite(descriptor, memory.ended().pack(), 0)
        raise
    os.pwrite(descriptor, bytes(FILE_BYTES), 0)

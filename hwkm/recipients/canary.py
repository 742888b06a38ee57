"""The canary: known bytes wrapped by a master key when it was made.

SoftHSM gives the same error for a damaged blob and for a sick token. If the canary still opens,
the blob is bad; if it does not, the token or its master key is.
"""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING

from hwkm.envelope import StanzaError
from hwkm.errors import TokenError
from hwkm.keys import SecretBytes
from hwkm.token.master import NoMasterKeyError
from hwkm.token.p11 import TokenOperationError

if TYPE_CHECKING:
    from hwkm.recipients.base import MasterCipher


def make(cipher: MasterCipher) -> bytes:
    """Return a canary for a master key, opened again and compared.

    :raises TokenError: if the master key does not work.
    """
    blob = cipher.wrap(_context(cipher), _known(cipher))
    check(cipher, blob)
    return blob


def check(cipher: MasterCipher, blob: bytes) -> None:
    """Check that the master key still opens its canary.

    :raises TokenError: if it does not (then it is not the same key, or the token is sick), or if
        the token can't be opened.
    :raises PinError: if the token's PIN is not to be had, or wrong.
    """
    hint = "Check the token with hwkm token probe; if its key was lost, restore the token's backup"
    name = f"master key {cipher.master_id.hex()}"
    try:
        same = cipher.unwrap(_context(cipher), blob) == _known(cipher)
    except NoMasterKeyError as error:
        raise TokenError(str(error), hint=hint) from error
    except (StanzaError, TokenOperationError) as error:
        text = "another key stands in its place, or the token is sick"
        raise TokenError(f"{name} does not open its canary: {text} ({error})", hint=hint) from error
    if not same:
        text = "another key stands in its place"
        raise TokenError(f"{name} does not open its canary: {text}", hint=hint)


def _context(cipher: MasterCipher) -> bytes:
    return b"hwkm/canary/1" + bytes([cipher.scheme]) + cipher.master_id


def _known(cipher: MasterCipher) -> SecretBytes:
    return SecretBytes(sha256(b"hwkm/canary/1" + cipher.master_id).digest())

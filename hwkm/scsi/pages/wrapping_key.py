"""Page 0031h and key format 02h: keys wrapped for the drive, so that the wire never has them.

The page is SSC-5's Device Server Key Wrapping Public Key. How RSA-2048 keys and wrapped keys are
laid out is what HP's LTO-6 drives are known to take.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, unique
from hashlib import sha256
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric.padding import MGF1, OAEP
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicNumbers
from cryptography.hazmat.primitives.hashes import SHA256

from hwkm.errors import DeviceError, ParseError
from hwkm.scsi.pages.base import PageIn, compare_length, member, open_page

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

    from hwkm.keys import SecretBytes

LEAST_BYTES = 14
"""Length of page 0031h up to PUBLIC KEY."""

RSA_BITS = 2048
RSA_BYTES = RSA_BITS // 8
"""Of the modulus, of the exponent in the page, and of a wrapped key."""

MIN_EXPONENT = 3
MAX_EXPONENT = 2**64 - 1
"""More than any RSA key in use has; 1 would send the key in clear."""


@unique
class PublicKeyType(IntEnum):
    """PUBLIC KEY TYPE of page 0031h, and PARAMETER SET of a wrapped key."""

    RSA_2048 = 0x00
    ECC_521 = 0x10


@unique
class LabelDescriptor(IntEnum):
    """Types of the descriptors in a wrapped key's label."""

    DEVICE_SERVER = 0x00
    WRAPPING_ENTITY = 0x01
    KEY_INFORMATION = 0x02
    KEY_ID = 0x03
    KEY_LENGTH = 0x04


@dataclass(frozen=True, slots=True)
class WrappingKey:
    """The page: the drive's public key. Nothing vouches for it: pin its fingerprint.

    An RSA-2048 key is its modulus and its exponent, 256 bytes each, big-endian.
    """

    key_type: PublicKeyType | int
    key_format: int
    public_key: bytes
    problems: tuple[str, ...] = ()

    @classmethod
    def parse(cls, data: bytes) -> WrappingKey:
        """Read the page; whether the key is any good is seen by :meth:`rsa`.

        :raises ParseError: if it is another page, or shorter than 14 bytes.
        """
        page, problems = open_page(data, PageIn.WRAPPING_PUBLIC_KEY, LEAST_BYTES)
        length = int.from_bytes(page[12:14])
        public_key = page[LEAST_BYTES : LEAST_BYTES + length]
        problems += compare_length("PUBLIC KEY", length, len(page) - LEAST_BYTES)
        key_type = member(PublicKeyType, int.from_bytes(page[4:8]))
        return cls(key_type, int.from_bytes(page[8:12]), public_key, problems)

    def pack(self) -> bytes:
        """Return the page as a drive gives it that makes no mistakes about lengths.

        :raises ValueError: if a field has not room for its value.
        """
        try:
            head = self.key_type.to_bytes(4) + self.key_format.to_bytes(4)
            body = head + len(self.public_key).to_bytes(2) + self.public_key
            return PageIn.WRAPPING_PUBLIC_KEY.to_bytes(2) + len(body).to_bytes(2) + body
        except OverflowError:
            raise ValueError("a wrapping key's field is too long") from None

    def fingerprint(self) -> bytes:
        """Return the SHA-256 of the whole page, so that its type and format are pinned as well."""
        return sha256(self.pack()).digest()

    def rsa(self) -> RSAPublicKey:
        """Return the RSA-2048 key.

        :raises ParseError: if it is none.
        """
        if self.key_type != PublicKeyType.RSA_2048 or self.key_format != 0:
            kind = f"type {int(self.key_type):X}h, format {self.key_format:X}h"
            raise ParseError(f"the drive's wrapping key is not RSA-2048 but of {kind}")
        if len(self.public_key) != 2 * RSA_BYTES:
            raise ParseError(f"the drive's RSA key has {len(self.public_key)} bytes, not 512")
        modulus = int.from_bytes(self.public_key[:RSA_BYTES])
        return _rsa(modulus, int.from_bytes(self.public_key[RSA_BYTES:]))


@dataclass(frozen=True, slots=True)
class WrappedKey:
    """KEY of the page Set Data Encryption, format 02h: a key that only the drive can open."""

    parameter_set: PublicKeyType | int
    label: bytes
    wrapped: bytes
    signature: bytes = b""

    def pack(self) -> bytes:
        """Return the field.

        :raises ValueError: if one of its parts is longer than 65,535 bytes.
        """
        try:
            parts = (self.label, self.wrapped, self.signature)
            packed = [len(part).to_bytes(2) + part for part in parts]
            return self.parameter_set.to_bytes(2) + b"".join(packed)
        except OverflowError:
            raise ValueError("a part of the wrapped key is too long") from None


def wrap(key: SecretBytes, wrapping_key: WrappingKey, designator: bytes) -> bytes:
    """Return the KEY field that holds ``key``, wrapped with RSAES-OAEP and SHA-256 (RFC 8017).

    :param key: 32 bytes for AES-256-GCM.
    :param designator: the drive's logical unit in INQUIRY page 83h, 1 to 255 bytes.
    :raises ParseError: if the wrapping key is not RSA-2048.
    :raises DeviceError: if there is no designator.
    """
    if not designator:
        raise DeviceError(
            "the drive does not say which logical unit it is, and a wrapped key names it",
            hint="INQUIRY page 83h has no designator; let the key go in the plain format",
        )
    label = wrapped_key_label(designator, RSA_BYTES)
    padding = OAEP(MGF1(SHA256()), SHA256(), label)
    wrapped = wrapping_key.rsa().encrypt(key.expose(), padding)
    return WrappedKey(PublicKeyType.RSA_2048, label, wrapped).pack()


def wrapped_key_label(designator: bytes, key_length: int) -> bytes:
    """Return the label: the drive's designator, and the length of the wrapped key in bytes.

    It is OAEP's label too: a drive that is called otherwise can't open the key.
    """
    return _descriptor(LabelDescriptor.DEVICE_SERVER, designator) + _descriptor(
        LabelDescriptor.KEY_LENGTH, key_length.to_bytes(2)
    )


def parse_wrapped(data: bytes) -> WrappedKey:
    """Read a KEY field of format 02h.

    :raises ParseError: if a part is cut off, or bytes follow the last.
    """
    if len(data) < 2:
        raise ParseError("the wrapped key has no parameter set")
    label, rest = _part(data[2:])
    wrapped, rest = _part(rest)
    signature, rest = _part(rest)
    if rest:
        raise ParseError("bytes follow the wrapped key")
    return WrappedKey(member(PublicKeyType, int.from_bytes(data[:2])), label, wrapped, signature)


def _rsa(modulus: int, exponent: int) -> RSAPublicKey:
    if modulus.bit_length() != RSA_BITS or not modulus % 2:
        raise ParseError("the drive's RSA key has an impossible modulus")
    if not MIN_EXPONENT <= exponent <= MAX_EXPONENT:
        raise ParseError("the drive's RSA key has an impossible exponent")
    try:
        return RSAPublicNumbers(exponent, modulus).public_key()
    except ValueError as error:
        raise ParseError("the drive's RSA key is not a public key") from error


def _descriptor(kind: LabelDescriptor, value: bytes) -> bytes:
    return bytes((kind, 0)) + len(value).to_bytes(2) + value


def _part(data: bytes) -> tuple[bytes, bytes]:
    end = 2 + int.from_bytes(data[:2])
    if len(data) < 2 or len(data) < end:
        raise ParseError("the wrapped key is cut off")
    return data[2:end], data[end:]

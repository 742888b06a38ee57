"""Volume keys: their ciphers and lengths, and a type that does not give the bytes away."""

from __future__ import annotations

import hmac
from enum import IntEnum, unique
from typing import NoReturn

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from hwkm.errors import ParseError

KEY_ID_BYTES = 12
"""Length of a key id. Twelve bytes fit the A-KAD of every LTO drive."""

MAX_RECIPIENTS = 16
"""How many wrapped copies of one volume key there can be."""

MINIMUM_ENTROPY_BYTES = 64
"""How much each random source gives for one volume key."""


@unique
class Cipher(IntEnum):
    """What a volume key is used with. The numbers are written into envelopes: never reuse one."""

    AES_128_XTS = 1
    AES_256_XTS = 2
    AES_256_GCM = 3

    @property
    def key_bytes(self) -> int:
        """Length of the key in bytes; an XTS key is two AES keys (IEEE 1619, section 5.1)."""
        return {Cipher.AES_128_XTS: 32, Cipher.AES_256_XTS: 64, Cipher.AES_256_GCM: 32}[self]

    @property
    def is_xts(self) -> bool:
        """Whether the key is a pair of AES keys that must differ."""
        return self is not Cipher.AES_256_GCM


class SecretBytes:
    """Key bytes that can't be printed, formatted, compared in variable time, copied or pickled.

    :meth:`expose` is the only way out. For a volume key its callers are the Encryption Command's
    reply, the wrapping schemes and key derivation; for a PIN, logging in and the PIN file.
    """

    __slots__ = ("__data",)

    def __init__(self, data: bytes) -> None:
        self.__data = bytes(data)

    def expose(self) -> bytes:
        """Return the key bytes themselves."""
        return self.__data

    def __len__(self) -> int:
        return len(self.__data)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SecretBytes):
            return NotImplemented
        return hmac.compare_digest(self.__data, other.expose())

    __hash__ = None  # type: ignore[assignment]  # a hash would be a fingerprint of the key

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {len(self)} bytes, not shown>"

    def __format__(self, _spec: str) -> str:
        return repr(self)

    def __reduce_ex__(self, _protocol: object) -> NoReturn:
        raise TypeError(f"{type(self).__name__} can't be copied or pickled")

    def __getstate__(self) -> NoReturn:
        raise TypeError(f"{type(self).__name__} can't be copied or pickled")


class VolumeKey(SecretBytes):
    """The data key of one volume: as long as its cipher needs, with XTS halves that differ."""

    __slots__ = ("cipher",)

    def __init__(self, cipher: Cipher, data: bytes) -> None:
        """Take over ``data``, ``cipher.key_bytes`` long.

        :raises ParseError: if the length is wrong or both halves of an XTS key are equal
            (OpenSSL refuses such a key, and Bacula overlooks that it did).
        """
        if len(data) != cipher.key_bytes:
            raise ParseError(f"a key for {cipher.name} has {cipher.key_bytes} bytes")
        half = cipher.key_bytes // 2
        if cipher.is_xts and hmac.compare_digest(data[:half], data[half:]):
            raise ParseError("both halves of the XTS key are equal")
        super().__init__(data)
        self.cipher = cipher

    def mac_key(self, info: bytes) -> bytes:
        """Return 32 bytes derived from this key for the use named by ``info`` (RFC 5869)."""
        return HKDF(SHA256(), length=32, salt=None, info=info).derive(self.expose())


def derive_volume_key(cipher: Cipher, host_random: bytes, token_random: bytes) -> VolumeKey:
    """Return a new volume key out of two random sources, safe while either of them is.

    Both go through HKDF-SHA256 (RFC 5869) together: SP 800-133r2, section 6.3, item 3.

    :param host_random: at least 64 bytes from the operating system.
    :param token_random: at least 64 bytes from C_GenerateRandom.
    """
    if min(len(host_random), len(token_random)) < MINIMUM_ENTROPY_BYTES:
        raise ValueError(f"each random source must give {MINIMUM_ENTROPY_BYTES} bytes")
    info = b"hwkm/volume-key/1/" + cipher.name.encode()
    kdf = HKDF(SHA256(), length=cipher.key_bytes, salt=host_random, info=info)
    return VolumeKey(cipher, kdf.derive(token_random))

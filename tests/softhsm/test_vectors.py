"""Published vectors through the token: AES-GCM of NIST, HMAC of RFC 4231, OAEP of PKCS #1.

And the three blob formats, recomputed outside the token from keys that are known.
"""

from __future__ import annotations

import hmac
from functools import partial
from hashlib import sha256
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from pkcs11 import Attribute, KeyType
from pkcs11.exceptions import PKCS11Error

from hwkm.keys import SecretBytes
from hwkm.recipients.token_gcm import TokenGcm
from hwkm.recipients.token_hmac import TokenHmacKdf
from hwkm.token import p11

from .sites import KEY_ID
from .vectors import gcm_vectors, hmac_vectors, oaep_vectors, private_rsa, secret

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hwkm.token.session import TokenSession

    from .sites import Site

CRYPT = (Attribute.ENCRYPT, Attribute.DECRYPT)


@pytest.fixture
def token(site: Site) -> Iterator[TokenSession]:
    with site.session() as session:
        yield session


# --- AES-GCM ---


def test_there_are_enough_vectors_of_both_kinds() -> None:
    vectors = gcm_vectors()
    assert len(vectors) == 750
    assert sum(vector.plain is None for vector in vectors) > 150
    assert {len(vector.sealed) - 16 for vector in vectors} == {0, 13, 16, 32, 51}
    assert {len(vector.aad) for vector in vectors} == {0, 16, 20, 48, 90}


def test_every_good_vector_seals_and_opens_in_the_token(token: TokenSession) -> None:
    done = 0
    with token.use("vectors") as session:
        for v in gcm_vectors():
            if v.plain is None:
                continue
            with secret(session, KeyType.AES, v.key, *CRYPT) as key:
                assert p11.gcm_encrypt(key, v.nonce, v.aad, SecretBytes(v.plain)) == v.sealed
                assert p11.gcm_decrypt(key, v.nonce, v.aad, v.sealed).expose() == v.plain
            done += 1
    assert done > 500


def test_every_bad_vector_is_refused_by_the_token(token: TokenSession) -> None:
    done = 0
    with token.use("vectors") as session:
        for v in gcm_vectors():
            if v.plain is not None:
                continue
            with secret(session, KeyType.AES, v.key, *CRYPT) as key, pytest.raises(PKCS11Error):
                p11.gcm_decrypt(key, v.nonce, v.aad, v.sealed)
            done += 1
    assert done > 150


def test_a_blob_of_gcm_is_nonce_ciphertext_and_tag(token: TokenSession) -> None:
    vectors = [v for v in gcm_vectors() if v.plain]
    assert len(vectors) > 200
    for v in vectors:
        aes = (KeyType.AES, v.key, *CRYPT)
        with token.use("a vector") as session, secret(session, *aes, ID=KEY_ID):
            cipher = TokenGcm(token, KEY_ID, random=partial(given, v.nonce))
            assert cipher.wrap(v.aad, SecretBytes(v.plain or b"")) == v.nonce + v.sealed
            assert cipher.unwrap(v.aad, v.nonce + v.sealed).expose() == v.plain


def given(value: bytes, size: int) -> bytes:
    """Return ``value`` in place of random bytes."""
    assert len(value) == size
    return value


# --- HMAC ---


def test_the_vectors_of_rfc_4231(token: TokenSession) -> None:
    vectors = hmac_vectors()
    assert len(vectors) == 2
    with token.use("vectors") as session:
        for v in vectors:
            with secret(session, KeyType.GENERIC_SECRET, v.key, Attribute.SIGN) as key:
                assert p11.hmac_sha256(key, v.message).expose() == v.code


@pytest.mark.parametrize("size", [16, 32, 64])
def test_a_blob_of_hmac_kdf_can_be_recomputed_outside(token: TokenSession, size: int) -> None:
    master, salt, context = bytes(range(32)), bytes(range(100, 132)), b"a context"
    plain = bytes(range(size))
    one_time = hmac.digest(master, b"hwkm/kdf/1\0" + salt + context, sha256)
    blob = salt + AESGCM(one_time).encrypt(bytes(12), plain, context)
    generic = (KeyType.GENERIC_SECRET, master, Attribute.SIGN)
    with token.use("a vector") as session, secret(session, *generic, ID=KEY_ID):
        cipher = TokenHmacKdf(token, KEY_ID, random=partial(given, salt))
        assert cipher.wrap(context, SecretBytes(plain)) == blob
        assert cipher.unwrap(context, blob).expose() == plain


# --- RSAES-OAEP ---


def test_the_vectors_of_pkcs_1_open_in_the_token(token: TokenSession) -> None:
    vectors = oaep_vectors()
    assert len(vectors) == 60
    with token.use("vectors") as session:
        for v in vectors:
            with private_rsa(session, v.key) as key:
                assert p11.oaep_decrypt(key, v.encrypted, sha256=False).expose() == v.message


def test_the_same_vectors_damaged_are_refused(token: TokenSession) -> None:
    with token.use("vectors") as session:
        for v in oaep_vectors()[::6]:
            damaged = bytes([v.encrypted[0], v.encrypted[1] ^ 1]) + v.encrypted[2:]
            with private_rsa(session, v.key) as key, pytest.raises(PKCS11Error):
                p11.oaep_decrypt(key, damaged, sha256=False)

"""What really works on a token: found out by doing it, with keys that last for this session.

Lists of mechanisms and their flags can't be believed; docs/tokens.md has examples.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric.padding import MGF1, OAEP
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicNumbers
from cryptography.hazmat.primitives.hashes import SHA1, SHA256
from pkcs11 import KeyType, MechanismFlag
from pkcs11.exceptions import PKCS11Error

from hwkm.envelope import Scheme
from hwkm.errors import TokenError
from hwkm.keys import SecretBytes
from hwkm.token import master, p11

if TYPE_CHECKING:
    from collections.abc import Callable

    import pkcs11

    from hwkm.token.session import TokenSession

RSA_PROBE_BITS = 2048


@dataclass(frozen=True, slots=True)
class Trial:
    """One thing tried: whether it worked, what was seen, and how long it took in milliseconds."""

    name: str
    works: bool
    detail: str
    milliseconds: float


def probe(token: TokenSession) -> list[Trial]:
    """Try everything that hwkm could use on ``token``; nothing stays on it.

    :raises TokenError, PinError: if the token can't be opened at all. A trial that fails is a
        result, not an error.
    """
    with token.use("opening the token"):
        pass
    return [_try(token, name, trial) for name, trial in _TRIALS.items()]


def choose_scheme(trials: list[Trial]) -> Scheme:
    """Return the best scheme whose mechanism worked: gcm, else hmac-kdf, else oaep.

    :raises TokenError: if none did.
    """
    working = {trial.name for trial in trials if trial.works}
    for name, scheme in _NEEDED.items():
        if name in working:
            return scheme
    raise TokenError(
        "no wrapping scheme works on this token",
        hint="If its keys are made by the vendor's tool, make one there and adopt it with "
        "hwkm master create --existing",
    )


def _try(token: TokenSession, name: str, trial: Callable[[pkcs11.Session], str]) -> Trial:
    start = time.perf_counter()
    try:
        with token.use(name) as session:
            works, detail = True, trial(session)
    except TokenError as error:
        works, detail = False, str(error)
    return Trial(name, works, detail, round(1000 * (time.perf_counter() - start), 2))


def _random(session: pkcs11.Session) -> str:
    first, second = session.generate_random(256), session.generate_random(256)
    _expect(len(first) == 32 and first != second, "it repeats itself")
    return "32 bytes, twice, different"


def _gcm(session: pkcs11.Session) -> str:
    usage = MechanismFlag.ENCRYPT | MechanismFlag.DECRYPT
    key = p11.generate_secret(session, KeyType.AES, usage, _TEMPORARY, store=False)
    secret, nonce = SecretBytes(os.urandom(64)), os.urandom(12)
    blob = p11.gcm_encrypt(key, nonce, b"context", secret)
    _expect(len(blob) == 64 + 16, "the ciphertext has an unexpected length")
    _expect(p11.gcm_decrypt(key, nonce, b"context", blob) == secret, "it did not come back")
    _expect_refused(lambda: p11.gcm_decrypt(key, nonce, b"other", blob), "a wrong context opened")
    return "64 bytes and back; a wrong context is refused"


def _hmac(session: pkcs11.Session) -> str:
    key = p11.generate_secret(
        session, KeyType.GENERIC_SECRET, MechanismFlag.SIGN, _TEMPORARY, store=False
    )
    first = p11.hmac_sha256(key, b"one")
    _expect(first == p11.hmac_sha256(key, b"one"), "it is not the same twice")
    _expect(first != p11.hmac_sha256(key, b"two"), "it does not depend on the message")
    return "the same twice, another for another message"


def _oaep(*, sha256: bool) -> Callable[[pkcs11.Session], str]:
    def trial(session: pkcs11.Session) -> str:
        public, private, stored = _rsa_pair(session)
        try:
            _oaep_round_trip(public, private, sha256=sha256)
        finally:
            if stored:
                private.destroy()
                public.destroy()
        return f"RSA-{RSA_PROBE_BITS}, 96 bytes encrypted outside came back"

    return trial


def _oaep_round_trip(public: p11.KeyHandle, private: p11.KeyHandle, *, sha256: bool) -> None:
    modulus, exponent = p11.rsa_public_numbers(public)
    algorithm = SHA256() if sha256 else SHA1()  # noqa: S303  # sound inside OAEP
    padding = OAEP(MGF1(algorithm), algorithm, None)
    secret = SecretBytes(os.urandom(96))
    data = RSAPublicNumbers(exponent, modulus).public_key().encrypt(secret.expose(), padding)
    _expect(p11.oaep_decrypt(private, data, sha256=sha256) == secret, "it did not come back")


def _rsa_pair(session: pkcs11.Session) -> tuple[p11.KeyHandle, p11.KeyHandle, bool]:
    """Return a key pair, and whether it must be removed: a TPM only makes keys that stay."""
    failure: Exception | None = None
    for store in (False, True):
        key_id = os.urandom(8) if store else None
        for usage, templates in master.RSA_TEMPLATES:
            try:
                pair = p11.generate_rsa(
                    session, RSA_PROBE_BITS, usage, templates, store=store, key_id=key_id
                )
            except PKCS11Error as error:
                failure = error
            else:
                return *pair, store
    raise failure or TokenError("no RSA key was made")


def _expect(condition: object, otherwise: str) -> None:
    if not condition:
        raise TokenError(otherwise)


def _expect_refused(call: Callable[[], object], otherwise: str) -> None:
    try:
        with p11.errors("a call that must fail"):
            call()
    except p11.TokenOperationError:
        return
    raise TokenError(otherwise)


_TEMPORARY = {**master.LOCKED}
_GCM = "AES-256-GCM with context"
_HMAC = "HMAC-SHA256"
_OAEP_SHA1 = "RSA-OAEP with SHA-1"
_OAEP_SHA256 = "RSA-OAEP with SHA-256"

_TRIALS: dict[str, Callable[[pkcs11.Session], str]] = {
    "random numbers": _random,
    _GCM: _gcm,
    _HMAC: _hmac,
    _OAEP_SHA1: _oaep(sha256=False),
    _OAEP_SHA256: _oaep(sha256=True),
}
_NEEDED = {
    _GCM: Scheme.GCM,
    _HMAC: Scheme.HMAC_KDF,
    _OAEP_SHA1: Scheme.OAEP,
    _OAEP_SHA256: Scheme.OAEP,
}

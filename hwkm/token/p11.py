"""The typed adapter around python-pkcs11, whose key methods come from untyped mixins.

Only this module calls them. It also turns python-pkcs11's exceptions, whose text is mostly empty,
into sentences with the return value's name and number (PKCS #11 v3.0, section 2 and annex A).

Not thread-safe, as python-pkcs11 is not: callers hold :data:`hwkm.token.module.LOCK`.
"""

from __future__ import annotations

import re
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Protocol, cast

import pkcs11
from pkcs11 import MGF, Attribute, GCMParams, KeyType, Mechanism, MechanismFlag, ObjectClass
from pkcs11 import exceptions as p11

from hwkm.errors import PinError, TokenError
from hwkm.keys import SecretBytes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

GCM_TAG_BITS = 128
SHA256_BYTES = 32

_RETURN_VALUES: dict[type[BaseException], tuple[int, str]] = {
    p11.HostMemory: (0x02, "the module has no memory left"),
    p11.GeneralError: (0x05, "the module failed without saying why"),
    p11.FunctionFailed: (0x06, "the module could not finish; a full disk can be why"),
    p11.ArgumentsBad: (0x07, "the module refuses the arguments"),
    p11.AttributeReadOnly: (0x10, "the token does not let this attribute be set"),
    p11.AttributeSensitive: (0x11, "the token does not show this attribute"),
    p11.AttributeTypeInvalid: (0x12, "the token does not know one of the attributes"),
    p11.AttributeValueInvalid: (0x13, "the token refuses the value of an attribute"),
    p11.DataInvalid: (0x20, "the token refuses the data"),
    p11.DataLenRange: (0x21, "the data have a length that the token does not take"),
    p11.DeviceError: (0x30, "the token or its connection is faulty"),
    p11.DeviceMemory: (0x31, "the token is full"),
    p11.DeviceRemoved: (0x32, "the token was removed"),
    p11.EncryptedDataInvalid: (0x40, "the wrapped data are not valid"),
    p11.EncryptedDataLenRange: (0x41, "the wrapped data have an impossible length"),
    p11.FunctionNotSupported: (0x54, "the module does not offer this function"),
    p11.KeyHandleInvalid: (0x60, "the key is no longer there"),
    p11.KeySizeRange: (0x62, "the key has a size that the token does not take"),
    p11.KeyTypeInconsistent: (0x63, "the key is of another kind than the mechanism wants"),
    p11.MechanismInvalid: (0x70, "the token does not offer this mechanism"),
    p11.MechanismParamInvalid: (0x71, "the token refuses the mechanism's parameters"),
    p11.ObjectHandleInvalid: (0x82, "the object is no longer there"),
    p11.OperationActive: (0x90, "the session is busy with an unfinished operation"),
    p11.PinIncorrect: (0xA0, "the PIN is wrong"),
    p11.PinInvalid: (0xA1, "the PIN has characters that the token does not take"),
    p11.PinLenRange: (0xA2, "the PIN is too short or too long for the token"),
    p11.PinExpired: (0xA3, "the PIN has expired"),
    p11.PinLocked: (0xA4, "the PIN is locked"),
    p11.SessionClosed: (0xB0, "the session was closed"),
    p11.SessionCount: (0xB1, "too many sessions are open"),
    p11.SessionHandleInvalid: (0xB3, "the session was lost"),
    p11.SessionReadOnly: (0xB5, "the session is read-only"),
    p11.SessionReadOnlyExists: (0xB7, "a read-only session is open"),
    p11.TemplateIncomplete: (0xD0, "the token wants more attributes"),
    p11.TemplateInconsistent: (0xD1, "the token refuses these attributes together"),
    p11.TokenNotPresent: (0xE0, "the token is not there"),
    p11.TokenNotRecognised: (0xE1, "the module does not recognise the token"),
    p11.TokenWriteProtected: (0xE2, "the token is write-protected"),
    p11.UserAlreadyLoggedIn: (0x100, "the user is logged in already"),
    p11.UserNotLoggedIn: (0x101, "nobody is logged in"),
    p11.UserPinNotInitialized: (0x102, "the token's user PIN was never set"),
}

_PIN_ERRORS = (
    p11.PinIncorrect,
    p11.PinInvalid,
    p11.PinLenRange,
    p11.PinLocked,
)


class TokenOperationError(TokenError):
    """One PKCS#11 call failed. What it means can depend on the canary."""


class WrongPinError(PinError):
    """The token refused the PIN."""


class KeyHandle(Protocol):
    """A key inside a token, as far as this adapter's callers may look at it."""

    @property
    def id(self) -> bytes:
        """CKA_ID."""

    @property
    def label(self) -> str:
        """CKA_LABEL."""

    def destroy(self) -> None:
        """C_DestroyObject."""


def describe(error: BaseException) -> str:
    """Return what ``error`` means in words, with the return value's name and number if it has."""
    if type(error) in _RETURN_VALUES:
        number, words = _RETURN_VALUES[type(error)]
        name = re.sub(r"(?<!^)(?=[A-Z])", "_", type(error).__name__).upper()
        name = name.replace("RECOGNISED", "RECOGNIZED")  # as the standard spells it
        return f"{words} (CKR_{name}, {number:#x})"
    text = str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


@contextmanager
def errors(doing: str, hint: str = "") -> Iterator[None]:
    """Turn whatever python-pkcs11 raises while ``doing`` into a :class:`TokenError`.

    A few of its failures are Python's own exceptions (a missing usage right is an AttributeError,
    a token that claims a wrong length an OverflowError). ``hint`` says what to do about them.

    :raises WrongPinError: if the token refused a PIN.
    :raises PinError: if it has no PIN that could be right.
    :raises TokenOperationError: for everything else.
    """
    try:
        yield
    except (p11.PinExpired, p11.UserPinNotInitialized) as error:
        raise PinError(
            f"{doing} failed: {describe(error)}", hint="Set a new user PIN by the vendor's tool"
        ) from error
    except _PIN_ERRORS as error:
        raise WrongPinError(
            f"{doing} failed: {describe(error)}",
            hint="Correct the PIN before trying again: most tokens lock after a few wrong ones",
        ) from error
    except (
        p11.PKCS11Error,
        AttributeError,
        TypeError,
        ValueError,
        NotImplementedError,
        OverflowError,
    ) as error:
        raise TokenOperationError(f"{doing} failed: {describe(error)}", hint=hint) from error


def find(session: pkcs11.Session, kind: ObjectClass, **criteria: bytes | str) -> list[KeyHandle]:
    """Return all keys of one class with the given ``id`` and ``label``, as a list.

    A list, because the library's lazy search holds the session until it is read to its end.
    """
    template: dict[Attribute, Any] = {Attribute.CLASS: kind}
    if "id" in criteria:
        template[Attribute.ID] = criteria["id"]
    if "label" in criteria:
        template[Attribute.LABEL] = criteria["label"]
    return cast("list[KeyHandle]", list(session.get_objects(template)))


def require_token(session: pkcs11.Session) -> None:
    """Make sure that the token is there: on some modules a search finds nothing where it is not.

    One that shows any key is there. It is only described if it shows none, because a SoftHSM that
    may not write its files can't be, once somebody has logged in.

    :raises PKCS11Error: if the token can't be described any more.
    """
    if not (find(session, ObjectClass.SECRET_KEY) or find(session, ObjectClass.PRIVATE_KEY)):
        session.token.slot.get_token()


def touch(session: pkcs11.Session) -> None:
    """Make sure, at little cost, that a session is still there.

    :raises PKCS11Error: if it is not.
    """
    with suppress(p11.RandomNoRNG, p11.FunctionNotSupported):  # then the session was looked at
        session.generate_random(8)


def attributes(key: KeyHandle, wanted: list[Attribute]) -> dict[str, Any]:
    """Return those of the ``wanted`` attributes that the token shows, by their CKA names."""
    read = cast("pkcs11.Object", key).get_attributes(wanted)
    return {attribute.name: read[attribute] for attribute in wanted if attribute in read}


def generate_secret(
    session: pkcs11.Session,
    kind: KeyType,
    usage: MechanismFlag,
    template: Mapping[Attribute, Any],
    *,
    store: bool,
    key_id: bytes | None = None,
    label: str | None = None,
) -> KeyHandle:
    """Generate a 256-bit secret key that can do ``usage`` and nothing else."""
    key = session.generate_key(
        kind, 256, id=key_id, label=label, store=store, capabilities=usage, template=dict(template)
    )
    return cast("KeyHandle", key)


def generate_rsa(
    session: pkcs11.Session,
    bits: int,
    usage: MechanismFlag,
    templates: tuple[Mapping[Attribute, Any], Mapping[Attribute, Any]],
    *,
    store: bool,
    key_id: bytes | None = None,
    label: str | None = None,
) -> tuple[KeyHandle, KeyHandle]:
    """Generate an RSA key pair of ``bits``; ``templates`` are the public and the private one."""
    public, private = session.generate_keypair(
        KeyType.RSA,
        bits,
        id=key_id,
        label=label,
        store=store,
        capabilities=usage,
        public_template=dict(templates[0]),
        private_template=dict(templates[1]),
    )
    return cast("KeyHandle", public), cast("KeyHandle", private)


def rsa_public_numbers(public: KeyHandle) -> tuple[int, int]:
    """Return modulus and public exponent of an RSA public key object."""
    key = cast("pkcs11.Object", public)
    modulus = int.from_bytes(key[Attribute.MODULUS], "big")
    return modulus, int.from_bytes(key[Attribute.PUBLIC_EXPONENT], "big")


def gcm_encrypt(key: KeyHandle, nonce: bytes, aad: bytes, secret: SecretBytes) -> bytes:
    """Return ciphertext and 16-byte tag of CKM_AES_GCM; ``nonce`` is 12 bytes."""
    params = GCMParams(nonce, aad, GCM_TAG_BITS)
    return _bytes(
        cast("Any", key).encrypt(
            secret.expose(), mechanism=Mechanism.AES_GCM, mechanism_param=params
        )
    )


def gcm_decrypt(key: KeyHandle, nonce: bytes, aad: bytes, data: bytes) -> SecretBytes:
    """Return the plaintext of CKM_AES_GCM; ``data`` ends with the 16-byte tag."""
    params = GCMParams(nonce, aad, GCM_TAG_BITS)
    return SecretBytes(
        _bytes(cast("Any", key).decrypt(data, mechanism=Mechanism.AES_GCM, mechanism_param=params))
    )


def hmac_sha256(key: KeyHandle, message: bytes) -> SecretBytes:
    """Return the 32 bytes of CKM_SHA256_HMAC over ``message``.

    :raises TokenOperationError: if the token gives another length.
    """
    code = _bytes(cast("Any", key).sign(message, mechanism=Mechanism.SHA256_HMAC))
    if len(code) != SHA256_BYTES:
        raise TokenOperationError(f"the token gave an HMAC of {len(code)} bytes instead of 32")
    return SecretBytes(code)


def oaep_decrypt(key: KeyHandle, data: bytes, *, sha256: bool) -> SecretBytes:
    """Return the plaintext of CKM_RSA_PKCS_OAEP without a label, with SHA-256 or SHA-1."""
    params = (Mechanism.SHA256, MGF.SHA256, None) if sha256 else (Mechanism.SHA_1, MGF.SHA1, None)
    return SecretBytes(
        _bytes(
            cast("Any", key).decrypt(
                data, mechanism=Mechanism.RSA_PKCS_OAEP, mechanism_param=params
            )
        )
    )


def _bytes(value: object) -> bytes:
    # Given anything but bytes the library answers with a generator instead of data.
    if not isinstance(value, bytes):
        raise TypeError("the PKCS#11 library did not return bytes")
    return value

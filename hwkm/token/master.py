"""Master keys as objects inside a token: made, found, looked at, removed.

A master key is found by class and CKA_ID, its master id. Its usage is one right only, so that no
other application can be talked into using it in another way.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from pkcs11 import Attribute, KeyType, MechanismFlag, ObjectClass
from pkcs11.exceptions import KeyHandleInvalid, ObjectHandleInvalid

from hwkm.envelope import Scheme
from hwkm.errors import NotFoundError, TokenError
from hwkm.token import p11

if TYPE_CHECKING:
    from collections.abc import Callable

    import pkcs11

    from hwkm.token.p11 import KeyHandle
    from hwkm.token.session import TokenSession

    _Names = tuple[Scheme, bytes, str | None]

_Made = TypeVar("_Made")

RSA_BITS = (3072, 2048)
"""Tried in this order: SP 800-57 part 1, table 2 wants 3,072 after 2030; TPMs stop at 2,048."""

LOCKED: dict[Attribute, Any] = {
    Attribute.PRIVATE: True,
    Attribute.SENSITIVE: True,
    Attribute.EXTRACTABLE: False,
    Attribute.MODIFIABLE: False,
}

Templates = tuple[dict[Attribute, Any], dict[Attribute, Any]]

RSA_TEMPLATES: tuple[tuple[MechanismFlag, Templates], ...] = (
    (
        MechanismFlag.ENCRYPT | MechanismFlag.DECRYPT,
        (
            {Attribute.MODIFIABLE: False, Attribute.VERIFY_RECOVER: False},
            {**LOCKED, Attribute.SIGN_RECOVER: False},
        ),
    ),
    # A TPM's PKCS#11 module only makes keys that can sign as well, and knows fewer attributes.
    (
        MechanismFlag.ENCRYPT | MechanismFlag.DECRYPT | MechanismFlag.SIGN | MechanismFlag.VERIFY,
        ({Attribute.MODIFIABLE: False}, LOCKED),
    ),
)

RECORDED = [
    Attribute.CLASS,
    Attribute.KEY_TYPE,
    Attribute.TOKEN,
    Attribute.PRIVATE,
    Attribute.SENSITIVE,
    Attribute.EXTRACTABLE,
    Attribute.ALWAYS_SENSITIVE,
    Attribute.NEVER_EXTRACTABLE,
    Attribute.LOCAL,
    Attribute.MODIFIABLE,
    Attribute.ENCRYPT,
    Attribute.DECRYPT,
    Attribute.SIGN,
    Attribute.VERIFY,
    Attribute.WRAP,
    Attribute.UNWRAP,
    Attribute.DERIVE,
]
"""Attributes read back after a master key was made, and recorded. VALUE is never asked for."""


_SESSIONS = 8
"""In how many sessions master keys that were found are remembered."""


class NoMasterKeyError(NotFoundError):
    """The token holds no master key with this id."""


@dataclass(frozen=True, slots=True)
class MasterObject:
    """What a token shows of one master key: its label and the readable of its attributes."""

    master_id: bytes
    label: str
    attributes: dict[str, Any]


def object_class(scheme: Scheme) -> ObjectClass:
    """Return the class of the object that unwraps under ``scheme``."""
    return ObjectClass.PRIVATE_KEY if scheme is Scheme.OAEP else ObjectClass.SECRET_KEY


def find_one(
    session: pkcs11.Session, scheme: Scheme, master_id: bytes, label: str | None = None
) -> KeyHandle:
    """Return the master key with this id, and this label if it is known.

    Call it inside :meth:`TokenSession.use`. A search takes some tokens long; so one that was found
    is found again in the same session without one, as long as its object is still that key.

    :raises NoMasterKeyError: if there is none.
    :raises TokenError: if there are several.
    """
    known = _found_in(session)
    names = (scheme, master_id, label)
    key = known.get(names)
    if key is None or not _is_still(key, master_id):
        known.pop(names, None)
        key = known[names] = _search(session, scheme, master_id, label)
    return key


def use_one(
    session: pkcs11.Session,
    scheme: Scheme,
    master_id: bytes,
    label: str | None,
    work: Callable[[KeyHandle], _Made],
) -> _Made:
    """Return what ``work`` makes of the master key that :func:`find_one` finds.

    One that was found before is not looked at again first: the module says if it is gone.

    :raises NoMasterKeyError, TokenError: as :func:`find_one` does.
    """
    known = _found_in(session).get((scheme, master_id, label))
    if known is not None:
        with suppress(KeyHandleInvalid, ObjectHandleInvalid):
            return work(known)
    return work(find_one(session, scheme, master_id, label))


_found: dict[int, tuple[pkcs11.Session, dict[_Names, KeyHandle]]] = {}
"""What was found in which session. A session that ended is kept, and with it its id() stays its
own; python-pkcs11 itself takes a new session for the old one if it has the same number."""


def _found_in(session: pkcs11.Session) -> dict[_Names, KeyHandle]:
    if id(session) not in _found:
        while len(_found) >= _SESSIONS:
            del _found[next(iter(_found))]
        _found[id(session)] = (session, {})
    return _found[id(session)][1]


def _is_still(key: KeyHandle, master_id: bytes) -> bool:
    """Return whether a key that was found before is still there.

    Its handle may have been given to another object.
    """
    try:
        return p11.attributes(key, [Attribute.ID]).get("ID") == master_id
    except (KeyHandleInvalid, ObjectHandleInvalid):
        return False


def _search(
    session: pkcs11.Session, scheme: Scheme, master_id: bytes, label: str | None
) -> KeyHandle:
    """Search for a master key; one that a killed process left half-made is told by CKA_LOCAL."""
    named = {} if label is None else {"label": label}
    found = p11.find(session, object_class(scheme), id=master_id, **named)
    found = [key for key in found if _suits(scheme, key)]
    if len(found) > 1:
        found = [key for key in found if p11.attributes(key, [Attribute.LOCAL]).get("LOCAL", True)]
    if not found:
        p11.require_token(session)
        raise NoMasterKeyError(f"the token holds no master key {master_id.hex()}")
    if len(found) > 1:
        raise TokenError(
            f"the token holds {len(found)} master keys {master_id.hex()}",
            hint="hwkm token lint shows them; remove the copy that is not wanted",
        )
    return found[0]


def _suits(scheme: Scheme, key: KeyHandle) -> bool:
    """Return whether ``key`` is of a type for ``scheme``; HMAC keys have several types."""
    if scheme is Scheme.OAEP:
        return True
    kind = p11.attributes(key, [Attribute.KEY_TYPE]).get("KEY_TYPE")
    return (kind == KeyType.AES) == (scheme is Scheme.GCM)


def look_at(token: TokenSession, scheme: Scheme, master_id: bytes) -> MasterObject:
    """Return label and attributes of a master key.

    :raises NoMasterKeyError: if the token does not hold it.
    """
    with token.use("reading a master key's attributes") as session:
        key = find_one(session, scheme, master_id)
        return MasterObject(master_id, key.label, plain(p11.attributes(key, RECORDED)))


def public_numbers(token: TokenSession, master_id: bytes) -> tuple[int, int]:
    """Return modulus and exponent of the public half of an ``oaep`` master key.

    :raises NoMasterKeyError: if the token does not hold the public key object.
    """
    with token.use("reading a public key") as session:
        found = p11.find(session, ObjectClass.PUBLIC_KEY, id=master_id)
        if not found:
            p11.require_token(session)
            raise NoMasterKeyError(f"the token holds no public key {master_id.hex()}")
        return p11.rsa_public_numbers(found[0])


def generate(token: TokenSession, scheme: Scheme, master_id: bytes, label: str) -> None:
    """Generate a master key inside the token.

    :raises TokenError: if the token can't.
    """
    if scheme is Scheme.OAEP:
        _generate_rsa(token, master_id, label)
        return
    kind, usage = {
        Scheme.GCM: (KeyType.AES, MechanismFlag.ENCRYPT | MechanismFlag.DECRYPT),
        Scheme.HMAC_KDF: (KeyType.GENERIC_SECRET, MechanismFlag.SIGN),
    }[scheme]
    try:
        with token.use(f"generating a master key for {scheme.label}") as session:
            p11.generate_secret(
                session, kind, usage, LOCKED, store=True, key_id=master_id, label=label
            )
    except p11.TokenOperationError as error:
        raise TokenError(
            str(error),
            hint="If only the vendor's tool can make such keys, make one there and adopt it by "
            "--existing",
        ) from error


def _generate_rsa(token: TokenSession, master_id: bytes, label: str) -> None:
    failure: TokenError | None = None
    for bits in RSA_BITS:
        for usage, templates in RSA_TEMPLATES:
            try:
                with token.use(f"generating an RSA-{bits} master key") as session:
                    p11.generate_rsa(
                        session, bits, usage, templates, store=True, key_id=master_id, label=label
                    )
            except p11.TokenOperationError as error:
                failure = error
                remove(token, Scheme.OAEP, master_id)
            else:
                return
    raise failure or TokenError("the token generates no RSA keys")


def remove(token: TokenSession, scheme: Scheme, master_id: bytes) -> None:
    """Remove every object with this id that ``scheme`` could have made; none is no error."""
    kinds = [object_class(scheme)]
    if scheme is Scheme.OAEP:
        kinds.append(ObjectClass.PUBLIC_KEY)
    with token.use("removing an unfinished master key") as session:
        for kind in kinds:
            for key in p11.find(session, kind, id=master_id):
                key.destroy()


def plain(attributes: dict[str, Any]) -> dict[str, Any]:
    """Return ``attributes`` as JSON can hold them: enumerations as names, bytes as hex."""
    return {
        name: value.hex() if isinstance(value, bytes) else getattr(value, "name", value)
        for name, value in attributes.items()
    }

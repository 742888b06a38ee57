"""Objects in a token as python-pkcs11 alone makes and shows them, good ones and bad ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pkcs11 import Attribute, KeyType, MechanismFlag, ObjectClass

from hwkm.token.master import LOCKED

if TYPE_CHECKING:
    import pkcs11

    from hwkm.token.session import TokenSession

CRYPT = MechanismFlag.ENCRYPT | MechanismFlag.DECRYPT

Listed = list[tuple[str, bytes, str]]


def make_secret(
    token: TokenSession,
    key_id: bytes,
    *,
    kind: KeyType = KeyType.AES,
    usage: MechanismFlag = CRYPT,
    label: str = "made",
    **changes: bool,
) -> None:
    """Generate a key like hwkm's own, but for ``changes``: attributes by their CKA names."""
    template = {**LOCKED, **{Attribute[name]: value for name, value in changes.items()}}
    with token.use("making a key") as session:
        session.generate_key(
            kind, 256, id=key_id, label=label, store=True, capabilities=usage, template=template
        )


def import_secret(token: TokenSession, key_id: bytes, value: bytes, **changes: bool) -> None:
    """Put an AES key that is known outside into the token, locked like hwkm's own."""
    with token.use("importing a key") as session:
        session.create_object(
            {
                **LOCKED,
                Attribute.CLASS: ObjectClass.SECRET_KEY,
                Attribute.KEY_TYPE: KeyType.AES,
                Attribute.VALUE: value,
                Attribute.TOKEN: True,
                Attribute.ID: key_id,
                Attribute.LABEL: "imported",
                Attribute.ENCRYPT: True,
                Attribute.DECRYPT: True,
                Attribute.WRAP: False,
                Attribute.UNWRAP: False,
                **{Attribute[name]: changed for name, changed in changes.items()},
            }
        )


def destroy(token: TokenSession, key_id: bytes) -> int:
    """Destroy every object with this id behind hwkm's back, and return how many there were."""
    with token.use("destroying objects") as session:
        found = list(session.get_objects({Attribute.ID: key_id}))
        for item in found:
            item.destroy()
    return len(found)


def objects(token: TokenSession) -> Listed:
    """Return class, id and label of everything in the token, sorted."""
    with token.use("listing everything") as session:
        return sorted(_shown(item) for item in list(session.get_objects({Attribute.TOKEN: True})))


def _shown(item: pkcs11.Object) -> tuple[str, bytes, str]:
    read = item.get_attributes([Attribute.CLASS, Attribute.ID, Attribute.LABEL])
    key_id, label = read.get(Attribute.ID, b""), read.get(Attribute.LABEL, "")
    return ObjectClass(read[Attribute.CLASS]).name, bytes(key_id), str(label)

"""Dangerous attributes of the keys on a token."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pkcs11 import Attribute, ObjectClass

from hwkm.checks import Check, fail, ok, warn
from hwkm.token import master, p11

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hwkm.token.session import TokenSession

_CLASSES = (ObjectClass.SECRET_KEY, ObjectClass.PRIVATE_KEY)
_LOOKED_AT = [
    *master.RECORDED,
    Attribute.ID,
    Attribute.LABEL,
    Attribute.VALUE_LEN,
    Attribute.CHECK_VALUE,
    Attribute.MODULUS,
]


def lint(token: TokenSession) -> list[Check]:
    """Look at every secret and private key on ``token``.

    :raises TokenError, PinError: if the token can't be read.
    """
    findings = [finding for key in sorted(_keys(token), key=_name) for finding in lint_key(key)]
    return findings or [warn("keys", "the token holds no keys", "hwkm master create makes one")]


def lint_key(attributes: dict[str, Any]) -> list[Check]:
    """Return what is wrong with a key, or one finding that nothing is."""
    name = _name(attributes)
    if _half_made(attributes):
        advice = "A process was killed while it made this key; remove it with the vendor's tool"
        return [fail(name, "half-made: it has no id, or no value", advice)]
    found = [
        check(name, text, advice) for check, wrong, text, advice in _rules(attributes) if wrong
    ]
    return found or [ok(name, "can't be extracted, made here, one use only")]


def _rules(a: dict[str, Any]) -> Iterator[tuple[Any, bool, str, str]]:
    anew = "Make a new master key, and retire this one"
    yield fail, a.get("EXTRACTABLE") is not False, "CKA_EXTRACTABLE: it can leave the token", anew
    yield fail, a.get("SENSITIVE") is not True, "not CKA_SENSITIVE: its value can be read", anew
    both = bool(a.get("WRAP") and a.get("DECRYPT"))
    yield fail, both, "CKA_WRAP and CKA_DECRYPT on one key: it can unwrap what it wrapped", anew
    if a.get("EXTRACTABLE") is False:
        once = a.get("NEVER_EXTRACTABLE") is not True or a.get("ALWAYS_SENSITIVE") is not True
        text = "not CKA_ALWAYS_SENSITIVE or not CKA_NEVER_EXTRACTABLE: it may have left the token"
        yield warn, once, text, "Make sure where it came from, or make a new master key"
    text = "not CKA_LOCAL: it was imported (or this module does not say the truth about it)"
    yield warn, a.get("LOCAL") is not True, text, "Make sure where it came from"
    text = "CKA_MODIFIABLE: more rights can be given to it later"
    yield warn, a.get("MODIFIABLE") is True, text, "Make a new master key with hwkm, if you can"


def _half_made(attributes: dict[str, Any]) -> bool:
    # An imported key can be without a check value, one made here can't.
    unchecked = attributes.get("LOCAL") is False and attributes.get("CHECK_VALUE") == b""
    no_value = attributes.get("VALUE_LEN") == 0 or attributes.get("MODULUS") == b""
    return unchecked or no_value or not attributes.get("ID")


def _name(attributes: dict[str, Any]) -> str:
    label = attributes.get("LABEL") or "without a label"
    return f"key {attributes.get('ID', b'').hex() or 'without an id'} ({label})"


def _keys(token: TokenSession) -> list[dict[str, Any]]:
    with token.use("listing the keys") as session:
        return [
            p11.attributes(key, _LOOKED_AT) for kind in _CLASSES for key in p11.find(session, kind)
        ]

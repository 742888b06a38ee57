"""Uses a token through python-pkcs11 alone, in a process of its own, and says what happened.

It reads one JSON object (a token under test) from standard input and writes one to standard
output. The HMAC key that it makes stays in the token, so that a second run finds it again.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import pkcs11
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.serialization import load_der_public_key
from pkcs11 import MGF, Attribute, GCMParams, KeyType, Mechanism, MechanismFlag, ObjectClass
from pkcs11.util.rsa import encode_rsa_public_key

OWN_HMAC_ID = b"raw-client-hmac"
LOCKED = {
    Attribute.PRIVATE: True,
    Attribute.SENSITIVE: True,
    Attribute.EXTRACTABLE: False,
    Attribute.MODIFIABLE: False,
}
READ_BACK = [
    Attribute.SENSITIVE,
    Attribute.EXTRACTABLE,
    Attribute.LOCAL,
    Attribute.ALWAYS_SENSITIVE,
    Attribute.NEVER_EXTRACTABLE,
    Attribute.SIGN,
    Attribute.WRAP,
    Attribute.VALUE,
]
CRYPT = MechanismFlag.ENCRYPT | MechanismFlag.DECRYPT
OAEP = {
    "SHA-1": (hashes.SHA1(), (Mechanism.SHA_1, MGF.SHA1, None)),
    "SHA-256": (hashes.SHA256(), (Mechanism.SHA256, MGF.SHA256, None)),
}


def main() -> None:
    token = json.load(sys.stdin)
    report: dict[str, Any] = {}
    for start in ("first", "after unload"):
        found = pkcs11.lib(token["module_path"]).get_token(token_label=token["token_label"])
        report[f"serial, {start}"] = found.serial.rstrip(b"\0 ").decode()
        with found.open(rw=True, user_pin=token["user_pin"]) as session:
            report[f"mac, {start}"] = mac(hmac_key(session, token), b"one message")
        pkcs11.unload(token["module_path"])
    found = pkcs11.lib(token["module_path"]).get_token(token_label=token["token_label"])
    with found.open(rw=True, user_pin=token["user_pin"]) as session:
        report |= use(session, token)
    json.dump(report, sys.stdout)


def use(session: Any, token: dict[str, Any]) -> dict[str, Any]:
    """Return what happens in each mechanism; what must not disturb the others comes last."""
    key = hmac_key(session, token)
    return {
        "mac, other message": mac(key, b"another message"),
        "attributes": {Attribute(a).name: repr(v) for a, v in attributes(key).items()},
        "gcm": outcome(gcm, session),
        **oaep(session, token),
    }


def hmac_key(session: Any, token: dict[str, Any]) -> Any:
    key_id = token["hmac_id"].encode() if token["hmac_id"] else OWN_HMAC_ID
    wanted = {Attribute.CLASS: ObjectClass.SECRET_KEY, Attribute.ID: key_id}
    for key in list(session.get_objects(wanted)):
        return key
    return session.generate_key(
        KeyType.GENERIC_SECRET,
        256,
        id=key_id,
        label="raw client",
        store=True,
        capabilities=MechanismFlag.SIGN,
        template=dict(LOCKED),
    )


def mac(key: Any, message: bytes) -> str:
    return bytes(key.sign(message, mechanism=Mechanism.SHA256_HMAC)).hex()


def attributes(key: Any) -> dict[int, Any]:
    return dict(key.get_attributes(READ_BACK))


def gcm(session: Any) -> bool:
    key = session.generate_key(KeyType.AES, 256, capabilities=CRYPT)
    params = GCMParams(b"n" * 12, b"context", 128)
    sealed = key.encrypt(b"k" * 64, mechanism=Mechanism.AES_GCM, mechanism_param=params)
    opened = key.decrypt(sealed, mechanism=Mechanism.AES_GCM, mechanism_param=params)
    return bool(opened == b"k" * 64)


def oaep(session: Any, token: dict[str, Any]) -> dict[str, Any]:
    public, private = rsa_pair(session, token)
    return {
        f"oaep {name}": outcome(oaep_round_trip, public, private, name)
        for name in ("SHA-1", "SHA-256")
    }


def rsa_pair(session: Any, token: dict[str, Any]) -> Any:
    both = CRYPT if token["can_restrict_rsa"] else CRYPT | MechanismFlag.SIGN | MechanismFlag.VERIFY
    return session.generate_keypair(
        KeyType.RSA,
        token["rsa_bits"],
        id=b"\x00\x01\xff",
        label="raw client",
        store=True,
        capabilities=both,
        private_template=dict(LOCKED),
    )


def oaep_round_trip(public: Any, private: Any, name: str) -> bool:
    digest, params = OAEP[name]
    host: Any = load_der_public_key(encode_rsa_public_key(public))
    sealed = host.encrypt(b"k" * 64, padding.OAEP(padding.MGF1(digest), digest, None))
    opened = private.decrypt(sealed, mechanism=Mechanism.RSA_PKCS_OAEP, mechanism_param=params)
    return bool(opened == b"k" * 64)


def outcome(attempt: Any, *arguments: Any) -> str:
    try:
        return "ok" if attempt(*arguments) else "wrong"
    except pkcs11.PKCS11Error as error:
        return type(error).__name__


if __name__ == "__main__":
    main()

"""Open an envelope of hwkm without hwkm: docs/envelope-format.md as a program.

    python open_envelope.py [--show-key] MODULE TOKEN_LABEL PIN_FILE < envelope.b64

Needs python-pkcs11 and cryptography. Prints the header if a stanza opens and the MAC is right;
compare its volume with the volume at hand.
"""

import base64
import hmac
import re
import sys
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any

import pkcs11
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from pkcs11 import MGF, Attribute, GCMParams, KeyType, Mechanism, ObjectClass

UNSIGNED, BYTES, TEXT, ARRAY = 0, 2, 3, 4  # CBOR's major types, RFC 8949, section 3.1
GCM, HMAC_KDF, OAEP = 1, 2, 3  # wrapping schemes; 4, escrow, needs no token and is passed over
CIPHERS = {1: ("AES_128_XTS", 32), 2: ("AES_256_XTS", 64), 3: ("AES_256_GCM", 32)}
OAEP_PARAMS = {1: (Mechanism.SHA_1, MGF.SHA1, None), 2: (Mechanism.SHA256, MGF.SHA256, None)}
HIDDEN = re.compile(  # controls of any kind, and what is not UTF-8
    r"[\x00-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f"
    r"\ud800-\udfff\ufeff\ufff9-\ufffb\U000e0000-\U000e0fff]"
)
Header = dict[str, Any]


def need(condition: bool, otherwise: str) -> None:
    """Refuse the envelope unless the condition holds; why begins with the vectors' word for it."""
    if not condition:
        raise ValueError(otherwise)


def item(stream: BytesIO, major: int, low: int, high: int) -> Any:
    """Return a number, the length of an array, or a string, if number or length are in limits."""
    first = int.from_bytes(stream.read(1), "big")
    number, least, width = first & 31, 0, 1 << (first & 7)
    need(first >> 5 == major and number < 28, f"malformed: byte {stream.tell()}")
    if number > 23:  # the number follows, and must not have fitted into fewer bytes
        number = int.from_bytes(stream.read(width), "big")
        least = 24 if width == 1 else 1 << 4 * width
    need(max(low, least) <= number <= high, f"malformed: number before byte {stream.tell()}")
    return stream.read(number) if major in (BYTES, TEXT) else number


def parse(data: bytes) -> tuple[Header, list[tuple[int, bytes, bytes]], bytes, bytes]:
    """Return header; scheme, recipient id and blob of each stanza; MAC; and what the MAC covers."""
    stream = BytesIO(data)
    need(item(stream, ARRAY, 5, 5) == 5 and len(data) <= 16384, "malformed: it is too long")
    need(item(stream, TEXT, 4, 4) == b"hwkm", "malformed: this is not an envelope")
    item(stream, UNSIGNED, 1, 1)  # the version
    item(stream, ARRAY, 5, 5)
    header: Header = {"key id": item(stream, BYTES, 12, 12).hex()}
    header["volume"] = item(stream, TEXT, 1, 127).decode(errors="surrogateescape")
    need(not HIDDEN.search(header["volume"]), "malformed: a character is not allowed")
    header["generation"] = item(stream, UNSIGNED, 1, 2**32 - 1)
    header["cipher"] = item(stream, UNSIGNED, 1, 3)
    header["created"] = item(stream, UNSIGNED, 0, 253402300799)  # the year 9999's last second
    stanzas = []
    for _ in range(item(stream, ARRAY, 1, 16)):
        item(stream, ARRAY, 3, 3)
        scheme, recipient_id = item(stream, UNSIGNED, 1, 4), item(stream, BYTES, 1, 80)
        stanzas.append((scheme, recipient_id, item(stream, BYTES, 1, 2048)))
    need(len({s[:2] for s in stanzas}) == len(stanzas), "malformed: a recipient stands twice")
    message = b"\x84" + data[1 : stream.tell()]  # an array of the four items read so far
    mac = item(stream, BYTES, 32, 32)
    need(len(mac) == 32 and stream.read() == b"", "malformed: its end is not where it should be")
    return header, stanzas, mac, message


def context(header: Header, scheme: int, recipient_id: bytes) -> bytes:
    """Return what a stanza is bound to."""
    parts = [b"hwkm/context", b"\x01", bytes([scheme]), recipient_id]
    parts += [bytes.fromhex(header["key id"]), header["volume"].encode()]
    parts += [header["generation"].to_bytes(4, "big"), bytes([header["cipher"]])]
    return b"".join(len(part).to_bytes(2, "big") + part for part in parts)


def unwrap(master: Any, scheme: int, bound: bytes, blob: bytes) -> bytes:
    """Return what is wrapped in a blob, if it is bound to this context."""
    if scheme == GCM:
        gcm = GCMParams(blob[:12], bound, 128)
        return bytes(master.decrypt(blob[12:], mechanism=Mechanism.AES_GCM, mechanism_param=gcm))
    if scheme == HMAC_KDF:
        message = b"hwkm/kdf/1\0" + blob[:32] + bound
        one_time = AESGCM(master.sign(message, mechanism=Mechanism.SHA256_HMAC))
        return one_time.decrypt(bytes(12), blob[32:], bound)
    oaep = OAEP_PARAMS[blob[0]]
    payload = master.decrypt(blob[1:], mechanism=Mechanism.RSA_PKCS_OAEP, mechanism_param=oaep)
    need(payload[:32] == sha256(bound).digest(), "another volume, generation or cipher")
    return bytes(payload[32:])


def expected_mac(key: bytes, message: bytes) -> bytes:
    """Return the MAC; its key comes from the volume key by HKDF-SHA256 (RFC 5869) with no salt."""
    extracted = hmac.digest(bytes(32), key, "sha256")
    mac_key = hmac.digest(extracted, b"hwkm/envelope-mac/1\x01", "sha256")
    return hmac.digest(mac_key, message, "sha256")


def find(session: pkcs11.Session, scheme: int, recipient_id: bytes) -> list[Any]:
    """Return the master key with this id, if it is one for this scheme."""
    kind = ObjectClass.PRIVATE_KEY if scheme == OAEP else ObjectClass.SECRET_KEY
    found = list(session.get_objects({Attribute.CLASS: kind, Attribute.ID: recipient_id}))
    return [k for k in found if (k[Attribute.KEY_TYPE] == KeyType.AES) == (scheme == GCM)]


def open_envelope(session: pkcs11.Session, data: bytes) -> tuple[Header, bytes]:
    """Return header and key, out of the first stanza that opens."""
    header, stanzas, mac, message = parse(data)
    why, size = ["no recipient: no master key is in the token"], CIPHERS[header["cipher"]][1]
    for scheme, recipient_id, blob in (s for s in stanzas if s[0] <= OAEP):
        for master in find(session, scheme, recipient_id):
            try:
                key = unwrap(master, scheme, context(header, scheme, recipient_id), blob)
                need(len(key) == size, "the key is not as long as its cipher wants")
                need(header["cipher"] == 3 or key[: size // 2] != key[size // 2 :], "equal halves")
            except (pkcs11.PKCS11Error, InvalidTag, LookupError, ValueError) as error:
                why.append(f"stanza failure: {error!r}")
                continue
            need(hmac.compare_digest(expected_mac(key, message), mac), "MAC failure")
            return header, key
    raise ValueError(why[:2][-1])


def main() -> None:
    """Open the envelope on standard input."""
    words = [word for word in sys.argv[1:] if word != "--show-key"]
    module, label, pin_file = words if len(words) == 3 else sys.exit(__doc__)
    try:
        data = base64.b64decode(sys.stdin.buffer.read().strip(), validate=True)
        token = pkcs11.lib(module).get_token(token_label=label)
        with token.open(user_pin=Path(pin_file).read_text().strip()) as session:
            header, key = open_envelope(session, data)
    except ValueError as error:
        sys.exit(f"not opened: {error}")
    for name, value in {**header, "cipher": CIPHERS[header["cipher"]][0]}.items():
        print(f"{name}: {value}")
    if "--show-key" in sys.argv:
        print(f"key: {key.hex()}")


if __name__ == "__main__":
    main()

"""Envelopes that are well formed and must not open."""

from __future__ import annotations

import hmac
from hashlib import sha256
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from . import wire
from .cases import (
    MAC_FAILURE,
    MASTERS,
    NO_RECIPIENT,
    STANZA_FAILURE,
    Case,
    changed,
    foreign,
    volume,
    wrap,
)
from .wire import Copy, Volume, seal

if TYPE_CHECKING:
    from collections.abc import Iterator

KINDS = ("aes", "hmac", "rsa-2048")
TAG_BYTES = 16


def cases() -> Iterator[Case]:
    for master in KINDS:
        yield from _wrong_binding(master)
        yield from _wrong_key(master)
        yield from _created_changed(master)
    for master, front in (("aes", 12), ("hmac", 32)):
        yield from _damaged(master, front)
    yield from _symmetric()
    yield from _damaged_oaep()
    yield from _mac()
    yield from _no_recipient()


# Stanza failures: the MAC is right throughout, so that the stanza alone is what keeps them shut


def _refused(name: str, comment: str, master: str, about: Volume, blob: bytes) -> Case:
    key = MASTERS[master]
    sealed = seal(about, [Copy(key.scheme, key.master_id, blob)])
    return Case(name, comment, STANZA_FAILURE, (master,), sealed)


def _wrong_binding(master: str) -> Iterator[Case]:
    key = MASTERS[master]
    seed = f"{master}-wrong"
    about = volume(seed, "AES_128_XTS")
    scheme, recipient = key.scheme, key.master_id
    for what, bound in (
        ("volume", wire.context(about.but(name="Vol-00043"), scheme, recipient)),
        ("generation", wire.context(about.but(generation=2), scheme, recipient)),
        ("cipher", wire.context(about.but(cipher=3), scheme, recipient)),
        ("key-id", wire.context(about.but(key_id=bytes(12)), scheme, recipient)),
        ("recipient", wire.context(about, scheme, MASTERS["aes-2"].master_id)),
        ("scheme", wire.context(about, scheme % 3 + 1, recipient)),
        ("version", wire.context(about, scheme, recipient, version=2)),
    ):
        blob = wire.wrap(about, key, seed=f"{seed}/{what}", bound=bound).blob
        comment = f"The stanza was made for another {what.replace('-', ' ')} than the header says."
        yield _refused(f"{master}-wrong-{what}", comment, master, about, blob)


def _wrong_key(master: str) -> Iterator[Case]:
    seed = f"{master}-key"
    about = volume(seed)
    halves = wire.draw(f"{seed}/half", 32) * 2
    for name, comment, key in (
        ("key-32-bytes", "AES_256_XTS takes 64 bytes, the stanza holds 32.", about.key[:32]),
        ("key-63-bytes", "AES_256_XTS takes 64 bytes, the stanza holds 63.", about.key[:63]),
        ("key-65-bytes", "AES_256_XTS takes 64 bytes, the stanza holds 65.", about.key + b"\0"),
        ("key-equal-halves", "The two AES keys of an XTS key must differ.", halves),
    ):
        wrong = about.but(key=key)
        blob = wrap(wrong, f"{seed}/{name}", master)[0].blob
        yield _refused(f"{master}-{name}", comment, master, wrong, blob)
    # As wide as its cipher, in an envelope for one that takes less.
    longer = about.but(cipher=1)
    blob = wrap(longer, f"{seed}/longer", master)[0].blob
    comment = "AES_128_XTS takes 32 bytes, the stanza holds 64."
    yield _refused(f"{master}-key-64-bytes", comment, master, longer, blob)


def _damaged(master: str, front: int) -> Iterator[Case]:
    seed = f"{master}-damaged"
    about = volume(seed)
    blob = wrap(about, seed, master)[0].blob
    name = {"aes": "nonce", "hmac": "salt"}[master]
    empty = wrap(about.but(key=b""), f"{seed}/empty", master)[0].blob
    other = wire.wrap(about, MASTERS[f"{master}-2"], seed=f"{seed}/other").blob
    for what, comment, damaged in (
        (name, f"One bit of the {name} is turned over.", changed(blob, 0)),
        ("ciphertext", "One bit of the ciphertext is turned over.", changed(blob, front)),
        ("tag", "One bit of the tag is turned over.", changed(blob, -1, 128)),
        ("cut", "The blob lacks its last byte.", blob[:-1]),
        ("longer", "The blob has one byte more.", blob + b"\0"),
        ("one-byte", "The blob is one byte.", blob[:1]),
        ("no-ciphertext", f"The blob is nothing but {name} and tag.", empty),
        ("no-tag", f"The blob ends after the {name}.", blob[:front]),
        ("other-master", "Wrapped by another master key, under this one's id.", other),
    ):
        yield _refused(f"{master}-damaged-{what}", comment, master, about, damaged)


def _symmetric() -> Iterator[Case]:
    about = volume("symmetric")
    key = MASTERS["aes"]
    blob = wire.gcm_blob(key, about.key, b"", "gcm no context")
    yield _refused("aes-no-context", "There is no additional data.", "aes", about, blob)
    key = MASTERS["hmac"]
    salt, bound = wire.draw("hmac/salt", 32), wire.context(about, key.scheme, key.master_id)
    for what, comment, message, nonce, data in (
        ("kdf", "The one-time key is not bound to the context.", salt, bytes(12), bound),
        ("aad", "There is no additional data.", salt + bound, bytes(12), b""),
        ("nonce", "The nonce is not zero.", salt + bound, b"\1" * 12, bound),
    ):
        one_time = hmac.digest(key.material, b"hwkm/kdf/1\0" + message, "sha256")
        blob = salt + AESGCM(one_time).encrypt(nonce, about.key, data)
        yield _refused(f"hmac-wrong-{what}", comment, "hmac", about, blob)


def _damaged_oaep() -> Iterator[Case]:
    about = volume("oaep damaged")
    key = MASTERS["rsa-2048"]
    bound = wire.context(about, key.scheme, key.master_id)
    payload = sha256(bound).digest() + about.key
    blob = wrap(about, "oaep damaged", "rsa-2048")[0].blob
    modulus = key.rsa().public_key().public_numbers().n.to_bytes(256, "big")
    for what, comment, damaged in (
        ("hash-0", "There is no hash 0.", b"\0" + blob[1:]),
        ("hash-3", "There is no hash 3.", b"\3" + blob[1:]),
        ("first", "One bit at the ciphertext's start is turned over.", changed(blob, 3)),
        ("last", "One bit at the ciphertext's end is turned over.", changed(blob, -1)),
        ("cut", "The ciphertext lacks its last byte.", blob[:-1]),
        ("longer", "The ciphertext has one byte more.", blob + b"\0"),
        ("one-byte", "There is no ciphertext.", blob[:1]),
        ("modulus", "The ciphertext is the modulus.", b"\1" + modulus),
        ("zero", "The ciphertext is zero.", b"\1" + bytes(256)),
        ("label", "There is an OAEP label.", b"\1" + wire.oaep(key, payload, "l", label=bound)),
        ("no-digest", "The payload is the key alone.", b"\1" + wire.oaep(key, about.key, "n")),
        ("short", "The payload is 31 bytes.", b"\1" + wire.oaep(key, payload[:31], "s")),
        ("digest-only", "The payload holds no key.", b"\1" + wire.oaep(key, payload[:32], "d")),
        ("pkcs1", "The padding is that of PKCS #1 v1.5.", b"\1" + _pkcs1(payload)),
        ("sha1-as-sha256", "Made with SHA-1, and said to be SHA-256.", b"\2" + blob[1:]),
        (
            "sha256-as-sha1",
            "Made with SHA-256, and said to be SHA-1.",
            b"\1" + wire.oaep(key, payload, "h", digest="sha256"),
        ),
    ):
        yield _refused(f"rsa-2048-damaged-{what}", comment, "rsa-2048", about, damaged)


def _pkcs1(payload: bytes) -> bytes:
    filler = bytes(byte or 1 for byte in wire.draw("pkcs1", 253 - len(payload)))
    return wire.raw_rsa(MASTERS["rsa-2048"], b"\0\2" + filler + b"\0" + payload)


# MAC failures: a stanza opens, and the envelope is not the one that was sealed


def _created_changed(master: str) -> Iterator[Case]:
    name = f"{master}-created-changed"
    about = volume(name)
    copies = wrap(about, name, master)
    mac = seal(about, copies)[-34:]
    sealed = seal(about.but(created=about.created + 1), copies)[:-34] + mac
    comment = "The time of creation was changed; the MAC is the old one."
    yield Case(name, comment, MAC_FAILURE, (master,), sealed)


def _mac() -> Iterator[Case]:
    about = volume("mac")
    first, second = wrap(about, "mac", "aes", "hmac")
    good = seal(about, [first, second])
    other = volume("mac/other")
    body = good[:-34]
    four = wire.head(wire.ARRAY, 4) + body[1:]

    def stanzas(*copies: Copy) -> bytes:
        return seal(about, copies)[:-34] + good[-34:]

    broken = Copy(second.scheme, second.recipient_id, changed(second.blob, 40))
    renamed = Copy(second.scheme, MASTERS["hmac-2"].master_id, second.blob)
    header = wire.head(wire.ARRAY, 4) + wire.text("hwkm") + wire.uint(1) + about.encode()
    own_key = wire.mac_key(about.key)
    for name, comment, data in (
        ("bit", "One bit of the MAC is turned over.", changed(good, -1)),
        ("zero", "The MAC is all zeros.", body + wire.bstr(bytes(32))),
        ("removed", "The second stanza was removed.", stanzas(first)),
        ("added", "A stanza was added.", stanzas(first, second, foreign("mac"))),
        ("order", "The stanzas were exchanged.", stanzas(second, first)),
        ("second-changed", "The stanza that is not opened was changed.", stanzas(first, broken)),
        ("second-renamed", "The second recipient's id was changed.", stanzas(first, renamed)),
        ("other-key", "The MAC is keyed from another key.", seal(about, [first], other.key)),
        ("raw-key", "Keyed with the volume key itself.", _with_mac(body, about.key, four)),
        ("message", "The message is the whole envelope's start.", _with_mac(body, own_key, body)),
        ("header-only", "It covers the header only.", _with_mac(body, own_key, header)),
    ):
        yield Case(f"mac-{name}", comment, MAC_FAILURE, ("aes", "hmac"), data)
    yield from _two_keys()


def _with_mac(body: bytes, key: bytes, message: bytes) -> bytes:
    return body + wire.bstr(hmac.digest(key, message, "sha256"))


def _two_keys() -> Iterator[Case]:
    """Somebody who seals an envelope can't give two recipients two keys."""
    about = volume("two keys")
    other = about.but(key=wire.draw("two keys/other", 64))
    sealed = seal(about, wrap(other, "two keys", "aes") + wrap(about, "two keys", "hmac"))
    comment = "The stanzas hold two keys; the MAC is keyed from the second one's. "
    for name, master, expect in (("first", "aes", MAC_FAILURE), ("both", "aes", MAC_FAILURE)):
        token = ("aes", "hmac") if name == "both" else (master,)
        yield Case(f"mac-two-keys-{name}", comment + f"The token: {name}.", expect, token, sealed)


def _no_recipient() -> Iterator[Case]:
    about = volume("nobody")
    copies = wrap(about, "nobody", "aes", "hmac", "rsa-2048")
    sealed = seal(about, copies)
    key = MASTERS["aes"]
    blob = copies[0].blob
    for name, comment, token, data in (
        ("empty-token", "The token is empty.", (), sealed),
        ("other-masters", "The token's keys are others.", ("aes-2", "hmac-2", "rsa-3072"), sealed),
        ("id-cut", "The id is a master key's without its last byte.", ("aes",), key.master_id[:-1]),
        ("id-longer", "The id is a master key's and a byte.", ("aes",), key.master_id + b"\0"),
    ):
        if data is not sealed:
            data = seal(about, [Copy(key.scheme, data, blob)])
        yield Case(f"nobody-{name}", comment, NO_RECIPIENT, token, data)
    others = [("aes", 2), ("aes", 3), ("hmac", 1), ("hmac", 3), ("rsa-2048", 1)]
    escrow = [(master, wire.ESCROW) for master in ("aes", "hmac", "rsa-2048")]
    for master, scheme in others + escrow:
        key = MASTERS[master]
        copy = Copy(scheme, key.master_id, wrap(about, "scheme", master)[0].blob)
        comment = f"The id is that of {master}, the scheme is not."
        name = f"nobody-{master}-as-scheme-{scheme}"
        yield Case(name, comment, NO_RECIPIENT, (master,), seal(about, [copy]))

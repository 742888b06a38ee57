"""Envelopes that open."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING

from . import wire
from .cases import CREATED, MASTERS, Case, changed, escrow, foreign, success, volume, wrap

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .wire import Volume

MAX_CREATED = 253402300799
SINGLE = ("aes", "hmac", "rsa-2048", "rsa-3072")
PAIRS = (("aes", "hmac"), ("aes", "aes-2"), ("hmac", "rsa-2048"), ("rsa-3072", "rsa-2048"))
TRIPLES = (("aes", "hmac", "rsa-2048"), ("rsa-3072", "aes-2", "hmac-2"))
CIPHERS = tuple(wire.CIPHERS)


def cases() -> Iterator[Case]:
    yield from _one_recipient()
    yield from _several_recipients()
    yield from _edges()
    yield from _names()
    yield from _sizes()
    yield from _peculiar()


def _one_recipient() -> Iterator[Case]:
    for master in SINGLE:
        for cipher in CIPHERS:
            name = f"one-{master}-{cipher.lower().replace('_', '-')}"
            about = volume(name, cipher)
            comment = f"One recipient, {master}; the key is for {cipher}."
            yield success(name, comment, about, wrap(about, name, master), (master,))


def _several_recipients() -> Iterator[Case]:
    for turn, group in enumerate([*PAIRS, *TRIPLES]):
        joined = "+".join(group)
        about = volume(joined, CIPHERS[turn % 3])
        copies = wrap(about, joined, *group)
        count = {2: "two", 3: "three"}[len(group)]
        every = f"{count.capitalize()} recipients, {', '.join(group)}; the token holds "
        yield success(f"{count}-{joined}", f"{every}all of them.", about, copies, group)
        for place, master in enumerate(group):
            name = f"{count}-{joined}-only-{place + 1}"
            yield success(name, f"{every}only {master}.", about, copies, (master,))


def _edges() -> Iterator[Case]:
    for generation in (23, 24, 255, 256, 65535, 65536, 2**32 - 1):
        about = volume(f"generation-{generation}", generation=generation)
        yield _single(f"generation-{generation}", "The generation's encoding changes here.", about)
    for created in (0, 2**32 - 1, 2**32, MAX_CREATED):
        about = volume(f"created-{created}", created=created)
        yield _single(f"created-{created}", "An edge of the time of creation.", about)
    for master, length in (("aes-short-id", 1), ("aes-long-id", 80)):
        about = volume(master)
        comment = f"Length of the recipient id, in bytes: {length}."
        copies = wrap(about, master, master)
        yield success(f"recipient-id-{length}", comment, about, copies, (master,))


def _names() -> Iterator[Case]:
    for name, characters, comment in (
        ("volume-1-byte", "V", "The shortest volume name."),
        ("volume-23-bytes", "V" * 23, "The longest name whose length is in the head's first byte."),
        ("volume-127-bytes", "V" * 127, "The longest volume name."),
        ("volume-127-bytes-utf-8", "\u00e9" * 63 + "V", "Its length counts bytes, not characters."),
        ("volume-bacula", "Full:2026.01_Tape-7", "All that Bacula allows in a name."),
        ("volume-space", " a b ", "Spaces count, in front and behind too."),
        ("volume-scripts", "\u5099\u4efd\u5e36 \u0434\u0432\u0430 \U0001f4fc", "Any script goes."),
        ("volume-composed", "Caf\u00e9", "Compared byte by byte with volume-decomposed."),
        ("volume-decomposed", "Cafe\u0301", "Not normalised: another name than volume-composed."),
        ("volume-unassigned", "a\u0378b", "A character that Unicode 16 does not know is allowed."),
        ("volume-private-use", "a\ue000b", "A private-use character is allowed."),
    ):
        yield _single(name, comment, volume(name, name=characters))


def _sizes() -> Iterator[Case]:
    about = volume("stanzas-16")
    others = [foreign(f"stanzas-16/{number}") for number in range(15)]
    copies = [*others, *wrap(about, "stanzas-16", "aes")]
    comment = "As many stanzas as there may be; the last one is ours."
    yield success("stanzas-16", comment, about, copies, ("aes",))
    about = volume("longest")
    comment = "16,384 bytes, as long as an envelope may be; the longest wrapped keys."
    yield success("longest", comment, about, longest(about, 16384), ("aes",))


def longest(about: Volume, size: int) -> list[wire.Copy]:
    """Return stanzas, ours last, that fill an envelope to ``size`` bytes."""
    ours = wrap(about, "longest", "aes")
    others = [foreign(f"longest/{number}", length=2048) for number in range(7)]
    rest = size - len(wire.seal(about, [*others, foreign("longest/7", length=256), *ours])) + 256
    return [*others, foreign("longest/7", length=rest), *ours]


def _peculiar() -> Iterator[Case]:
    about = volume("damaged-first", "AES_256_GCM")
    first, second = wrap(about, "damaged-first", "aes", "hmac")
    damaged = wire.Copy(first.scheme, first.recipient_id, changed(first.blob, -1))
    yield success(
        "damaged-stanza-first",
        "The first stanza was damaged before the envelope was sealed: the next one is tried.",
        about,
        [damaged, second],
        ("aes", "hmac"),
        "hmac",
    )
    about = volume("one id, two schemes")
    same_id = wire.Copy(wire.OAEP, MASTERS["aes"].master_id, wire.draw("same id", 257))
    yield success(
        "one-id-two-schemes",
        "A recipient is a scheme and an id: two with one id are not the same.",
        about,
        [same_id, *wrap(about, "one id, two schemes", "aes")],
        ("aes",),
    )
    about = volume("escrow")
    yield success(
        "escrow-first",
        "A copy for an escrow key: no token opens it, and it is passed over.",
        about,
        [escrow("escrow"), *wrap(about, "escrow", "aes")],
        ("aes",),
    )
    about = volume("escrow with the id of a master key")
    same_id = wire.Copy(wire.ESCROW, MASTERS["hmac"].master_id, wire.draw("escrow/blob", 1200))
    yield success(
        "escrow-id-of-a-master-key",
        "A copy for an escrow key is none for a master key that has the same id.",
        about,
        [same_id, *wrap(about, "escrow with the id of a master key", "aes")],
        ("aes", "hmac"),
    )
    about = volume("swapped", name="Vol-00043", created=CREATED + 1)
    yield success(
        "volume-is-another",
        "A whole envelope moved to Vol-00042 opens: the caller must compare the volume's name.",
        about,
        wrap(about, "swapped", "aes"),
        ("aes",),
    )
    yield from _oaep_sha256()


def _oaep_sha256() -> Iterator[Case]:
    for master in ("rsa-2048", "rsa-3072"):
        name = f"one-{master}-sha256"
        about = volume(name)
        key = MASTERS[master]
        bound = wire.context(about, wire.OAEP, key.master_id)
        payload = sha256(bound).digest() + about.key
        blob = b"\x02" + wire.oaep(key, payload, name, digest="sha256")
        copies = [wire.Copy(wire.OAEP, key.master_id, blob)]
        comment = "SHA-256 inside OAEP, which many tokens do not offer."
        yield success(name, comment, about, copies, (master,), requires=("oaep-sha256",))


def _single(name: str, comment: str, about: Volume) -> Case:
    return success(name, comment, about, wrap(about, name, "aes"), ("aes",))

"""Both edges of every limit, and what fits into a label."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from hwkm.envelope import (
    MAX_BLOB_BYTES,
    MAX_CREATED,
    MAX_ENVELOPE_BYTES,
    MAX_GENERATION,
    MAX_LABEL_BYTES,
    MAX_RECIPIENT_ID_BYTES,
    MAX_STANZAS,
    MAX_VOLUME_BYTES,
    Envelope,
    Header,
    Scheme,
    Stanza,
    check_volume_name,
    context,
    fit,
    seal,
)
from hwkm.errors import EnvelopeError, ParseError
from hwkm.keys import KEY_ID_BYTES, Cipher, VolumeKey
from hwkm.recipients import canary

from . import wire

if TYPE_CHECKING:
    from hwkm.recipients.base import MasterCipher

KEY = VolumeKey(Cipher.AES_256_XTS, bytes(range(64)))
BACULA_MASTER_ID_BYTES = 80
BACULA_LONGEST_NAME = "V" * 127


def header(**changes: Any) -> Header:
    given: dict[str, Any] = {
        "key_id": b"k" * KEY_ID_BYTES,
        "volume": "Vol-00042",
        "generation": 1,
        "cipher": Cipher.AES_256_XTS,
        "created": 1767225600,
    }
    return Header(**(given | changes))


def stanza(length: int, number: int = 0) -> Stanza:
    return Stanza(Scheme.OAEP, number.to_bytes(16, "big"), b"b" * length)


def reread(envelope: Envelope) -> Envelope:
    return Envelope.parse(envelope.encode())


@pytest.mark.parametrize(
    ("field", "good", "bad"),
    [
        ("key_id", [bytes(12)], [b"", bytes(11), bytes(13)]),
        ("volume", ["V", "V" * 127, "\u00e9" * 63], ["", "V" * 128, "\u00e9" * 64]),
        ("generation", [1, MAX_GENERATION], [0, -1, MAX_GENERATION + 1, 10**5000]),
        ("created", [0, MAX_CREATED], [-1, MAX_CREATED + 1, 10**5000]),
    ],
)
def test_header(field: str, good: list[object], bad: list[object]) -> None:
    for value in good:
        sealed = seal(header(**{field: value}), [stanza(92)], KEY)
        assert getattr(reread(sealed).header, field) == value
    for value in bad:
        with pytest.raises(ParseError):
            header(**{field: value})


@pytest.mark.parametrize("length", [1, MAX_RECIPIENT_ID_BYTES])
def test_recipient_id(length: int) -> None:
    sealed = seal(header(), [Stanza(Scheme.GCM, b"i" * length, b"b")], KEY)
    assert reread(sealed) == sealed


@pytest.mark.parametrize("length", [0, MAX_RECIPIENT_ID_BYTES + 1])
def test_recipient_id_out_of_bounds(length: int) -> None:
    with pytest.raises(ParseError, match="recipient id is not 1 to 80 bytes"):
        Stanza(Scheme.GCM, b"i" * length, b"b")


@pytest.mark.parametrize("length", [1, MAX_BLOB_BYTES])
def test_blob(length: int) -> None:
    sealed = seal(header(), [stanza(length)], KEY)
    assert reread(sealed) == sealed


@pytest.mark.parametrize("length", [0, MAX_BLOB_BYTES + 1])
def test_blob_out_of_bounds(length: int) -> None:
    with pytest.raises(ParseError, match="impossible length"):
        stanza(length)


@pytest.mark.parametrize("count", [1, MAX_STANZAS])
def test_stanzas(count: int) -> None:
    sealed = seal(header(), [stanza(92, number) for number in range(count)], KEY)
    assert reread(sealed) == sealed


@pytest.mark.parametrize("count", [0, MAX_STANZAS + 1])
def test_stanzas_out_of_bounds(count: int) -> None:
    with pytest.raises(ParseError, match="not 1 to 16 stanzas"):
        seal(header(), [stanza(92, number) for number in range(count)], KEY)


def test_one_recipient_stands_once() -> None:
    with pytest.raises(ParseError, match="stands twice"):
        seal(header(), [stanza(92), stanza(93)], KEY)
    other = Stanza(Scheme.GCM, stanza(92).recipient_id, b"b")
    assert len(seal(header(), [stanza(92), other], KEY).stanzas) == 2


@pytest.mark.parametrize("length", [0, 31, 33])
def test_mac(length: int) -> None:
    with pytest.raises(ParseError, match="MAC is not 32 bytes"):
        Envelope(header(), (stanza(92),), bytes(length))


def test_an_envelope_that_could_not_be_read_is_not_made() -> None:
    seven = [stanza(MAX_BLOB_BYTES, number) for number in range(7)]
    last = MAX_ENVELOPE_BYTES - len(seal(header(), [*seven, stanza(256, 7)], KEY).encode()) + 256
    longest = seal(header(), [*seven, stanza(last, 7)], KEY)
    assert len(longest.encode()) == MAX_ENVELOPE_BYTES
    assert reread(longest) == longest
    with pytest.raises(ParseError, match="too long to be read"):
        seal(header(), [*seven, stanza(last + 1, 7)], KEY)


@pytest.mark.parametrize("data", [b"", b"\x85" * (MAX_ENVELOPE_BYTES + 1)])
def test_length_of_what_is_read(data: bytes) -> None:
    with pytest.raises(ParseError, match="1 to 16,384 bytes"):
        Envelope.parse(data)


def test_every_character_is_allowed_or_not_as_the_document_says() -> None:
    """The set is fixed: no release of Unicode or Python may change it."""
    refused = {*range(0x20), *range(0x7F, 0xA0), 0xAD, 0x61C, 0x180E, *range(0x200B, 0x2010)}
    refused |= {*range(0x2028, 0x202F), *range(0x2060, 0x2070), 0xFEFF, *range(0xFFF9, 0xFFFC)}
    refused |= {*range(0xD800, 0xE000), *range(0xE0000, 0xE1000)}
    found = {code for code in range(0x110000) if not _is_allowed(chr(code))}
    assert found == refused


def _is_allowed(character: str) -> bool:
    try:
        check_volume_name(f"V{character}1")
    except ParseError:
        return False
    return True


def test_numbers_for_schemes_have_their_names() -> None:
    assert [(scheme, scheme.label) for scheme in Scheme] == [
        (1, "gcm"),
        (2, "hmac-kdf"),
        (3, "oaep"),
        (4, "escrow"),
    ]
    assert [Scheme.from_label(scheme.label) for scheme in Scheme] == list(Scheme)
    with pytest.raises(ParseError, match="no wrapping scheme 'rot13'"):
        Scheme.from_label("rot13")


def test_the_contexts_of_stanzas_and_of_canaries_are_not_the_same() -> None:
    master = SimpleNamespace(scheme=Scheme.GCM, master_id=b"i")
    assert canary._context(cast("MasterCipher", master)).startswith(b"hwkm/canary/1")
    assert context(header(), Scheme.GCM, b"i").startswith(b"\0\x0chwkm/context")


# labels


def blob_bytes(scheme: str, key_bytes: int) -> int:
    """Return the length of a stanza's blob; for ``oaep``, of an RSA key with so many bits."""
    symmetric = {"gcm": 12 + 16, "hmac-kdf": 32 + 16}
    return symmetric[scheme] + key_bytes if scheme in symmetric else 1 + int(scheme) // 8


@pytest.mark.parametrize("cipher", Cipher)
@pytest.mark.parametrize("scheme", ["gcm", "hmac-kdf", "2048", "3072"])
@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("volume", ["Vol-00042", BACULA_LONGEST_NAME])
def test_labels(cipher: Cipher, scheme: str, count: int, volume: str) -> None:
    key = VolumeKey(cipher, bytes(range(cipher.key_bytes)))
    size = blob_bytes(scheme, cipher.key_bytes)
    long = header(volume=volume, cipher=cipher, generation=MAX_GENERATION)
    whole = seal(long, [stanza(size, number) for number in range(count)], key)
    label = fit(whole, key)
    assert len(label.encode()) <= MAX_LABEL_BYTES <= 1024
    assert label.stanzas == whole.stanzas[: len(label.stanzas)]
    left_out = count - len(label.stanzas)
    big = scheme == "3072" or (scheme == "2048" and volume == BACULA_LONGEST_NAME)
    assert left_out == (1 if big and count == 3 else 0)


def test_a_smaller_stanza_behind_one_that_does_not_fit_is_kept() -> None:
    sizes = [385, 385, 385, 92]
    whole = seal(header(), [stanza(size, number) for number, size in enumerate(sizes)], KEY)
    kept = fit(whole, KEY, 1024).stanzas
    assert [len(s.blob) for s in kept] == [385, 385, 92]


def test_one_stanza_that_does_not_fit_is_an_error() -> None:
    whole = seal(header(), [stanza(1024)], KEY)
    with pytest.raises(EnvelopeError, match="no wrapped key fits into 1024 bytes"):
        fit(whole, KEY)


def test_fit_at_the_limit() -> None:
    whole = seal(header(), [stanza(92), stanza(92, 1)], KEY)
    size = len(whole.encode())
    assert fit(whole, KEY, size) == whole
    assert len(fit(whole, KEY, size - 1).stanzas) == 1


def test_master_ids_fit_into_a_label() -> None:
    assert MAX_RECIPIENT_ID_BYTES <= BACULA_MASTER_ID_BYTES
    assert len(BACULA_LONGEST_NAME) == MAX_VOLUME_BYTES


def test_the_vectors_generator_knows_the_same_ciphers() -> None:
    assert {cipher.name: cipher.value for cipher in Cipher} == wire.CIPHERS
    assert {c.value: c.key_bytes for c in Cipher} == wire.KEY_BYTES

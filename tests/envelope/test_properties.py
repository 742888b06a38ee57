"""What holds for every envelope, and for every sequence of bytes that is none."""

from __future__ import annotations

import base64
import runpy
from dataclasses import replace

import cbor2
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from hwkm.envelope import (
    Envelope,
    Header,
    MacError,
    Scheme,
    Stanza,
    context,
    fit,
    seal,
)
from hwkm.errors import EnvelopeError, ParseError
from hwkm.keys import Cipher, VolumeKey
from hwkm.recipients import open_envelope

from . import DECODER, strategies
from .test_vectors import VECTORS

KNOWN = [base64.b64decode(case["envelope"]) for case in VECTORS.values()]
DECODER_PARSE = runpy.run_path(str(DECODER))["parse"]
SMALL = VECTORS["one-aes-aes-256-gcm"]
SMALL_DATA = base64.b64decode(SMALL["envelope"])
SMALL_KEY = VolumeKey(Cipher.AES_256_GCM, bytes.fromhex(SMALL["key"]))

Facts = tuple[Header, Scheme, bytes]

TAGS = st.sampled_from([0, 1, 2, 3, 4, 5, 24, 25, 28, 29, 30, 35, 36, 37, 100, 256, 258, 260])
"""Those that the decoder knows: it turns what they hold into something else, or fails."""

items = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.binary(max_size=40)
    | st.text(max_size=20)
    | st.sampled_from(["hwkm", 1, 2, 3, b"k" * 12, b"m" * 32]),
    lambda inner: (
        st.lists(inner, max_size=6)
        | st.dictionaries(st.text(max_size=3), inner)
        | st.builds(cbor2.CBORTag, TAGS, inner)
    ),
    max_leaves=30,
)


class Holder:
    """An identity that gives one key for whatever stanza: what an attacker would wish for."""

    def __init__(self, key: VolumeKey) -> None:
        self.key = key

    def unwrap(self, header: Header, stanza: Stanza) -> VolumeKey:
        return VolumeKey(header.cipher, self.key.expose())


def read(data: bytes) -> Envelope | None:
    """Return an envelope, or None where there is none; any other error fails the test."""
    try:
        return Envelope.parse(data)
    except ParseError:
        return None


# reading and writing


@given(strategies.envelopes)
def test_what_is_written_is_read(envelope: Envelope) -> None:
    assert Envelope.parse(envelope.encode()) == envelope


@given(strategies.envelopes)
def test_the_encoding_is_deterministic_cbor(envelope: Envelope) -> None:
    data = envelope.encode()
    assert cbor2.dumps(cbor2.loads(data), canonical=True) == data


@given(st.binary(max_size=400))
def test_arbitrary_bytes_are_refused(data: bytes) -> None:
    assert read(data) is None


@given(items)
def test_arbitrary_cbor_is_refused(value: object) -> None:
    assert read(cbor2.dumps(value)) is None


@given(st.lists(items, min_size=3, max_size=3))
def test_arbitrary_cbor_behind_the_magic_word_is_refused(rest: list[object]) -> None:
    assert read(cbor2.dumps(["hwkm", 1, *rest])) is None


@given(st.sampled_from(KNOWN), st.data())
def test_a_changed_envelope_is_another_or_none(data: bytes, draw: st.DataObject) -> None:
    start = draw.draw(st.integers(0, len(data)))
    end = draw.draw(st.integers(start, min(start + 8, len(data))))
    changed = data[:start] + draw.draw(st.binary(max_size=12)) + data[end:]
    found = read(changed)
    assert found is None or found.encode() == changed


@given(st.sampled_from(KNOWN), st.data())
def test_a_cut_envelope_is_none(data: bytes, draw: st.DataObject) -> None:
    if read(data) is not None:
        assert read(data[: draw.draw(st.integers(0, len(data) - 1))]) is None


@given(strategies.envelopes, st.binary(min_size=1, max_size=40))
def test_nothing_may_follow_an_envelope(envelope: Envelope, more: bytes) -> None:
    with pytest.raises(ParseError):
        Envelope.parse(envelope.encode() + more)


# the stand-alone decoder reads what hwkm reads


def decoder_reads(data: bytes) -> bool:
    try:
        DECODER_PARSE(data)
    except ValueError:
        return False
    return True


@given(strategies.envelopes)
def test_the_decoder_reads_every_envelope(envelope: Envelope) -> None:
    header, stanzas, mac, _ = DECODER_PARSE(envelope.encode())
    shown = (header["volume"], header["generation"], header["cipher"], header["created"])
    about = envelope.header
    assert shown == (about.volume, about.generation, about.cipher, about.created)
    assert stanzas == [(s.scheme, s.recipient_id, s.blob) for s in envelope.stanzas]
    assert mac == envelope.mac


@given(st.sampled_from(KNOWN), st.data())
def test_the_decoder_refuses_the_same(data: bytes, draw: st.DataObject) -> None:
    place = draw.draw(st.integers(0, len(data)))
    changed = data[:place] + draw.draw(st.binary(max_size=3)) + data[place + 1 :]
    assert decoder_reads(changed) == (read(changed) is not None)


# the MAC


@given(strategies.headers, st.lists(strategies.stanzas, min_size=1, max_size=4), st.data())
def test_sealed_is_verified(header: Header, given: list[Stanza], draw: st.DataObject) -> None:
    key = draw.draw(strategies.keys(header.cipher))
    stanzas = list({(s.scheme, s.recipient_id): s for s in given}.values())
    envelope = seal(header, stanzas, key)
    envelope.verify(key)
    assert open_envelope(envelope, [Holder(key)]).key == key
    with pytest.raises(MacError):
        envelope.verify(VolumeKey(key.cipher, bytes(byte ^ 0xFF for byte in key.expose())))


@given(strategies.envelopes, strategies.envelopes, st.data())
def test_a_mac_is_good_for_one_envelope(
    first: Envelope, second: Envelope, draw: st.DataObject
) -> None:
    assume((first.header, first.stanzas) != (second.header, second.stanzas))
    key = draw.draw(strategies.keys())
    sealed = seal(first.header, first.stanzas, key)
    with pytest.raises(MacError):
        replace(second, mac=sealed.mac).verify(key)


def test_no_byte_of_an_envelope_can_be_changed() -> None:
    """Every byte, every other value it may have; even somebody who gives the key to anything."""
    holder = Holder(SMALL_KEY)
    assert open_envelope(Envelope.parse(SMALL_DATA), [holder]).key == SMALL_KEY
    for place in range(len(SMALL_DATA)):
        changed = bytearray(SMALL_DATA)
        for value in range(256):
            changed[place] = value
            found = read(bytes(changed)) if value != SMALL_DATA[place] else None
            if found is not None:
                with pytest.raises((MacError, ParseError)):
                    open_envelope(found, [holder])


# the context


facts = st.tuples(strategies.headers, st.sampled_from(Scheme), strategies.recipient_ids)


def _bound(facts: Facts) -> tuple[object, ...]:
    header, scheme, recipient = facts
    return (scheme, recipient, header.key_id, header.volume, header.generation, header.cipher)


def _header(volume: str = "v", key_id: bytes = b"k" * 12, generation: int = 1) -> Header:
    return Header(key_id, volume, generation, Cipher.AES_256_GCM, 0)


PERIODIC = _header(key_id=b"\0\x0c" * 6)


@given(facts, facts)
@example((_header("ab"), Scheme.GCM, b"c"), (_header("a"), Scheme.GCM, b"bc"))
@example((_header("v\u0100"), Scheme.GCM, b"i"), (_header("v"), Scheme.GCM, b"i"))
@example((PERIODIC, Scheme.OAEP, b"i"), (PERIODIC, Scheme.OAEP, b"i" + b"\0\x0c" * 7))
def test_the_context_is_injective(one: Facts, other: Facts) -> None:
    same = _bound(one) == _bound(other)
    assert (context(*one) == context(*other)) == same


@given(facts, strategies.headers, st.sampled_from(["key_id", "volume", "generation", "cipher"]))
def test_each_part_of_the_header_counts(one: Facts, others: Header, field: str) -> None:
    header, scheme, recipient = one
    other = replace(header, **{field: getattr(others, field)})
    assume(other != header)
    assert context(other, scheme, recipient) != context(header, scheme, recipient)


@given(facts)
def test_the_context_can_be_read_back(one: Facts) -> None:
    """What can be taken apart again can't be the same for two different things."""
    header, scheme, recipient = one
    rest = context(header, scheme, recipient)
    parts = []
    while rest:
        length = int.from_bytes(rest[:2], "big")
        parts.append(rest[2 : 2 + length])
        rest = rest[2 + length :]
    numbers = [header.generation.to_bytes(4, "big"), bytes([header.cipher])]
    assert parts[:4] == [b"hwkm/context", b"\x01", bytes([scheme]), recipient]
    assert parts[4:] == [header.key_id, header.volume.encode(), *numbers]


def test_the_time_of_creation_is_no_part_of_the_context() -> None:
    # It says nothing about what the key is for. The MAC covers it.
    early, late = _header(), replace(_header(), created=9)
    assert context(early, Scheme.GCM, b"i") == context(late, Scheme.GCM, b"i")


# fit


@given(strategies.envelopes, st.integers(0, 3000), st.data())
def test_fit(envelope: Envelope, limit: int, draw: st.DataObject) -> None:
    key = draw.draw(strategies.keys(envelope.header.cipher))
    alone = [len(seal(envelope.header, [s], key).encode()) for s in envelope.stanzas]
    if min(alone) > limit:
        with pytest.raises(EnvelopeError, match="no wrapped key fits"):
            fit(envelope, key, limit)
        return
    fitted = fit(envelope, key, limit)
    fitted.verify(key)
    assert len(fitted.encode()) <= limit
    assert fitted.header == envelope.header
    kept = set(fitted.stanzas)
    assert [s for s in envelope.stanzas if s in kept] == list(fitted.stanzas)
    for left_out in set(envelope.stanzas) - kept:
        assert len(seal(envelope.header, [*fitted.stanzas, left_out], key).encode()) > limit


@given(strategies.envelopes, st.data())
def test_fit_changes_nothing_where_all_fits(envelope: Envelope, draw: st.DataObject) -> None:
    key = draw.draw(strategies.keys(envelope.header.cipher))
    sealed = seal(envelope.header, envelope.stanzas, key)
    assert fit(sealed, key, len(sealed.encode())) == sealed

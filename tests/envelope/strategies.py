"""Valid envelopes, and what they are made of, for hypothesis."""

from __future__ import annotations

from hypothesis import strategies as st

from hwkm.envelope import (
    _HIDDEN,
    MAX_CREATED,
    MAX_GENERATION,
    MAX_VOLUME_BYTES,
    Envelope,
    Header,
    Scheme,
    Stanza,
)
from hwkm.keys import KEY_ID_BYTES, Cipher, VolumeKey

MAX_GIVEN_BLOB = 150
"""Blobs that are longer come from tests of the limits."""

volume_names = st.text(
    st.characters(exclude_categories=["Cs"]).filter(lambda c: not _HIDDEN.match(c)),
    min_size=1,
    max_size=MAX_VOLUME_BYTES,
).filter(lambda name: len(name.encode()) <= MAX_VOLUME_BYTES)

headers = st.builds(
    Header,
    key_id=st.binary(min_size=KEY_ID_BYTES, max_size=KEY_ID_BYTES),
    volume=volume_names,
    generation=st.integers(1, MAX_GENERATION),
    cipher=st.sampled_from(Cipher),
    created=st.integers(0, MAX_CREATED),
)

recipient_ids = st.binary(min_size=1, max_size=80)

stanzas = st.builds(
    Stanza,
    scheme=st.sampled_from(Scheme),
    recipient_id=recipient_ids,
    blob=st.binary(min_size=1, max_size=MAX_GIVEN_BLOB),
)

envelopes = st.builds(
    Envelope,
    header=headers,
    stanzas=st.lists(
        stanzas, min_size=1, max_size=16, unique_by=lambda s: (s.scheme, s.recipient_id)
    ).map(tuple),
    mac=st.binary(min_size=32, max_size=32),
)


def _is_key(cipher: Cipher, data: bytes) -> bool:
    half = len(data) // 2
    return not cipher.is_xts or data[:half] != data[half:]


@st.composite
def keys(draw: st.DrawFn, cipher: Cipher | None = None) -> VolumeKey:
    """Draw a volume key, of ``cipher`` if it is given."""
    chosen = cipher or draw(st.sampled_from(Cipher))
    size = st.binary(min_size=chosen.key_bytes, max_size=chosen.key_bytes)
    return VolumeKey(chosen, draw(size.filter(lambda data: _is_key(chosen, data))))

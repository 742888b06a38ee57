"""Envelopes that hwkm makes with a real token, and changed ones that the token must not open."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

import pytest

from hwkm.envelope import Envelope, Header, Scheme, seal
from hwkm.keys import Cipher, VolumeKey
from hwkm.recipients.token import TokenRecipient, unrecorded_master

from . import wire
from .cases import MALFORMED, MASTERS, SUCCESS
from .run_hwkm import outcome
from .test_vectors import VECTORS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from .tokens import VectorTokens

GROUPS = [
    ("aes",),
    ("hmac",),
    ("rsa-2048",),
    ("rsa-3072",),
    ("aes", "hmac"),
    ("rsa-3072", "aes-2"),
    ("aes", "hmac", "rsa-2048"),
    ("rsa-2048", "rsa-3072", "hmac-2"),
]
STEP = 13
"""Every so many bytes one is changed; each that gets as far as the token costs it a login."""


def made(group: Sequence[str], cipher: Cipher, tokens: VectorTokens) -> tuple[VolumeKey, Envelope]:
    """Return a key, and its envelope for every master key in ``group``, made by hwkm."""
    seed = f"made by hwkm/{group}/{cipher}"
    key = VolumeKey(cipher, wire.draw(seed, cipher.key_bytes))
    header = Header(wire.draw(f"{seed}/id", 12), "Vol-00042", 7, cipher, 1767225600)
    session = tokens.session(group)
    recipients = [
        TokenRecipient(unrecorded_master(session, Scheme(master.scheme), master.master_id))
        for master in map(MASTERS.__getitem__, group)
    ]
    return key, seal(header, [recipient.wrap(header, key) for recipient in recipients], key)


def test_the_decoder_opens_what_hwkm_makes(
    vector_tokens: VectorTokens,
    decode: Callable[[Sequence[tuple[Sequence[str], bytes]]], list[dict[str, Any]]],
) -> None:
    keys, asked = [], []
    for group in GROUPS:
        for cipher in Cipher:
            key, envelope = made(group, cipher, vector_tokens)
            for token in (group, *([name] for name in group)):
                keys.append(key.expose().hex())
                asked.append((token, envelope.encode()))
    found = decode(asked)
    assert [(f["expect"], f.get("key")) for f in found] == [(SUCCESS, key) for key in keys]


@pytest.mark.parametrize("name", ["aes", "hmac", "rsa-2048"])
def test_two_wraps_of_one_key_differ(name: str, vector_tokens: VectorTokens) -> None:
    _, first = made([name], Cipher.AES_256_XTS, vector_tokens)
    _, second = made([name], Cipher.AES_256_XTS, vector_tokens)
    assert first.header == second.header
    assert first.stanzas[0].blob != second.stanzas[0].blob


@pytest.mark.parametrize("master", ["aes", "hmac", "rsa-2048"])
def test_a_changed_byte_never_opens(master: str, vector_tokens: VectorTokens) -> None:
    case = VECTORS[f"one-{master}-aes-256-gcm"]
    data = base64.b64decode(case["envelope"])
    session = vector_tokens.session([master])
    assert outcome(session, data)["expect"] == SUCCESS
    reasons = set()
    for place in range(0, len(data), STEP):
        changed = data[:place] + bytes([data[place] ^ 0x40]) + data[place + 1 :]
        reasons.add(outcome(session, changed)["expect"])
    assert SUCCESS not in reasons
    assert len(reasons) > 2
    assert MALFORMED in reasons

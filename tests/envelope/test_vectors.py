"""Every vector against hwkm with a real token, and against the stand-alone decoder."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from hwkm.envelope import Envelope, Scheme, context
from hwkm.keys import Cipher, VolumeKey
from tests.modules import softhsm

from . import DECODER, wire
from .cases import EXPECTATIONS, MASTERS, SUCCESS
from .generate_vectors import CASES
from .run_hwkm import outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .tokens import VectorTokens

VECTORS: dict[str, dict[str, Any]] = {
    path.stem: json.loads(path.read_text("ascii")) for path in sorted(CASES.iterdir())
}
NOT_IN_SOFTHSM = {"oaep-sha256"}
RUNNABLE = sorted(
    (name for name, case in VECTORS.items() if not NOT_IN_SOFTHSM & set(case.get("requires", ()))),
    key=lambda name: (VECTORS[name]["token"], name),
)
CIPHERS = {number: name for name, number in wire.CIPHERS.items()}


def test_the_vectors_are_all_here() -> None:
    counted = Counter(case["expect"] for case in VECTORS.values())
    assert set(counted) == set(EXPECTATIONS)
    assert min(counted.values()) >= 9
    assert len(VECTORS) - len(RUNNABLE) == 2


@pytest.mark.parametrize("name", RUNNABLE)
def test_hwkm(name: str, vector_tokens: VectorTokens) -> None:
    case = VECTORS[name]
    found = outcome(vector_tokens.session(case["token"]), base64.b64decode(case["envelope"]))
    assert found["expect"] == case["expect"], found["text"]
    if case["expect"] == SUCCESS:
        assert found["key"] == case["key"]
        assert found["opened_by"] == MASTERS[case["opened_by"]].master_id.hex()


@pytest.mark.parametrize("name", [n for n in VECTORS if VECTORS[n]["expect"] == SUCCESS])
def test_header_and_derived_values(name: str) -> None:
    case = VECTORS[name]
    data = base64.b64decode(case["envelope"])
    envelope = Envelope.parse(data)
    header = envelope.header
    assert {
        "key_id": header.key_id.hex(),
        "volume": header.volume,
        "generation": header.generation,
        "cipher": header.cipher.name,
        "created": header.created,
    } == case["header"]
    master = MASTERS[case["opened_by"]]
    assert context(header, Scheme(master.scheme), master.master_id).hex() == case["context"]
    key = VolumeKey(Cipher[case["header"]["cipher"]], bytes.fromhex(case["key"]))
    assert key.mac_key(b"hwkm/envelope-mac/1").hex() == case["mac_key"]
    envelope.verify(key)
    assert envelope.encode() == data


def test_the_decoder(
    decode: Callable[[Sequence[tuple[Sequence[str], bytes]]], list[dict[str, Any]]],
) -> None:
    asked = [(VECTORS[n]["token"], base64.b64decode(VECTORS[n]["envelope"])) for n in RUNNABLE]
    for name, found in zip(RUNNABLE, decode(asked), strict=True):
        case = VECTORS[name]
        assert (name, found["expect"]) == (name, case["expect"])
        if case["expect"] == SUCCESS:
            assert found["key"] == case["key"]
            assert _as_in_vectors(found["header"]) == case["header"]


@pytest.mark.parametrize("show_key", [False, True])
def test_the_decoders_output(show_key: bool, vector_tokens: VectorTokens) -> None:
    case = VECTORS["one-hmac-aes-256-xts"]
    done = _run_decoder(case, vector_tokens, *["--show-key"][:show_key])
    header = case["header"]
    lines = [
        f"key id: {header['key_id']}",
        "volume: Vol-00042",
        "generation: 1",
        "cipher: AES_256_XTS",
        "created: 1767225600",
        *[f"key: {case['key']}"][:show_key],
    ]
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == lines


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("mac-bit", "not opened: MAC failure\n"),
        ("hmac-wrong-volume", "not opened: stanza failure: InvalidTag()\n"),
        ("nobody-empty-token", "not opened: no recipient: no master key is in the token\n"),
    ],
)
def test_the_decoders_refusals(name: str, said: str, vector_tokens: VectorTokens) -> None:
    done = _run_decoder(VECTORS[name], vector_tokens, "--show-key")
    assert (done.returncode, done.stdout, done.stderr) == (1, "", said)


def test_the_decoder_without_arguments_says_how_it_is_used() -> None:
    command = [sys.executable, str(DECODER)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "[--show-key] MODULE TOKEN_LABEL PIN_FILE" in done.stderr


def test_the_decoder_is_short() -> None:
    assert len(DECODER.read_text().splitlines()) <= 150


def _as_in_vectors(header: dict[str, Any]) -> dict[str, Any]:
    return {
        "key_id": header["key id"],
        "volume": header["volume"],
        "generation": header["generation"],
        "cipher": CIPHERS[header["cipher"]],
        "created": header["created"],
    }


def _run_decoder(
    case: dict[str, Any], tokens: VectorTokens, *options: str
) -> subprocess.CompletedProcess[str]:
    where = [softhsm.MODULE, tokens.label(case["token"]), str(tokens.pin_file)]
    tokens.close()
    return subprocess.run(
        [sys.executable, str(DECODER), *options, *where],
        input=case["envelope"] + "\n",
        env={"PATH": "/usr/bin:/bin", **tokens.environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

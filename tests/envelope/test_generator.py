"""The vectors are what their generator makes, and the generator agrees with other people's code."""

from __future__ import annotations

import base64
from hashlib import sha256

import cbor2
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, OAEP
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from . import VECTORS, wire
from .cases import EXPECTATIONS, MASTERS, SUCCESS, Case
from .generate_vectors import CASES, all_cases, files

OPENED = [case for case in all_cases() if case.expect == SUCCESS]
README = (VECTORS / "README.md").read_text("utf-8")


def test_making_them_again_changes_nothing() -> None:
    there = {path.name: path.read_text("ascii") for path in CASES.iterdir()}
    assert there == files()


def test_every_malformed_case_is_unlike_every_other() -> None:
    made = [case.envelope for case in all_cases()]
    twice = {data for data in made if made.count(data) > 1}
    # The same envelope may be given to several tokens, or be right for another reason.
    assert all(case.expect != "malformed" for case in all_cases() if case.envelope in twice)


def test_the_rsa_keys_have_the_lengths_in_their_names() -> None:
    assert {MASTERS[f"rsa-{bits}"].rsa().key_size == bits for bits in (2048, 3072)} == {True}


@pytest.mark.parametrize("case", OPENED, ids=lambda case: case.name)
def test_the_encoding_is_cbor2s(case: Case) -> None:
    data = case.envelope
    assert cbor2.dumps(cbor2.loads(data), canonical=True) == data


def test_the_mac_key_is_what_cryptography_derives() -> None:
    for key in (b"k" * 32, wire.draw("a key", 64)):
        hkdf = HKDF(hashes.SHA256(), length=32, salt=None, info=b"hwkm/envelope-mac/1")
        assert wire.mac_key(key) == hkdf.derive(key)


@pytest.mark.parametrize("master", ["rsa-2048", "rsa-3072"])
@pytest.mark.parametrize("digest", ["sha1", "sha256"])
@pytest.mark.parametrize("length", [0, 1, 64, 96])
def test_oaep_is_what_cryptography_opens(master: str, digest: str, length: int) -> None:
    message = wire.draw("message", length)
    algorithm: hashes.HashAlgorithm = hashes.SHA1() if digest == "sha1" else hashes.SHA256()
    for label in (b"", b"label"):
        sealed = wire.oaep(MASTERS[master], message, "seed", digest=digest, label=label)
        padding = OAEP(MGF1(algorithm), algorithm, label)
        assert MASTERS[master].rsa().decrypt(sealed, padding) == message


def test_oaep_stanzas_hold_the_key_and_the_context() -> None:
    checked = 0
    for case in OPENED:
        master = MASTERS[case.opened_by]
        if master.scheme != wire.OAEP:
            continue
        assert case.volume is not None
        blob = next(
            stanza[2]
            for stanza in cbor2.loads(case.envelope)[3]
            if stanza[:2] == [wire.OAEP, master.master_id]
        )
        algorithm = {1: hashes.SHA1(), 2: hashes.SHA256()}[blob[0]]
        payload = master.rsa().decrypt(blob[1:], OAEP(MGF1(algorithm), algorithm, None))
        bound = wire.context(case.volume, wire.OAEP, master.master_id)
        assert payload == sha256(bound).digest() + case.volume.key
        checked += 1
    assert checked >= 12


def test_the_readme_explains_every_field_and_word() -> None:
    fields = {field for case in all_cases() for field in case.document()}
    fields |= {field for case in OPENED for field in case.document()["header"]}
    needs = {need for case in all_cases() for need in case.requires}
    assert [word for word in {*fields, *EXPECTATIONS, *needs} if f"`{word}`" not in README] == []


def test_the_readme_counts_the_cases() -> None:
    assert f"{len(all_cases())} cases" in README


def test_envelopes_are_base64_as_bacula_takes_it() -> None:
    for case in all_cases():
        text = case.document()["envelope"]
        assert base64.b64decode(text, validate=True) == case.envelope

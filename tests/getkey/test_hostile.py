"""Hostile requests, options and configurations: one line of answer, one line of log, no key."""

from __future__ import annotations

import base64
import os
import re
import secrets
from typing import TYPE_CHECKING

import cbor2
import pytest

from hwkm.envelope import Envelope

from .home import OPTIONS, VOLUME, Home

if TYPE_CHECKING:
    from pathlib import Path

# As the key manager that comes with Bacula writes it: an OpenPGP message (RFC 9580, section 5.1)
# that begins with a version 3 encrypted session key for an RSA key.
OPENPGP = bytes.fromhex("8501 8c03 1122334455667788 01 0bff".replace(" ", "")) + bytes(384)
LONGEST = 128 * 1024 - len("ENC_CIPHER_KEY=") - 1
"""Linux takes no longer variable (MAX_ARG_STRLEN)."""


@pytest.mark.parametrize(
    "volume",
    [
        None,
        "",
        "../x",
        "/etc/passwd",
        "a b",
        "x\nerror: injected\ncipher_key: AAAA",
        "A" * 128,
        "A" * (128 * 1024 - 13),
        b"\xff\xfe",
        "💾",
    ],
)
@pytest.mark.parametrize("operation", ["LABEL", "READ"])
def test_volume_names_that_there_are_not(
    labelled: Home, operation: str, volume: str | bytes | None
) -> None:
    lines = len(labelled.log)
    assert "VOLUME_NAME is not a name" in labelled.getkey(operation, volume).error
    (line,) = labelled.log[lines:]
    assert "VOLUME_NAME is not a name" in line
    assert "injected" not in line
    assert "(job 7, device /dev/nst0)" in line


@pytest.mark.parametrize("volume", [".", "..", "-x", "--config", "a:b", "A" * 127, "0"])
def test_strange_names_that_bacula_allows(home: Home, volume: str) -> None:
    labelled = home.getkey("LABEL", volume)
    assert labelled.out.startswith(f"volume_name: {volume}\n".encode())
    assert home.getkey("READ", volume, labelled.given.wrapped).out == labelled.out


@pytest.mark.parametrize("operation", [None, "", "read", "WRITE", "READ\nLABEL"])
def test_operations_that_there_are_not(labelled: Home, operation: str | None) -> None:
    assert "OPERATION is neither LABEL nor READ" in labelled.getkey(operation).error
    assert "OPERATION is neither" in labelled.log[-1]


@pytest.mark.parametrize(
    ("wrapped", "words"),
    [
        ("not base64!", "ENC_CIPHER_KEY is not base64"),
        ("a-_b", "ENC_CIPHER_KEY is not base64"),
        ("aGk =", "ENC_CIPHER_KEY is not base64"),
        ("A" * LONGEST, "ENC_CIPHER_KEY is too long"),
        (b"\0", "this is not an"),
        (b"hwkm", "this is not an"),
        (secrets.token_bytes(200), "this is not an"),
        (OPENPGP, "this is not an"),
        (cbor2.dumps(["hwkm", 2, [], [], b""]), "version 2 is not known"),
    ],
)
def test_wrapped_keys_that_are_none(labelled: Home, wrapped: str | bytes, words: str) -> None:
    lines = len(labelled.log)
    assert words in labelled.getkey("READ", wrapped=wrapped).error
    assert len(labelled.log) == lines + 1
    assert words in labelled.log[-1]


def test_wrapped_keys_count_for_nothing_at_label(home: Home) -> None:
    first = home.getkey("LABEL", wrapped=secrets.token_bytes(20)).given
    assert first.key not in first.wrapped


@pytest.mark.parametrize("value", ["x", "A" * (LONGEST + 2)])
def test_a_master_id_that_is_none(labelled: Home, value: str) -> None:
    assert "MASTER_KEYID is" in labelled.getkey(env={"MASTER_KEYID": value}).error


def test_a_master_id_of_somebody_else_counts_for_nothing(home: Home) -> None:
    other = base64.b64encode(bytes(16)).decode()
    assert home.getkey(env={"MASTER_KEYID": other}).given == home.getkey().given


def test_an_envelope_of_another_volume(home: Home) -> None:
    wrapped = home.getkey("LABEL", "Vol-0002").given.wrapped
    assert "belongs to volume 'Vol-0002', not 'Vol-0001'" in home.getkey(wrapped=wrapped).error
    assert home.events()[-1] == ("read", "failed", VOLUME, "7")


PLACES = {"key id": 0, "volume": 1, "generation": 2, "cipher": 3, "created": 4}


def changed(wrapped: bytes, part: str, value: object) -> bytes:
    """Return an envelope with another value in its header, or with a spoilt wrapped key.

    It is well-formed all the same, so that only the cryptography can tell.
    """
    magic, version, header, stanzas, mac = cbor2.loads(wrapped)
    if part == "wrapped key":
        stanzas[0][2] = stanzas[0][2][:-1] + bytes([stanzas[0][2][-1] ^ 1])
    else:
        header[PLACES[part]] = value
    envelope = cbor2.dumps([magic, version, header, stanzas, mac], canonical=True)
    Envelope.parse(envelope)
    return envelope


def test_a_damaged_wrapped_key_whose_envelope_is_in_the_keystore(home: Home) -> None:
    good = home.getkey("LABEL", "Vol-0002").given
    answer = home.getkey("READ", "Vol-0002", changed(good.wrapped, "wrapped key", None))
    assert answer.given == good, "the keystore's own envelope serves, and goes into the label"
    assert " warning: " in home.log[-1]


@pytest.mark.parametrize(("part", "value"), [("generation", 9), ("cipher", 1), ("created", 5)])
def test_a_changed_header_whose_key_is_in_the_keystore(
    home: Home, part: str, value: object
) -> None:
    """The key id may have been put into another label: the keystore's key may be a wrong one."""
    good = home.getkey("LABEL", "Vol-0002").given
    answer = home.getkey("READ", "Vol-0002", changed(good.wrapped, part, value))
    assert answer.reply is None
    assert "The label was changed" in answer.error
    assert home.getkey("READ", "Vol-0002", good.wrapped).given == good


def test_an_older_key_id_in_a_newer_label(home: Home) -> None:
    older = home.getkey("LABEL", "Vol-0002").given
    newer = home.getkey("LABEL", "Vol-0002").given
    key_id = Envelope.parse(older.wrapped).header.key_id
    answer = home.getkey("READ", "Vol-0002", changed(newer.wrapped, "key id", key_id))
    assert answer.reply is None
    assert "The label was changed" in answer.error


@pytest.mark.parametrize(
    ("part", "value"),
    [("key id", bytes(12)), ("generation", 9), ("cipher", 1), ("wrapped key", None)],
)
def test_a_changed_envelope_whose_key_is_not(home: Home, part: str, value: object) -> None:
    good = home.getkey("LABEL", "Vol-0002").given
    (home.path / "keystore.db").unlink()
    answer = home.getkey("READ", "Vol-0002", changed(good.wrapped, part, value))
    assert answer.reply is None
    assert "no key given" in home.log[-1]
    assert not (home.path / "keystore.db").exists(), "nothing is made of what does not open"


def test_an_envelope_that_claims_another_volumes_key(home: Home) -> None:
    wrapped = home.getkey("LABEL", "Vol-0002").given.wrapped
    answer = home.getkey("READ", VOLUME, changed(wrapped, "volume", VOLUME))
    assert answer.reply is None
    assert home.events()[-1] == ("read", "failed", VOLUME, "7")


def test_an_envelope_of_another_installation(home: Home, base: Path) -> None:
    stranger = Home.create(base / f"stranger-{secrets.token_hex(4)}")
    wrapped = stranger.getkey("LABEL").given.wrapped
    answer = home.getkey("READ", VOLUME, wrapped)
    assert "no token at hand holds a master key of volume 'Vol-0001'" in answer.error


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--device",), "the option --device lacks its value"),
        (("--job", ""), "the option --job lacks its value"),
        (("--devise", "x"), "getkey has no option '--devise'"),
        (("extra",), "getkey has no option 'extra'"),
        (("--verbose",), "getkey has no option '--verbose'"),
        (("a\nerror: b",), "getkey has no option"),
        ((b"\xff".decode(errors="surrogateescape"),), "getkey has no option"),
        (("--cipher", "NULL"), "--cipher NULL is not for Bacula"),
        (("--cipher", "aes_256_xts"), "is not for Bacula"),
        (("--cipher", "AES_256_GCM"), "is not for Bacula"),
        (("--cipher", "x\ncipher: NULL"), "is not for Bacula"),
    ],
)
def test_options(labelled: Home, options: tuple[str, ...], words: str) -> None:
    assert words in labelled.getkey("LABEL", options=options).error


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("%i", "%i"),
        ("7\n2026-01-01T00:00:00Z hwkm[1] info: forged", "7 2026-01-01T00:00:00Z hwkm[1] info"),
        ("\x1b]0;title\x07\x1b[2J", "[2J"),
        ("\u202eevil\u2066", "evil"),
        (os.fsdecode(b"\xff\xfe\x80"), "(job , device )"),
        ("'; DROP TABLE event; --", "'; DROP TABLE event; --"),
        ("%s%n%d{0}", "%s%n%d{0}"),
        ("x" * 100_000, "x" * 299 + "…"),
    ],
)
def test_text_that_is_logged(home: Home, text: str, shown: str) -> None:
    before = home.log
    assert home.getkey(options=("--job", text, "--device", text)).reply is not None
    (line,) = home.log[len(before) :]
    assert shown in line
    assert line.isprintable()
    assert re.match(r"[\d:TZ-]{20} hwkm\[\d+\] info: READ Vol-0001 \(job ", line)
    assert home.log_file.read_bytes().count(b"\n") == len(before) + 1
    (job,) = home.query("SELECT job FROM event ORDER BY event_id DESC LIMIT 1")[0]
    assert job.isprintable()
    assert home.query("SELECT count(*) FROM event")[0][0] > 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "keystore"),
        ("\0", "is not valid TOML"),
        ("keystore = 1\n", "expected `str`"),
        ("not toml", "is not valid TOML"),
        ('surprise = "x"\n', "unknown key `surprise`"),
        ("x" * 100_000, "is not valid TOML"),
    ],
)
def test_configurations_that_are_wrong(home: Home, text: str, words: str) -> None:
    kept = home.config.read_text() if "surprise" in text else ""
    home.config.write_text(text + kept)
    answer = home.getkey()
    assert words in answer.error
    assert str(home.config) in answer.error


def test_a_configuration_that_is_no_text(home: Home) -> None:
    home.config.write_bytes(b"\xff\xfe\x00")
    assert "can't be read" in home.getkey().error


@pytest.mark.parametrize("path", ["/nonexistent", "/", "/nonexistent\nerror: b", "/\udcff"])
def test_configurations_that_are_not_there(labelled: Home, path: str) -> None:
    words = ("--config", path)
    assert "can't be read" in labelled.getkey(before=words).error
    env = {"HWKM_CONFIG": os.fsencode(path)}
    assert "can't be read" in labelled.getkey(before=(), env=env).error


def test_a_policy_without_a_rule_for_the_volume(home: Home) -> None:
    home.edit('volumes = ".*"', 'volumes = "Tape-.*"')
    assert "no [[policy]] matches the volume 'Vol-0001'" in home.getkey("LABEL").error
    assert home.events()[-1] == ("label", "refused", VOLUME, "7")
    assert home.getkey("READ", options=OPTIONS).reply is not None

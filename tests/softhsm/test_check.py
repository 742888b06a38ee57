"""``hwkm check`` finds what would make new volumes unreadable, or readable by others."""

from __future__ import annotations

import json
import sqlite3
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from hwkm.recipients.token_oaep import encode_public

from .commands import hwkm

if TYPE_CHECKING:
    from pathlib import Path


def failures(home: Path) -> list[str]:
    """Return the details of what ``hwkm check`` finds to have failed."""
    done = hwkm("--config", str(home / "config.toml"), "check", "--json")
    document = json.loads(done.stdout)
    failed = [found["detail"] for found in document["checks"] if found["status"] == "fail"]
    assert (done.returncode, document["ok"]) == ((1, False) if failed else (0, True))
    return failed


@pytest.mark.parametrize("scheme", ["gcm", "hmac-kdf", "oaep"])
def test_a_new_installation_is_in_order(tmp_path: Path, scheme: str) -> None:
    home = tmp_path / "home"
    assert hwkm("init", "--home", str(home), "--softhsm", "--scheme", scheme).returncode == 0
    assert failures(home) == []


def test_another_public_key_on_record(tmp_path: Path) -> None:
    """Volumes that are labelled while the token is away would be wrapped to it."""
    home = tmp_path / "home"
    assert hwkm("init", "--home", str(home), "--softhsm", "--scheme", "oaep").returncode == 0
    stranger = encode_public(rsa.generate_private_key(65537, 2048).public_key())
    with sqlite3.connect(home / "keystore.db") as keystore:
        keystore.execute("UPDATE master_key SET public_key = ?", (stranger,))
    keystore.close()
    assert failures(home) == ["the public key on record is not the token's"]
    config = str(home / "config.toml")
    request = {"OPERATION": "LABEL", "VOLUME_NAME": "Vol-0001"}
    answer = hwkm("--config", config, "getkey", env=request)
    assert answer.stdout.startswith("error: ")
    assert json.loads(hwkm("--config", config, "volume", "list", "--json").stdout) == []


@pytest.mark.parametrize("parameters", ["[]", '{"oaep_hash": "MD5"}', "no JSON"])
def test_a_damaged_record(tmp_path: Path, parameters: str) -> None:
    home = tmp_path / "home"
    assert hwkm("init", "--home", str(home), "--softhsm", "--scheme", "oaep").returncode == 0
    with sqlite3.connect(home / "keystore.db") as keystore:
        keystore.execute("UPDATE master_key SET parameters = ?", (parameters,))
    keystore.close()
    (detail,) = failures(home)[:1]
    assert "the record of " in detail
    request = {"OPERATION": "LABEL", "VOLUME_NAME": "Vol-0001"}
    answer = hwkm("--config", str(home / "config.toml"), "getkey", env=request)
    assert answer.stdout.startswith("error: the record of ")

"""The vectors of one RSA master key on a TPM, which does OAEP with SHA-256 as well."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.modules import TokenUnderTest, tpm
from tests.modules.processes import run_tool

from .cases import MASTERS, SUCCESS
from .test_vectors import VECTORS

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
MASTER = MASTERS["rsa-2048"]
NAMES = [name for name, case in VECTORS.items() if case["token"] == [MASTER.name]]

# The tool takes ids of text only.
SET_ID = """
import sys, pkcs11
from pkcs11 import Attribute
module, label, pin, master_id = sys.argv[1:]
with pkcs11.lib(module).get_token(token_label=label).open(rw=True, user_pin=pin) as session:
    for key in list(session.get_objects({Attribute.LABEL: "vectors"})):
        key[Attribute.ID] = bytes.fromhex(master_id)
"""


@pytest.fixture(scope="module")
def token(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TokenUnderTest]:
    """Yield a token in a TPM, with the master key imported."""
    directory = tmp_path_factory.mktemp("tpm")
    with tpm.running(directory) as running:
        pem = directory / "key.pem"
        pem.write_bytes(MASTER.material)
        run_tool(
            *("tpm2_ptool", "import", "--path", running.env["TPM2_PKCS11_STORE"]),
            *("--algorithm", "rsa", "--privkey", str(pem), "--key-label", "vectors"),
            *("--label", running.token_label, "--userpin", running.user_pin),
            env={**running.env, "TPM2TOOLS_TCTI": tpm.RESOURCE_MANAGER},
        )
        _run(running, ["-c", SET_ID, *_where(running), running.user_pin, MASTER.master_id.hex()])
        yield running


def _where(token: TokenUnderTest) -> list[str]:
    return [token.module_path, token.token_label]


@pytest.mark.parametrize("program", ["run_decoder", "run_hwkm"])
def test_on_a_tpm(program: str, token: TokenUnderTest) -> None:
    envelopes = [
        {"token": token.token_label, "envelope": VECTORS[name]["envelope"]} for name in NAMES
    ]
    asked = {"module": token.module_path, "pin": token.user_pin, "envelopes": envelopes}
    outcomes = json.loads(_run(token, ["-m", f"tests.envelope.{program}"], json.dumps(asked)))
    found = {name: _shown(outcome) for name, outcome in zip(NAMES, outcomes, strict=True)}
    assert found == {name: _shown(VECTORS[name]) for name in NAMES}
    assert sum(VECTORS[name]["expect"] == SUCCESS for name in NAMES) == 7


def _shown(outcome: dict[str, Any]) -> tuple[str, str | None]:
    return outcome["expect"], outcome.get("key")


def _run(token: TokenUnderTest, arguments: list[str], stdin: str = "") -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        input=stdin,
        cwd=ROOT,
        env=token.environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    # The module says on standard error what the TPM refused.
    assert done.returncode == 0, done.stderr
    return done.stdout

"""Tokens with the vectors' master keys, and the stand-alone decoder."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.modules import softhsm

from . import tokens

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from .tokens import VectorTokens

ROOT = Path(__file__).parents[2]

Outcomes = list[dict[str, Any]]


@pytest.fixture(scope="package")
def vector_tokens(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VectorTokens]:
    made = tokens.start(tmp_path_factory.mktemp("envelope"))
    yield made
    made.close()


@pytest.fixture(scope="package")
def decode(
    vector_tokens: VectorTokens,
) -> Callable[[Sequence[tuple[Sequence[str], bytes]]], Outcomes]:
    """Return what gives envelopes, each with the keys in its token, to the decoder."""

    def run(envelopes: Sequence[tuple[Sequence[str], bytes]]) -> Outcomes:
        entries = [
            {"token": vector_tokens.label(names), "envelope": base64.b64encode(data).decode()}
            for names, data in envelopes
        ]
        vector_tokens.close()
        done = subprocess.run(
            [sys.executable, "-m", "tests.envelope.run_decoder"],
            cwd=ROOT,
            input=json.dumps(
                {"module": softhsm.MODULE, "pin": softhsm.USER_PIN, "envelopes": entries}
            ),
            env={**os.environ, **vector_tokens.environment},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        outcomes: Outcomes = json.loads(done.stdout)
        return outcomes

    return run

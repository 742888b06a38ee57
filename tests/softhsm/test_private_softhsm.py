"""The token files of hwkm's own SoftHSM are read-only, so that no login can destroy them."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from hwkm.envelope import Scheme
from hwkm.errors import TokenError
from hwkm.keys import SecretBytes
from hwkm.recipients.token_gcm import TokenGcm
from hwkm.token import master, softhsm

from .commands import program, run
from .hammer import CONTEXT
from .interrupt import kill, trace
from .sites import KEY_ID, Site, decrypt_rubbish, login, make_site, softhsm_token

if TYPE_CHECKING:
    from pathlib import Path

PIN = SecretBytes(b"a PIN of the tests")
SECRET = SecretBytes(bytes(64))
# Root may write what is read-only, unless it gives that right away.
LIKE_A_USER = ("setpriv", "--bounding-set=-dac_override") if os.geteuid() == 0 else ()


@pytest.fixture
def private(tmp_path: Path) -> Site:
    """A SoftHSM as ``hwkm init`` makes it, with one master key."""
    info = softhsm.create(tmp_path, "private", PIN, PIN)
    token = softhsm_token(info, PIN.expose().decode(), softhsm.environment(tmp_path))
    site = make_site(token, tmp_path)
    with site.session() as session:
        master.generate(session, Scheme.GCM, KEY_ID, "key")
    return site


def modes(folder: Path) -> set[int]:
    found = {path.stat().st_mode & 0o777 for path in folder.glob("tokens/*/*")}
    assert found
    return found


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("tokens/*/*")}


def test_they_can_be_written_only_while_something_is_changed(private: Site, tmp_path: Path) -> None:
    assert modes(tmp_path) == {0o400}
    with private.session() as token:
        assert modes(tmp_path) == {0o400}
        assert token.info.initialized
        assert modes(tmp_path) == {0o600}
    assert modes(tmp_path) == {0o400}


def test_after_an_error_they_are_closed_too(private: Site, tmp_path: Path) -> None:
    with pytest.raises(TokenError, match="CKR_GENERAL_ERROR"), private.session() as token:
        decrypt_rubbish(token)
    assert modes(tmp_path) == {0o400}


def test_a_reader_leaves_them_closed_and_unchanged(private: Site, tmp_path: Path) -> None:
    before = contents(tmp_path)
    reader = (*LIKE_A_USER, *program("one_shot", private.for_child()))
    assert [point.line for point in trace(reader, "ftruncate")] == []
    assert run(*reader).stdout == f"{private.token.serial}\n"
    assert modes(tmp_path) == {0o400}
    assert contents(tmp_path) == before


def test_readers_that_know_nothing_of_each_other_do_no_harm(private: Site, tmp_path: Path) -> None:
    with private.session(writable=False) as token:
        blob = TokenGcm(token, KEY_ID).wrap(CONTEXT, SECRET)
    before = contents(tmp_path)
    facts = (private.for_child(), KEY_ID.hex(), blob.hex(), "sessions", "1", "20", "unlocked")
    with ThreadPoolExecutor(8) as pool:
        done = list(pool.map(lambda _: run(*LIKE_A_USER, *program("hammer", *facts)), range(8)))
    assert [end.stdout for end in done] == ["20\n"] * 8
    assert contents(tmp_path) == before


def test_a_writer_that_was_killed_leaves_them_open_until_the_next_one(
    private: Site, tmp_path: Path
) -> None:
    maker = program("make_key", private.for_child(), "gcm", "0002")
    [*_, last] = trace(program("make_key", private.for_child(), "gcm", "0003"), "ftruncate")
    kill(maker, last)
    assert 0o600 in modes(tmp_path)
    with private.session(writable=False) as token:
        assert master.look_at(token, Scheme.GCM, KEY_ID).label == "key"
    login(private)
    assert modes(tmp_path) == {0o400}


def test_a_softhsm_of_others_is_not_touched(site: Site, tmp_path: Path) -> None:
    before = modes(tmp_path)
    login(site)
    assert modes(tmp_path) == before
    assert 0o400 not in before


def test_what_a_killed_process_left_writable_is_sealed_at_the_next_use(
    private: Site, tmp_path: Path
) -> None:
    for path in tmp_path.glob("tokens/*/*"):
        path.chmod(0o600)
    login(private)
    assert modes(tmp_path) == {0o400}

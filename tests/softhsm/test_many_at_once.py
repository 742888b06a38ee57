"""Many threads and many processes on one token: one lock for each keeps them apart.

Two of the tests take a lock away and see everything go wrong, so that the others mean something.
"""

from __future__ import annotations

import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from hwkm.envelope import Scheme
from hwkm.errors import TokenError
from hwkm.keys import SecretBytes
from hwkm.recipients.token_gcm import TokenGcm
from hwkm.token import lock, master

from .commands import ROOT, SECONDS, program, run
from .hammer import CONTEXT
from .sites import KEY_ID, login, lose_login
from .spy import watch

if TYPE_CHECKING:
    from pathlib import Path

    from .sites import Site

SECRET = SecretBytes(bytes(range(64)))
THREADS, PROCESSES, ROUNDS = 50, 8, 15
TRIES = 8
"""How often a hammer without a lock may come through by luck. Four of five don't."""


@dataclass(frozen=True, slots=True)
class Target:
    """A site whose token holds a master key, and a blob that it wrapped."""

    site: Site
    blob: bytes

    def hammer(self, kind: str, number: int, how: str) -> subprocess.CompletedProcess[str]:
        facts = (self.site.for_child(), KEY_ID.hex(), self.blob.hex())
        return run(*program("hammer", *facts, kind, str(number), str(ROUNDS), how))

    def opens(self) -> bool:
        with self.site.session() as token:
            return TokenGcm(token, KEY_ID).unwrap(CONTEXT, self.blob) == SECRET


@pytest.fixture
def target(site: Site) -> Target:
    with site.session() as token:
        master.generate(token, Scheme.GCM, KEY_ID, "key")
        return Target(site, TokenGcm(token, KEY_ID).wrap(CONTEXT, SECRET))


def token_files(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in folder.glob("tokens/*/*.object")}


# --- threads ---


def test_fifty_threads_share_one_session(target: Target) -> None:
    done = target.hammer("threads", THREADS, "locked")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{THREADS * ROUNDS}\n", "")


def test_without_the_lock_threads_break_the_process(target: Target) -> None:
    ends = (target.hammer("threads", THREADS, "unlocked").returncode for _ in range(TRIES))
    assert any(end < 0 for end in ends)  # killed by a signal


# --- processes ---


def test_eight_processes_log_in_one_after_the_other(target: Target, tmp_path: Path) -> None:
    before = token_files(tmp_path)
    with ThreadPoolExecutor(PROCESSES) as pool:
        done = list(pool.map(lambda _: target.hammer("sessions", 1, "locked"), range(PROCESSES)))
    assert [end.stderr for end in done] == [""] * PROCESSES
    assert [end.stdout for end in done] == [f"{ROUNDS}\n"] * PROCESSES
    assert token_files(tmp_path) == before
    assert target.opens()


def test_without_the_lock_processes_break_each_others_logins(target: Target) -> None:
    def all_at_once() -> list[subprocess.CompletedProcess[str]]:
        with ThreadPoolExecutor(PROCESSES) as pool:
            return list(
                pool.map(lambda _: target.hammer("sessions", 1, "unlocked"), range(PROCESSES))
            )

    rounds = (all_at_once() for _ in range(TRIES))
    assert any(end.returncode != 0 and "Error: " in end.stderr for done in rounds for end in done)


# --- the lock between processes ---


def one_shot(site: Site) -> str:
    """Return what another process, which does not wait, gets to see of the token."""
    return run(*program("one_shot", site.with_access(lock_seconds=0.2).for_child())).stdout.strip()


def test_the_lock_is_held_from_the_first_use_to_the_end(site: Site) -> None:
    busy = "TokenError: another hwkm process uses the token and does not let go of it"
    with site.session() as token:
        assert one_shot(site) == site.token.serial
        assert token.info.initialized
        assert one_shot(site) == busy
        lose_login(token)
        assert one_shot(site) == busy
        assert token.info.initialized
        assert one_shot(site) == busy
    assert one_shot(site) == site.token.serial


def test_the_lock_can_be_held_without_a_login_and_more_than_once(site: Site) -> None:
    runtime_dir = site.access.runtime_dir
    with lock.held(runtime_dir, 0):
        with lock.held(runtime_dir, 0), site.session() as token:
            assert token.info.initialized
        assert "another hwkm process" in one_shot(site)
    assert one_shot(site) == site.token.serial


def test_who_waited_in_vain_does_not_wait_again(site: Site) -> None:
    """One request asks for the token more than once, and must be answered in 20 seconds."""
    runtime_dir = site.access.runtime_dir
    with holder(site) as process:
        for seconds in (0.2, 10_000):
            with pytest.raises(TokenError, match="does not let go"):
                lock.acquire(runtime_dir, seconds)
        process.kill()
    lock.acquire(runtime_dir, 0)
    lock.release(runtime_dir)


def test_who_holds_the_lock_can_be_looked_up(site: Site) -> None:
    impatient = site.with_access(lock_seconds=0)
    with holder(site), pytest.raises(TokenError) as caught:
        login(impatient)
    assert str(site.access.runtime_dir / "tokens.lock") in caught.value.hint


def test_a_process_that_waits_is_not_inside_the_module(site: Site, tmp_path: Path) -> None:
    spied = watch(site, tmp_path / "calls")
    with site.session() as token:
        assert token.info.initialized
        waiting = start("one_shot", spied.site.for_child())
        with pytest.raises(subprocess.TimeoutExpired):
            waiting.wait(1.5)
        assert spied.calls("C_Initialize") == 0
    said, _ = waiting.communicate(timeout=SECONDS)
    assert said == f"{site.token.serial}\n"
    assert spied.calls("C_Initialize") == 1


def test_a_killed_process_lets_go_of_the_lock(site: Site) -> None:
    with holder(site) as process:
        process.kill()
        process.wait()
        assert one_shot(site) == site.token.serial


@pytest.mark.parametrize("what", ["absent", "file"])
def test_a_runtime_directory_that_is_none(site: Site, tmp_path: Path, what: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(TokenError, match=r"the lock .* can't be opened") as caught:
        login(site.with_access(runtime_dir=tmp_path / what))
    assert "runtime directory must exist" in caught.value.hint


def start(name: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        program(name, *arguments),
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def holder(site: Site) -> subprocess.Popen[str]:
    """Start a process that has a session open until its standard input ends."""
    process = start("holder", site.for_child())
    assert process.stdout is not None
    assert process.stdout.readline() == "open\n"
    return process

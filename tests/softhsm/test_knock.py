"""Who finds the token's lock taken knocks, and whoever listens can let the other in."""

from __future__ import annotations

import os
import select
import stat
import subprocess
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import pytest

from hwkm.errors import TokenError
from hwkm.token import lock

from .commands import ROOT, SECONDS, program

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from .sites import Site


@pytest.fixture
def knock(site: Site) -> Iterator[int]:
    """The pipe that others knock at."""
    with listening(site.access.runtime_dir) as descriptor:
        yield descriptor


@contextmanager
def listening(runtime_dir: Path) -> Iterator[int]:
    descriptor = lock.open_knock(runtime_dir)
    yield descriptor
    lock._listening.clear()  # a process that listens does so to its end
    os.close(descriptor)


def start(name: str, *arguments: str) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    return subprocess.Popen(program(name, *arguments), cwd=ROOT, stdin=pipe, stdout=pipe, text=True)


def is_knocked(descriptor: int, seconds: float = 0) -> bool:
    return bool(select.select([descriptor], [], [], seconds)[0])


def test_who_waits_knocks_and_is_let_in(site: Site, knock: int) -> None:
    with site.session() as token:
        assert token.info.initialized
        assert not is_knocked(knock)
        waiting = start("one_shot", site.for_child())
        assert is_knocked(knock, SECONDS)
        lock.drain(knock)
        token.close()
        said, _ = waiting.communicate(timeout=SECONDS)
        assert said == f"{site.token.serial}\n"
        assert token.info.initialized


def test_who_waits_goes_on_knocking(site: Site, knock: int) -> None:
    with site.session() as token:
        assert token.info.initialized
        waiting = start("one_shot", site.for_child())
        for _ in range(3):
            assert is_knocked(knock, SECONDS)
            lock.drain(knock)
            assert not is_knocked(knock)
    waiting.communicate(timeout=SECONDS)


def test_who_gets_the_lock_forgets_knocks_that_were_its_own(site: Site, knock: int) -> None:
    runtime_dir = site.access.runtime_dir
    with start("holder", site.for_child()) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        with pytest.raises(TokenError, match="does not let go"):
            lock.acquire(runtime_dir, 0.3)
        assert is_knocked(knock)
        process.kill()
    with lock.held(runtime_dir, 0):
        assert not is_knocked(knock)


def test_the_pipe_is_private_and_is_used_again(site: Site) -> None:
    path = site.access.runtime_dir / lock.KNOCK
    for _ in range(2):
        with listening(site.access.runtime_dir) as descriptor:
            assert stat.S_ISFIFO(path.stat().st_mode)
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            assert not os.get_inheritable(descriptor)


@pytest.mark.parametrize("what", ["file", "link", "folder"])
def test_what_is_no_pipe_is_not_listened_at_nor_written_to(
    site: Site, tmp_path: Path, what: str
) -> None:
    path, target = site.access.runtime_dir / lock.KNOCK, tmp_path / "target"
    target.write_bytes(b"")
    if what == "file":
        target = path
        path.touch(mode=0o600)
    elif what == "link":
        path.symlink_to(target)
    else:
        path.mkdir()
    with pytest.raises(TokenError, match=r"tokens.knock can't be opened: ") as caught:
        lock.open_knock(site.access.runtime_dir)
    assert "Remove it" in caught.value.hint
    knock_in_vain(site)
    assert target.read_bytes() == b""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a pipe to somebody else")
def test_somebody_elses_pipe_is_not_used(site: Site) -> None:
    path = site.access.runtime_dir / lock.KNOCK
    os.mkfifo(path, 0o666)
    os.chown(path, 65534, 65534)
    with pytest.raises(TokenError, match="no pipe of this user's"):
        lock.open_knock(site.access.runtime_dir)
    reader = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    knock_in_vain(site)
    assert not is_knocked(reader)
    os.close(reader)


def test_a_pipe_that_nobody_reads_any_more_holds_nobody_up(site: Site, knock: int) -> None:
    with lock.held(site.access.runtime_dir, 0):
        fill(knock)
        knock_in_vain(site)


def fill(pipe: int) -> None:
    with suppress(BlockingIOError):
        while True:
            os.write(pipe, bytes(4096))


def test_with_nobody_at_the_pipe_it_is_only_waited(site: Site) -> None:
    knock_in_vain(site)
    os.mkfifo(site.access.runtime_dir / lock.KNOCK, 0o600)
    knock_in_vain(site)


def knock_in_vain(site: Site) -> None:
    """Wait for a lock that is not given back, in another process."""
    with lock.held(site.access.runtime_dir, 0):
        impatient = site.with_access(lock_seconds=0.3).for_child()
        said, _ = start("one_shot", impatient).communicate(timeout=SECONDS)
    assert "another hwkm process uses the token" in said

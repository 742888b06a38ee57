"""hwkm inside the chroot: the project under test, as a wheel, with its locked dependencies.

The dependencies change rarely and are kept in the cache; hwkm itself is built anew for every run.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from .chroot import BASE_ENV, base_path, cache_dir, digest, locked, network_env, share_network

if TYPE_CHECKING:
    from .chroot import Chroot

PROJECT = Path(__file__).resolve().parents[2]
# Two environments, so that the one under test holds nothing but what users get. Each has its
# locked requirements.
ENVIRONMENTS = {"hwkm": "requirements/runtime.txt", "build": "requirements/build.txt"}
RUNTIME, BUILD = "/opt/hwkm", "/opt/build"
KEPT_DAYS = 30


def install_hwkm(chroot: Chroot) -> None:
    """Put hwkm into the chroot's /opt/hwkm."""
    locks = {name: (PROJECT / file).read_text() for name, file in ENVIRONMENTS.items()}
    kept = cache_dir() / f"venv-{digest('1', str(base_path()), *locks.values())}"
    with locked(cache_dir() / "lock"):
        if not kept.exists():
            make_environments(chroot, locks)
            keep(chroot.path("/opt"), kept)
        else:
            shutil.copytree(kept, chroot.path("/opt"), symlinks=True, dirs_exist_ok=True)
        prune(kept)
    install_wheel(chroot, build_wheel(chroot))


def make_environments(chroot: Chroot, locks: dict[str, str]) -> None:
    """Make both virtual environments with the chroot's own Python."""
    share_network(chroot.root)
    for name, lock in locks.items():
        chroot.path("/srv/lock.txt").write_text(lock)
        chroot.run(["python3", "-m", "venv", f"/opt/{name}"])
        pip = [f"/opt/{name}/bin/pip", "install", "--require-hashes", "--only-binary=:all:"]
        env = BASE_ENV | network_env()
        chroot.run([*pip, "-r", "/srv/lock.txt"], env=env, timeout=600)


def keep(made: Path, kept: Path) -> None:
    """Copy what was made into the cache; it appears there complete or not at all."""
    draft = Path(tempfile.mkdtemp(prefix="draft-", dir=cache_dir()))
    try:
        shutil.copytree(made, draft, symlinks=True, dirs_exist_ok=True)
        draft.rename(kept)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def prune(kept: Path) -> None:
    """Note that an environment was used; forget those that were not for long."""
    os.utime(kept)
    for one in cache_dir().glob("venv-*"):
        if time.time() - one.stat().st_mtime > KEPT_DAYS * 86400:
            shutil.rmtree(one)


def build_wheel(chroot: Chroot) -> str:
    """Build the project under test; return the wheel's path in the chroot."""
    source, wheels = chroot.path("/srv/source"), chroot.path("/srv/wheels")
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        if (PROJECT / name).exists():
            shutil.copy(PROJECT / name, source)
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(PROJECT / "hwkm", source / "hwkm", ignore=ignored)
    build = [f"{BUILD}/bin/hatchling", "build", "-t", "wheel", "-d", "/srv/wheels"]
    chroot.run(["env", "--chdir=/srv/source", *build])
    (wheel,) = wheels.glob("*.whl")
    return f"/srv/wheels/{wheel.name}"


def install_wheel(chroot: Chroot, wheel: str) -> None:
    """Install the wheel alone, so that a missing dependency shows."""
    chroot.run([f"{RUNTIME}/bin/pip", "install", "--no-index", "--no-deps", wheel])
    chroot.run([f"{RUNTIME}/bin/pip", "check"])

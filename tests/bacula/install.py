"""hwkm inside the chroot: the project under test, as a wheel, with its locked dependencies.

The dependencies change rarely and are kept in the cache; hwkm itself is built anew for every run.
"""

from __future__ import annotations

import shutil
import tempfile
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

from .chroot import BASE_ENV, base_path, cache_dir, digest, locked, network_env, share_network

if TYPE_CHECKING:
    from .chroot import Chroot

PROJECT = Path(__file__).resolve().parents[2]
LOCK_FILE = PROJECT / "requirements" / "runtime.txt"
# Two environments, so that the one under test holds nothing but what users get.
RUNTIME, BUILD = "/opt/hwkm", "/opt/build"


def requirements() -> str:
    """Return what hwkm needs: the locked versions, or the bare names before there is a lock."""
    if LOCK_FILE.exists():
        return LOCK_FILE.read_text()
    metadata = tomllib.loads((PROJECT / "pyproject.toml").read_text())
    return "\n".join(metadata["project"]["dependencies"])


def install_hwkm(chroot: Chroot) -> None:
    """Put hwkm into the chroot's /opt/hwkm."""
    needs = requirements()
    kept = cache_dir() / f"venv-{digest('1', str(base_path()), needs)}"
    with locked(cache_dir() / "lock"):
        if kept.exists():
            shutil.copytree(kept, chroot.path("/opt"), symlinks=True, dirs_exist_ok=True)
        else:
            make_environments(chroot, needs)
            keep(chroot.path("/opt"), kept)
    install_wheel(chroot, build_wheel(chroot))


def make_environments(chroot: Chroot, needs: str) -> None:
    """Make both virtual environments with the chroot's own Python."""
    share_network(chroot.root)
    chroot.path("/srv/needs.txt").write_text(needs)
    for place, what in [(RUNTIME, ("-r", "/srv/needs.txt")), (BUILD, ("hatchling",))]:
        chroot.run(["python3", "-m", "venv", place])
        pip = [f"{place}/bin/pip", "install", "--only-binary=:all:", *what]
        chroot.run(pip, env=BASE_ENV | network_env(), timeout=600)


def keep(made: Path, kept: Path) -> None:
    """Copy what was made into the cache; it appears there complete or not at all."""
    draft = Path(tempfile.mkdtemp(prefix="draft-", dir=cache_dir()))
    try:
        shutil.copytree(made, draft, symlinks=True, dirs_exist_ok=True)
        draft.rename(kept)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


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

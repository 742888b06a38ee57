"""A Debian chroot with Bacula 15: built once, then lent to each run as a throw-away copy.

The built tree is kept in HWKM_TEST_CACHE (/var/cache/hwkm-tests unless set) under a name made
from what went into it. A run works on an overlay of that tree, or on a plain copy where overlays
can't be mounted, so nothing that a test does reaches the next run.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.request
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

SUITE = "trixie"
PACKAGES = (
    "bacula-console",
    "bacula-director",
    "bacula-director-sqlite3",
    "bacula-fd",
    "bacula-sd",
    "ca-certificates",
    "gnupg",
    "python3-gnupg",
    "python3-venv",
    "softhsm2",
)
RECIPE = "1"  # raise it when build_into() changes, so that no tree of the old kind is used
BUNDLE = "etc/ssl/certs/ca-certificates.crt"
TOOLS = ("chroot", "mount", "umount", "unshare")
SYSTEM = (("proc", "proc", "nosuid"), ("devpts", "dev/pts", "newinstance,ptmxmode=0666"))
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin"


@dataclass(frozen=True, slots=True)
class User:
    """Whom a command in the chroot runs as, as a systemd unit would say it."""

    name: str
    group: str
    groups: tuple[str, ...]
    ambient: str = ""

    def setpriv(self) -> list[str]:
        """Return setpriv's options for this user."""
        caps = [f"--inh-caps=+{self.ambient}", f"--ambient-caps=+{self.ambient}"]
        return [
            f"--reuid={self.name}",
            f"--regid={self.group}",
            f"--groups={','.join(self.groups)}",
            *(caps if self.ambient else []),
        ]


# As in bacula-sd.service: User, Group, SupplementaryGroups, AmbientCapabilities.
STORAGE = User("bacula", "tape", ("bacula", "tape"), "linux_immutable")
DIRECTOR = User("bacula", "bacula", ("bacula", "tape"))
BASE_ENV = {"PATH": PATH, "LANG": "C.UTF-8"}
# What Bacula and its children see under Debian's unit.
STORAGE_ENV = BASE_ENV | {
    "HOME": "/var/lib/bacula",
    "USER": "bacula",
    "LOGNAME": "bacula",
    "SHELL": "/usr/sbin/nologin",
    "CONFIG": "/etc/bacula/bacula-sd.conf",
    "LD_LIBRARY_PATH": "/usr/lib/bacula",
}


def cache_dir() -> Path:
    """Return the directory that keeps built trees between runs."""
    return Path(os.environ.get("HWKM_TEST_CACHE", "/var/cache/hwkm-tests"))


def apt_sources() -> str:
    """Return the text of this machine's apt sources, comments taken out."""
    files = [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*"))]
    texts = [
        file.read_text() for file in files if file.suffix in {".list", ".sources"} and file.exists()
    ]
    return re.sub(r"^\s*#.*\n?", "", "\n".join(texts), flags=re.MULTILINE)


def mirror() -> str:
    """Return the address of this machine's Debian mirror, or "" if apt knows none."""
    chosen = os.environ.get("HWKM_TEST_MIRROR", "")
    found = re.search(r"\bhttps?://\S+/debian/?(?=\s|$)", apt_sources())
    return chosen or (found[0].rstrip("/") if found else "")


def why_not() -> str:
    """Return why no chroot can be had here, or "" if one can."""
    if os.geteuid() != 0:
        return "needs root (debootstrap, mount, chroot)"
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        return f"needs {', '.join(missing)}"
    trial = ["unshare", "--mount", "mount", "-t", "proc", "proc", "/proc"]
    if subprocess.run(trial, capture_output=True, check=False).returncode != 0:
        return "mounting is not allowed here"
    return "" if base_path().exists() else why_no_tree()


def why_no_tree() -> str:
    """Return why a tree can't be built, or "" if it can."""
    if shutil.which("debootstrap") is None:
        return "needs debootstrap"
    if not mirror():
        return "apt's sources name no Debian mirror (set HWKM_TEST_MIRROR)"
    try:
        urllib.request.urlopen(f"{mirror()}/dists/{SUITE}/InRelease", timeout=30).close()
    except OSError as error:
        return f"the Debian mirror does not answer: {error}"
    return ""


def digest(*parts: str) -> str:
    """Return a short name for things made from these parts."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Hold a lock that other processes respect."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def base_path() -> Path:
    """Return where the tree of today's recipe lies, or will lie."""
    return cache_dir() / f"base-{digest(RECIPE, SUITE, *PACKAGES)}"


def base_tree() -> Path:
    """Return the built tree; build it first if there is none yet."""
    base = base_path()
    with locked(cache_dir() / "lock"):
        if not base.exists():
            draft = Path(tempfile.mkdtemp(prefix="draft-", dir=cache_dir()))
            try:
                build_into(draft)
                draft.rename(base)
            finally:
                shutil.rmtree(draft, ignore_errors=True)
    return base


def build_into(tree: Path) -> None:
    """Make Debian with Bacula in an empty directory. No service starts."""
    tree.chmod(0o755)
    checked(["debootstrap", "--variant=minbase", SUITE, str(tree), mirror()], timeout=600)
    policy = tree / "usr/sbin/policy-rc.d"
    policy.write_text("#!/bin/sh\nexit 101\n")
    policy.chmod(0o755)
    (tree / "etc/dpkg/dpkg.cfg.d/unsafe-io").write_text("force-unsafe-io\n")
    share_network(tree)
    install = ["apt-get", "install", "-y", "--no-install-recommends", *PACKAGES]
    with mounted(["-t", "proc", "proc"], tree / "proc"):
        env = BASE_ENV | network_env() | {"DEBIAN_FRONTEND": "noninteractive"}
        checked(["chroot", str(tree), *install], env=env, timeout=600)
        checked(["chroot", str(tree), "apt-get", "clean"], env=env)


def share_network(tree: Path) -> None:
    """Give a tree this machine's resolver, trusted certificates and pip settings."""
    given = [os.environ.get(name, "") for name in ("PIP_CERT", "SSL_CERT_FILE")]
    bundle = next((name for name in given if name), f"/{BUNDLE}")
    for source, target in [
        ("/etc/resolv.conf", "etc/resolv.conf"),
        ("/etc/pip.conf", "etc/pip.conf"),
        (bundle, BUNDLE),
    ]:
        if Path(source).is_file():
            (tree / target).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, tree / target)


def network_env() -> dict[str, str]:
    """Return the part of the environment that says how to reach package servers."""
    names = ("INDEX_URL", "EXTRA_INDEX_URL", "TRUSTED_HOST", "DEFAULT_TIMEOUT")
    proxies = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
    wanted = {f"PIP_{name}" for name in names} | set(proxies)
    shared = {name: value for name, value in os.environ.items() if name in wanted}
    return shared | {"PIP_CERT": f"/{BUNDLE}", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}


@contextmanager
def mounted(what: list[str], where: Path) -> Iterator[None]:
    """Mount for the length of a block."""
    checked(["mount", *what, str(where)])
    try:
        yield
    finally:
        unmount(where)


def unmount(where: Path) -> None:
    """Unmount, lazily if something still holds on. It is gone from the tree in any case."""
    if not where.is_mount():
        return
    if subprocess.run(["umount", str(where)], capture_output=True, check=False).returncode != 0:
        checked(["umount", "-l", str(where)])


def checked(
    argv: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    stdin: str = "",
    timeout: float = 60,
) -> str:
    """Run a command in a session of its own; return its output, raise with it on failure."""
    process = subprocess.Popen(
        argv,
        env=None if env is None else dict(env),
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        umask=0o022,
    )
    try:
        output, _ = process.communicate(stdin, timeout)
    except subprocess.TimeoutExpired as error:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        raise AssertionError(f"{argv} took over {timeout} s:\n{output}") from error
    assert process.returncode == 0, f"{argv} ended with {process.returncode}:\n{output}"
    return output


class Chroot:
    """A run's own copy of the built tree. Use it as a context manager."""

    def __init__(self) -> None:
        base = base_tree()
        with locked(cache_dir() / "lock"):
            sweep()
            self.home = Path(tempfile.mkdtemp(prefix="run-", dir=cache_dir()))
            self._lock: IO[str] = (self.home / "lock").open("w")
            fcntl.flock(self._lock, fcntl.LOCK_EX)
        self.home.chmod(0o755)
        self.root = self.home / "root"
        self.since = time.time()
        try:
            lend(base, self.home)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def path(self, inside: str) -> Path:
        """Return where a path of the chroot lies for this process."""
        return self.root / inside.lstrip("/")

    def written(self) -> list[Path]:
        """Return the files outside /srv that any program has written since the copy was lent."""
        return [
            file
            for top in ("etc", "run", "root", "tmp", "var")
            for file in (self.root / top).rglob("*")
            if file.is_file() and not file.is_symlink() and file.stat().st_mtime >= self.since
        ]

    def argv(self, argv: Sequence[str], user: User | None = None) -> list[str]:
        """Return the command that runs ``argv`` inside; it dies with the caller."""
        who = user.setpriv() if user else []
        return ["chroot", str(self.root), "setpriv", *who, "--pdeathsig=KILL", "--", *argv]

    def run(
        self,
        argv: Sequence[str],
        *,
        user: User | None = None,
        env: Mapping[str, str] | None = None,
        stdin: str = "",
        timeout: float = 60,
    ) -> str:
        """Run a command inside to its end and return its output."""
        return checked(self.argv(argv, user), env=env or BASE_ENV, stdin=stdin, timeout=timeout)

    def spawn(
        self, argv: Sequence[str], output: Path, *, user: User | None, env: Mapping[str, str]
    ) -> subprocess.Popen[bytes]:
        """Start a daemon inside, in the foreground, without input."""
        with output.open("ab") as log:
            return subprocess.Popen(
                self.argv(argv, user),
                env=dict(env),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                umask=0o022,
            )

    def close(self) -> None:
        """End what still runs inside, unmount, and delete the copy."""
        return_home(self.home)
        self._lock.close()


def lend(base: Path, home: Path) -> None:
    """Make ``home/root`` a writable view of ``base``, with what the kernel provides."""
    for name in ("root", "upper", "work"):
        (home / name).mkdir()
    layers = f"lowerdir={base},upperdir={home / 'upper'},workdir={home / 'work'}"
    overlay = ["mount", "-t", "overlay", "overlay", "-o", layers, str(home / "root")]
    if subprocess.run(overlay, capture_output=True, check=False).returncode != 0:
        checked(["cp", "-a", "--reflink=auto", f"{base}/.", str(home / "root")], timeout=300)
    for kind, where, options in SYSTEM:
        checked(["mount", "-t", kind, "-o", options, kind, str(home / "root" / where)])


def return_home(home: Path) -> None:
    """Undo ``lend``, whatever state it is in."""
    kill_inside(home / "root")
    for where in (*(where for _, where, _ in reversed(SYSTEM)), ""):
        unmount(home / "root" / where)
    assert not (home / "root").is_mount(), f"{home}/root can't be unmounted"
    shutil.rmtree(home)


def inside(root: Path) -> list[int]:
    """Return the processes whose root directory is ``root``."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it may just have ended
            if (entry / "root").readlink() == root:
                found.append(int(entry.name))
    return found


def kill_inside(root: Path) -> None:
    """Kill every process in a chroot and wait until they are gone."""
    deadline = time.monotonic() + 20
    while (left := inside(root)) and time.monotonic() < deadline:
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)


def sweep() -> None:
    """Clear up after runs that were killed: their locks are free, their mounts are not."""
    for home in cache_dir().glob("run-*"):
        with suppress(BlockingIOError, FileNotFoundError), (home / "lock").open("a") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return_home(home)

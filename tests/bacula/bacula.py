"""A driver for a whole Bacula in a chroot: three daemons, a console, and the catalog."""

from __future__ import annotations

import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import time
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Self, TypeVar

from . import config
from .chroot import BASE_ENV, DIRECTOR, STORAGE, STORAGE_ENV

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from .chroot import Chroot, User
    from .config import Lane, Setup

T = TypeVar("T")
# Bacula's own codes of jobs that have ended: OK, with warnings, error, fatal, cancelled.
OK, ENDED = "T", frozenset("TWEefAI")
CONFIG = "/etc/bacula/bacula-sd.conf"


def wait_for(
    question: Callable[[], T | None], what: str, seconds: float = 60, pause: float = 0.05
) -> T:
    """Ask until the answer is true; fail after a while."""
    deadline = time.monotonic() + seconds
    while not (answer := question()):
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(pause)
    return answer


@dataclass(frozen=True, slots=True)
class Job:
    """A job as the catalog tells of it."""

    id: int
    status: str
    files: int
    errors: int
    log: str


@dataclass(frozen=True, slots=True)
class Daemon:
    """One of Bacula's programs and how Debian's unit starts it."""

    name: str
    user: User | None
    env: dict[str, str]

    def argv(self) -> list[str]:
        """Return the command: in the foreground, without a PID file."""
        return [f"/usr/sbin/{self.name}", "-fP", "-c", f"/etc/bacula/{self.name}.conf"]


DIR = Daemon("bacula-dir", DIRECTOR, STORAGE_ENV | {"CONFIG": "/etc/bacula/bacula-dir.conf"})
SD = Daemon("bacula-sd", STORAGE, STORAGE_ENV)
FD = Daemon("bacula-fd", None, BASE_ENV | {"HOME": "/root", "USER": "root"})


class Bacula:
    """Bacula with its daemons running. Use it as a context manager."""

    def __init__(self, chroot: Chroot, setup: Setup) -> None:
        self.chroot = chroot
        self.setup = setup
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._restores = 0

    def __enter__(self) -> Self:
        try:
            self._prepare()
            for daemon in (SD, FD, DIR):
                self.start(daemon)
            self._wait_until_ready()
        except BaseException:
            self.stop_all()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop_all()

    # --- daemons -------------------------------------------------------------------------

    def _prepare(self) -> None:
        """Write the configuration and make the directories that packages or units would."""
        self.write_config()
        archives = [f"{config.VOLUMES}/{lane.name}" for lane in self.setup.lanes]
        own = ["/run/bacula", "/var/log/bacula", config.VOLUMES, *archives]
        self.chroot.run(["mkdir", "-p", "-m", "0750", *own])
        self.chroot.run(["chown", "bacula:tape", *own])
        self.chroot.path(config.MEET).write_text(config.MEET_SCRIPT)
        self.chroot.path(config.MEET).chmod(0o755)

    def write_config(self) -> None:
        """Write the four files as Debian installs them: readable by the bacula group."""
        for name, text in config.files(self.setup).items():
            file = self.chroot.path(f"/etc/bacula/{name}")
            file.write_text(text)
            file.chmod(0o640)
            self.chroot.run(["chown", "root:bacula", f"/etc/bacula/{name}"])

    def output(self, daemon: Daemon) -> Path:
        """Return the file that holds what a daemon printed."""
        return self.chroot.path(f"/var/log/{daemon.name}.out")

    def start(self, daemon: Daemon) -> None:
        """Start a daemon. It may need a moment until it answers."""
        self._running[daemon.name] = self.chroot.spawn(
            daemon.argv(), self.output(daemon), user=daemon.user, env=daemon.env
        )

    def stop(self, *daemons: Daemon) -> None:
        """Ask daemons to end; kill those that do not."""
        processes = [self._running.pop(daemon.name) for daemon in daemons]
        for process in processes:
            process.send_signal(signal.SIGTERM)
        for process in processes:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(20)

    def stop_all(self) -> None:
        """End every daemon that runs."""
        self.stop(*(daemon for daemon in (DIR, FD, SD) if daemon.name in self._running))

    def is_running(self, daemon: Daemon) -> bool:
        """Return whether the process is still the one that was started."""
        return self._running[daemon.name].poll() is None

    def use_command(self, command: str) -> None:
        """Restart the Storage Daemon with another Encryption Command."""
        self.setup = replace(self.setup, command=command)
        self.stop(SD)
        self.write_config()
        self.start(SD)
        self._wait_until_ready()

    def _wait_until_ready(self) -> None:
        """Wait until the Director answers and reaches both others."""
        storage = self.setup.lanes[0].name
        for port in (ports := self.setup.ports).director, ports.storage, ports.client:
            wait_for(partial(self._listens, port), f"port {port}")
        for question, answer in [
            ("status director", "test-dir Version"),
            ("status client=test-fd", "test-fd Version"),
            (f"status storage={storage}", "test-sd Version"),
        ]:
            wait_for(partial(self._answers, question, answer), f"an answer to {question}")

    def _answers(self, question: str, answer: str) -> bool:
        return answer in self.console(question)

    def _listens(self, port: int) -> bool:
        for daemon in (SD, FD, DIR):
            assert self.is_running(daemon), self.output(daemon).read_text()
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    # --- console and catalog ---------------------------------------------------------------

    def console(self, *commands: str, timeout: float = 60) -> str:
        """Give commands to bconsole and return all that it printed."""
        argv = ["bconsole", "-n", "-c", "/etc/bacula/bconsole.conf"]
        return self.chroot.run(argv, stdin="\n".join([*commands, "quit\n"]), timeout=timeout)

    def query(self, sql: str, *values: object) -> list[tuple[object, ...]]:
        """Read the catalog."""
        file = self.chroot.path("/var/lib/bacula/bacula.db")
        with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True, timeout=30)) as catalog:
            return catalog.execute(sql, values).fetchall()

    def job(self, job_id: int) -> Job:
        """Return what the catalog knows of a job by now."""
        sql = "SELECT JobStatus, JobFiles, JobErrors FROM Job WHERE JobId = ?"
        ((status, files, errors),) = self.query(sql, job_id)
        return Job(job_id, str(status), int(str(files)), int(str(errors)), self.job_log(job_id))

    def job_log(self, job_id: int) -> str:
        """Return a job's log so far."""
        rows = self.query("SELECT LogText FROM Log WHERE JobId = ? ORDER BY LogId", job_id)
        # With SQLite, Bacula stores a stray backslash behind each entry.
        return "".join(str(text).removesuffix("\\") for (text,) in rows)

    def all_logs(self) -> str:
        """Return the logs of all jobs, and of the Director outside any job."""
        return "".join(str(text) for (text,) in self.query("SELECT LogText FROM Log"))

    def overlap(self, jobs: list[Job]) -> bool:
        """Return whether all of these jobs ran at one moment."""
        sql = "SELECT StartTime, EndTime FROM Job WHERE JobId = ?"
        times = [self.query(sql, job.id)[0] for job in jobs]
        return max(str(start) for start, _ in times) <= min(str(end) for _, end in times)

    def volumes(self, lane: Lane) -> list[str]:
        """Return the names of a lane's volumes, oldest first."""
        sql = (
            "SELECT VolumeName FROM Media JOIN Pool USING (PoolId) WHERE Name = ? ORDER BY MediaId"
        )
        return [str(name) for (name,) in self.query(sql, lane.name)]

    def volume_status(self, volume: str) -> str:
        """Return the catalog's word for a volume's state: Append, Used, Purged, Error..."""
        sql = "SELECT VolStatus FROM Media WHERE VolumeName = ?"
        ((status,),) = self.query(sql, volume)
        return str(status)

    # --- jobs --------------------------------------------------------------------------------

    def submit(self, command: str) -> int:
        """Start a job and return its number."""
        output = self.console(command)
        found = re.search(r"Job queued\. JobId=(\d+)", output)
        assert found, output
        return int(found[1])

    def wait(self, job_id: int, seconds: float = 90) -> Job:
        """Wait until a job has ended, well or badly."""

        def ended() -> Job | None:
            job = self.job(job_id)
            # The status is set before the last lines of the log are written.
            return job if job.status in ENDED and "Termination:" in job.log else None

        try:
            return wait_for(ended, f"the end of job {job_id}", seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}; its log:\n{self.job_log(job_id)}") from error

    def wait_for_log(self, job_id: int, text: str, seconds: float = 60) -> str:
        """Wait until a job's log holds a text; return the log."""
        try:
            wait_for(lambda: text in self.job_log(job_id), repr(text), seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}; the log:\n{self.job_log(job_id)}") from error
        return self.job_log(job_id)

    def start_backup(self, lane: Lane) -> int:
        """Start a full backup of the data on a lane."""
        return self.submit(f"run job=save-{lane.name} level=Full yes")

    def backup(self, lane: Lane) -> Job:
        """Back up the data on a lane."""
        return self.wait(self.start_backup(lane))

    def start_restore(self, lane: Lane, of: int) -> tuple[int, Path]:
        """Start to restore a whole job; return the restore's number and where the data goes."""
        self._restores += 1
        where = f"/srv/back/{self._restores}"
        choice = f"jobid={of} client=test-fd restorejob=back-{lane.name} where={where}"
        return self.submit(f"restore {choice} all done yes"), self.chroot.path(where + config.DATA)

    def restore(self, lane: Lane, of: int) -> tuple[Job, Path]:
        """Restore a whole job; return the restore and where the data is."""
        job_id, where = self.start_restore(lane, of)
        return self.wait(job_id), where

    def together(self, *starts: Callable[[], int]) -> list[Job]:
        """Start two jobs on a lane of two drives; neither goes on without the other."""
        shutil.rmtree(self.chroot.path(config.MEETING), ignore_errors=True)
        self.chroot.path(config.MEETING).mkdir()
        return [self.wait(job_id) for job_id in [start() for start in starts]]

    def cancel(self, job_id: int) -> Job:
        """Cancel a job that waits for someone."""
        self.console(f"cancel jobid={job_id} yes")
        return self.wait(job_id)

    def cancel_all(self) -> None:
        """Cancel whatever a failed test left waiting, so that it disturbs no other."""
        for job_id, status in self.query("SELECT JobId, JobStatus FROM Job"):
            if status not in ENDED:
                self.cancel(int(str(job_id)))

    # --- volumes -----------------------------------------------------------------------------

    def label(self, lane: Lane, volume: str) -> str:
        """Label a blank volume by hand."""
        return self.console(f"label storage={lane.name} pool={lane.name} volume={volume} slot=0")

    def relabel(self, lane: Lane, old: str, new: str) -> str:
        """Give a purged volume a new name."""
        names = f"oldvolume={old} volume={new} slot=0"
        return self.console(f"relabel storage={lane.name} pool={lane.name} {names}", "yes")

    def purge(self, volume: str) -> str:
        """Forget all jobs on a volume, so that it may be used again."""
        return self.console(f"purge volume={volume} yes")

    def mount(self, lane: Lane) -> str:
        """Tell a waiting job to look at its drive again."""
        return self.console(f"mount storage={lane.name} drive=0 slot=0")

    def volume_files(self, lane: Lane) -> list[Path]:
        """Return the files of a lane's volumes."""
        return sorted(self.chroot.path(f"{config.VOLUMES}/{lane.name}").iterdir())

    def volume_file(self, lane: Lane, volume: str) -> Path:
        """Return the file of one volume."""
        return self.chroot.path(f"{config.VOLUMES}/{lane.name}/{volume}")

    def bls(self, lane: Lane, volume: str) -> str:
        """List what is on a volume, as root and without the Director."""
        return self.chroot.run(["bls", "-c", CONFIG, "-V", volume, lane.devices[0]])

    def bextract(self, lane: Lane, volume: str, into: str) -> str:
        """Take the data off a volume, as root and without the Director."""
        self.chroot.run(["mkdir", "-p", into])
        return self.chroot.run(["bextract", "-c", CONFIG, "-V", volume, lane.devices[0], into])

"""Jobs as the tests run them, with all that must be so checked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .bacula import OK
from .dataset import contents, shows

if TYPE_CHECKING:
    from pathlib import Path

    from .bacula import Bacula, Job
    from .config import Lane


def written(bacula: Bacula, lane: Lane) -> tuple[Job, Path]:
    """Back up, and check that it went well; return the job and its volume's file."""
    job = bacula.backup(lane)
    assert (job.status, job.errors) == (OK, 0), job.log
    assert "Encryption:             volume" in job.log
    return job, bacula.volume_files(lane)[-1]


def saved(bacula: Bacula, lane: Lane) -> tuple[Job, Path]:
    """Back up as :func:`written` does, and check that the volume hides the data."""
    job, file = written(bacula, lane)
    assert not shows(file)
    return job, file


def restored(bacula: Bacula, lane: Lane, job: Job, data: dict[str, str]) -> Job:
    """Restore a job and check that every byte came back."""
    back, where = bacula.restore(lane, job.id)
    assert (back.status, back.errors) == (OK, 0), back.log
    assert contents(where) == data
    return back


def refused(bacula: Bacula, lane: Lane, job: Job) -> tuple[int, str, Path]:
    """Start a restore that gets no key; return it, the reason in its log, and its target."""
    (name,) = bacula.volumes(lane)
    job_id, where = bacula.start_restore(lane, job.id)
    log = bacula.wait_for_log(job_id, f'Please mount read Volume "{name}"')
    start = f'Bad LoadEncryptionKey READ Volume "{name}": ERR=got error message: "'
    assert log.count(start) == 1, log
    assert "status is OK" not in log
    assert not where.exists()
    return job_id, log.split(start)[1].splitlines()[0].rstrip('"'), where

"""hwkm as the Encryption Command of the real Bacula 15."""

from __future__ import annotations

import base64
import os
import re
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from . import chroot as chroots
from . import volume
from .bacula import OK, SD
from .config import DATA, VOLUMES
from .dataset import MARKER, NAME_MARKER, contents, finds, shows
from .jobs import refused, restored, saved
from .keymanager import HOME, HWKM

if TYPE_CHECKING:
    from .bacula import Bacula, Job
    from .chroot import Chroot
    from .config import Lane
    from .keymanager import KeyManager, Syslog

if reason := chroots.why_not():
    pytest.skip(f"the real Bacula can't run: {reason}", allow_module_level=True)

pytestmark = pytest.mark.timeout(900)  # the first test builds the chroot

Lanes = dict[str, "Lane"]
Data = dict[str, str]


def states(hwkm: KeyManager, name: str) -> list[tuple[int, str]]:
    """Return the number and the state of each generation of a volume."""
    return [(one["generation"], one["state"]) for one in hwkm.generations(name)]


def test_backup_and_restore(
    bacula: Bacula, hwkm: KeyManager, lanes: Lanes, data: Data, syslog: Syslog
) -> None:
    lane = lanes["Basic"]
    job, _ = saved(bacula, lane)
    (name,) = bacula.volumes(lane)
    assert job.log.count(f'LoadEncryptionKey for Volume "{name}", status is OK.') == 3
    back = restored(bacula, lane, job, data)
    assert f'LoadEncryptionKey for Volume "{name}", status is OK.' in back.log
    # Bacula asks for a new volume's key twice; the second one is used.
    assert states(hwkm, name) == [(1, "deactivated"), (2, "active")]
    for where in (f"LABEL {name} (job {job.id}, device {VOLUMES}/{lane.name})", f"(job {back.id},"):
        assert where in syslog.text
    write_job_logs(bacula, job, back)


JOB_LOG = """\
# A backup and a restore, as Bacula's job log has them

Bacula 15.0.3 with hwkm as its Encryption Command, on a volume that Bacula labels by itself: it asks
for a key at `LoadEncryptionKey`. The lines of the restored files are left out. Written by the test:

    HWKM_BACULA_JOBLOG=docs/bacula-job-log.md make test PYTEST=tests/bacula

## Backup

```
{backup}
```

## Restore

```
{restore}
```
"""


def write_job_logs(bacula: Bacula, backup: Job, restore: Job) -> None:
    """Keep the logs for the documentation, if that is asked for."""
    if name := os.environ.get("HWKM_BACULA_JOBLOG"):
        back = re.compile(r"/srv/back/\d+/srv")
        lines = [line for line in restore.log.strip().splitlines() if not back.search(line)]
        text = JOB_LOG.format(backup=backup.log.strip(), restore="\n".join(lines))
        Path(name).write_text(text.replace(bacula.setup.password, "********"))


def test_the_key_of_the_label_opens_the_blocks(
    bacula: Bacula, hwkm: KeyManager, lanes: Lanes
) -> None:
    """Read with another implementation: the data is under exactly the key that hwkm gives."""
    _, file = saved(bacula, lanes["Basic"])
    (name,) = bacula.volumes(lanes["Basic"])
    label = volume.label(file)
    assert (label.volume, label.host) == (name, "OBFUSCATED")
    answer = hwkm.getkey("READ", name, label)
    assert answer.fields["cipher"] == "AES_256_XTS"
    assert len(answer.key) == 64
    assert hwkm.getkey("READ", name).key == answer.key  # by the keystore alone
    clear = volume.opened(file, answer.key)
    assert MARKER in clear
    assert NAME_MARKER.encode() in clear
    assert MARKER not in volume.opened(file, bytes(reversed(answer.key)))


def test_the_search_finds_the_marker_on_a_clear_volume(
    bacula: Bacula, hwkm: KeyManager, lanes: Lanes, data: Data
) -> None:
    """The control: without encryption the same search finds the data, and no key is made."""
    job = bacula.backup(lanes["Clear"])
    assert job.status == OK
    assert "LoadEncryptionKey" not in job.log
    (file,) = bacula.volume_files(lanes["Clear"])
    assert shows(file)
    assert contents(bacula.restore(lanes["Clear"], job.id)[1]) == data


def test_bls_and_bextract(
    bacula: Bacula, hwkm: KeyManager, lanes: Lanes, data: Data, chroot: Chroot
) -> None:
    """Root's tools read the volume, and leave nothing behind that locks the daemon out."""
    lane = lanes["Basic"]
    saved(bacula, lane)
    (name,) = bacula.volumes(lane)
    listing = bacula.bls(lane, name)
    for entry in data:
        assert f" {DATA}/{entry}" in listing
    target = f"/srv/extracted-{lane.name}"
    assert "files restored" in bacula.bextract(lane, name, target)
    assert contents(chroot.path(target + DATA)) == data
    owners = {file.stat().st_uid for file in hwkm.path().rglob("*")}
    assert owners == {hwkm.path().stat().st_uid}
    assert owners != {0}


def test_append(bacula: Bacula, hwkm: KeyManager, lanes: Lanes, data: Data) -> None:
    """A second job on the same volume uses the same key."""
    lane = lanes["Append"]
    first, file = saved(bacula, lane)
    size = file.stat().st_size
    (name,) = bacula.volumes(lane)
    before = hwkm.generations(name)
    second, _ = saved(bacula, lane)
    assert bacula.volume_files(lane) == [file]
    assert file.stat().st_size > 1.9 * size
    assert f'Ready to append to end of Volume "{name}"' in second.log
    after = hwkm.generations(name)
    assert [one["key_id"] for one in after] == [one["key_id"] for one in before]
    for job in (first, second):
        restored(bacula, lane, job, data)


def test_recycle(
    bacula: Bacula, hwkm: KeyManager, lanes: Lanes, data: Data, chroot: Chroot
) -> None:
    """A recycled volume gets a new key; a copy of the old volume can still be read."""
    lane = lanes["Recycle"]
    _, file = saved(bacula, lane)
    (name,) = bacula.volumes(lane)
    old_label = volume.label(file)
    old_key = hwkm.getkey("READ", name, old_label).key
    old_bytes = file.read_bytes()
    assert bacula.volume_status(name) == "Used"
    assert "Marking it purged" in bacula.purge(name)

    again, _ = saved(bacula, lane)
    assert f'Recycled volume "{name}"' in again.log
    assert states(hwkm, name) == [(1, "deactivated"), (2, "deactivated"), (3, "active")]
    new_key = hwkm.getkey("READ", name, volume.label(file)).key
    assert new_key != old_key
    assert MARKER in volume.opened(file, new_key)
    assert MARKER not in volume.opened(file, old_key)
    restored(bacula, lane, again, data)

    assert hwkm.getkey("READ", name, old_label).key == old_key
    file.write_bytes(old_bytes)  # as if an old copy of the medium were put back
    target = f"/srv/old-{lane.name}"
    bacula.bextract(lane, name, target)
    assert contents(chroot.path(target + DATA)) == data


def test_two_drives_at_once(bacula: Bacula, hwkm: KeyManager, lanes: Lanes, data: Data) -> None:
    lane = lanes["Drives"]
    jobs = bacula.together(*[partial(bacula.start_backup, lane)] * 2)
    assert [job.status for job in jobs] == [OK, OK], "\n".join(job.log for job in jobs)
    assert bacula.overlap(jobs)
    for job, device in zip(jobs, lane.devices, strict=True):
        assert f'Using Device "{device}" to write.' in job.log
    names, files = bacula.volumes(lane), bacula.volume_files(lane)
    assert len(names) == len(files) == 2
    assert not any(shows(file) for file in files)
    keys = {
        hwkm.getkey("READ", volume.label(file).volume, volume.label(file)).key for file in files
    }
    assert len(keys) == 2

    where: list[Path] = []

    def start(job: Job) -> int:
        job_id, target = bacula.start_restore(lane, job.id)
        where.append(target)
        return job_id

    back = bacula.together(*(partial(start, job) for job in jobs))
    assert [job.status for job in back] == [OK, OK], "\n".join(job.log for job in back)
    assert bacula.overlap(back)
    assert [contents(target) for target in where] == [data, data]


def test_two_devices_at_once(bacula: Bacula, lanes: Lanes, data: Data) -> None:
    """Jobs on separate devices of one Storage Daemon don't disturb one another."""
    pair = (lanes["Append"], lanes["Hand"])
    started = [bacula.start_backup(lane) for lane in pair]
    jobs = [bacula.wait(job_id) for job_id in started]
    assert [job.status for job in jobs] == [OK, OK], "\n".join(job.log for job in jobs)
    for lane, job in zip(pair, jobs, strict=True):
        assert f'Using Device "{lane.devices[0]}" to write.' in job.log
        restored(bacula, lane, job, data)


def test_label_by_hand(bacula: Bacula, hwkm: KeyManager, lanes: Lanes, data: Data) -> None:
    lane = lanes["Hand"]
    name = f"By-{lane.name}.1"
    output = bacula.label(lane, name)
    assert f'LoadEncryptionKey for Volume "{name}", status is OK.' in output
    assert f'VolEncrypted=1 Volume="{name}"' in output
    file = bacula.volume_file(lane, name)
    assert volume.label(file).volume == name
    assert states(hwkm, name) == [(1, "active")]
    assert hwkm.getkey("READ", name, volume.label(file)).key


def test_relabel(bacula: Bacula, hwkm: KeyManager, lanes: Lanes, data: Data) -> None:
    lane = lanes["Relabel"]
    _, file = saved(bacula, lane)
    (old,) = bacula.volumes(lane)
    old_label = volume.label(file)
    old_key = hwkm.getkey("READ", old, old_label).key
    bacula.purge(old)
    new = f"{lane.name}-New"
    output = bacula.relabel(lane, old, new)
    assert "3000 OK label." in output
    assert volume.label(file).volume == new
    file.rename(file.with_name(new))  # Bacula leaves that to the administrator

    job, _ = saved(bacula, lane)
    assert bacula.volumes(lane) == [new]
    restored(bacula, lane, job, data)
    assert states(hwkm, new) == [(1, "deactivated"), (2, "active")]
    assert hwkm.getkey("READ", old, old_label).key == old_key


@pytest.mark.parametrize(
    ("named_by_serial", "why"), [(False, "master key"), (True, "serial")], ids=["label", "serial"]
)
def test_wrong_token(
    bacula: Bacula,
    hwkm: KeyManager,
    lanes: Lanes,
    data: Data,
    named_by_serial: bool,
    why: str,
) -> None:
    """A token of the same label with another master key gives no key; the right one still does."""
    lane = lanes["WrongToken"]
    job, file = saved(bacula, lane)
    (name,) = bacula.volumes(lane)
    with hwkm.other_token(named_by_serial=named_by_serial):
        job_id, reason, where = refused(bacula, lane, job)
        assert hwkm.getkey("READ", name, volume.label(file)).fields == {"error": reason}
    assert why in reason
    assert bacula.cancel(job_id).status == "A"
    assert not where.exists()
    restored(bacula, lane, job, data)


def test_token_away(
    bacula: Bacula, hwkm: KeyManager, lanes: Lanes, data: Data, syslog: Syslog
) -> None:
    """A restore waits with the reason in its log, and goes on once the token is back."""
    lane = lanes["NoToken"]
    job, _ = saved(bacula, lane)
    with hwkm.without("tokens"):
        job_id, reason, where = refused(bacula, lane, job)
    assert "token" in reason
    assert f"no key given: {reason}" in syslog.text
    assert "3001 OK mount requested" in bacula.mount(lane)
    back = bacula.wait(job_id)
    assert (back.status, back.errors) == (OK, 0), back.log
    assert contents(where) == data


def test_no_token_no_backup(bacula: Bacula, hwkm: KeyManager, lanes: Lanes, data: Data) -> None:
    """Without a token nothing is written, least of all in clear."""
    lane = lanes["NoBackup"]
    with hwkm.without("tokens"):
        job_id = bacula.start_backup(lane)
        bacula.wait_for_log(job_id, "Please mount append Volume")
        assert bacula.cancel(job_id).status == "A"
    assert sum(file.stat().st_size for file in bacula.volume_files(lane)) == 0
    assert {bacula.volume_status(name) for name in bacula.volumes(lane)} == {"Error"}
    job, _ = saved(bacula, lane)
    restored(bacula, lane, job, data)


def test_keystore_lost(bacula: Bacula, hwkm: KeyManager, lanes: Lanes, data: Data) -> None:
    """The envelope in the label alone brings the data back."""
    lane = lanes["NoStore"]
    job, file = saved(bacula, lane)
    (name,) = bacula.volumes(lane)
    label = volume.label(file)
    with_both = hwkm.getkey("READ", name, label).key
    restored(bacula, lane, job, data)
    with hwkm.without("keystore.db*"):
        restored(bacula, lane, job, data)
        assert hwkm.getkey("READ", name, label).key == with_both


def test_calls(bacula: Bacula, hwkm: KeyManager, lanes: Lanes, data: Data) -> None:
    """Bacula calls when and how docs/bacula-protocol.md says."""
    lane = lanes["Calls"]
    command = bacula.setup.command
    bacula.use_command(hwkm.install_recorder())
    try:
        job, _ = saved(bacula, lane)
        (name,) = bacula.volumes(lane)
        calls = hwkm.take_calls()
        assert [call["OPERATION"] for call in calls] == ["LABEL", "READ", "LABEL"]
        user = hwkm.path().stat().st_uid
        for call in calls:
            assert call["VOLUME_NAME"] == name
            assert call["HOME"] == "/var/lib/bacula"
            assert call["process"][:1] + call["process"][2:] == [user, "/", 0o022]
            assert call["arguments"][-4:] == [
                "--device",
                f"{VOLUMES}/{lane.name}",
                "--job",
                str(job.id),
            ]
        assert [call["lengths"] == [0, 0] for call in calls] == [True, False, True]
        restored(bacula, lane, job, data)
        assert [call["OPERATION"] for call in hwkm.take_calls()] == ["READ"]
        saved(bacula, lane)
        assert [call["OPERATION"] for call in hwkm.take_calls()] == ["READ"]
    finally:
        bacula.use_command(command)


def test_nothing_holds_a_key(
    bacula: Bacula, hwkm: KeyManager, lanes: Lanes, chroot: Chroot, syslog: Syslog
) -> None:
    """No log, database or file that any of the programs wrote has a volume key or the PIN."""
    saved(bacula, lanes["Leaks"])
    files = [
        file for lane in lanes.values() if lane.encrypted for file in bacula.volume_files(lane)
    ]
    labels = [volume.label(file) for file in files if file.stat().st_size]
    keys = {label.volume: hwkm.getkey("READ", label.volume, label).key for label in labels}
    written = {str(file): file.read_bytes() for file in chroot.written()}
    written |= {f"the start of {file}": file.read_bytes()[:70_000] for file in files}
    written["syslog"] = syslog.text.encode()
    written["job logs"] = bacula.all_logs().encode()
    assert f"{lanes['Leaks'].name}-".encode() in written["job logs"]
    for place in (bacula.output(SD), hwkm.path("keystore.db")):
        assert written[str(place)] is not None
    for name, key in keys.items():
        assert name.encode() in written["syslog"]
        assert finds(key, written) == []
    pin = hwkm.path("user-pin").read_bytes().strip()
    assert [place for place, text in written.items() if pin in text] == [str(hwkm.path("user-pin"))]


def test_the_search_for_keys_finds_each_form() -> None:
    """The control of the search itself."""
    key = bytes(range(7, 71))
    written = {
        "raw": b"x" + key,
        "second half": key[32:],
        "hex": b"key=" + key.hex().encode(),
        "upper": key.hex().upper().encode(),
        "base64": base64.b64encode(key),
        "base64 of half": base64.b64encode(key[:32] + b"more"),
        "base32": base64.b32encode(key),
        "repr": repr(key).encode(),
        "list": str(list(key)).encode(),
    }
    assert finds(key, written) == list(written)
    assert finds(key[::-1], written) == []


def test_the_storage_daemon_survived(bacula: Bacula, chroot: Chroot) -> None:
    assert bacula.is_running(SD)
    assert "ASSERT" not in bacula.output(SD).read_text()
    assert chroot.run([HWKM, "--config", f"{HOME}/config.toml", "master", "list"])

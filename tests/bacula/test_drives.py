"""The real Bacula 15, and hwkm with a tape drive that encrypts for it.

The Storage Daemon writes to a file, the drive is an emulated one that the Encryption Command names.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import pytest

from hwkm.envelope import Envelope
from hwkm.keys import Cipher
from hwkm.scsi.transport import CheckConditionError

from . import chroot as chroots
from . import dataset, volume
from .bacula import SD
from .dataset import MARKER, shows
from .drive import DEVICE, FILE, FIRST, TapeDrive
from .jobs import refused, restored, saved, written
from .keymanager import KeyManager, command

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from hwkm.envelope import Header

    from .bacula import Bacula, Job
    from .chroot import Chroot
    from .config import Lane
    from .keymanager import Answer, Syslog

if reason := chroots.why_not():
    pytest.skip(f"the real Bacula can't run: {reason}", allow_module_level=True)

pytestmark = pytest.mark.timeout(900)  # the first test builds the chroot

HOME = "/var/lib/drive-hwkm"
POLICY = """\
[[policy]]
volumes = "TapeOnly-.*"
delivery = "drive"

[[policy]]
volumes = ".*"
delivery = "auto"
"""
PROOFS = """\
SELECT generation, kind, encrypted FROM proof JOIN generation USING (key_id)
WHERE job = ? ORDER BY proof_id"""
REFUSALS = "SELECT outcome FROM event WHERE job = ? AND operation = 'label'"
NO_KEY = bytes(16)
CANT_DECRYPT = "7/74/01"

Lanes = dict[str, "Lane"]
Data = dict[str, str]


class Tape(NamedTuple):
    """A job and the volume that it wrote; ``held`` is what the drive held after it."""

    job: Job
    name: str
    file: Path
    label: volume.Label
    held: bytes | None

    @property
    def header(self) -> Header:
        """What the envelope in the label says."""
        return Envelope.parse(self.label.wrapped_key).header

    @classmethod
    def of(cls, job: Job, file: Path, drive: TapeDrive) -> Tape:
        """Return what a job has just written."""
        return cls(job, file.name, file, volume.label(file), drive.held())


@pytest.fixture(scope="module")
def drive(chroot: Chroot) -> TapeDrive:
    made = TapeDrive(chroot)
    made.create()
    return made


@pytest.fixture(scope="module")
def keys(chroot: Chroot, syslog: Syslog, drive: TapeDrive) -> KeyManager:
    manager = KeyManager(chroot, HOME, DEVICE)
    manager.init()
    config = manager.path("config.toml")
    config.write_text(config.read_text().partition("[[policy]]")[0] + POLICY)
    return manager


@pytest.fixture(scope="module")
def sd(bacula: Bacula, keys: KeyManager) -> Iterator[Bacula]:
    """Bacula, whose Encryption Command has the drive."""
    before = bacula.setup.command
    bacula.use_command(command(HOME, DEVICE))
    yield bacula
    bacula.use_command(before)


@pytest.fixture(scope="module")
def tape(sd: Bacula, drive: TapeDrive, drive_lanes: Lanes) -> Tape:
    """A volume that Bacula labelled by itself, and wrote; the first cartridge is for it alone.

    Its blocks are on that cartridge, too, written with the key that hwkm put into the drive.
    """
    drive.insert(FIRST)
    made = Tape.of(*written(sd, drive_lanes["Tape"]), drive)
    label, *blocks = volume.stored(made.file)
    drive.write(label, blocks)
    drive.restore()
    return made


@pytest.fixture
def loaded(drive: TapeDrive, tape: Tape, keys: KeyManager) -> None:
    """The cartridge of that volume is in the drive, and its key."""
    drive.insert(FIRST)
    assert is_null(keys.getkey("READ", tape.name, tape.label))
    assert drive.held() == tape.header.key_id


@pytest.fixture(autouse=True)
def honest(drive: TapeDrive) -> Iterator[None]:
    yield
    drive.restore()


def proofs(keys: KeyManager, job: Job) -> list[tuple[int, str, int]]:
    """Return what the drive was seen to do for a job: generation, kind, whether it encrypts."""
    return keys.query(PROOFS, str(job.id))


def deliveries(keys: KeyManager, name: str) -> list[str]:
    """Return who encrypts each generation of a volume."""
    return [str(one["delivery"]) for one in keys.generations(name)]


def is_null(answer: Answer) -> bool:
    """Return whether the Storage Daemon is told to encrypt nothing."""
    return answer.fields["cipher"] == "NULL" and answer.key == NO_KEY


def lines(syslog: Syslog, job: Job) -> list[str]:
    """Return what hwkm logged for a job."""
    return [line for line in syslog.text.splitlines() if f"(job {job.id}, device {DEVICE})" in line]


def test_the_drive_encrypts_in_place_of_bacula(
    sd: Bacula, keys: KeyManager, tape: Tape, syslog: Syslog
) -> None:
    assert tape.job.log.count(f'LoadEncryptionKey for Volume "{tape.name}", status is OK.') == 3
    header = tape.header
    assert (header.cipher, header.volume, header.generation) == (Cipher.AES_256_GCM, tape.name, 2)
    assert tape.held == header.key_id
    # The drive would have encrypted these blocks. Bacula did not, whatever it says in them.
    assert shows(tape.file)
    label, *blocks = volume.blocks(tape.file)
    assert not label.options & volume.BLOCK_ENCRYPTED
    assert all(block.options & volume.BLOCK_ENCRYPTED for block in blocks)
    first, second = keys.generations(tape.name)
    assert (first["state"], second["state"]) == ("deactivated", "active")
    assert second["key_id"] == header.key_id.hex() != first["key_id"]
    assert first["delivery"] == second["delivery"] == "drive"
    assert proofs(keys, tape.job) == [(1, "load", 1), (1, "hold", 1), (2, "load", 1)]
    said = ("it was given the key", "the drive encrypts: it holds the key", "it was given the key")
    for line, words in zip(lines(syslog, tape.job), said, strict=True):
        assert words in line


def test_restore_while_the_drive_holds_the_key(
    sd: Bacula, keys: KeyManager, loaded: None, tape: Tape, drive_lanes: Lanes, data: Data
) -> None:
    back = restored(sd, drive_lanes["Tape"], tape.job, data)
    assert proofs(keys, back) == [(2, "hold", 1)]


@pytest.mark.parametrize("how", ["cleared", "another cartridge"])
def test_restore_loads_the_key_again(
    sd: Bacula,
    keys: KeyManager,
    drive: TapeDrive,
    loaded: None,
    tape: Tape,
    drive_lanes: Lanes,
    data: Data,
    how: str,
) -> None:
    if how == "cleared":
        keys.run("drive", "clear", DEVICE)
    else:
        drive.restore()
        assert "must name the drive" in keys.getkey("READ", tape.name, tape.label).fields["error"]
        drive.insert(FIRST)
    assert drive.held() is None
    back = restored(sd, drive_lanes["Tape"], tape.job, data)
    assert drive.held() == tape.header.key_id
    assert proofs(keys, back) == [(2, "load", 1)]


def test_recycle(
    sd: Bacula, keys: KeyManager, drive: TapeDrive, drive_lanes: Lanes, data: Data
) -> None:
    lane = drive_lanes["TapeAgain"]
    old = Tape.of(*written(sd, lane), drive)
    sd.purge(old.name)
    new = Tape.of(*written(sd, lane), drive)
    assert f'Recycled volume "{old.name}"' in new.job.log
    assert new.file == old.file
    assert (old.header.generation, new.header.generation) == (2, 3)
    assert (old.held, new.held) == (old.header.key_id, new.header.key_id)
    assert old.held != new.held
    assert proofs(keys, new.job) == [(2, "hold", 1), (3, "load", 1)]
    restored(sd, lane, new.job, data)


def test_software_takes_over_from_a_drive_that_lies(
    sd: Bacula, keys: KeyManager, drive: TapeDrive, tape: Tape, drive_lanes: Lanes, data: Data
) -> None:
    lane = drive_lanes["TapeLies"]
    drive.lie("mode-ignored", on=True)
    job, file = saved(sd, lane)
    made = Tape.of(job, file, drive)
    assert made.header.cipher is Cipher.AES_256_XTS
    assert made.held is None
    # Each LABEL made a key for the drive first, which nobody uses.
    assert deliveries(keys, made.name) == ["drive", "software"] * 2
    assert proofs(keys, job) == [(1, "load", 0), (3, "load", 0)]
    answer = keys.getkey("READ", made.name, made.label)
    assert answer.fields["cipher"] == "AES_256_XTS"
    assert MARKER in volume.opened(file, answer.key)

    drive.lie("mode-ignored", on=False)
    drive.insert(FIRST)
    assert is_null(keys.getkey("READ", tape.name, tape.label))
    assert drive.held() == tape.header.key_id
    back = restored(sd, lane, job, data)
    assert drive.held() is None  # else it would encrypt what software has encrypted
    assert proofs(keys, back) == [(2, "clear", 0)]


def test_nothing_is_written_if_only_the_drive_may_encrypt(
    sd: Bacula, keys: KeyManager, drive: TapeDrive, drive_lanes: Lanes, syslog: Syslog
) -> None:
    lane = drive_lanes["TapeOnly"]
    drive.lie("mode-ignored", on=True)
    job_id = sd.start_backup(lane)
    sd.wait_for_log(job_id, "Please mount append Volume")
    job = sd.cancel(job_id)
    assert job.status == "A"
    assert sum(file.stat().st_size for file in sd.volume_files(lane)) == 0
    assert {sd.volume_status(name) for name in sd.volumes(lane)} == {"Error"}
    assert drive.held() is None
    assert {proof[1:] for proof in proofs(keys, job)} == {("load", 0)}
    refusals = lines(syslog, job)
    assert refusals
    outcomes = [outcome for (outcome,) in keys.query(REFUSALS, str(job.id))]
    assert outcomes.count("failed") == len(refusals)
    for line in refusals:
        assert "no key given: drive" in line
        assert "not encrypted, check 'encryption mode': DISABLE instead of ENCRYPT" in line

    drive.lie("mode-ignored", on=False)
    made = Tape.of(*written(sd, lane), drive)
    assert made.header.cipher is Cipher.AES_256_GCM
    assert made.held == made.header.key_id


def test_a_device_that_is_no_drive(
    sd: Bacula, keys: KeyManager, tape: Tape, drive_lanes: Lanes, data: Data
) -> None:
    """What a drive encrypts can't be restored there, and the job log says why; the rest goes on."""
    usual = sd.setup.command
    sd.use_command(command(HOME))  # %a, which is the folder of the volumes
    try:
        job_id, why, where = refused(sd, drive_lanes["Tape"], tape.job)
        sd.cancel(job_id)
        job, file = saved(sd, drive_lanes["TapeNone"])
        restored(sd, drive_lanes["TapeNone"], job, data)
    finally:
        sd.use_command(usual)
    assert why.startswith(f"volume '{tape.name}' is encrypted by a tape drive; /srv/volumes/Tape")
    assert "--device %a of the Encryption Command must name it" in why
    assert not where.exists()
    assert Envelope.parse(volume.label(file).wrapped_key).header.cipher is Cipher.AES_256_XTS


@pytest.fixture
def recorded(loaded: None, tape: Tape) -> list[bytes]:
    """The volume's blocks, which are on its cartridge."""
    return list(volume.stored(tape.file))


def test_the_blocks_on_tape(
    keys: KeyManager, drive: TapeDrive, tape: Tape, recorded: list[bytes], tmp_path: Path
) -> None:
    """What the Storage Daemon writes to a tape is unreadable without the key, and comes back."""
    on_tape = drive.on_tape()
    assert len(on_tape) == len(recorded)
    for one in on_tape:
        assert one.is_encrypted
        assert one.a_kad == tape.header.key_id
        assert MARKER not in one.data
        assert tape.name.encode() not in one.data
    assert "encrypted: yes" in keys.run("drive", "prove", DEVICE)
    keys.run("drive", "clear", DEVICE)
    with pytest.raises(CheckConditionError) as refusal:
        drive.read()
    assert refusal.value.sense.number == CANT_DECRYPT

    assert f"volume: {tape.name}" in keys.run("drive", "auto", DEVICE)
    assert drive.read() == recorded
    assert is_null(keys.getkey("READ", tape.name, label_on(drive, recorded, tmp_path)))


def label_on(drive: TapeDrive, recorded: list[bytes], folder: Path) -> volume.Label:
    """Return the label, read from the tape."""
    block = folder / "label"
    block.write_bytes(drive.read_label(len(recorded[0])))
    return volume.label(block)


@contextmanager
def bare_machine(keys: KeyManager, chroot: Chroot) -> Iterator[None]:
    """Take all of hwkm away but for what is in the token's backup, and the key in the drive."""
    keys.run("drive", "clear", DEVICE)
    run = ["install", "-d", "-m", "0700", "-o", "bacula", "-g", "bacula", f"{HOME}/run"]
    with keys.without("keystore.db*", "run"):
        chroot.run(run)
        yield


def test_a_bare_machine_gets_the_key_by_the_cartridges_chip(
    keys: KeyManager,
    drive: TapeDrive,
    tape: Tape,
    recorded: list[bytes],
    chroot: Chroot,
    tmp_path: Path,
) -> None:
    """Bacula's own label is encrypted with the key that is in it."""
    with bare_machine(keys, chroot):
        with pytest.raises(CheckConditionError) as refusal:
            drive.read_label(len(recorded[0]))
        assert refusal.value.sense.number == CANT_DECRYPT
        assert f"volume: {tape.name}" in keys.run("drive", "auto", DEVICE)
        assert drive.read() == recorded
        label = label_on(drive, recorded, tmp_path)
        assert label == tape.label
        assert is_null(keys.getkey("READ", tape.name, label))


def test_a_bare_machine_needs_an_envelope_if_the_chip_has_none(
    keys: KeyManager, drive: TapeDrive, tape: Tape, recorded: list[bytes], chroot: Chroot
) -> None:
    drive.restore()  # the other cartridge, whose chip has nothing of this volume
    keys.run("drive", "load", DEVICE, "--volume", tape.name)
    drive.write(recorded[0], recorded[1:])
    with bare_machine(keys, chroot):
        status, output = keys.call("drive", "auto", DEVICE)
        assert status != 0
        assert f"({tape.header.key_id.hex()}, '{tape.name}')" in output
        assert drive.held() is None
        # One that was kept anywhere is enough, and then the tape is known here.
        assert is_null(keys.getkey("READ", tape.name, tape.label))
        assert drive.read() == recorded
        keys.run("drive", "clear", DEVICE)
        assert f"volume: {tape.name}" in keys.run("drive", "auto", DEVICE)


def test_nothing_but_the_drive_holds_its_key(
    sd: Bacula,
    keys: KeyManager,
    drive: TapeDrive,
    loaded: None,
    tape: Tape,
    chroot: Chroot,
    syslog: Syslog,
) -> None:
    found = {str(file): file.read_bytes() for file in chroot.written()}
    found |= {str(file): file.read_bytes()[:70_000] for file in (tape.file, sd.output(SD))}
    found["syslog"] = syslog.text.encode()
    found["job logs"] = sd.all_logs().encode()
    assert tape.name.encode() in found["syslog"]
    assert str(keys.path("keystore.db")) in found
    assert dataset.finds(drive.key, found) == []
    assert dataset.finds(drive.key, {"the drive": chroot.path(FILE).read_bytes()}) == ["the drive"]

"""The Encryption Command at a tape drive: Bacula's orders played through, with labels on tape."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from hwkm.envelope import Envelope
from hwkm.scsi import commands, emulator
from hwkm.scsi.emulator import LIES

from .tape import CARTRIDGE, StorageDaemon, label_block, refusal

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from .home import Home

NOTHING = bytes(16)
DATA = b"what the job writes".ljust(1024, b"\0")


@pytest.fixture(name="made")
def _made(home: Home, tmp_path: Path) -> Callable[..., StorageDaemon]:
    home.edit('delivery = "software"', 'delivery = "auto"')

    def make(profile: str = "hpe-lto-9", cartridge: str = CARTRIDGE) -> StorageDaemon:
        path = tmp_path / "drive"
        emulator.create(path, profile, cartridge=cartridge)
        return StorageDaemon(home, path, "Tape-0001")

    return make


@pytest.fixture(name="daemon")
def _daemon(made: Callable[..., StorageDaemon]) -> StorageDaemon:
    return made()


def key_id(wrapped: bytes) -> bytes:
    return Envelope.parse(wrapped).header.key_id


class TestOrders:
    def test_a_new_volume(self, daemon: StorageDaemon) -> None:
        """LABEL, READ, LABEL: the second key is the volume's."""
        first, again, second = daemon.label(), daemon.mount(), daemon.label()
        for answer in (first, again, second):
            assert (answer.given.cipher, answer.given.key) == ("NULL", NOTHING)
        assert again.given.wrapped == first.given.wrapped
        ids = daemon.key_ids()
        assert [key_id(first.given.wrapped), key_id(second.given.wrapped)] == ids
        assert daemon.held() == ids[1]
        assert daemon.label_on_tape().wrapped_key == second.given.wrapped
        assert daemon.proofs() == [("load", 1, "7"), ("hold", 1, "7"), ("load", 1, "7")]

    def test_a_recycled_volume(self, daemon: StorageDaemon) -> None:
        """READ, LABEL: what is written from then on has a new key."""
        daemon.label()
        daemon.append(DATA)
        daemon.mount()
        daemon.label()
        daemon.append(DATA)
        old, new = daemon.key_ids()
        tape = daemon.drive.blocks(CARTRIDGE)
        assert {one.a_kad for one in tape if one.is_block} == {new}
        assert old != new

    def test_an_append_and_a_restore(self, daemon: StorageDaemon) -> None:
        daemon.label()
        daemon.append(DATA)
        assert daemon.mount().given.cipher == "NULL"
        assert daemon.read() == DATA
        daemon.append(DATA)
        assert daemon.hwkm("prove").status == 0
        assert daemon.mount().given.cipher == "NULL"
        assert [daemon.read(), daemon.read()] == [DATA, DATA]
        assert all(DATA not in one.data for one in daemon.drive.blocks(CARTRIDGE))

    def test_the_tape_asks_for_its_key(self, daemon: StorageDaemon) -> None:
        """Without its key not even the label can be read; hwkm drive auto brings it."""
        daemon.label()
        daemon.append(DATA)
        assert daemon.hwkm("clear").status == 0
        daemon.run(commands.rewind())
        assert refusal(daemon) == "7/74/01"
        assert daemon.hwkm("auto").status == 0
        assert daemon.mount().given.cipher == "NULL"
        assert daemon.read() == DATA

    def test_where_the_label_is_in_clear_it_names_the_key(
        self, made: Callable[..., StorageDaemon]
    ) -> None:
        """A drive without the key, or with another volume's, is given it at READ."""
        daemon = made()
        wrapped = daemon.label().given.wrapped
        daemon.hwkm("clear")
        assert daemon.ask("READ", wrapped).given.cipher == "NULL"
        assert daemon.held() == key_id(wrapped)
        other = StorageDaemon(daemon.home, daemon.path, "Tape-0002")
        other.ask("LABEL")
        assert daemon.held() != key_id(wrapped)
        assert daemon.ask("READ", wrapped).given.cipher == "NULL"
        assert daemon.held() == key_id(wrapped)

    def test_the_event_says_why(self, daemon: StorageDaemon) -> None:
        daemon.label()
        ((detail,),) = daemon.home.query(
            "SELECT detail FROM event WHERE operation = 'label' AND volume = ?", daemon.volume
        )
        assert "encrypts AES-256-GCM itself" in detail
        assert "encrypts AES-256-GCM itself" in daemon.home.log[-1]

    def test_a_policy_of_later_does_not_matter(self, daemon: StorageDaemon) -> None:
        """A generation keeps its delivery, also where the policy knows no drives any more."""
        wrapped = daemon.label().given.wrapped
        daemon.hwkm("clear")
        daemon.home.edit('delivery = "auto"', 'delivery = "software"')
        assert daemon.ask("READ", wrapped).given.cipher == "NULL"
        assert daemon.held() == key_id(wrapped)
        assert daemon.ask("READ").given.cipher == "NULL"  # by the keystore alone

    def test_the_cipher_option_is_for_software(self, daemon: StorageDaemon) -> None:
        assert daemon.label("--cipher", "AES_128_XTS").given.cipher == "NULL"
        daemon.drive.eject()
        assert daemon.ask("LABEL", b"", "--cipher", "AES_128_XTS").given.cipher == "AES_128_XTS"


class TestAnotherTape:
    """A drive that does not hold the key is given it only for a tape that asks for it."""

    def test_a_label_in_clear(self, daemon: StorageDaemon) -> None:
        wrapped = daemon.label().given.wrapped
        daemon.hwkm("clear")
        daemon.run(commands.rewind())
        daemon.append(label_block(daemon.volume, wrapped, bytes(16)))
        daemon.run(commands.rewind())
        answer = daemon.ask("READ", wrapped)
        assert "what is on the tape in the drive is blank or in clear" in answer.error
        assert daemon.held() is None

    def test_a_blank_one(self, daemon: StorageDaemon) -> None:
        wrapped = daemon.label().given.wrapped
        daemon.drive.eject()
        daemon.drive.insert("L90002L9")
        assert "--device %a" in daemon.ask("READ", wrapped).error
        assert daemon.held() is None

    def test_another_volumes(self, daemon: StorageDaemon) -> None:
        """As where %a is not the drive whose label was read."""
        wrapped = daemon.label().given.wrapped
        daemon.drive.eject()
        daemon.drive.insert("L90002L9")
        StorageDaemon(daemon.home, daemon.path, "Tape-0002").label()
        answer = daemon.ask("READ", wrapped)
        assert "is encrypted with another key" in answer.error
        assert daemon.held() is None

    def test_a_3592_leaves_the_label_in_clear(self, made: Callable[..., StorageDaemon]) -> None:
        daemon = made("ibm-3592", "JB0001JB")
        daemon.label()
        daemon.hwkm("clear")
        assert daemon.mount().given.cipher == "NULL"
        daemon.append(DATA)
        daemon.hwkm("clear")
        assert daemon.mount().given.cipher == "NULL"
        assert daemon.read() == DATA

    def test_a_drive_that_only_reads_such_cartridges(
        self, made: Callable[..., StorageDaemon], tmp_path: Path
    ) -> None:
        """An LTO-6 reads what an LTO-4 has written, and can't write on it."""
        daemon = made("hp-lto-4", "L40001L4")
        wrapped = daemon.label().given.wrapped
        daemon.append(DATA)
        daemon.drive.eject()
        reader = StorageDaemon(daemon.home, tmp_path / "reader", daemon.volume)
        other = emulator.create(reader.path, "hp-lto-6")
        daemon.drive.give("L40001L4", other)
        other.insert("L40001L4")
        assert b"AVFCLP" in reader.hwkm("probe").out
        assert reader.ask("READ", wrapped).given.cipher == "NULL"
        reader.run(commands.locate(2))
        assert reader.read() == DATA
        reader.home.edit('delivery = "auto"', 'delivery = "drive"')
        assert "AVFCLP" in reader.ask("LABEL").error


class TestReset:
    """A reset takes the key; who writes is told of it only if nobody else was."""

    @pytest.mark.parametrize("words", [("status",), ("probe",), ("prove",), ("status", "--json")])
    @pytest.mark.parametrize("how", ["reset", "power_cycle"])
    def test_who_looks_at_the_drive_is_told(
        self, daemon: StorageDaemon, how: str, words: tuple[str, ...]
    ) -> None:
        daemon.label()
        getattr(daemon.drive, how)()
        verb, *options = words
        run = daemon.hwkm(verb, *options)
        assert run.status != 0
        assert "took the key of volume 'Tape-0001' out of the drive" in run.err.decode()
        assert "WHAT IS WRITTEN NOW IS NOT ENCRYPTED" in run.err.decode()

    def test_a_mount_in_between_is_refused(self, daemon: StorageDaemon) -> None:
        """Its tape stands elsewhere than the Storage Daemon thinks; the next mount is in order."""
        wrapped = daemon.label().given.wrapped
        daemon.drive.reset()
        assert "took the key of volume" in daemon.ask("READ", wrapped).error
        assert daemon.held() is None
        assert daemon.ask("READ", wrapped).given.cipher == "NULL"
        assert daemon.held() == key_id(wrapped)

    @pytest.mark.parametrize("what", ["cleared", "another cartridge", "never loaded"])
    def test_no_false_alarm(self, daemon: StorageDaemon, what: str) -> None:
        if what != "never loaded":
            daemon.label()
        if what == "cleared":
            daemon.hwkm("clear")
        elif what == "another cartridge":
            daemon.drive.eject()
            daemon.drive.insert("L90002L9")
        daemon.drive.power_cycle()
        run = daemon.hwkm("status")
        assert (run.status, run.err) == (0, b"")


class TestSoftware:
    def test_the_policy_wants_no_drive_any_more(self, daemon: StorageDaemon) -> None:
        """Drives that were used once are still looked at."""
        daemon.label()
        daemon.home.edit('delivery = "auto"', 'delivery = "software"')
        other = StorageDaemon(daemon.home, daemon.path, "Tape-0002")
        assert other.label().given.cipher == "AES_256_XTS"
        assert daemon.held() is None
        assert other.label_on_tape().volume == "Tape-0002"

    def test_a_lock_ends_with_its_key(self, daemon: StorageDaemon) -> None:
        """CKOD takes the key with the cartridge; LOCK would refuse the next one's label."""
        daemon.label()
        daemon.drive.eject()
        daemon.drive.insert("L90002L9")
        daemon.home.edit('delivery = "auto"', 'delivery = "software"')
        other = StorageDaemon(daemon.home, daemon.path, "Tape-0002")
        answer = other.label()
        assert answer.given.cipher == "AES_256_XTS"
        assert other.label_on_tape().wrapped_key == answer.given.wrapped
        assert daemon.proofs()[-1][0] == "clear"

    @pytest.mark.parametrize("profile", ["ibm-lto-3", "library-managed"])
    def test_a_drive_that_cant(self, made: Callable[..., StorageDaemon], profile: str) -> None:
        daemon = made(profile, "L30001L3" if profile == "ibm-lto-3" else "L60001L6")
        answer = daemon.label()
        assert answer.given.cipher == "AES_256_XTS"
        assert "software encrypts: the drive:" in daemon.home.log[-1]
        assert daemon.mount().given.key == answer.given.key

    def test_a_device_that_is_no_drive(self, daemon: StorageDaemon, tmp_path: Path) -> None:
        disk = tmp_path / "disk"
        disk.touch()
        options = ("--device", str(disk))
        answer = daemon.home.getkey("LABEL", "Disk-1", options=options)
        assert answer.given.cipher == "AES_256_XTS"
        again = daemon.home.getkey("READ", "Disk-1", answer.given.wrapped, options=options)
        assert again.given.key == answer.given.key
        assert "is no tape drive's node" in daemon.home.log[-2]

    def test_no_key_of_another_tape_stays_in_the_drive(self, daemon: StorageDaemon) -> None:
        """Nothing is encrypted twice: at LABEL and at READ of software the drive is cleared."""
        disk = ("--device", str(daemon.home.path))
        wrapped = daemon.home.getkey("LABEL", "Mixed", options=disk).given.wrapped
        daemon.label()
        assert daemon.held() == daemon.key_ids()[-1]
        here = ("--device", daemon.device)
        assert daemon.home.getkey("READ", "Mixed", wrapped, options=here).given.key != NOTHING
        assert daemon.held() is None
        daemon.label()
        daemon.home.edit('volumes = ".*"\n', 'volumes = "Tape-.*"\n')
        with daemon.home.config.open("a") as file:
            file.write('\n[[policy]]\nvolumes = ".*"\n')
        assert daemon.home.getkey("LABEL", "Mixed", options=here).given.key != NOTHING
        assert daemon.held() is None


class TestRefusals:
    def test_a_tape_at_a_device_that_is_no_drive(self, daemon: StorageDaemon) -> None:
        wrapped = daemon.label().given.wrapped
        answer = daemon.home.getkey("READ", daemon.volume, wrapped, options=("--device", "/srv"))
        assert "is encrypted by a tape drive" in answer.error
        assert "--device %a" in answer.error

    def test_without_the_option(self, daemon: StorageDaemon) -> None:
        wrapped = daemon.label().given.wrapped
        answer = daemon.home.getkey("READ", daemon.volume, wrapped, options=())
        assert "getkey --device %a" in answer.error

    @pytest.mark.parametrize("what", ["ibm-lto-3", "empty", "disk"])
    def test_where_the_policy_wants_the_drive(
        self, made: Callable[..., StorageDaemon], what: str
    ) -> None:
        daemon = made(what if what == "ibm-lto-3" else "hpe-lto-9", "")
        daemon.home.edit('delivery = "auto"', 'delivery = "drive"')
        device = str(daemon.path) if what == "disk" else daemon.device
        answer = daemon.home.getkey("LABEL", daemon.volume, options=("--device", device))
        assert "the policy wants the drive to encrypt, and it can't" in answer.error
        assert daemon.key_ids() == []

    def test_a_label_that_was_changed(self, daemon: StorageDaemon) -> None:
        wrapped = bytearray(daemon.label().given.wrapped)
        daemon.hwkm("clear")
        wrapped[-1] ^= 1  # the envelope's MAC
        answer = daemon.ask("READ", bytes(wrapped))
        assert (answer.reply is None, daemon.held()) == (False, key_id(bytes(wrapped)))
        position = wrapped.index(daemon.key_ids()[0])
        wrapped[position] ^= 1
        daemon.hwkm("clear")
        assert daemon.ask("READ", bytes(wrapped)).error
        assert daemon.held() is None

    def test_a_token_that_is_away(self, daemon: StorageDaemon) -> None:
        (daemon.home.path / "user-pin").write_text("wrong-pin\n")
        assert daemon.label().error
        assert daemon.held() is None
        assert daemon.key_ids() == []

    def test_a_drive_that_others_hold(self, daemon: StorageDaemon) -> None:
        """It may hold a key: no label, and for a READ by software a warning."""
        disk = ("--device", str(daemon.home.path))
        wrapped = daemon.home.getkey("LABEL", "Mixed", options=disk).given.wrapped
        (daemon.home.path / "run" / "drive-8031BDC7DB.lock").mkdir()
        assert "drive's lock" in daemon.label().error
        here = ("--device", daemon.device)
        assert daemon.home.getkey("READ", "Mixed", wrapped, options=here).given.key != NOTHING
        assert "whether the drive holds a key is not known" in daemon.home.log[-1]

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
    @pytest.mark.parametrize(("uid", "mode"), [(65534, 0o666), (65534, 0o600), (0, 0o622)])
    def test_an_emulated_drive_of_somebody_elses(
        self, daemon: StorageDaemon, uid: int, mode: int
    ) -> None:
        """Whoever owns it would read the key."""
        os.chown(daemon.path, uid, 0)
        daemon.path.chmod(mode)
        assert "is no emulated drive of ours" in daemon.ask("LABEL").error

    def test_a_drive_that_hangs(self, daemon: StorageDaemon) -> None:
        """There is an answer, with the reason, before Bacula loses patience."""
        daemon.home.edit('delivery = "auto"', 'delivery = "drive"')
        with closing(sqlite3.connect(daemon.path, isolation_level=None)) as hanging:
            hanging.execute("BEGIN EXCLUSIVE")
            answer = daemon.ask("LABEL")
        assert "not answered in time" in answer.error
        assert daemon.held() is None


@pytest.mark.parametrize("lie", sorted(LIES))
@pytest.mark.parametrize("delivery", ["auto", "drive"])
def test_no_lie_is_believed(daemon: StorageDaemon, delivery: str, lie: str) -> None:
    """Either the drive does encrypt, with the key in the label; or it holds no key of ours."""
    daemon.home.edit('delivery = "auto"', f'delivery = "{delivery}"')
    daemon.drive.tell_lie(lie)
    answer = daemon.ask("LABEL")
    daemon.drive.tell_lie(lie, False)
    if answer.reply is not None and answer.reply.cipher == "NULL":
        assert daemon.held() == key_id(answer.reply.wrapped)
        assert daemon.drive.state()["shared"]["encryption_mode"] == 2
        return
    assert daemon.held() not in daemon.key_ids()
    assert (answer.reply is None) is (delivery == "drive")

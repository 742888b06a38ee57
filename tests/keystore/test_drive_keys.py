"""Keys for tape drives: made, imported, handed out to drives and never to the Storage Daemon."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

import pytest

from hwkm.errors import EnvelopeError, KeystoreError, NotFoundError, PolicyError
from hwkm.keys import Cipher, VolumeKey
from hwkm.keystore.engine import KeystoreMissingError
from hwkm.keystore.records import Operation, Outcome, ProofKind, State
from hwkm.policy import Delivery

from . import forked
from .drives import proof
from .envelopes import forge, run, with_broken_stanza
from .homes import CALLER, COMMAND_SECONDS, HWKM, ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from hwkm.keystore.records import Event, Generation
    from hwkm.manager import Handout, KeyManager

    from .homes import Home

VOLUME = "Vol-0001"
KEY = VolumeKey(Cipher.AES_256_GCM, bytes(range(32)))
DKI = bytes.fromhex("58595a0123456789abcdef01")


@pytest.fixture(name="auto")
def _auto(site: Home) -> Home:
    """An installation that leaves the delivery to the drive."""
    site.edit('delivery = "software"', 'delivery = "auto"')
    return site


@pytest.fixture(name="manager")
def _manager(auto: Home) -> Iterator[KeyManager]:
    with auto.manager() as manager:
        yield manager


def label(manager: KeyManager, delivery: Delivery = Delivery.DRIVE) -> Handout:
    return manager.label(VOLUME, CALLER, delivery=delivery)


def key_id(handout: Handout) -> bytes:
    return handout.envelope.header.key_id


def generations(site: Home) -> list[Generation]:
    with site.keystore().reading() as transaction:
        return transaction.generations(VOLUME)


def events(site: Home) -> list[Event]:
    with site.keystore().reading() as transaction:
        return transaction.events(VOLUME)


class TestLabel:
    def test_is_recorded_as_the_drives(self, auto: Home, manager: KeyManager) -> None:
        given = label(manager)
        assert (given.cipher, given.key.cipher) == (Cipher.AES_256_GCM, Cipher.AES_256_GCM)
        (record,) = generations(auto)
        assert (record.delivery, record.cipher) == (Delivery.DRIVE, Cipher.AES_256_GCM)
        assert record.last_used is not None
        assert [event.operation for event in events(auto)] == [Operation.LABEL]

    def test_each_generation_keeps_its_own(self, auto: Home, manager: KeyManager) -> None:
        for delivery in (Delivery.DRIVE, Delivery.SOFTWARE, Delivery.DRIVE):
            label(manager, delivery)
        found = [(r.delivery.value, r.cipher.name, r.state.value) for r in generations(auto)]
        assert found == [
            ("drive", "AES_256_GCM", "deactivated"),
            ("software", "AES_256_XTS", "deactivated"),
            ("drive", "AES_256_GCM", "active"),
        ]

    @pytest.mark.parametrize(
        ("policy", "delivery"), [("software", Delivery.DRIVE), ("drive", Delivery.SOFTWARE)]
    )
    def test_against_the_policy_is_refused(
        self, home: Home, policy: str, delivery: Delivery
    ) -> None:
        home.edit('delivery = "software"', f'delivery = "{policy}"')
        with home.manager() as manager, pytest.raises(PolicyError, match="the policy wants"):
            label(manager, delivery)
        assert generations(home) == []

    def test_the_encryption_command_obeys_the_policy(self, home: Home) -> None:
        home.edit('delivery = "software"', 'delivery = "drive"')
        answer = forked.ask(home, "LABEL", VOLUME)
        assert not answer.has_key
        assert "encrypted by the tape drive, not by software" in answer.error
        assert events(home)[-1].outcome is Outcome.REFUSED

    def test_a_software_cipher_is_refused(self, manager: KeyManager) -> None:
        with pytest.raises(PolicyError, match="AES_256_XTS is not for encryption by the tape"):
            manager.label(VOLUME, CALLER, Cipher.AES_256_XTS, Delivery.DRIVE)


class TestHandingOut:
    def test_the_newest(self, auto: Home, manager: KeyManager) -> None:
        label(manager)
        given = label(manager)
        again = manager.drive_key(VOLUME, CALLER)
        assert (again.key, again.envelope) == (given.key, given.envelope)
        event = events(auto)[-1]
        assert (event.operation, event.outcome) == (Operation.DRIVE_KEY, Outcome.OK)
        assert (event.key_id, event.job) == (key_id(given), CALLER.job)
        with auto.keystore().reading() as transaction:
            last = transaction.last_handed_out(VOLUME)
        assert last is not None
        assert last.key_id == key_id(given)

    def test_a_named_one(self, manager: KeyManager) -> None:
        first = label(manager)
        label(manager)
        assert manager.drive_key(VOLUME, CALLER, key_id=key_id(first)).key == first.key

    def test_the_labels(self, manager: KeyManager) -> None:
        first = label(manager)
        label(manager)
        again = manager.drive_key(VOLUME, CALLER, label=first.envelope.encode())
        assert (again.key, again.envelope) == (first.key, first.envelope)

    def test_a_broken_label_is_mended_by_the_keystore(self, manager: KeyManager) -> None:
        given = label(manager)
        broken = with_broken_stanza(given.envelope).encode()
        again = manager.drive_key(VOLUME, CALLER, label=broken)
        assert (again.key, again.envelope) == (given.key, given.envelope)
        assert len(again.notes) == 1

    def test_none_there(self, manager: KeyManager) -> None:
        with pytest.raises(NotFoundError, match="has no key of volume 'Vol-0001'"):
            manager.drive_key(VOLUME, CALLER)
        other = manager.label("Vol-0002", CALLER, delivery=Delivery.DRIVE)
        label(manager)
        with pytest.raises(NotFoundError, match=f"no key {key_id(other).hex()} of volume"):
            manager.drive_key(VOLUME, CALLER, key_id=key_id(other))

    def test_a_destroyed_one(self, auto: Home, manager: KeyManager) -> None:
        label(manager)
        run(auto.keystore(), "UPDATE generation SET state = 'destroyed'")
        with pytest.raises(PolicyError, match="was destroyed"):
            manager.drive_key(VOLUME, CALLER)

    def test_a_forged_label(self, auto: Home) -> None:
        with auto.manager() as manager:
            given = label(manager)
        forged = forge(auto, given.envelope.header).encode()
        with auto.manager() as manager, pytest.raises(EnvelopeError, match="different keys"):
            manager.drive_key(VOLUME, CALLER, label=forged)


class TestNeverMixed:
    """A drive's key is not for the Storage Daemon, and the other way round."""

    def test_read(self, auto: Home, manager: KeyManager) -> None:
        given = label(manager)
        before = events(auto)
        for on_label in (given.envelope.encode(), None):
            with pytest.raises(PolicyError, match="is encrypted by the tape drive") as caught:
                manager.read(VOLUME, on_label, CALLER)
            assert "hwkm drive load" in caught.value.hint
        assert events(auto) == before

    def test_the_encryption_command(self, auto: Home) -> None:
        with auto.manager() as manager:
            given = label(manager)
        answer = forked.ask(auto, "READ", VOLUME, given.envelope.encode())
        assert not answer.has_key
        assert "is encrypted by the tape drive" in answer.error
        assert events(auto)[-1].outcome is Outcome.REFUSED

    def test_a_softwares_key_for_a_drive(self, manager: KeyManager) -> None:
        label(manager)
        given = label(manager, Delivery.SOFTWARE)
        for named in ({}, {"key_id": key_id(given)}, {"label": given.envelope.encode()}):
            with pytest.raises(PolicyError, match="generation 2, is encrypted by software"):
                manager.drive_key(VOLUME, CALLER, **named)

    def test_an_older_software_generation_is_still_read(self, manager: KeyManager) -> None:
        software = label(manager, Delivery.SOFTWARE)
        label(manager)
        assert manager.read(VOLUME, software.envelope.encode(), CALLER).key == software.key


class TestBareMachine:
    @pytest.fixture(name="given")
    def _given(self, home: Home) -> Handout:
        home.edit('delivery = "software"', 'delivery = "auto"')
        with home.manager() as manager:
            given = label(manager)
        home.database.unlink()
        return given

    def test_a_drives_label_is_enough(self, home: Home, given: Handout) -> None:
        with home.manager() as manager:
            again = manager.drive_key(VOLUME, CALLER, label=given.envelope.encode())
        assert again.key == given.key
        (record,) = generations(home)
        assert (record.delivery, record.state) == (Delivery.DRIVE, State.ACTIVE)
        kinds = [event.operation for event in events(home)]
        assert kinds == [Operation.IMPORT, Operation.DRIVE_KEY]

    def test_read_makes_none(self, home: Home, given: Handout) -> None:
        with pytest.raises(PolicyError):
            home.read(VOLUME, given.envelope.encode())
        with home.manager() as manager, pytest.raises(KeystoreMissingError):
            manager.drive_key(VOLUME, CALLER)
        assert not home.database.exists()


class TestImport:
    def test_is_a_new_generation(self, auto: Home, manager: KeyManager) -> None:
        label(manager, Delivery.SOFTWARE)
        made = manager.import_key(VOLUME, KEY, DKI, CALLER)
        assert (made.key, made.envelope.header.generation) == (KEY, 2)
        record = generations(auto)[-1]
        assert (record.delivery, record.state) == (Delivery.DRIVE, State.ACTIVE)
        assert record.last_used is None, "it was not given to anybody"
        event = events(auto)[-1]
        assert (event.operation, event.key_id) == (Operation.IMPORT, key_id(made))
        assert event.detail == "another program's key"
        with auto.keystore().reading() as transaction:
            assert transaction.find_by_key_name(DKI) == record

    def test_is_given_to_a_drive(self, manager: KeyManager) -> None:
        made = manager.import_key(VOLUME, KEY, b"", CALLER)
        for again in (
            manager.drive_key(VOLUME, CALLER),
            manager.drive_key(VOLUME, CALLER, label=made.envelope.encode()),
        ):
            assert again.key == KEY

    def test_software_policy_is_no_hindrance(self, home: Home) -> None:
        """It is about new keys; this tape was written long ago."""
        with home.manager() as manager:
            manager.import_key(VOLUME, KEY, b"", CALLER)
        assert [record.delivery for record in generations(home)] == [Delivery.DRIVE]

    def test_without_a_rule(self, home: Home) -> None:
        home.edit('volumes = ".*"', 'volumes = "None"')
        with home.manager() as manager, pytest.raises(PolicyError, match="no \\[\\[policy\\]\\]"):
            manager.import_key(VOLUME, KEY, b"", CALLER)
        assert generations(home) == []


class TestProofs:
    def test_recorded_with_its_event(self, auto: Home, manager: KeyManager) -> None:
        given = proof(key_id(label(manager)), ProofKind.LOAD)
        manager.record_proof(given, CALLER)
        with auto.keystore().reading() as transaction:
            assert transaction.proofs(given.key_id) == [given]
        event = events(auto)[-1]
        assert (event.operation, event.who) == (Operation.DRIVE_LOAD, CALLER.who)

    def test_of_no_key(self, manager: KeyManager) -> None:
        with pytest.raises(KeystoreError, match="is on record"):
            manager.record_proof(proof(b"?" * 12), CALLER)


class TestCommands:
    """What people see of it."""

    @pytest.fixture(name="made")
    def _made(self, home: Home) -> Handout:
        home.edit('delivery = "software"', 'delivery = "auto"')
        with home.manager() as manager:
            manager.label("Other", CALLER)
            return label(manager)

    @staticmethod
    def _record(home: Home, made: Handout, kind: ProofKind, encrypted: bool = True) -> None:
        with home.manager() as manager:
            manager.record_proof(proof(key_id(made), kind, encrypted=encrypted), CALLER)

    def test_show_and_list(self, home: Home, made: Handout) -> None:
        self._record(home, made, ProofKind.PROVE)
        self._record(home, made, ProofKind.CLEAR)
        expected = {
            "at": "1970-01-01T00:08:20Z",
            "kind": "prove",
            "encrypted": True,
            "drive_serial": "1068000073",
            "cartridge_serial": "HE1234567890",
            "job": "7",
        }
        (shown,) = json.loads(home.hwkm("volume", "show", VOLUME, "--json")[1])["generations"]
        assert (shown["delivery"], shown["proof"]) == ("drive", expected)
        other, listed = json.loads(home.hwkm("volume", "list", "--json")[1])
        assert (listed["delivery"], listed["proof"]) == ("drive", expected)
        assert (other["delivery"], other["proof"]) == ("software", None)
        line = (
            "generation 1 encrypted on tape at 1970-01-01T00:08:20Z "
            "(drive 1068000073, cartridge HE1234567890, job 7)\n"
        )
        assert home.hwkm("volume", "show", VOLUME)[1].endswith(line)

    @pytest.mark.parametrize(
        ("kind", "encrypted", "start", "status"),
        [
            (None, True, "warn", 0),
            (ProofKind.LOAD, True, "warn", 0),
            (ProofKind.PROVE, True, "ok  ", 0),
            (ProofKind.PROVE, False, "fail", 1),
        ],
    )
    def test_checks(
        self,
        home: Home,
        made: Handout,
        kind: ProofKind | None,
        encrypted: bool,
        start: str,
        status: int,
    ) -> None:
        if kind is not None:
            self._record(home, made, kind, encrypted)
        found, output = home.hwkm("volume", "check", VOLUME)
        assert found == status
        opens, judged = [line for line in output.splitlines() if not line.startswith(" ")]
        assert opens.startswith("ok   volume Vol-0001, generation 1: opens with")
        assert judged.startswith(f"{start} volume Vol-0001, generation 1: ")
        assert "drive" in judged
        found, output = home.hwkm("check")
        assert found == status
        (line,) = [line for line in output.splitlines() if "volumes on tape" in line]
        assert line.startswith(f"{start} volumes on tape: Vol-0001: ")

    def test_check_shows_the_policy(self, home: Home, made: Handout) -> None:
        shown = home.hwkm("check")[1]
        assert "AES_256_GCM where the drive can, else AES_256_XTS, for main" in shown
        home.edit('delivery = "auto"', 'delivery = "drive"')
        assert "policy '.*': AES_256_GCM, drive, for main" in home.hwkm("check")[1]

    def test_import_of_standard_input(self, home: Home) -> None:
        command = [*HWKM, "--config", str(home.config_path), "volume", "import", VOLUME, "-"]
        done = subprocess.run(
            [*command, "--json"],
            cwd=ROOT,
            input=KEY.expose().hex().encode() + b"\nWeekly tapes\n",
            capture_output=True,
            timeout=COMMAND_SECONDS,
            check=True,
        )
        assert done.stderr == b""
        shown = json.loads(done.stdout)
        (record,) = generations(home)
        assert shown == {
            "volume": VOLUME,
            "generation": 1,
            "key_id": record.key_id.hex(),
            "cipher": "AES_256_GCM",
            "format": "stenc",
            "key_name": b"Weekly tapes".hex(),
        }
        with home.manager() as manager:
            assert manager.drive_key(VOLUME, CALLER).key == KEY

    def test_import_keeps_the_key_to_itself(self, home: Home, tmp_path: Path) -> None:
        file = tmp_path / "key"
        file.write_bytes(KEY.expose().hex().encode() + b"00\n")
        status, output = home.hwkm("volume", "import", VOLUME, str(file), "--format", "hex")
        assert status == 1
        assert "line 1: not a key of 32 bytes in hex" in output
        assert KEY.expose().hex()[:12] not in output
        assert generations(home) == []

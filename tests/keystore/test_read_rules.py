"""Which key a READ gives: always that of the medium, or none."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import pytest

from hwkm.envelope import Envelope
from hwkm.errors import (
    EnvelopeError,
    HwkmError,
    KeystoreError,
    NotFoundError,
    ParseError,
    PolicyError,
)
from hwkm.keys import Cipher
from hwkm.keystore.engine import KeystoreMissingError
from hwkm.keystore.records import Operation, Outcome, State

from . import forked
from .envelopes import (
    BREAK,
    forge,
    run,
    store,
    with_broken_mac,
    with_broken_stanza,
    with_other_generation,
)
from .homes import CALLER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from hwkm.keystore.records import Event, Generation
    from hwkm.manager import Handout, KeyManager

    from .homes import Home

VOLUME = "Vol-0001"


@pytest.fixture(name="manager")
def _manager(site: Home) -> Iterator[KeyManager]:
    with site.manager() as manager:
        yield manager


def label(manager: KeyManager, volume: str = VOLUME) -> Handout:
    return manager.label(volume, CALLER)


def read(manager: KeyManager, on_label: Envelope | bytes | None, volume: str = VOLUME) -> Handout:
    encoded = on_label.encode() if isinstance(on_label, Envelope) else on_label
    return manager.read(volume, encoded, CALLER)


def events(site: Home) -> list[Event]:
    with site.keystore().reading() as transaction:
        return transaction.events(VOLUME)


def generations(site: Home) -> list[Generation]:
    with site.keystore().reading() as transaction:
        return transaction.generations(VOLUME)


class TestWithALabel:
    def test_every_generation_by_its_own(self, manager: KeyManager) -> None:
        given = [label(manager) for _ in range(3)]
        for handout in (*given, *reversed(given)):
            again = read(manager, handout.envelope)
            assert again.key == handout.key
            assert again.envelope == handout.envelope
            assert again.notes == ()

    def test_label_read_label_within_a_second(self, site: Home) -> None:
        """What Bacula does with a new volume; the second LABEL is another generation."""
        first = forked.ask(site, "LABEL", VOLUME)
        between = forked.ask(site, "READ", VOLUME, first.label)
        second = forked.ask(site, "LABEL", VOLUME)
        assert between.key == first.key != second.key
        for answer in (first, second):
            assert forked.ask(site, "READ", VOLUME, answer.label).key == answer.key
        assert (first.generation, second.generation) == (1, 2)

    def test_cipher_is_the_envelopes(self, site: Home) -> None:
        given = site.label(VOLUME)
        site.edit('cipher = "AES_256_XTS"', 'cipher = "AES_128_XTS"')
        with site.manager() as after:
            for on_label in (given.envelope, None):
                again = read(after, on_label)
                assert (again.cipher, again.key) == (Cipher.AES_256_XTS, given.key)
            assert label(after).cipher is Cipher.AES_128_XTS

    def test_of_another_volume_is_refused(self, site: Home) -> None:
        other = site.label("Vol-0002")
        site.label(VOLUME)
        with pytest.raises(EnvelopeError, match="belongs to volume 'Vol-0002', not 'Vol-0001'"):
            site.read(VOLUME, other.envelope.encode())
        answer = forked.ask(site, "READ", VOLUME, other.envelope.encode())
        assert not answer.has_key
        assert "Vol-0002" in answer.error
        assert events(site)[-1].outcome is Outcome.FAILED

    def test_that_is_no_envelope_is_refused(self, manager: KeyManager) -> None:
        label(manager)
        with pytest.raises(ParseError):
            read(manager, b"no envelope")

    def test_a_changed_header_is_not(self, manager: KeyManager) -> None:
        given = label(manager)
        with pytest.raises(EnvelopeError, match="the keystore that it is"):
            read(manager, with_other_generation(given.envelope))

    @pytest.mark.parametrize("broken", [with_broken_stanza, with_broken_mac])
    def test_broken_is_mended_by_the_keystore(
        self, site: Home, manager: KeyManager, broken: Callable[[Envelope], Envelope]
    ) -> None:
        given = label(manager)
        again = read(manager, broken(given.envelope))
        assert again.key == given.key
        assert again.envelope == given.envelope
        assert len(again.notes) == 1
        assert events(site)[-1].detail == again.notes[0]


class TestDamagedKeystore:
    """The label's envelope is enough; without it, no key is better than a wrong one."""

    SAYS: ClassVar[dict[Callable[[Envelope], Envelope], str]] = {
        with_broken_stanza: "does not open",
        with_broken_mac: "MAC",
        with_other_generation: "belongs to another volume key",
    }

    def check(self, site: Home, manager: KeyManager, given: Handout, says: str) -> None:
        again = read(manager, given.envelope)
        assert again.key == given.key
        assert says in " ".join(again.notes)
        assert says in events(site)[-1].detail
        with pytest.raises(HwkmError, match=says):
            read(manager, None)

    @pytest.mark.parametrize("broken", BREAK)
    def test_broken_envelope(
        self, site: Home, manager: KeyManager, broken: Callable[[Envelope], Envelope]
    ) -> None:
        given = label(manager)
        store(site, given.envelope.header.key_id, broken(given.envelope).encode())
        self.check(site, manager, given, self.SAYS[broken])

    def test_no_envelope_at_all(self, site: Home, manager: KeyManager) -> None:
        given = label(manager)
        store(site, given.envelope.header.key_id, b"\x85dhwkm")
        self.check(site, manager, given, "is damaged")

    def test_missing_envelope(self, site: Home, manager: KeyManager) -> None:
        given = label(manager)
        run(site.keystore(), "DELETE FROM envelope")
        self.check(site, manager, given, "is missing")

    def test_another_volumes_envelope(self, site: Home, manager: KeyManager) -> None:
        given, other = label(manager), label(manager, "Vol-0002")
        store(site, given.envelope.header.key_id, other.envelope.encode())
        self.check(site, manager, given, "belongs to another volume key")

    def test_another_generations_envelope(self, site: Home, manager: KeyManager) -> None:
        other, given = label(manager), label(manager)
        store(site, given.envelope.header.key_id, other.envelope.encode())
        self.check(site, manager, given, "belongs to another volume key")

    def test_volume_check_finds_it(self, site: Home) -> None:
        given, other = site.label(VOLUME), site.label("Vol-0002")
        assert site.hwkm("volume", "check")[0] == 0
        store(site, given.envelope.header.key_id, other.envelope.encode())
        store(site, other.envelope.header.key_id, with_broken_mac(other.envelope).encode())
        status, output = site.hwkm("volume", "check")
        assert status == 1
        assert output.count("fail ") >= 2
        assert "Vol-0001" in output
        assert "MAC" in output


class TestForgery:
    def test_two_keys_under_one_id(self, site: Home) -> None:
        given = site.label(VOLUME)
        forged = forge(site, given.envelope.header)
        with pytest.raises(EnvelopeError, match=given.envelope.header.key_id.hex()) as caught:
            site.read(VOLUME, forged.encode())
        assert "different keys" in str(caught.value)
        assert site.read(VOLUME, given.envelope.encode()).key == given.key

    def test_in_the_keystore(self, site: Home) -> None:
        given = site.label(VOLUME)
        store(site, given.envelope.header.key_id, forge(site, given.envelope.header).encode())
        with pytest.raises(EnvelopeError, match="different keys"):
            site.read(VOLUME, given.envelope.encode())


class TestWithoutALabel:
    def test_the_only_generation(self, manager: KeyManager) -> None:
        given = label(manager)
        again = read(manager, None)
        assert (again.key, again.notes) == (given.key, ())

    def test_the_one_handed_out_last(self, site: Home, manager: KeyManager) -> None:
        first, second, third = (label(manager) for _ in range(3))
        assert read(manager, None).key == third.key
        for handout in (first, second):
            read(manager, handout.envelope)
            guessed = read(manager, None)
            assert guessed.key == handout.key
            (note,) = guessed.notes
            assert f"generation {handout.envelope.header.generation} of 3 is a guess" in note
            assert "guess" in events(site)[-1].detail

    def test_the_command_logs_the_guess(self, site: Home) -> None:
        site.label(VOLUME)
        second = site.label(VOLUME)
        assert forked.ask(site, "READ", VOLUME).key == second.key.expose()
        assert "guess" in site.log.read_text().splitlines()[-1]

    @pytest.mark.parametrize("times", [(1000, 500, 500), (5, 5, 5), (300, 200, 100)])
    def test_whatever_the_clock_says(self, site: Home, times: tuple[int, ...]) -> None:
        clock = iter(times)
        now = next(clock)
        with site.manager(lambda: now) as manager:
            given = [label(manager)]
            for now in clock:  # noqa: B007  # the manager's clock reads it
                given.append(label(manager))
            assert read(manager, None).key == given[2].key
            read(manager, given[0].envelope)
            assert read(manager, None).key == given[0].key
        assert [record.generation for record in generations(site)] == [1, 2, 3]
        found = [event.key_id for event in events(site)]
        assert found[:3] == [handout.envelope.header.key_id for handout in given]
        assert [event.at for event in events(site)][:3] == list(times)

    def test_an_unknown_volume(self, manager: KeyManager) -> None:
        with pytest.raises(NotFoundError, match="does not know it"):
            read(manager, None)


class TestUnknownToTheKeystore:
    def forget(self, site: Home) -> None:
        run(site.keystore(), "DELETE FROM envelope")
        run(site.keystore(), "DELETE FROM generation")

    def test_is_imported(self, site: Home, manager: KeyManager) -> None:
        given = label(manager)
        self.forget(site)
        again = read(manager, given.envelope)
        assert again.key == given.key
        assert "imported from the label" in again.notes[0]
        kinds = [event.operation for event in events(site)]
        assert kinds == [Operation.LABEL, Operation.IMPORT, Operation.READ]
        (record,) = generations(site)
        header = given.envelope.header
        assert (record.key_id, record.generation) == (header.key_id, header.generation)
        assert (record.state, record.created) == (State.ACTIVE, header.created)
        assert read(manager, given.envelope).notes == ()
        assert read(manager, None).key == given.key

    def test_numbers_go_on_from_there(self, site: Home, manager: KeyManager) -> None:
        given = [label(manager) for _ in range(3)]
        self.forget(site)
        for number in (2, 0):
            assert read(manager, given[number].envelope).key == given[number].key
        states = [(record.generation, record.state.value) for record in generations(site)]
        assert states == [(1, "deactivated"), (3, "active")]
        assert label(manager).envelope.header.generation == 4

    def test_with_the_number_of_another_key(self, site: Home, manager: KeyManager) -> None:
        old = label(manager)
        self.forget(site)
        new = label(manager)
        assert old.envelope.header.generation == new.envelope.header.generation == 1
        for _ in range(2):
            assert read(manager, old.envelope).key == old.key
            assert read(manager, new.envelope).key == new.key
        assert len(generations(site)) == 2
        assert label(manager).envelope.header.generation == 2
        assert read(manager, old.envelope).key == old.key

    def test_tampered_with_is_not_imported(self, site: Home, manager: KeyManager) -> None:
        given = label(manager)
        self.forget(site)
        for broken in BREAK:
            with pytest.raises(EnvelopeError):
                read(manager, broken(given.envelope))
        assert generations(site) == []


class TestDestroyed:
    def destroy(self, site: Home, handout: Handout) -> None:
        statement = "UPDATE generation SET state = 'destroyed' WHERE key_id = :key_id"
        run(site.keystore(), statement, key_id=handout.envelope.header.key_id)

    def test_is_refused(self, site: Home) -> None:
        given = site.label(VOLUME)
        self.destroy(site, given)
        for on_label in (given.envelope.encode(), None):
            with pytest.raises(PolicyError, match="was destroyed"):
                site.read(VOLUME, on_label)
        assert not forked.ask(site, "READ", VOLUME, given.envelope.encode()).has_key
        assert events(site)[-1].outcome is Outcome.REFUSED

    def test_others_are_still_given(self, site: Home, manager: KeyManager) -> None:
        first, second = label(manager), label(manager)
        self.destroy(site, first)
        assert read(manager, second.envelope).key == second.key
        assert read(manager, None).key == second.key
        with pytest.raises(PolicyError):
            read(manager, first.envelope)
        assert label(manager).envelope.header.generation == 3

    def test_no_older_one_takes_its_place(self, site: Home, manager: KeyManager) -> None:
        """The medium holds what was given last; that it was destroyed makes no other key right."""
        first, second = label(manager), label(manager)
        self.destroy(site, second)
        with pytest.raises(PolicyError, match="generation 2, was destroyed"):
            read(manager, None)
        assert read(manager, first.envelope).key == first.key


class TestMissingKeystore:
    @pytest.fixture(name="given")
    def _given(self, home: Home) -> Handout:
        given = home.label(VOLUME)
        home.database.unlink()
        return given

    def test_no_new_keys(self, home: Home, given: Handout) -> None:
        with pytest.raises(KeystoreMissingError) as caught:
            home.label(VOLUME)
        assert "Restore it" in caught.value.hint
        assert not home.database.exists()

    def test_no_guesses(self, home: Home, given: Handout) -> None:
        with pytest.raises(KeystoreMissingError):
            home.read(VOLUME)
        assert not home.database.exists()

    def test_labels_are_enough(self, home: Home, given: Handout) -> None:
        again = home.read(VOLUME, given.envelope.encode())
        assert again.key == given.key
        assert "a new one is made" in again.notes[0]
        assert home.read(VOLUME).key == given.key
        with home.keystore().reading() as transaction:
            kinds = [event.operation.value for event in transaction.events()]
        assert kinds == ["keystore-create", "import", "read", "read"]

    def test_a_label_that_opens_nothing_makes_none(self, home: Home, given: Handout) -> None:
        with pytest.raises(EnvelopeError):
            home.read(VOLUME, with_broken_stanza(given.envelope).encode())
        assert not home.database.exists()

    def test_master_key_is_taken_up_again(self, home: Home, given: Handout) -> None:
        home.read(VOLUME, given.envelope.encode())
        with pytest.raises(PolicyError, match="no active master key"):
            home.label(VOLUME)
        master = given.master_id.hex()
        status, output = home.hwkm("master", "create", "--existing", master, "--scheme", "gcm")
        assert status == 0, output
        assert home.label(VOLUME).envelope.header.generation == 2
        assert home.hwkm("volume", "check")[0] == 0


def test_another_installations_keystore_is_refused(site: Home) -> None:
    given = site.label(VOLUME)
    own = site.config().installation
    site.edit(f'installation = "{own}"', 'installation = "0123456789abcdef"')
    with pytest.raises(KeystoreError, match=f"belongs to installation {own}"):
        site.label(VOLUME)
    for on_label in (given.envelope.encode(), None):
        with pytest.raises(KeystoreError, match=f"belongs to installation {own}"):
            site.read(VOLUME, on_label)

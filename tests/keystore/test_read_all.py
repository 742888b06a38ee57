"""Several READs at once: each comes out as it would by itself, and each key given has its entry."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from hwkm.errors import EnvelopeError, KeystoreError, ParseError, PolicyError
from hwkm.keystore.engine import Keystore
from hwkm.keystore.records import Operation
from hwkm.manager import Handout, KeyManager, Wanted

from .envelopes import run, with_broken_stanza
from .homes import CALLER

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .homes import Home

NAMES = [f"Vol-{number}" for number in range(6)]


@pytest.fixture(name="manager")
def _manager(site: Home) -> Iterator[KeyManager]:
    with site.manager() as manager:
        yield manager


@pytest.fixture(name="given")
def _given(manager: KeyManager) -> dict[str, Handout]:
    return {name: manager.label(name, CALLER) for name in NAMES}


def wanted(handout: Handout, volume: str = "") -> Wanted:
    envelope = handout.envelope
    return Wanted(volume or envelope.header.volume, envelope.encode(), CALLER)


def reads(site: Home) -> list[str]:
    """Return the volumes that READs are on record for, sorted."""
    with site.keystore().reading() as transaction:
        events = transaction.events()
    return sorted(str(e.volume) for e in events if e.operation is Operation.READ)


def destroy(keystore: Keystore, handout: Handout) -> None:
    key_id = handout.envelope.header.key_id
    statement = "UPDATE generation SET state = 'destroyed' WHERE key_id = :key_id"
    run(keystore, statement, key_id=key_id)


def test_all_at_once(site: Home, manager: KeyManager, given: dict[str, Handout]) -> None:
    results = manager.read_all([wanted(handout) for handout in given.values()])
    assert results == list(given.values())
    assert reads(site) == NAMES


def test_one_several_times(site: Home, manager: KeyManager, given: dict[str, Handout]) -> None:
    handout = given[NAMES[0]]
    assert manager.read_all([wanted(handout)] * 3) == [handout] * 3
    assert reads(site) == [NAMES[0]] * 3
    with site.keystore().reading() as transaction:
        assert transaction.last_handed_out(NAMES[0]) is not None


def test_nothing(site: Home, manager: KeyManager) -> None:
    assert manager.read_all([]) == []
    assert reads(site) == []


def test_errors_are_each_ones_own(
    site: Home, manager: KeyManager, given: dict[str, Handout]
) -> None:
    good, gone, moved, broken, *_ = given.values()
    destroy(site.keystore(), gone)
    results = manager.read_all(
        [
            Wanted("Vol-x", b"no envelope", CALLER),
            wanted(gone),
            wanted(good),
            wanted(moved, "Vol-other"),
            Wanted(NAMES[3], with_broken_stanza(broken.envelope).encode(), CALLER),
        ]
    )
    assert [type(result) for result in results] == [
        ParseError,
        PolicyError,
        Handout,
        EnvelopeError,
        Handout,
    ]
    assert results[2] == good
    served = results[4]
    assert isinstance(served, Handout)
    assert served.key == broken.key
    assert served.notes
    assert reads(site) == [NAMES[0], NAMES[3]]


def test_only_errors(site: Home, manager: KeyManager, given: dict[str, Handout]) -> None:
    destroy(site.keystore(), given[NAMES[0]])
    results = manager.read_all([Wanted("V", b"x", CALLER), wanted(given[NAMES[0]])])
    assert [type(result) for result in results] == [ParseError, PolicyError]
    assert reads(site) == []


def test_destroyed_while_it_was_opened(
    site: Home, manager: KeyManager, given: dict[str, Handout], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look at the keystore and the entry: then it is not given either."""
    writing = Keystore.writing

    def destroyed_first(keystore: Keystore, *, durable: bool = True) -> object:
        monkeypatch.setattr(Keystore, "writing", writing)
        destroy(site.keystore(), given[NAMES[0]])
        return writing(keystore, durable=durable)

    monkeypatch.setattr(Keystore, "writing", destroyed_first)
    gone, good = manager.read_all([wanted(given[name]) for name in NAMES[:2]])
    assert isinstance(gone, PolicyError)
    assert "was destroyed" in str(gone)
    assert good == given[NAMES[1]]
    assert reads(site) == [NAMES[1]]


def test_unknown_ones_are_imported(
    site: Home, manager: KeyManager, given: dict[str, Handout]
) -> None:
    for name in NAMES[:2]:
        key_id = given[name].envelope.header.key_id
        run(site.keystore(), "DELETE FROM envelope WHERE key_id = :key_id", key_id=key_id)
        run(site.keystore(), "DELETE FROM generation WHERE key_id = :key_id", key_id=key_id)
    results = manager.read_all([wanted(given[name]) for name in NAMES[:3]])
    for name, result in zip(NAMES, results, strict=False):
        assert isinstance(result, Handout)
        assert result.key == given[name].key
        assert bool(result.notes) is (name != NAMES[2])
    with site.keystore().reading() as transaction:
        kept = transaction.stored([given[name].envelope.header.key_id for name in NAMES[:3]])
    assert len(kept) == 3
    assert reads(site) == NAMES[:3]


def test_a_bare_machine(home: Home) -> None:
    with home.manager() as manager:
        given = [manager.label(name, CALLER) for name in NAMES[:2]]
    for file in home.folder.glob("keystore.db*"):
        file.unlink()
    with home.manager() as manager:
        results = manager.read_all([wanted(handout) for handout in given])
    assert [isinstance(result, Handout) for result in results] == [True, True]
    assert reads(home) == NAMES[:2]


def test_a_damaged_keystore_gives_nothing(
    site: Home, manager: KeyManager, given: dict[str, Handout]
) -> None:
    key_id = given[NAMES[0]].envelope.header.key_id
    run(
        site.keystore(), "UPDATE generation SET state = 'odd' WHERE key_id = :key_id", key_id=key_id
    )
    with pytest.raises(KeystoreError, match="damaged"):
        manager.read_all([wanted(given[name]) for name in NAMES[:2]])
    assert reads(site) == []
    assert manager.read(NAMES[1], given[NAMES[1]].envelope.encode(), CALLER).key


def test_all_but_a_read_wait_for_the_disk(home: Home) -> None:
    """SQLite's synchronous: 2 is FULL, 1 is NORMAL."""
    keystore = Keystore.open(home.config().keystore, keep=True)
    levels = []
    for durable in (True, False, False, True):
        with keystore.writing(durable=durable) as transaction:
            found = transaction.connection.exec_driver_sql("PRAGMA synchronous").scalar()
            levels.append(found)
    keystore.close()
    assert levels == [2, 1, 1, 2]

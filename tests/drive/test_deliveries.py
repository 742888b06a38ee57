"""From the master key in a token to the tape and back: the whole way, on the drive under test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from hwkm.deliveries import Deliveries
from hwkm.errors import HwkmError
from hwkm.keystore.records import Proof, ProofKind
from hwkm.manager import Caller
from hwkm.policy import Delivery
from tests.drive.station import BLOCKS, CANT_DECRYPT, FIRST, Station, refusal
from tests.keystore import homes

if TYPE_CHECKING:
    from pathlib import Path

    from tests.keystore.homes import Home

pytestmark = pytest.mark.needs("encrypts", "writable")

VOL = "Scratch-0001"


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Home:
    home = homes.initialize(tmp_path_factory.mktemp("drive-home") / "template")
    home.edit('delivery = "software"', 'delivery = "auto"')
    return home


@pytest.fixture(scope="module")
def strange(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """Another installation, with another token."""
    return homes.initialize(tmp_path_factory.mktemp("strange-home") / "template")


@pytest.fixture
def home(template: Home, tmp_path: Path) -> Home:
    return homes.copy(template, tmp_path / "home")


@pytest.fixture
def desk(home: Home) -> Deliveries:
    return Deliveries.of(home.installation(), Caller("tester", "7"))


def proofs(home: Home, key_id: bytes) -> list[Proof]:
    with home.keystore().reading() as transaction:
        return list(transaction.proofs(key_id))


def write_volume(station: Station, desk: Deliveries) -> bytes:
    """Write a tape with a new volume's key, take the key out, and return its id."""
    station.blank()
    choice = desk.choose(station.driver, VOL)
    assert choice.delivery is Delivery.DRIVE
    desk.issue(VOL, choice)
    report = desk.deliver(station.driver, desk.fetch(VOL))
    assert report.encrypted
    station.write_tape()
    return report.key_id


def test_from_the_token_to_the_tape_and_back(
    station: Station, home: Home, desk: Deliveries
) -> None:
    key_id = write_volume(station, desk)
    _, proved = desk.prove(station.driver)
    assert proved.encrypted, proved.checks
    assert desk.clear(station.driver).cleared
    station.locate(FIRST)
    assert refusal(station.read).number == CANT_DECRYPT
    station.rewind()

    found = desk.auto(station.driver)
    assert found is not None
    assert (found[0].volume, found[0].key_id) == (VOL, key_id)
    assert found[1].encrypted
    assert (station.read_at(FIRST), station.read()) == BLOCKS
    desk.keep_clear(station.driver)
    assert station.status().is_clear

    kept = proofs(home, key_id)
    assert all(proof.encrypted for proof in kept if proof.kind is not ProofKind.CLEAR)
    assert {proof.drive_serial for proof in kept} == {station.serial}
    assert {ProofKind.LOAD, ProofKind.PROVE, ProofKind.CLEAR} <= {proof.kind for proof in kept}


def test_a_blank_tape_asks_for_no_key(station: Station, desk: Deliveries) -> None:
    station.blank()
    assert desk.auto(station.driver) is None


def test_a_tape_of_another_installation(station: Station, desk: Deliveries, strange: Home) -> None:
    write_volume(station, desk)
    desk.clear(station.driver)
    with pytest.raises(HwkmError):
        Deliveries.of(strange.installation(), Caller("tester")).auto(station.driver)
    assert station.status().is_clear

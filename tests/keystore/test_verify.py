"""What ``hwkm volume check`` finds in a keystore."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from hwkm.checks import Status
from hwkm.manager import by_id
from hwkm.verify import check_volumes

from .envelopes import BREAK, run, store

if TYPE_CHECKING:
    from collections.abc import Callable

    from hwkm.checks import Check
    from hwkm.envelope import Envelope

    from .homes import Home

VOLUME = "Vol-0001"


def check(home: Home, *volumes: str, tokens: bool = True) -> list[Check]:
    keystore = home.keystore()
    with keystore.reading() as transaction:
        records = by_id(transaction.masters())
    with home.installation().tokens() as opened:
        return check_volumes(keystore, opened.identities(records) if tokens else [], volumes)


def status(checks: list[Check]) -> list[tuple[str, Status]]:
    return [(found.name, found.status) for found in checks]


def failure(home: Home) -> str:
    """Return the one failure that there is, which must come with advice."""
    (found,) = (found for found in check(home) if found.status is Status.FAIL)
    assert found.advice
    return found.detail


def test_all_is_well(home: Home) -> None:
    assert status(check(home)) == [("volumes", Status.WARN)]  # there is none yet
    for volume in (VOLUME, "Other", VOLUME):
        home.label(volume)
    first, second = f"volume {VOLUME}, generation 1", f"volume {VOLUME}, generation 2"
    other = "volume Other, generation 1"
    assert status(check(home)) == [(name, Status.OK) for name in (other, first, second)]
    assert status(check(home, VOLUME)) == [(first, Status.OK), (second, Status.OK)]
    assert status(check(home, "Other", "None")) == [
        ("volume None", Status.FAIL),
        (other, Status.OK),
    ]


def test_no_token_at_hand(home: Home) -> None:
    home.label(VOLUME)
    found = [finding.status for finding in check(home, tokens=False)]
    assert found == [Status.WARN, Status.FAIL]


@pytest.mark.parametrize("broken", BREAK)
def test_broken_envelope(home: Home, broken: Callable[[Envelope], Envelope]) -> None:
    given = home.label(VOLUME)
    home.label("Other")
    store(home, given.envelope.header.key_id, broken(given.envelope).encode())
    findings = [found for found in check(home) if found.status is Status.FAIL]
    assert {found.name for found in findings} == {f"volume {VOLUME}, generation 1"}


def test_no_envelope(home: Home) -> None:
    given = home.label(VOLUME)
    store(home, given.envelope.header.key_id, b"no envelope")
    assert "not an envelope" in failure(home)
    run(home.keystore(), "DELETE FROM envelope")
    assert failure(home).endswith("is missing")


@pytest.mark.parametrize("change", ["generation = 9", "cipher = 'AES_128_XTS'"])
def test_record_and_envelope_differ(home: Home, change: str) -> None:
    home.label(VOLUME)
    run(home.keystore(), f"UPDATE generation SET {change}")
    assert failure(home).endswith("belongs to another volume key")


def test_another_volumes_envelope(home: Home) -> None:
    given, other = home.label(VOLUME), home.label("Other")
    store(home, given.envelope.header.key_id, other.envelope.encode())
    assert failure(home).endswith("belongs to another volume key")

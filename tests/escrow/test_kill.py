"""``escrow open --rewrap``, killed at every write: nothing is lost, and the next run ends it."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from hwkm import recovery
from hwkm.envelope import Envelope
from hwkm.keystore.records import State
from hwkm.recipients import open_envelope
from tests.keystore import forked
from tests.keystore.homes import CALLER

from .keys import key

if TYPE_CHECKING:
    from pathlib import Path

    from hwkm.checks import Check
    from tests.keystore.homes import Home

VOLUMES = ("A", "B")


def rewrap(home: Home) -> list[Check]:
    site = home.installation()
    keystore = home.keystore()
    with site.tokens() as tokens:
        rewrapper = recovery.Rewrapper(site.config, tokens, keystore, key(), CALLER)
        return list(rewrapper.rewrap_all(recovery.read_keystore(keystore, []), now=9))


def copies(home: Home, wanted: dict[str, bytes]) -> list[int]:
    """Return how many copies each envelope has; all must open, to the right key."""
    with home.keystore().reading() as transaction:
        records = list(transaction.all_generations())
        envelopes = [Envelope.parse(transaction.envelope(r.key_id) or b"") for r in records]
    for envelope in envelopes:
        opened = open_envelope(envelope, [key()])
        assert opened.key.expose() == wanted[envelope.header.volume]
    assert [(record.volume, record.state) for record in records] == [
        (volume, State.ACTIVE) for volume in VOLUMES
    ]
    return [len(envelope.stanzas) for envelope in envelopes]


def test_at_every_write(home: Home, tmp_path: Path) -> None:
    recovery.register(home.keystore(), key().recipient, replace=False, now=1, who="tester")
    keys = {volume: home.label(volume).key.expose() for volume in VOLUMES}
    assert home.hwkm("master", "create", "--replace")[0] == 0
    before = tmp_path / "before.db"
    shutil.copy(home.database, before)
    assert copies(home, keys) == [2, 2]
    found = set()
    for kill in forked.kills(home.database, tmp_path / "strace.log", ("pwrite64", "fdatasync")):
        forked.remove(home.database)
        shutil.copy(before, home.database)
        forked.run(lambda: rewrap(home), kill)
        assert home.keystore().problems() == []
        found.add((kill.happened, *copies(home, keys)))
    # Death before the first, between the two, and after both; and no death.
    assert found == {(True, 2, 2), (True, 3, 2), (True, 3, 3), (False, 3, 3)}
    forked.remove(home.database)
    shutil.copy(before, home.database)
    assert {check.status for check in rewrap(home)} == {"ok"}
    assert copies(home, keys) == [3, 3]
    for volume in VOLUMES:
        assert home.read(volume).key.expose() == keys[volume]

"""A token and a keystore together, in which master keys are made."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hwkm.envelope import Scheme
from hwkm.keystore import migrate
from hwkm.manager import Caller
from hwkm.provision import Provisioner
from hwkm.recipients import canary
from hwkm.recipients.token import recorded_master
from hwkm.token import master

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from hwkm.keystore.engine import Keystore
    from hwkm.keystore.records import Event, MasterKey, State
    from hwkm.token.session import TokenSession

    from .sites import Site

GCM, HMAC, OAEP = Scheme.GCM, Scheme.HMAC_KDF, Scheme.OAEP
MADE = [
    ("softhsm", GCM),
    ("softhsm", HMAC),
    ("softhsm", OAEP),
    ("p11kit", HMAC),
    ("p11kit", OAEP),
    ("tpm", OAEP),
]
"""Modules, and the schemes in which hwkm makes master keys on them."""

USED = [*MADE, ("tpm", HMAC)]
"""The same, and with a key that was adopted."""

NOW = 1_700_000_000
CALLER = Caller("tester")


@dataclass(slots=True)
class Workshop:
    """A token, open, and a keystore that its master keys are recorded in."""

    keystore: Keystore
    token: TokenSession

    def provisioner(self) -> Provisioner:
        return Provisioner(self.keystore, self.token, CALLER, NOW)

    def masters(self) -> list[MasterKey]:
        with self.keystore.reading() as transaction:
            return transaction.masters()

    def events(self) -> list[Event]:
        with self.keystore.reading() as transaction:
            return transaction.events()

    def states(self) -> list[State]:
        return [record.state for record in self.masters()]

    def check(self, record: MasterKey) -> None:
        """Raise a TokenError if the master key on ``record`` does not open its canary."""
        assert record.canary is not None
        canary.check(recorded_master(self.token, record), record.canary)

    def clean(self) -> None:
        """Remove every key on record from the token, which other tests use too."""
        for record in self.masters():
            if record.label.startswith("hwkm-"):
                master.remove(self.token, record.scheme, record.master_id)


@dataclass(frozen=True, slots=True)
class Master:
    """A master key in a token that is not open now."""

    site: Site
    record: MasterKey


def name_of(pair: tuple[str, Scheme]) -> str:
    """Return how a test is called that runs on a module in a scheme."""
    return f"{pair[0]}-{pair[1].label}"


@contextmanager
def master_key(site: Site, scheme: Scheme, folder: Path) -> Iterator[Master]:
    """Yield a new or, where none can be made, an adopted master key; a new one is removed."""
    with workshop(site, folder) as shop:
        existing = site.token.hmac_key
        if scheme is HMAC and existing is not None:
            made = Master(site, shop.provisioner().adopt(scheme, existing.key_id))
        else:
            made = Master(site, shop.provisioner().create(scheme))
        shop.token.close()
        yield made


@contextmanager
def workshop(site: Site, folder: Path) -> Iterator[Workshop]:
    """Yield a workshop with its keystore in ``folder``; what was made in the token is removed."""
    url = f"sqlite:///{folder / 'keystore.db'}"
    keystore = migrate.create(url, "", now=NOW, who="tester")
    with site.session() as token:
        shop = Workshop(keystore, token)
        try:
            yield shop
        finally:
            shop.clean()

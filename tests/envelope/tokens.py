"""SoftHSM tokens that hold the vectors' master keys, imported with C_CreateObject."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pkcs11 import Attribute, KeyType, ObjectClass

from hwkm.token.pin import PinReader
from hwkm.token.session import Access, TokenSession
from hwkm.token.settings import TokenSettings
from hwkm.token.uri import TokenUri
from tests.modules import softhsm

from . import wire

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import pkcs11
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateNumbers

LOCKED = {
    Attribute.TOKEN: True,
    Attribute.PRIVATE: True,
    Attribute.SENSITIVE: True,
    Attribute.EXTRACTABLE: False,
}
SECRET = {
    wire.GCM: {
        Attribute.KEY_TYPE: KeyType.AES,
        Attribute.ENCRYPT: True,
        Attribute.DECRYPT: True,
        Attribute.SIGN: False,
    },
    wire.HMAC_KDF: {
        Attribute.KEY_TYPE: KeyType.GENERIC_SECRET,
        Attribute.ENCRYPT: False,
        Attribute.DECRYPT: False,
        Attribute.SIGN: True,
    },
}


@dataclass(slots=True)
class VectorTokens:
    """One token for each set of master keys that is asked for, and one session at a time."""

    directory: Path
    environment: dict[str, str]
    labels: dict[frozenset[str], str] = field(default_factory=dict)
    _open: tuple[str, TokenSession] | None = None

    @property
    def pin_file(self) -> Path:
        return self.directory / "pin"

    def label(self, names: Sequence[str]) -> str:
        """Return the label of the token that holds exactly these master keys."""
        wanted = frozenset(names)
        if wanted not in self.labels:
            self.close()
            self.labels[wanted] = f"vectors {len(self.labels)}"
            softhsm.add_token(self.environment, self.labels[wanted])
            with self._session(self.labels[wanted], writable=True) as token:
                self._fill(token, sorted(wanted))
        return self.labels[wanted]

    def session(self, names: Sequence[str]) -> TokenSession:
        """Return a session on the token that holds exactly these master keys."""
        label = self.label(names)
        if self._open is None or self._open[0] != label:
            self.close()
            self._open = (label, self._session(label))
        return self._open[1]

    def close(self) -> None:
        """Let others into the module."""
        if self._open is not None:
            self._open[1].close()
        self._open = None

    def _session(self, label: str, *, writable: bool = False) -> TokenSession:
        return open_token(softhsm.MODULE, label, self.pin_file, self.environment, writable=writable)

    def _fill(self, token: TokenSession, names: Sequence[str]) -> None:
        masters = wire.masters()
        with token.use("importing master keys") as session:
            for name in names:
                for template in _templates(masters[name]):
                    _create(session, template)


def open_token(
    module: str, label: str, pin: Path, environment: dict[str, str], *, writable: bool = False
) -> TokenSession:
    """Return a session on a token, as hwkm itself would; its locks are beside the PIN's file."""
    settings = TokenSettings(
        label, TokenUri(token=label, pin_source=f"file:{pin}"), module, environment
    )
    return TokenSession(settings, Access(pin.parent, PinReader()), writable=writable)


def start(directory: Path) -> VectorTokens:
    """Make a SoftHSM in ``directory``, without any token yet that holds master keys."""
    with softhsm.running(directory) as token:
        pin = directory / "pin"
        pin.touch(mode=0o600)
        pin.write_text(token.user_pin + "\n")
        return VectorTokens(directory, token.env)


def _create(session: pkcs11.Session, template: dict[Attribute, Any]) -> None:
    session.create_object(template)


def _templates(master: wire.Master) -> list[dict[Attribute, Any]]:
    named = {Attribute.ID: master.master_id, Attribute.LABEL: f"hwkm {master.name}"}
    if master.scheme == wire.OAEP:
        return [{**named, **half} for half in _rsa(master.rsa().private_numbers())]
    secret = {Attribute.CLASS: ObjectClass.SECRET_KEY, Attribute.VALUE: master.material}
    return [{**named, **LOCKED, **SECRET[master.scheme], **secret}]


def _rsa(numbers: RSAPrivateNumbers) -> list[dict[Attribute, Any]]:
    public = {
        Attribute.KEY_TYPE: KeyType.RSA,
        Attribute.MODULUS: _bytes(numbers.public_numbers.n),
        Attribute.PUBLIC_EXPONENT: _bytes(numbers.public_numbers.e),
    }
    private = {
        Attribute.PRIVATE_EXPONENT: _bytes(numbers.d),
        Attribute.PRIME_1: _bytes(numbers.p),
        Attribute.PRIME_2: _bytes(numbers.q),
        Attribute.EXPONENT_1: _bytes(numbers.dmp1),
        Attribute.EXPONENT_2: _bytes(numbers.dmq1),
        Attribute.COEFFICIENT: _bytes(numbers.iqmp),
        Attribute.DECRYPT: True,
        Attribute.SIGN: False,
    }
    return [
        {**public, Attribute.CLASS: ObjectClass.PUBLIC_KEY, Attribute.TOKEN: True},
        {**public, **private, **LOCKED, Attribute.CLASS: ObjectClass.PRIVATE_KEY},
    ]


def _bytes(number: int) -> bytes:
    return number.to_bytes((number.bit_length() + 7) // 8, "big")

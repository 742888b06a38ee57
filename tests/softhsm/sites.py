"""A token as an installation of hwkm has it: settings, PIN file, runtime directory."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwkm.envelope import Scheme
from hwkm.token import master, p11
from hwkm.token.pin import PinReader
from hwkm.token.session import Access, TokenSession
from hwkm.token.settings import TokenSettings
from hwkm.token.uri import TokenUri
from tests.modules import TokenUnderTest, softhsm

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hwkm.token.module import TokenInfo

LOCK_SECONDS = 60.0
"""Longer than any test holds a lock on purpose."""

KEY_ID = b"\x00\x01\xff"
"""CKA_ID of the key that most tests make: no text, and with a zero byte."""


@dataclass(frozen=True, slots=True)
class Site:
    """A token, how hwkm is told about it, and how it opens sessions on it."""

    token: TokenUnderTest
    settings: TokenSettings
    access: Access
    pin_file: Path

    def session(self, *, writable: bool = True) -> TokenSession:
        """Return a session that is not opened yet."""
        return TokenSession(self.settings, self.access, writable=writable)

    def put_pin(self, pin: str) -> None:
        """Write the PIN file anew."""
        self.pin_file.write_text(pin)

    def with_uri(self, **changes: Any) -> Site:
        """Return this site with other attributes in the token's URI."""
        uri = replace(self.settings.uri, **changes)
        return replace(self, settings=replace(self.settings, uri=uri))

    def with_access(self, **changes: Any) -> Site:
        """Return this site with another runtime directory, PIN reader or patience."""
        return replace(self, access=replace(self.access, **changes))

    def for_child(self) -> str:
        """Return what :func:`child_session` needs, for another process's arguments."""
        return json.dumps(
            {
                "uri": str(self.settings.uri),
                "environment": dict(self.settings.environment),
                "runtime_dir": str(self.access.runtime_dir),
                "lock_seconds": self.access.lock_seconds,
            }
        )


def make_site(token: TokenUnderTest, folder: Path, name: str = "main") -> Site:
    """Return ``token`` as the token ``name`` of an installation in ``folder``."""
    pin_file = folder / f"{name}-pin"
    pin_file.touch(mode=0o600)
    pin_file.write_text(f"{token.user_pin}\n")
    runtime_dir = folder / "run"
    runtime_dir.mkdir(mode=0o700, exist_ok=True)
    uri = TokenUri(
        token=token.token_label,
        serial=token.serial,
        module_path=token.module_path,
        pin_source=f"file:{pin_file}",
    )
    settings = TokenSettings(name, uri, token.module_path, token.env)
    return Site(token, settings, Access(runtime_dir, PinReader(), LOCK_SECONDS), pin_file)


def login(site: Site) -> None:
    """Open a session on ``site`` and close it."""
    with site.session() as token:
        assert token.info.initialized


def decrypt_rubbish(token: TokenSession, scheme: Scheme = Scheme.GCM) -> None:
    """Let the key with :data:`KEY_ID` decrypt what nobody encrypted, which fails."""
    with token.use("decrypting rubbish") as session:
        key = master.find_one(session, scheme, KEY_ID)
        if scheme is Scheme.GCM:
            p11.gcm_decrypt(key, bytes(12), b"", bytes(40))
        else:
            p11.oaep_decrypt(key, bytes(256), sha256=False)


def lose_login(token: TokenSession) -> None:
    """Drop the session, as every error of the token does."""
    with suppress(p11.TokenOperationError), token.use("failing"):
        raise p11.TokenOperationError("failing failed")


def softhsm_token(info: TokenInfo, user_pin: str, env: Mapping[str, str]) -> TokenUnderTest:
    """Return a token that hwkm made in a SoftHSM as one under test."""
    return TokenUnderTest(
        name="softhsm",
        module_path=softhsm.MODULE,
        token_label=info.label,
        serial=info.serial,
        user_pin=user_pin,
        so_pin="",
        env=dict(env),
        can_generate_secret=True,
        has_gcm=True,
        has_oaep_sha256=False,
        can_restrict_rsa=True,
        rsa_bits=3072,
    )


def child_session(described: str, *, writable: bool = False) -> TokenSession:
    """Return a session on the site that :meth:`Site.for_child` described."""
    facts = json.loads(described)
    uri = TokenUri.parse(facts["uri"])
    assert uri.module_path is not None
    settings = TokenSettings("main", uri, uri.module_path, facts["environment"])
    access = Access(Path(facts["runtime_dir"]), PinReader(), facts["lock_seconds"])
    return TokenSession(settings, access, writable=writable)

"""Real PKCS#11 modules for the tests: SoftHSM, p11-kit's client, and a TPM.

``softhsm``, ``p11kit`` and ``tpm`` each have a context manager ``running(directory)``. It starts
in ``directory`` what its module needs, makes a token there, yields a :class:`TokenUnderTest`, and
stops everything again. ``starters.STARTERS`` names all three.

A module reads its environment when it is loaded, and SoftHSM only then: one process works with
one running module, or unloads it before it turns to the next.
"""

from __future__ import annotations

import os
import platform
import subprocess
from dataclasses import dataclass
from pathlib import Path

PACKAGES = Path(__file__).with_name("packages.txt")
LIBRARIES = Path("/usr/lib") / f"{platform.machine()}-linux-gnu"
"""Where Debian puts libraries of this machine's architecture."""


@dataclass(frozen=True, slots=True)
class KeyName:
    """A key in a token: its CKA_ID and its CKA_LABEL."""

    key_id: bytes
    label: str


@dataclass(frozen=True, slots=True)
class TokenUnderTest:
    """A token that is ready to be used, and what its module can do with it.

    ``env`` is all that the module needs in its process's environment. ``serial`` is text, as in
    a PKCS#11 URI.

    ``can_generate_secret``: C_GenerateKey works, so the caller makes secret keys itself. Where it
    does not, ``hmac_key`` names an HMAC-SHA256 key that was made beforehand.
    ``can_restrict_rsa``: an RSA key pair may be allowed to encrypt and decrypt and nothing else;
    otherwise it must be allowed to sign and verify too.
    """

    name: str
    module_path: str
    token_label: str
    serial: str
    user_pin: str
    so_pin: str
    env: dict[str, str]
    can_generate_secret: bool
    has_gcm: bool
    has_oaep_sha256: bool
    can_restrict_rsa: bool
    rsa_bits: int
    hmac_key: KeyName | None = None

    def environment(self) -> dict[str, str]:
        """Return this process's environment with what the module needs, for a subprocess."""
        return {**os.environ, **self.env}


def wanted_packages() -> list[str]:
    """Return the Debian packages in packages.txt, one per line there."""
    return PACKAGES.read_text().split()


def missing_packages(wanted: list[str] | None = None) -> list[str]:
    """Return those of the ``wanted`` packages, or of packages.txt, that are not installed.

    A package can go by another name in another release of Debian; what it provides counts.
    """
    wanted = wanted_packages() if wanted is None else wanted
    query = ["dpkg-query", "--show", "--showformat=${db:Status-Status} ${Package} ${Provides}\n"]
    try:
        shown = subprocess.run(query, capture_output=True, text=True, check=False).stdout
    except FileNotFoundError:
        return wanted
    lines = [line.replace(",", " ").split() for line in shown.splitlines()]
    installed = {name for status, *names in lines if status == "installed" for name in names}
    return [package for package in wanted if package not in installed]


def require_packages() -> None:
    """Raise an error that says what to install, if a package is missing."""
    if missing := missing_packages():
        raise RuntimeError(f"packages are missing: apt-get install {' '.join(missing)}")

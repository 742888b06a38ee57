"""OpenSC's pkcs11-spy between hwkm and a module: it writes down every call."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tests.modules import LIBRARIES

if TYPE_CHECKING:
    from pathlib import Path

    from .sites import Site

MODULE = str(LIBRARIES / "pkcs11" / "pkcs11-spy.so")


@dataclass(frozen=True, slots=True)
class Spied:
    """A site whose module is watched, and where the calls are written down."""

    site: Site
    output: Path

    def calls(self, function: str) -> int:
        """Return how often a PKCS#11 function was called so far."""
        text = self.output.read_text(errors="replace") if self.output.exists() else ""
        return len(re.findall(rf"^\d+: {function}$", text, re.MULTILINE))


def watch(site: Site, output: Path) -> Spied:
    """Return ``site`` with the spy in front of its module."""
    env = {
        **site.settings.environment,
        "PKCS11SPY": site.settings.module_path,
        "PKCS11SPY_OUTPUT": str(output),
    }
    uri = replace(site.settings.uri, module_path=MODULE)
    settings = replace(site.settings, uri=uri, module_path=MODULE, environment=env)
    return Spied(replace(site, settings=settings), output)

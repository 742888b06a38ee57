"""Installations, as the keystore's tests have them."""

from __future__ import annotations

from tests.keystore.conftest import home, server, site, template

__all__ = ["home", "server", "site", "template"]

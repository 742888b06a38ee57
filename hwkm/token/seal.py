"""The files of a private SoftHSM are read-only, but while hwkm changes them.

SoftHSM empties and rewrites the token's file at every login, without need: a process killed in
that moment destroys the token. Where it may not write, it leaves the file alone and works as well.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from hwkm.errors import TokenError

if TYPE_CHECKING:
    from collections.abc import Mapping

MARK = "# SoftHSM's configuration for this folder only; hwkm sets SOFTHSM2_CONF to it.\n"
"""First line of a private SoftHSM's configuration, by which it is known."""


def set_writable(environment: Mapping[str, str], *, writable: bool) -> None:
    """Make the token files of a private SoftHSM writable or read-only; no other is touched.

    :raises TokenError: if they are to be written and can't be made writable.
    """
    conf = Path(environment.get("SOFTHSM2_CONF", ""))
    try:
        if not conf.is_file() or not conf.read_bytes().startswith(MARK.encode()):
            return
        for path in (conf.parent / "tokens").glob("*/*"):
            path.chmod(0o600 if writable else 0o400)
    except OSError as error:
        if writable:
            raise TokenError(
                f"the token's files below {conf.parent} can't be made writable: {error.strerror}",
                hint="They must belong to the user that hwkm runs as",
            ) from error

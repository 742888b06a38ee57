"""Running as the user that owns the installation, whoever started hwkm.

Root runs ``bls`` or ``hwkm check``, the Storage Daemon runs as ``bacula``. If root's run left
files of root behind, every later one of the Storage Daemon would fail. So root becomes the owner.
"""

from __future__ import annotations

import os
import pwd
from typing import TYPE_CHECKING

from hwkm.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path


def become_owner_of(path: Path) -> None:
    """If this is root and ``path`` belongs to somebody else, become that user for good.

    :raises ConfigError: if ``path`` is not there or can't be entered.
    """
    try:
        owner = path.stat().st_uid
    except OSError as error:
        raise ConfigError(
            f"the runtime directory {path} can't be used: {error.strerror}",
            hint="Make it, and give it to the user that hwkm runs as",
        ) from error
    if os.geteuid() == 0 and owner != 0:
        become(owner)


def become(uid: int) -> None:
    """Become the user ``uid``, with all of its groups, for good. Needs root.

    :raises ConfigError: if there is no such user.
    """
    try:
        user = pwd.getpwuid(uid)
    except KeyError:
        raise ConfigError(f"there is no user with id {uid}") from None
    os.initgroups(user.pw_name, user.pw_gid)
    os.setgid(user.pw_gid)
    os.setuid(uid)


def user_name() -> str:
    """Return the name of the user this process runs as, or the number if it has none."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())

"""Opens a session, forks, and lets the child try to use it: prints what happened in both.

Arguments: a site, as sites.Site.for_child describes it, and ``inherited`` or ``new``.
"""

from __future__ import annotations

import os
import sys
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING

from hwkm.errors import TokenError

from .sites import child_session

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hwkm.token.session import TokenSession


def main(described: str, which: str) -> None:
    # Python 3.12 and later warn of the threads that a TPM's module has started.
    warnings.simplefilter("ignore", DeprecationWarning)
    with child_session(described) as token:
        say("parent", token)
        child = os.fork()
        if child == 0:
            with token if which == "inherited" else child_session(described) as tried:
                say("child", tried)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        print("child ended with", os.waitstatus_to_exitcode(status))
        say("parent", token)


def say(who: str, token: TokenSession) -> None:
    with told(who), token.use("asking for random bytes") as session:
        print(f"{who}: {len(session.generate_random(256))} bytes", flush=True)


@contextmanager
def told(who: str) -> Iterator[None]:
    try:
        yield
    except TokenError as error:
        print(f"{who}: {error}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Unwraps one blob again and again, in threads or in sessions; prints how often it was right.

Arguments: a site, master id and blob in hex, ``threads`` or ``sessions``, how many, rounds of
each, and ``locked`` or ``unlocked``. Unlocked is what hwkm must not do: threads inside a module
at once, or sessions of several processes that know nothing of each other.
"""

from __future__ import annotations

import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwkm.recipients.token_gcm import TokenGcm
from hwkm.token import module, session

from .sites import child_session

if TYPE_CHECKING:
    from hwkm.token.session import TokenSession

CONTEXT = b"hammer"


def main(described: str, master_id: str, blob: str, kind: str, number: str, rounds: str) -> None:
    key, data = bytes.fromhex(master_id), bytes.fromhex(blob)

    def unwrap(token: TokenSession) -> int:
        return len(TokenGcm(token, key).unwrap(CONTEXT, data)) == 64

    if kind == "threads":
        with child_session(described) as token, ThreadPoolExecutor(int(number)) as pool:
            work = [pool.submit(unwrap, token) for _ in range(int(number) * int(rounds))]
            print(sum(job.result() for job in work))
    else:
        right = 0
        for _ in range(int(number) * int(rounds)):
            with child_session(described) as token:
                right += unwrap(token)
        print(right)


def unlock(described: str) -> str:
    """Take away what keeps threads and processes apart."""
    free: Any = nullcontext()
    vars(session)["LOCK"] = vars(module)["LOCK"] = free
    with child_session(described) as token:
        alone = replace(
            token._access, runtime_dir=Path(tempfile.mkdtemp(dir=token._access.runtime_dir))
        )
    return described.replace(str(token._access.runtime_dir), str(alone.runtime_dir))


if __name__ == "__main__":
    *facts, how = sys.argv[1:]
    if how == "unlocked":
        facts[0] = unlock(facts[0])
    main(*facts)

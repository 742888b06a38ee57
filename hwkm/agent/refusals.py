"""Logging who was refused, without letting them fill the log."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hwkm.agent.peers import Peer
    from hwkm.log import Log

QUIET_SECONDS = 10.0
"""How long a refusal is not logged again."""
_REMEMBERED = 256


class Refusals:
    """Logs the refusal of a user once in a while, and how many were left out in between."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._seen: dict[tuple[int, str], tuple[float, int]] = {}

    def note(self, peer: Peer, verb: str, why: str, *, known: bool) -> None:
        """Log that ``peer`` was refused, unless a refusal of the same was logged just now.

        All verbs that are not ``known`` count as one: there is no end of them.
        """
        now, same = time.monotonic(), (peer.uid, verb if known else "")
        since, left_out = self._seen.get(same, (-QUIET_SECONDS, 0))
        if now - since < QUIET_SECONDS:
            self._seen[same] = since, left_out + 1
            return
        if len(self._seen) >= _REMEMBERED:
            del self._seen[next(iter(self._seen))]
        self._seen[same] = now, 0
        more = f" ({left_out} more were not logged)" if left_out else ""
        fields = {"event": "refusal", "outcome": "not admitted", "verb": verb, "reason": why}
        fields |= {"user": peer.user, "peer": str(peer)}
        self._log.warning(f"{peer} was refused: {why}{more}", **fields)

"""The block before the head, seen with a new key in force: it tells whether the key is wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hwkm.checks import Check, ok, warn
from hwkm.drivers.look import at_end_of_data
from hwkm.scsi.pages.next_block import BlockEncryption

if TYPE_CHECKING:
    from hwkm.drivers.attempts import AttemptGuard
    from hwkm.scsi.encryption import TapeEncryption
    from hwkm.scsi.pages.next_block import NextBlockStatus

_NOTHING_SEEN = frozenset({BlockEncryption.NOT_NOW, BlockEncryption.NOT_A_BLOCK})
"""What drives say at the end of data; and at other places."""


def see_next(session: TapeEncryption) -> NextBlockStatus | None:
    """Return page 0021h; None if nothing follows on the tape."""
    block = session.next_block()
    if block is None or block.encryption not in _NOTHING_SEEN:
        return block
    return None if at_end_of_data(session) else block


def judge(block: NextBlockStatus | None) -> Check:
    """Say what the next block is to the key. One of another key may be about to be overwritten."""
    name = "next block"
    if block is None:
        return ok(name, "none: nothing follows on the tape")
    if block.encryption == BlockEncryption.READABLE:
        return ok(name, "the key opens it")
    if block.encryption == BlockEncryption.UNREADABLE:
        advice = "Right for a tape that is written anew from here, wrong for one to be read"
        return warn(name, "it is encrypted with another key", advice)
    word = getattr(block.encryption, "name", f"status {block.encryption}")
    return ok(name, f"nothing to be opened ({word})")


def settle(guard: AttemptGuard, block: NextBlockStatus | None) -> None:
    """Settle, by the next block, whether the last key that was counted was a wrong one."""
    if block is None or block.encryption == BlockEncryption.CLEAR:
        guard.harmless()
    elif block.encryption == BlockEncryption.READABLE:
        guard.opened()

"""Looking at a block on the tape, and leaving the tape where it was."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hwkm.errors import DeviceError
from hwkm.scsi.commands import SpaceCode, locate, read_block, read_position, space
from hwkm.scsi.pages.next_block import BlockEncryption
from hwkm.scsi.read_position import Position
from hwkm.scsi.sense import SenseKey
from hwkm.scsi.transport import CheckConditionError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hwkm.scsi.encryption import TapeEncryption
    from hwkm.scsi.pages.next_block import NextBlockStatus

MAX_OBJECTS = 32
"""How many objects are looked at: labels and filemarks come first, then data."""

WAKING_BYTES = 4096
"""How much of a block is read to make the drive look at it: what comes is dropped unseen."""

ENCRYPTED = frozenset(
    {BlockEncryption.UNKNOWN_ALGORITHM, BlockEncryption.READABLE, BlockEncryption.UNREADABLE}
)


@dataclass(frozen=True, slots=True)
class Sight:
    """What was seen: ``block`` is the first encrypted one, or else what lies before the head.

    ``moved`` says whether the tape was moved to look, and moved back.
    """

    block: NextBlockStatus | None
    moved: bool

    @property
    def is_encrypted(self) -> bool:
        """Whether an encrypted block was seen."""
        return self.block is not None and self.block.encryption in ENCRYPTED


def look(session: TapeEncryption, first: int | None, *, may_read: bool) -> Sight:
    """Find the first encrypted block, by the page Next Block Encryption Status.

    The tape is moved only if it is known where it stands, and it is moved back.

    :param first: where the cartridge's chip says it is; None where it does not say.
    :param may_read: whether a block may be read to make the drive look at it; with a wrong key in
        force that would count as a try of that key.
    :raises DeviceError: if the tape can't be moved back.
    """
    here = session.next_block()
    if here is not None and here.encryption in ENCRYPTED:
        return Sight(here, moved=False)
    position = Position.parse(session.transport.execute(read_position()))
    if position.unknown or position.partition:
        return Sight(here, moved=False)
    with _put_back(session, position):
        found = _search(session, first or 0, may_read)
    return Sight(found or here, moved=True)


def at_end_of_data(session: TapeEncryption) -> bool:
    """Return whether nothing follows on the tape; False too where that can't be found out.

    :raises DeviceError: if the tape can't be moved back.
    """
    position = Position.parse(session.transport.execute(read_position()))
    if position.unknown or position.partition:
        return False
    with _put_back(session, position):
        try:
            session.transport.execute(space(SpaceCode.BLOCKS, 1))
        except CheckConditionError as error:
            if error.sense.key == SenseKey.BLANK_CHECK:
                return True
            if not error.sense.filemark:
                raise
    return False


def _search(session: TapeEncryption, start: int, may_read: bool) -> NextBlockStatus | None:
    for number in range(start, start + MAX_OBJECTS):
        if not _go_to(session, number):
            return None
        block = session.next_block()
        if may_read and block is not None and block.encryption == BlockEncryption.NOT_NOW:
            block = _woken(session, number)
        if block is None:
            return None
        if block.encryption in ENCRYPTED:
            return block
    return None


def _go_to(session: TapeEncryption, number: int) -> bool:
    try:
        session.transport.execute(locate(number))
    except CheckConditionError as error:
        if error.sense.key == SenseKey.BLANK_CHECK:
            return False
        raise
    return True


def _woken(session: TapeEncryption, number: int) -> NextBlockStatus | None:
    """Look at a block that is not in the drive's buffer: reading it brings it there."""
    try:
        session.transport.execute(read_block(WAKING_BYTES))
    except CheckConditionError as error:
        if error.sense.key == SenseKey.BLANK_CHECK:
            return None
        protected = error.sense.key == SenseKey.DATA_PROTECT
        if not (error.sense.ili or error.sense.filemark or protected):
            raise
    return session.next_block() if _go_to(session, number) else None


@contextmanager
def _put_back(session: TapeEncryption, position: Position) -> Iterator[None]:
    try:
        yield
    except BaseException:
        with suppress(DeviceError):
            _go_to(session, position.block)
        raise
    try:
        session.transport.execute(locate(position.block))
        now = Position.parse(session.transport.execute(read_position()))
    except DeviceError as error:
        raise _astray(session, position) from error
    if now.unknown or now.block != position.block:
        raise _astray(session, position)


def _astray(session: TapeEncryption, position: Position) -> DeviceError:
    return DeviceError(
        f"{session.name}: the tape stood at object {position.block} and does not get back there",
        hint="Rewind it before anything is written: an append could destroy data",
    )

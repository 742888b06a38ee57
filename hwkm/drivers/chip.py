"""The envelope in the cartridge's chip (MAM), where it can be read without the volume's key.

Where the drive encrypts, it encrypts the volume's label too, and the envelope in it. So a copy is
kept in the chip: the cartridge plus the token are then enough, on a machine that knows nothing.

It is text (base 85) in the host's own text attributes, in pieces: ``hwkm1/2:`` and so much of it
as there is room for. An attribute that holds anything else is somebody else's, and left alone.
"""

from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING

from hwkm.checks import Check, ok, warn
from hwkm.errors import DeviceError, ParseError
from hwkm.scsi.attributes import (
    Attribute,
    AttributeFormat,
    AttributeId,
    pack_attributes,
    parse_attributes,
)
from hwkm.scsi.commands import read_attribute, write_attribute

if TYPE_CHECKING:
    from hwkm.scsi.transport import Transport

NAME = "chip"
PLACES = {
    AttributeId.USER_MEDIUM_TEXT_LABEL: 160,
    AttributeId.MEDIA_POOL: 160,
    AttributeId.OWNING_HOST: 80,
}
"""The attributes that are used, in this order, and their lengths in bytes (SPC-5)."""

MARK = "hwkm{}/{}:"
MARK_BYTES = len(MARK.format(1, 1))
MAX_BYTES = sum(size - MARK_BYTES for size in PLACES.values()) // 5 * 4
"""How long an envelope may be: 300 bytes."""

_PIECE = re.compile(rb"hwkm([1-9])/([1-9]):([!-~]+)")
_WITHOUT = "Keep the keystore's backup: without it and the chip nobody can open the tape"


def keep(transport: Transport, envelope: bytes) -> Check:
    """Write ``envelope`` into the chip of the cartridge and read it back; say how that ended."""
    try:
        taken = _taken(transport)
        if taken:
            return not_kept(f"attribute {taken:04X}h of the chip holds something else")
        transport.execute(write_attribute(pack_attributes(_pieces(envelope))))
        if read(transport) == envelope:
            return ok(NAME, "the envelope is in it")
        return not_kept("it was not read back as it was written")
    except (DeviceError, ParseError) as error:
        return not_kept(str(error))


def not_kept(why: str) -> Check:
    """Return the warning that the envelope is not in the chip."""
    return warn(NAME, f"the envelope is not kept in it: {why}", _WITHOUT)


def read(transport: Transport) -> bytes | None:
    """Return the envelope in the chip, None if there is none; whether it is one is not judged.

    :raises DeviceError: if the drive does not give the attributes out.
    """
    values = (one.value for one in _attributes(transport))
    found = [match for value in values if (match := _PIECE.fullmatch(value))]
    count = len(found)
    pieces = {int(match[1]): match[3] for match in found if int(match[2]) == count}
    if not found or sorted(pieces) != list(range(1, count + 1)):
        return None
    try:
        return base64.b85decode(b"".join(pieces[number] for number in sorted(pieces)))
    except ValueError:
        return None


def _attributes(transport: Transport) -> list[Attribute]:
    """Return those of PLACES that the chip has, without what fills them up."""
    found = parse_attributes(transport.execute(read_attribute()))
    by_id = {one.id: Attribute(one.id, one.value.strip(b" \0")) for one in found}
    return [by_id[place] for place in PLACES if place in by_id]


def _taken(transport: Transport) -> int | None:
    """Return the first attribute that somebody else uses."""
    others = (one for one in _attributes(transport) if one.value and not _PIECE.match(one.value))
    return next((one.id for one in others), None)


def _pieces(envelope: bytes) -> list[Attribute]:
    """Return the attributes to be written; those that are not needed are emptied."""
    text, pieces = base64.b85encode(envelope), []
    for size in PLACES.values():
        pieces.append(text[: size - MARK_BYTES])
        text = text[size - MARK_BYTES :]
    count = sum(1 for piece in pieces if piece)
    values = [
        MARK.format(number, count).encode() + piece if piece else b""
        for number, piece in enumerate(pieces, start=1)
    ]
    return [
        Attribute(place, value.ljust(size), AttributeFormat.TEXT)
        for (place, size), value in zip(PLACES.items(), values, strict=True)
    ]

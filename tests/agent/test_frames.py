"""The frames between clients and the agent: round trips, and whatever else may come."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwkm.agent.frames import (
    HEADER_BYTES,
    MAGIC,
    MAX_BODY_BYTES,
    MAX_FIELDS,
    FrameError,
    FrameReader,
    pack,
)

EXAMPLE = [b"getkey", b"READ", b"Vol-0001", b"", b"\x00\xff", b"--job", b"7"]
LONGEST = HEADER_BYTES + MAX_BODY_BYTES

fields = st.lists(st.binary(max_size=40), min_size=1, max_size=10)
# Real frames, cut, joined and bent, reach deeper than noise alone.
hostile = st.lists(
    st.binary(max_size=60)
    | fields.map(pack)
    | st.sampled_from([MAGIC, MAGIC[:2], b"HWK\x02", b"\0\0\0\0", b"\0\0\0\x08", b"\xff" * 4])
    | st.integers(0, 2**32 - 1).map(lambda size: MAGIC + struct.pack(">I", size)),
    max_size=12,
)


def read(*pieces: bytes) -> list[list[bytes]]:
    reader = FrameReader()
    return [frame for piece in pieces for frame in reader.feed(piece)]


def frame(body: bytes) -> bytes:
    return MAGIC + struct.pack(">I", len(body)) + body


def field(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


@given(st.lists(fields, max_size=4))
def test_what_is_packed_is_read(frames: list[list[bytes]]) -> None:
    assert read(b"".join(map(pack, frames))) == frames


def test_split_at_every_byte() -> None:
    data = pack(EXAMPLE)
    for at in range(len(data) + 1):
        assert read(data[:at], data[at:]) == [EXAMPLE]
    assert read(*(bytes([byte]) for byte in data * 2)) == [EXAMPLE, EXAMPLE]


def test_the_example_of_the_documentation() -> None:
    assert pack([b"status"]) == bytes.fromhex("48574b01 0000000a 00000006 737461747573")
    assert pack([b"no", b"?"]) == bytes.fromhex("48574b01 0000000b 00000002 6e6f 00000001 3f")


def test_pending_counts_what_is_not_whole() -> None:
    reader, data = FrameReader(), pack(EXAMPLE)
    seen = []
    for byte in data[:-1]:
        assert list(reader.feed(bytes([byte]))) == []
        seen.append(reader.pending)
    assert seen == list(range(1, len(data)))
    assert list(reader.feed(data[-1:])) == [EXAMPLE]
    assert reader.pending == 0


def test_the_longest_frame() -> None:
    longest = [b"x" * (MAX_BODY_BYTES - 4)]
    assert read(pack(longest)) == [longest]
    many = [b"ab"] * MAX_FIELDS
    assert read(pack(many)) == [many]


@pytest.mark.parametrize(
    "given_fields", [[], [b"x" * (MAX_BODY_BYTES - 3)], [b""] * (MAX_FIELDS + 1)]
)
def test_what_does_not_fit_is_not_packed(given_fields: list[bytes]) -> None:
    with pytest.raises(FrameError):
        pack(given_fields)


@pytest.mark.parametrize(
    "data",
    [
        b"G",
        b"GET / HTTP/1.1\r\n\r\n",
        b"HWX",
        b"HWK\x00",
        b"HWK\x02",
        frame(b""),
        MAGIC + struct.pack(">I", MAX_BODY_BYTES + 1),
        MAGIC + b"\xff\xff\xff\xff",
        frame(b"\0\0\0"),
        frame(field(b"status") + b"\0\0\0"),
        frame(b"\0\0\0\x07status"),
        frame(b"\xff\xff\xff\xffstatus"),
        frame(field(b"") * (MAX_FIELDS + 1)),
    ],
)
def test_what_is_no_frame_is_refused_for_good(data: bytes) -> None:
    reader = FrameReader()
    with pytest.raises(FrameError):
        list(reader.feed(data))
    for more in (b"", b"x", pack(EXAMPLE)):
        with pytest.raises(FrameError):
            list(reader.feed(more))
    assert reader.pending == 0


def test_a_frame_is_refused_as_soon_as_that_is_certain() -> None:
    reader = FrameReader()
    assert list(reader.feed(b"HWK\x01\0\x01\0")) == []
    with pytest.raises(FrameError, match="65537 bytes"):
        list(reader.feed(b"\x01"))


def test_frames_before_a_bad_one_are_read() -> None:
    reader = FrameReader()
    frames = reader.feed(pack(EXAMPLE) + b"?")
    assert next(frames) == EXAMPLE
    with pytest.raises(FrameError, match="no frame"):
        next(frames)


@given(hostile)
def test_only_frame_errors_and_no_growth(pieces: list[bytes]) -> None:
    reader, total = FrameReader(), 0
    for piece in pieces:
        try:
            for found in reader.feed(piece):
                assert found
                total += len(pack(found))
        except FrameError:
            assert reader.pending == 0
        assert reader.pending < LONGEST
    assert total <= sum(map(len, pieces))


@given(hostile)
def test_how_bytes_arrive_makes_no_difference(pieces: list[bytes]) -> None:
    whole = b"".join(pieces)
    assert outcome(whole) == outcome(*(bytes([byte]) for byte in whole)) == outcome(*pieces)


def outcome(*pieces: bytes) -> tuple[list[list[bytes]], str]:
    reader = FrameReader()
    frames: list[list[bytes]] = []
    try:
        for piece in pieces:
            frames.extend(reader.feed(piece))
    except FrameError as error:
        return frames, str(error)
    return frames, ""


def test_a_frame_that_never_ends_is_held_up_to_its_length() -> None:
    reader, size = FrameReader(), MAX_BODY_BYTES
    start = MAGIC + struct.pack(">I", size)
    assert list(reader.feed(start + b"\0" * (size - 1))) == []
    assert reader.pending == LONGEST - 1
    with pytest.raises(FrameError):  # the last byte makes it whole: far too many empty fields
        list(reader.feed(b"\0"))

"""Data that programs write through the kernel's st driver, with a key that hwkm put into the drive.

The st driver's errno is EIO whatever the reason; why it was, a READ through the sg node tells.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from hwkm.scsi.pages.status import DecryptionMode
from tests.drive.st import BLOCK_BYTES, St
from tests.drive.station import (
    CANT_DECRYPT,
    FIRST,
    INCORRECT_KEY,
    KEY,
    KEY_ID,
    OTHER_KEY,
    UNENCRYPTED,
    Station,
    refusal,
)

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.needs("takes_keys", "writable", "st_node")

BLOCKS = 8


@pytest.fixture
def st(station: Station) -> St:
    assert station.tape is not None
    found = St(station.tape)
    found.variable_blocks()
    return found


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "data"
    path.write_bytes(os.urandom(BLOCKS * BLOCK_BYTES))
    return path


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def write(st: St, data: Path) -> None:
    st.rewind()
    done = st.dd_out(data)
    assert done.status == 0, done.text
    st.rewind()


def sense_at(station: Station, number: int) -> str:
    station.locate(number)
    return refusal(station.read).number


def test_dd_with_the_right_key(station: Station, st: St, data: Path, out: Path) -> None:
    station.set_key()
    write(st, data)
    done = st.dd_in(out)
    assert done.status == 0, done.text
    assert out.read_bytes() == data.read_bytes()


def test_tar_with_the_right_key(station: Station, st: St, data: Path, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    data.rename(source / "data")
    (source / "small").write_text("small\n")
    station.set_key()
    st.rewind()
    done = st.tar_out(source)
    assert done.status == 0, done.text
    st.rewind()
    done = st.tar_in(target)
    assert done.status == 0, done.text
    for name in ("data", "small"):
        assert (target / name).read_bytes() == (source / name).read_bytes()


def test_a_wrong_key(station: Station, st: St, data: Path, out: Path) -> None:
    station.set_key()
    write(st, data)
    station.set_key(OTHER_KEY, KEY_ID)
    done = st.dd_in(out)
    assert done.is_io_error, done.text
    assert out.stat().st_size < data.stat().st_size
    assert sense_at(station, FIRST) == INCORRECT_KEY
    # The right one makes the drive forget the wrong one.
    station.set_key(KEY, KEY_ID)
    station.read_at(FIRST)


def test_no_key(station: Station, st: St, data: Path, out: Path, tmp_path: Path) -> None:
    station.set_key()
    write(st, data)
    station.driver.clear()
    done = st.dd_in(out)
    assert done.is_io_error, done.text
    assert out.stat().st_size < data.stat().st_size
    assert sense_at(station, FIRST) == CANT_DECRYPT
    st.rewind()
    assert st.tar_in(tmp_path).status != 0


def test_a_clear_tape(station: Station, st: St, data: Path, out: Path) -> None:
    write(st, data)
    station.set_key(decryption=DecryptionMode.DECRYPT)
    done = st.dd_in(out)
    assert done.is_io_error, done.text
    assert out.stat().st_size == 0
    assert sense_at(station, 0) == UNENCRYPTED
    station.set_key(decryption=DecryptionMode.MIXED)
    st.rewind()
    done = st.dd_in(out)
    assert done.status == 0, done.text
    assert out.read_bytes() == data.read_bytes()


@pytest.mark.needs("encrypts")
def test_what_dd_wrote_is_proved(station: Station, st: St, data: Path, out: Path) -> None:
    counter = station.load().counter
    write(st, data)
    report = station.driver.prove(KEY_ID, counter)
    assert report.encrypted, report.checks
    assert station.driver.clear().cleared
    assert st.dd_in(out).is_io_error
    station.load()
    st.rewind()
    assert st.dd_in(out).status == 0
    assert out.read_bytes() == data.read_bytes()

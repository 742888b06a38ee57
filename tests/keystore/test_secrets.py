"""Nothing that hwkm leaves behind holds a volume key, in no form."""

from __future__ import annotations

import base64
import os
import time
from typing import TYPE_CHECKING

import pytest

from . import forked, homes

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from .homes import Home
    from .postgres import Server

VOLUMES = ("Vol-0001", "Vol-0002")
KEY = 64
PIECE = 16
"""How many bytes of a key in a row count as a find: an AES-128 key's."""


def traces(key: bytes) -> set[bytes]:
    """Return what a file holds, as bytes or in a text form, if a piece of ``key`` is in it."""
    found = set()
    for at in range(0, len(key), PIECE):
        piece = key[at : at + PIECE]
        found |= {piece, piece.hex().encode(), piece.hex().upper().encode()}
        for shift in range(5):
            found.add(_inner(base64.b32encode(bytes(shift) + piece), 5, shift))
        for shift in range(3):
            inner = _inner(base64.b64encode(bytes(shift) + piece), 6, shift)
            found |= {inner, inner.replace(b"+", b"-").replace(b"/", b"_")}
    return found


def _inner(encoded: bytes, bits: int, shift: int) -> bytes:
    """Return the digits of ``encoded`` that all bits come from the piece, not from its shift."""
    return encoded[-(-8 * shift // bits) : 8 * (shift + PIECE) // bits]


def find(files: dict[Path, bytes], keys: set[bytes]) -> list[str]:
    wanted = {trace for key in keys for trace in traces(key)}
    return [str(path) for path, data in files.items() if any(trace in data for trace in wanted)]


def contents(folder: Path, since: float = 0) -> dict[Path, bytes]:
    """Return all files in ``folder`` that were written to after ``since``."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path: path.read_bytes() for path in files if path.stat().st_mtime >= since}


def work(home: Home) -> set[bytes]:
    """Label and read, with a label's envelope and without; return the keys given."""
    answers = [forked.ask(home, "LABEL", volume) for volume in VOLUMES * 2]
    answers += [forked.ask(home, "READ", VOLUMES[0], answer.label) for answer in answers[::2]]
    answers += [forked.ask(home, "READ", VOLUMES[1])]
    assert all(answer.has_key for answer in answers)
    return {answer.key for answer in answers}


def test_sqlite(home: Home) -> None:
    """Also in the WAL, which a reader keeps from being emptied, and in its index."""

    def read(pause: Callable[[], object]) -> None:
        with home.keystore().reading() as transaction:
            transaction.events()
            pause()

    with forked.meanwhile(read):
        given = work(home)
        files = contents(home.folder)
    assert len(given) == 4
    names = {path.name for path in files}
    assert {"keystore.db", "keystore.db-wal", "keystore.db-shm", "hwkm.log"} <= names
    assert find(files | contents(home.folder), given) == []


def test_postgresql(home: Home, server: Server) -> None:
    started = time.time() - 1
    homes.move_to(home, server.new_database())
    given = work(home)
    label = forked.ask(home, "LABEL", VOLUMES[0]).label
    server.crash()
    files = contents(server.folder, started)
    server.start()
    assert any(label in data for data in files.values()), "not even an envelope is on disk"
    assert find(files | contents(home.folder), given) == []


FORMS = ("b64encode", "urlsafe_b64encode", "b32encode", "b16encode")


@pytest.mark.parametrize("shift", range(5))
@pytest.mark.parametrize("form", FORMS)
def test_the_search_finds_a_key(tmp_path: Path, form: str, shift: int) -> None:
    key = os.urandom(KEY)
    written: bytes = getattr(base64, form)(bytes(shift) + key)
    for data in (key, written, written.lower() if form == "b16encode" else written):
        assert find({tmp_path: b"x" * 9 + data + b"y"}, {key}) == [str(tmp_path)]


def test_what_is_deleted_is_overwritten(home: Home) -> None:
    answer = forked.ask(home, "LABEL", VOLUMES[0])
    assert answer.label in home.database.read_bytes()
    with home.keystore().writing() as transaction:
        transaction.connection.exec_driver_sql("DELETE FROM envelope")
    assert answer.envelope.stanzas[0].blob not in home.database.read_bytes()

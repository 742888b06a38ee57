"""Key bytes can't get out of their type but by the one method that is made for it."""

from __future__ import annotations

import base64
import copy
import dataclasses
import io
import json
import logging
import pickle
import pprint
import reprlib
import traceback
from typing import TYPE_CHECKING, Any

import cbor2
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.pretty import pretty_repr

from hwkm.errors import HwkmError
from hwkm.keys import Cipher, SecretBytes, VolumeKey, derive_volume_key

if TYPE_CHECKING:
    from collections.abc import Callable

# No byte that could be mistaken for other text, and no two alike.
DATA = bytes(range(0x80, 0xC0))
SECRETS = [SecretBytes(DATA), VolumeKey(Cipher.AES_256_XTS, DATA)]


@dataclasses.dataclass
class Record:
    """A dataclass that holds a key, as dataclasses do."""

    name: str
    key: SecretBytes


def shows(text: str | bytes) -> bool:
    """Return whether a piece of the key is in ``text``, in whatever form."""
    data = text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text
    found = any(piece in data.lower() for piece in _forms())
    return found or any(piece in data for piece in _base64_forms())


def _forms() -> list[bytes]:
    """Return what would betray four bytes at the start, the middle, or the end."""
    pieces = [DATA[place : place + 4] for place in (0, 30, 60)]
    forms = []
    for piece in pieces:
        hexadecimal = piece.hex()
        forms += [piece, hexadecimal.encode(), piece.hex(" ").encode(), piece.hex(":").encode()]
        forms += [repr(piece)[2:-1].encode(), str(list(piece))[1:-1].encode()]
        forms += [piece.decode("latin-1").encode(), str(int.from_bytes(piece, "big")).encode()]
    return [*forms, str(int.from_bytes(DATA, "big")).encode(), repr(list(DATA[:4])).encode()]


def _base64_forms() -> list[bytes]:
    return [
        encode(DATA[shift : shift + 9])
        for shift in (0, 1, 2, 30, 31, 32)
        for encode in (base64.b64encode, base64.urlsafe_b64encode, base64.b85encode)
    ]


def test_what_shows_is_seen() -> None:
    seen: list[str | bytes] = [DATA, repr(DATA), DATA.hex(), DATA.hex(" "), str(list(DATA))]
    seen += [base64.b64encode(DATA), base64.b64encode(b"k" + DATA), base64.b64encode(b"kk" + DATA)]
    seen += [str(int.from_bytes(DATA, "big")), DATA.decode("latin-1"), DATA.hex().upper()]
    assert [text for text in seen if not shows(text)] == []
    assert not shows("<SecretBytes: 64 bytes, not shown>")


SHOWN: dict[str, Callable[[SecretBytes], str]] = {
    "str": str,
    "repr": repr,
    "ascii": ascii,
    "format": format,
    "format, spec": lambda secret: format(secret, "x"),
    "f-string": lambda secret: f"{secret}",
    "f-string, repr": lambda secret: f"{secret!r:>90}",
    "f-string, =": lambda secret: f"{secret=}",
    "percent s": lambda secret: "%s" % secret,  # noqa: UP031
    "percent r": lambda secret: "%r" % secret,  # noqa: UP031
    "str.format": lambda secret: "{} {0!r}".replace("{} ", "{0} ").format(secret),
    "list": lambda secret: str([secret, {"key": secret}]),
    "dataclass": lambda secret: repr(Record("name", secret)),
    "pprint": lambda secret: pprint.pformat({"key": secret}),
    "reprlib": reprlib.repr,
    "rich": lambda secret: pretty_repr([secret, Record("name", secret)]),
    "exception": lambda secret: str(HwkmError(f"failed with {secret}")),
    "exception's arguments": lambda secret: repr(ValueError(secret)),
    "length": lambda secret: str(len(secret)),
    "dir": lambda secret: str(dir(secret)),
}


@pytest.mark.parametrize("secret", SECRETS, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("way", SHOWN)
def test_no_text_shows_it(way: str, secret: SecretBytes) -> None:
    text = SHOWN[way](secret)
    assert not shows(text)
    assert way in ("length", "dir", "reprlib") or "64 bytes, not shown" in text


REFUSED: dict[str, Callable[[Any], Any]] = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "asdict": lambda secret: dataclasses.asdict(Record("name", secret)),
    "astuple": lambda secret: dataclasses.astuple(Record("name", secret)),
    "pickle in a list": lambda secret: pickle.dumps([secret]),
    "pickle a method": lambda secret: pickle.dumps(secret.expose),
    "reduce": lambda secret: secret.__reduce__(),
    "getstate": lambda secret: secret.__getstate__(),
    "json": json.dumps,
    "msgspec json": msgspec.json.encode,
    "msgspec": msgspec.to_builtins,
    "cbor2": lambda secret: cbor2.dumps([secret]),
    "vars": vars,
    "dict": lambda secret: secret.__dict__,
    "bytes": bytes,
    "bytearray": bytearray,
    "memoryview": memoryview,
    "list": list,
    "index": lambda secret: secret[0],
    "join": lambda secret: b"".join([secret]),
    "add": lambda secret: b"" + secret,
    "percent b": lambda secret: b"%b" % secret,
    "int": lambda secret: int.from_bytes(secret, "big"),
    "base64": base64.b64encode,
    "write": lambda secret: io.BytesIO().write(secret),
    "hash": hash,
    "set": lambda secret: {secret},
    "order": lambda secret: secret < secret,
    "new attribute": lambda secret: setattr(secret, "note", 1),
}


@pytest.mark.parametrize("secret", SECRETS, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("way", REFUSED)
def test_no_way_out_but_the_one(way: str, secret: SecretBytes) -> None:
    with pytest.raises((TypeError, AttributeError, cbor2.CBOREncodeError)) as caught:
        REFUSED[way](secret)
    assert not shows("".join(traceback.format_exception(caught.value)))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("secret", SECRETS, ids=lambda s: type(s).__name__)
def test_pickling_fails(protocol: int, secret: SecretBytes) -> None:
    file = io.BytesIO()
    with pytest.raises(TypeError, match="can't be copied or pickled"):
        pickle.Pickler(file, protocol).dump(secret)
    assert not shows(file.getvalue())


@pytest.mark.parametrize("secret", SECRETS, ids=lambda s: type(s).__name__)
def test_logging_does_not_show_it(secret: SecretBytes, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    logger = logging.getLogger("hwkm.test")
    logger.debug("key %s and %r", secret, secret)
    logger.debug(secret)
    logger.debug("key", extra={"key": secret})
    try:
        raise ValueError(secret)
    except ValueError:
        logger.exception("failed")
    assert len(caplog.records) == 4
    assert not shows(caplog.text)


def _fail(secret: SecretBytes) -> None:
    kept = [secret]
    raise ValueError(f"{kept} is no good")


@pytest.mark.parametrize("secret", SECRETS, ids=lambda s: type(s).__name__)
def test_tracebacks_do_not_show_it(secret: SecretBytes) -> None:
    try:
        _fail(secret)
    except ValueError as error:
        with_locals = traceback.TracebackException.from_exception(error, capture_locals=True)
        text = "".join([*traceback.format_exception(error), *with_locals.format()])
        console = Console(file=io.StringIO(), width=200)
        console.print_exception(show_locals=True)
        assert isinstance(console.file, io.StringIO)
        text += console.file.getvalue()
    assert "not shown" in text
    assert not shows(text)


@pytest.mark.parametrize("make", [lambda: VolumeKey(Cipher.AES_128_XTS, DATA), lambda: _short()])
def test_errors_about_keys_do_not_show_them(make: Callable[[], object]) -> None:
    with pytest.raises((HwkmError, ValueError)) as caught:
        make()
    assert not shows("".join(traceback.format_exception(caught.value)))


def _short() -> VolumeKey:
    return derive_volume_key(Cipher.AES_256_GCM, DATA[:63], DATA)


# equality


@given(st.binary(max_size=80), st.binary(max_size=80))
def test_equality_is_that_of_the_bytes(one: bytes, other: bytes) -> None:
    assert (SecretBytes(one) == SecretBytes(other)) == (one == other)
    assert (SecretBytes(one) != SecretBytes(other)) == (one != other)


def test_equality_with_anything_else() -> None:
    secret: Any = SecretBytes(DATA)
    assert secret != DATA
    assert secret != bytearray(DATA)
    assert secret is not None
    assert secret == VolumeKey(Cipher.AES_256_XTS, DATA)


def test_what_is_kept_is_a_copy() -> None:
    source: Any = bytearray(DATA)
    secret = SecretBytes(source)
    source[0] ^= 1
    assert secret.expose() == DATA
    assert isinstance(secret.expose(), bytes)
    assert len(secret) == 64


def test_there_is_no_dict() -> None:
    for secret in SECRETS:
        assert not hasattr(secret, "__dict__")
        assert not hasattr(secret, "__weakref__")

"""PKCS#11 URIs: the text that names a token, an object in it, and the module that reaches it.

Written from RFC 7512 ("The PKCS #11 URI Scheme") and RFC 3986 ("URI: Generic Syntax").
A URI that carries a PIN itself (``pin-value``) is refused: URIs stand in configuration files,
on command lines and in logs. Error texts name attributes and places, and never repeat a value.
"""

from __future__ import annotations

import re
import string
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from hwkm.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

MAX_LENGTH: Final = 4096
"""Longest URI that is read or written, in characters. The RFC sets no limit."""

MAX_SLOT_ID: Final = 2**64 - 1
"""Largest CK_SLOT_ID (an unsigned long) on a 64-bit platform."""

OBJECT_TYPES: Final = ("public", "private", "cert", "secret-key", "data")
"""Values of ``type`` (RFC 7512, section 2.3, table 1)."""

# In the order of the ABNF of section 2.3, which is the order of the canonical form.
_TOKEN = ("token", "manufacturer", "serial", "model")
_LIBRARY = ("library-manufacturer", "library-version", "library-description")
_OBJECT = ("object", "type", "id")
_SLOT = ("slot-description", "slot-manufacturer", "slot-id")
_PATH = (*_TOKEN, *_LIBRARY, *_OBJECT, *_SLOT)
_QUERY = ("pin-source", "module-name", "module-path")
_TEXT = frozenset((*_PATH, *_QUERY)) - {"library-version", "type", "id", "slot-id"}
_KNOWN = frozenset((*_PATH, *_QUERY))

_SCHEME = re.compile(r"pkcs11:", re.IGNORECASE | re.ASCII)
_NAME = re.compile(r"[A-Za-z0-9_-]+")
_PIN_VALUE = re.compile(r"[:;?&]\s*pin-value\s*=", re.IGNORECASE | re.ASCII)
_ESCAPE = re.compile(rb"%([0-9A-Fa-f]{2})")
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_VERSION = re.compile(r"([0-9]{1,3})(?:\.([0-9]{1,3}))?")
# RFC 3986, appendix C: blanks that a text has put into a URI (line breaks, indentation) are no
# part of it. A blank inside a value is kept, to be refused: it is a forgotten %20, and dropping
# it would silently name another token.
_LAYOUT = re.compile(r"\A[ \t\r\n]+|[ \t\r\n]+\Z|[ \t]*[\r\n][ \t\r\n]*|(?<=;)[ \t]+|[ \t]+(?=;)")

# pk11-res-avail and what path and query add to it (RFC 7512, section 2.3).
_RESERVED = string.ascii_letters + string.digits + "-._~" + ":[]@!$'()*+,="
_PATH_CHARACTERS = frozenset(_RESERVED + "&")
_QUERY_CHARACTERS = frozenset(_RESERVED + "/?")
# The ABNF lets "|" stand in the query, RFC 3986 does not: it is read bare and written as %7C.
_QUERY_READABLE = _QUERY_CHARACTERS | {"|"}

_EXAMPLE = (
    "Write it like pkcs11:token=LABEL?module-path=/path/of/module.so&pin-source=file:/path/of/pin"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenUri:
    """A PKCS#11 URI taken apart. None means that the attribute is absent: it matches everything.

    Field names are the attribute names of RFC 7512, section 2.3, with "_" for "-".
    ``vendor`` holds the vendor-specific path attributes as (name, value), sorted by name.
    ``ignored`` holds the names (never the values) of vendor-specific query attributes: they are
    no part of the value of the URI, and are there for whoever wants to warn (section 2.5).

    Making one from parts checks them as ``parse`` does. Raises only ConfigError.
    """

    token: str | None = None
    manufacturer: str | None = None
    serial: str | None = None
    model: str | None = None
    library_manufacturer: str | None = None
    library_version: tuple[int, int] | None = None
    library_description: str | None = None
    object: str | None = None
    type: str | None = None
    id: bytes | None = None
    slot_description: str | None = None
    slot_manufacturer: str | None = None
    slot_id: int | None = None
    vendor: tuple[tuple[str, str], ...] = ()
    pin_source: str | None = None
    module_name: str | None = None
    module_path: str | None = None
    ignored: tuple[str, ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        for name in _TEXT:
            _check_text(name, _get(self, name))
        _check_type(self.type)
        _check_numbers(self.slot_id, self.library_version)
        _check_vendor(self.vendor)
        _check_module(self.module_name, self.module_path)
        # The canonical form can be longer than what was read: an id triples.
        if len(self.format()) > MAX_LENGTH:
            raise _too_long()

    @classmethod
    def parse(cls, text: str) -> TokenUri:
        """Read a PKCS#11 URI (RFC 7512, sections 2.3 and 2.4).

        Attribute names and the value of ``type`` may be in any case (RFC 5234, section 2.3).
        Raises ConfigError, and nothing else, for any text that is not a URI hwkm can use.
        """
        if len(text) > MAX_LENGTH:
            raise _too_long()
        text = _LAYOUT.sub("", text)
        _refuse_pin_value(text)
        scheme = _SCHEME.match(text)
        if scheme is None:
            raise ConfigError("not a PKCS#11 URI: it does not begin with pkcs11:", hint=_EXAMPLE)
        path, _, query = text[scheme.end() :].partition("?")
        in_path, vendor = _parse_path(path)
        in_query, ignored = _parse_query(query)
        known = {name.replace("-", "_"): value for name, value in (in_path | in_query).items()}
        return cls(**known, vendor=vendor, ignored=ignored)

    def format(self) -> str:
        """Return the canonical URI: ABNF order, upper-case escapes only where needed.

        ``id`` is wholly percent-encoded, as RFC 7512, section 2.3 recommends. Reading the result
        gives an equal TokenUri.
        """
        path = [f"{name}={value}" for name, value in self._written(_PATH)]
        path += [f"{name}={_encode(value, _PATH_CHARACTERS)}" for name, value in self.vendor]
        query = [f"{name}={value}" for name, value in self._written(_QUERY)]
        return "pkcs11:" + ";".join(path) + ("?" + "&".join(query) if query else "")

    def __str__(self) -> str:
        return self.format()

    def _written(self, names: tuple[str, ...]) -> Iterator[tuple[str, str]]:
        allowed = _QUERY_CHARACTERS if names is _QUERY else _PATH_CHARACTERS
        for name in names:
            value = _get(self, name)
            if value is not None:
                yield name, _write(value, allowed)

    def matches(
        self,
        token_label: str,
        serial: str,
        manufacturer: str,
        model: str,
        slot_id: int,
        *,
        slot_description: str | None = None,
        slot_manufacturer: str | None = None,
        library_manufacturer: str | None = None,
        library_description: str | None = None,
        library_version: tuple[int, int] | None = None,
    ) -> bool:
        """Return whether a token is one that this URI names (RFC 7512, section 2.5).

        The values are those of CK_TOKEN_INFO, CK_SLOT_INFO and CK_INFO; blanks and NULs that pad
        them don't count. An absent attribute matches everything, an empty one only what is empty.
        What the URI asks for and the caller does not give, and any vendor-specific path attribute,
        matches nothing: hwkm would rather find no token than a wrong one.
        ``object``, ``type`` and ``id`` name an object in the token and are not looked at.
        """
        return (
            not self.vendor
            and _agrees(self.token, token_label)
            and _agrees(self.serial, serial)
            and _agrees(self.manufacturer, manufacturer)
            and _agrees(self.model, model)
            and self.slot_id in (None, slot_id)
            and _agrees(self.slot_description, slot_description)
            and _agrees(self.slot_manufacturer, slot_manufacturer)
            and _agrees(self.library_manufacturer, library_manufacturer)
            and _agrees(self.library_description, library_description)
            and self.library_version in (None, library_version)
        )


def _agrees(asked: str | None, found: str | None) -> bool:
    if asked is None:
        return True
    return found is not None and asked.rstrip(" ") == found.rstrip(" \0")


def _get(uri: TokenUri, name: str) -> Any:
    return getattr(uri, name.replace("-", "_"))


def _refuse_pin_value(text: str) -> None:
    # Looked for in the whole text and not attribute by attribute: "token=A&pin-value=1234" is a
    # well-formed token label, and would be shown wherever labels are shown.
    if _PIN_VALUE.search(text):
        raise ConfigError(
            "the PKCS#11 URI holds a PIN (pin-value), which hwkm does not take",
            hint="Put the PIN into a file that only its user can read and name it: "
            "pin-source=file:/path/of/pin",
        )


def _parse_path(path: str) -> tuple[dict[str, Any], tuple[tuple[str, str], ...]]:
    known: dict[str, Any] = {}
    vendor: dict[str, str] = {}
    for name, raw in _attributes(path, ";", "path", _QUERY):
        if name in known or name in vendor:
            raise _bad(name, "stands twice in the path")
        if name in _KNOWN:
            known[name] = _read(name, _decode(name, raw, _PATH_CHARACTERS))
        else:
            vendor[name] = _text(name, _decode(name, raw, _PATH_CHARACTERS))
    return known, tuple(sorted(vendor.items()))


def _parse_query(query: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    known: dict[str, Any] = {}
    ignored: dict[str, None] = {}  # a vendor-specific one may be repeated (section 2.4)
    for name, raw in _attributes(query, "&", "query", _PATH):
        if name in known:
            raise _bad(name, "stands twice in the query")
        value = _decode(name, raw, _QUERY_READABLE)
        if name in _KNOWN:
            known[name] = _read(name, value)
        else:
            ignored[name] = None
    return known, tuple(ignored)


def _attributes(
    part: str, separator: str, component: str, elsewhere: Iterable[str]
) -> Iterator[tuple[str, str]]:
    for number, attribute in enumerate(part.split(separator) if part else (), 1):
        name, equals, value = attribute.partition("=")
        if not equals or _NAME.fullmatch(name) is None:
            raise ConfigError(
                f"attribute {number} of the {component} of the PKCS#11 URI is not name=value",
                hint=_EXAMPLE,
            )
        if name.lower() in _KNOWN:
            name = name.lower()
        if name in elsewhere:
            raise _bad(name, f"does not belong in the {component}")
        yield name, value


def _decode(name: str, raw: str, readable: frozenset[str]) -> bytes:
    if _BAD_ESCAPE.search(raw):
        raise _bad(name, "has a '%' without two hexadecimal digits behind it")
    for character in raw:
        if character not in readable and character != "%":
            raise _bad(
                name,
                f"holds the character U+{ord(character):04X} as it is",
                hint="Percent-encode it: a space is %20, a slash in the path is %2F",
            )
    return _ESCAPE.sub(lambda escape: bytes.fromhex(escape[1].decode()), raw.encode())


def _read(name: str, value: bytes) -> Any:
    if name == "id":
        return value
    text = _text(name, value)
    if name == "type":
        return text.lower()
    if name == "slot-id":
        return _slot_id(text)
    if name == "library-version":
        return _library_version(text)
    return text


def _text(name: str, value: bytes) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        # Without its cause, which holds the value.
        error = _bad(name, "is not UTF-8")
    raise error


def _slot_id(text: str) -> int:
    # 20 digits hold every slot number, and keep int() away from text without end.
    if re.fullmatch(r"0*[0-9]{1,20}", text) is None:
        raise _bad("slot-id", f"is not a decimal number from 0 to {MAX_SLOT_ID}")
    return int(text.lstrip("0") or "0")


def _library_version(text: str) -> tuple[int, int]:
    version = _VERSION.fullmatch(text)
    if version is None:
        raise _bad("library-version", "is not MAJOR or MAJOR.MINOR")
    return int(version[1]), int(version[2] or 0)


def _write(value: str | bytes | int | tuple[int, int], allowed: frozenset[str]) -> str:
    if isinstance(value, bytes):
        return "".join(f"%{byte:02X}" for byte in value)
    if isinstance(value, tuple):
        return f"{value[0]}.{value[1]}"
    return _encode(str(value), allowed)


def _encode(text: str, allowed: frozenset[str]) -> str:
    return "".join(
        chr(byte) if chr(byte) in allowed else f"%{byte:02X}" for byte in text.encode("utf-8")
    )


def _check_text(name: str, value: str | None) -> None:
    if value is not None and _UNPRINTABLE.search(value):
        raise _bad(name, "holds a control character, a line break or no UTF-8")


def _check_type(value: str | None) -> None:
    if value is not None and value not in OBJECT_TYPES:
        raise _bad("type", "is unknown", hint=f"It is one of {', '.join(OBJECT_TYPES)}")


def _check_numbers(slot_id: int | None, version: tuple[int, int] | None) -> None:
    if slot_id is not None and not 0 <= slot_id <= MAX_SLOT_ID:
        raise _bad("slot-id", f"is not a decimal number from 0 to {MAX_SLOT_ID}")
    # CK_VERSION is two bytes.
    if version is not None and not all(0 <= part <= 255 for part in version):
        raise _bad("library-version", "has a part over 255")


def _check_vendor(vendor: tuple[tuple[str, str], ...]) -> None:
    names = [name for name, _ in vendor]
    if names != sorted(set(names)):
        raise ConfigError("vendor-specific attributes must be sorted by name, each given once")
    for name, value in vendor:
        if _NAME.fullmatch(name) is None or name.lower() in _KNOWN | {"pin-value"}:
            raise ConfigError("a vendor-specific attribute has a name that is not its own")
        _check_text(name, value)


def _check_module(name: str | None, path: str | None) -> None:
    if path is not None and not path.startswith("/"):
        raise _bad("module-path", "is not an absolute path", hint="Write it out from the root")
    if name is not None and "/" in name:
        raise _bad("module-name", "is a path", hint="Use module-path for a path")


def _bad(name: str, what: str, *, hint: str = "") -> ConfigError:
    return ConfigError(f"the {name} attribute of the PKCS#11 URI {what}", hint=hint)


def _too_long() -> ConfigError:
    return ConfigError(f"the PKCS#11 URI is longer than {MAX_LENGTH} characters")

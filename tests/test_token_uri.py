"""PKCS#11 URIs against RFC 7512's own examples, hostile ones, and arbitrary text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hwkm.errors import ConfigError
from hwkm.token.uri import MAX_LENGTH, MAX_SLOT_ID, OBJECT_TYPES, TokenUri

VECTORS: list[dict[str, Any]] = json.loads(
    (Path(__file__).parent / "vectors" / "pkcs11_uri.json").read_text("utf-8")
)["vectors"]
GOOD = [vector for vector in VECTORS if vector["expect"] == "ok"]
BAD = [vector for vector in VECTORS if vector["expect"] == "refused"]


def _name(vector: dict[str, Any]) -> str:
    return str(vector["name"])


def _made(attributes: dict[str, Any]) -> TokenUri:
    values = {name.replace("-", "_"): value for name, value in attributes.items()}
    if "id" in values:
        values["id"] = bytes.fromhex(values["id"])
    if "library_version" in values:
        values["library_version"] = tuple(values["library_version"])
    for name in ("vendor", "ignored"):
        pairs = values.get(name, [])
        values[name] = tuple(tuple(pair) if name == "vendor" else pair for pair in pairs)
    return TokenUri(**values)


# --- vectors ---


def test_the_vectors_are_all_here() -> None:
    assert len(GOOD) + len(BAD) == len(VECTORS)
    assert sum(vector["name"].startswith("RFC 7512, section 3") for vector in VECTORS) == 14
    assert len({vector["name"] for vector in VECTORS}) == len(VECTORS)


@pytest.mark.parametrize("vector", GOOD, ids=_name)
def test_decodes(vector: dict[str, Any]) -> None:
    uri = TokenUri.parse(vector["uri"])
    expected = _made(vector["attributes"])
    assert uri == expected
    assert uri.ignored == expected.ignored


@pytest.mark.parametrize("vector", GOOD, ids=_name)
def test_canonical_form(vector: dict[str, Any]) -> None:
    uri = TokenUri.parse(vector["uri"])
    assert TokenUri.parse(str(uri)) == uri
    assert str(TokenUri.parse(str(uri))) == str(uri)
    assert str(uri) == vector.get("canonical", str(uri))


@pytest.mark.parametrize("vector", BAD, ids=_name)
def test_refuses(vector: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        TokenUri.parse(vector["uri"])
    assert vector["error"] in str(caught.value)


# --- what errors say, and what they keep to themselves ---


@pytest.mark.parametrize(
    "uri",
    [
        "pkcs11:token=A?pin-value=4711-secret",
        "pkcs11:pin-value=4711-secret",
        "pkcs11:token=A&PIN-value=4711-secret",
        "pkcs11:token=A?pin-source=file:/p&pin-value=4711-secret",
        "pkcs11:?pin-value=4711-secret&pin-value=4711-secret",
        "http:?pin-value=4711-secret",
        "pkcs11:4711-secret",
        "pkcs11:token=4711-secret%",
        "pkcs11:token=4711-secret%FF",
        "pkcs11:token=4711-secret/",
        "pkcs11:type=4711-secret",
        "pkcs11:slot-id=4711-secret",
        "pkcs11:library-version=4711-secret",
        "pkcs11:?module-path=4711-secret",
        "pkcs11:?module-name=/4711-secret",
        "pkcs11:?pin-source=4711-secret%00",
        "pkcs11:pin value=4711-secret",
    ],
)
def test_no_error_repeats_a_value(uri: str) -> None:
    with pytest.raises(ConfigError) as caught:
        TokenUri.parse(uri)
    error = caught.value
    assert "4711" not in error.diagnostics()
    assert "4711" not in repr(error)
    # A traceback prints the error under which another arose: that one would show the value.
    assert error.__cause__ is None
    assert error.__context__ is None


def test_a_pin_value_is_pointed_to_pin_source() -> None:
    with pytest.raises(ConfigError) as caught:
        TokenUri.parse("pkcs11:?pin-value=1234")
    assert "pin-source=file:" in caught.value.hint


def test_values_of_ignored_attributes_are_not_kept() -> None:
    uri = TokenUri.parse("pkcs11:token=A?x-pin=4711-secret")
    assert uri.ignored == ("x-pin",)
    assert "4711" not in repr(uri)
    assert uri == TokenUri(token="A")


# --- length ---


def test_the_longest_uri_is_read_and_written() -> None:
    text = "pkcs11:token=".ljust(MAX_LENGTH, "a")
    assert str(TokenUri.parse(text)) == text


@pytest.mark.parametrize(
    "uri",
    [
        "pkcs11:token=".ljust(MAX_LENGTH + 1, "a"),
        " " * (MAX_LENGTH + 1),
        "pkcs11:id=".ljust(MAX_LENGTH, "a"),  # three times as long when written
        "pkcs11:?pin-value=1234".ljust(10**6, "x"),
    ],
)
def test_too_long(uri: str) -> None:
    with pytest.raises(ConfigError, match="longer than 4096"):
        TokenUri.parse(uri)


def test_made_from_parts_too_long() -> None:
    with pytest.raises(ConfigError, match="longer than 4096"):
        TokenUri(token="a" * MAX_LENGTH)


# --- making one from parts ---


@pytest.mark.parametrize(
    ("parts", "error"),
    [
        ({"token": "A\n"}, "control character"),
        ({"object": "\ud800"}, "no UTF-8"),
        ({"pin_source": "a\0"}, "control character"),
        ({"type": "PRIVATE"}, "is unknown"),
        ({"slot_id": -1}, "is not a decimal number"),
        ({"slot_id": MAX_SLOT_ID + 1}, "is not a decimal number"),
        ({"library_version": (1, 256)}, "over 255"),
        ({"library_version": (-1, 0)}, "over 255"),
        ({"module_path": "m.so"}, "is not an absolute path"),
        ({"module_name": "a/b"}, "is a path"),
        ({"vendor": (("b", "1"), ("a", "2"))}, "sorted by name"),
        ({"vendor": (("a", "1"), ("a", "2"))}, "sorted by name"),
        ({"vendor": (("token", "A"),)}, "not its own"),
        ({"vendor": (("Token", "A"),)}, "not its own"),
        ({"vendor": (("pin-value", "1234"),)}, "not its own"),
        ({"vendor": (("x=1;type", "A"),)}, "not its own"),
        ({"vendor": (("", "A"),)}, "not its own"),
        ({"vendor": (("x", "\0"),)}, "control character"),
    ],
)
def test_parts_are_checked(parts: dict[str, Any], error: str) -> None:
    with pytest.raises(ConfigError, match=error):
        TokenUri(**parts)


def test_is_a_value() -> None:
    uri = TokenUri.parse("pkcs11:token=A;serial=1")
    assert {uri, TokenUri(token="A", serial="1")} == {uri}
    with pytest.raises(AttributeError):
        uri.token = "B"  # type: ignore[misc]


# --- matching ---

FOUND = ("backup", "0123", "SoftHSM project", "SoftHSM v2", 42)


@pytest.mark.parametrize(
    ("uri", "matches"),
    [
        ("pkcs11:", True),
        ("pkcs11:token=backup", True),
        ("pkcs11:token=backup;serial=0123;model=SoftHSM%20v2;slot-id=42", True),
        ("pkcs11:manufacturer=SoftHSM%20project", True),
        ("pkcs11:token=Backup", False),
        ("pkcs11:token=back", False),
        ("pkcs11:token=", False),
        ("pkcs11:token=backup;serial=123", False),
        ("pkcs11:token=backup;serial=", False),
        ("pkcs11:manufacturer=SoftHSM", False),
        ("pkcs11:model=SoftHSM%20v3", False),
        ("pkcs11:slot-id=43", False),
        ("pkcs11:slot-id=0", False),
        ("pkcs11:object=key;type=secret-key;id=%01?module-path=/m.so", True),
        ("pkcs11:token=backup;x-vendor=1", False),
        ("pkcs11:token=backup?x-vendor=1", True),
        # Asked for, and not told by the caller: no match rather than a wrong one.
        ("pkcs11:slot-description=S", False),
        ("pkcs11:slot-manufacturer=S", False),
        ("pkcs11:library-manufacturer=S", False),
        ("pkcs11:library-description=S", False),
        ("pkcs11:library-version=2.6", False),
    ],
)
def test_matches(uri: str, matches: bool) -> None:
    assert TokenUri.parse(uri).matches(*FOUND) is matches


def test_padding_does_not_count() -> None:
    found = ("backup".ljust(32), "0123".ljust(16, "\0"), "M".ljust(32), " " * 16, 0)
    assert TokenUri.parse("pkcs11:token=backup;serial=0123;model=").matches(*found)
    assert TokenUri.parse("pkcs11:token=backup%20").matches(*found)
    assert not TokenUri.parse("pkcs11:token=%20backup").matches(*found)


def test_matches_slot_and_library() -> None:
    uri = TokenUri.parse(
        "pkcs11:slot-description=D;slot-manufacturer=M;library-manufacturer=L;"
        "library-description=E;library-version=2.6"
    )
    told: dict[str, Any] = {
        "slot_description": "D".ljust(64),
        "slot_manufacturer": "M",
        "library_manufacturer": "L",
        "library_description": "E",
        "library_version": (2, 6),
    }
    assert uri.matches(*FOUND, **told)
    for name, other in [*((name, "X") for name in list(told)[:4]), ("library_version", (2, 7))]:
        assert not uri.matches(*FOUND, **(told | {name: other}))


# --- arbitrary text ---

TEXT = st.text(
    st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]), max_size=24
) | st.sampled_from(["", "%", "%41", ";", "&", "?", "=", "|", "/", " ", "+", "ä", "pin-value"])
OPTIONAL_TEXT = st.none() | TEXT
NAMES = st.from_regex(r"x-[A-Za-z0-9_-]{1,8}", fullmatch=True)
URIS = st.builds(
    TokenUri,
    token=OPTIONAL_TEXT,
    manufacturer=OPTIONAL_TEXT,
    serial=OPTIONAL_TEXT,
    model=OPTIONAL_TEXT,
    library_manufacturer=OPTIONAL_TEXT,
    library_version=st.none() | st.tuples(st.integers(0, 255), st.integers(0, 255)),
    library_description=OPTIONAL_TEXT,
    object=OPTIONAL_TEXT,
    type=st.none() | st.sampled_from(OBJECT_TYPES),
    id=st.none() | st.binary(max_size=40),
    slot_description=OPTIONAL_TEXT,
    slot_manufacturer=OPTIONAL_TEXT,
    slot_id=st.none() | st.integers(0, MAX_SLOT_ID),
    vendor=st.dictionaries(NAMES, TEXT, max_size=3).map(lambda pairs: tuple(sorted(pairs.items()))),
    pin_source=OPTIONAL_TEXT,
    module_name=st.none() | TEXT.filter(lambda text: "/" not in text),
    module_path=st.none() | TEXT.map(lambda text: "/" + text),
)


@given(URIS)
def test_round_trip(uri: TokenUri) -> None:
    text = str(uri)
    assert text.isascii()
    assert TokenUri.parse(text) == uri
    assert TokenUri.parse(text.replace(";", ";\n  ")) == uri


PIECES = st.sampled_from(
    [
        "pkcs11:",
        *(name for vector in GOOD for name in vector["attributes"]),
        *[
            "pin-value",
            "=",
            ";",
            "&",
            "?",
            "%",
            "%00",
            "%C3",
            "%A9",
            "%FF",
            "/",
            " ",
            "\n",
            "1",
            "a",
        ],
    ]
)


@given(st.text() | st.lists(PIECES, max_size=12).map(lambda pieces: "pkcs11:" + "".join(pieces)))
@example("pkcs11:\ud800")
@example("pkcs11:slot-id=" + "1" * 4000)
def test_arbitrary_text_raises_nothing_else(text: str) -> None:
    try:
        uri = TokenUri.parse(text)
    except ConfigError as error:
        told = error.diagnostics()
    else:
        told = str(uri)
        assert TokenUri.parse(told) == uri
    assert told.isprintable()

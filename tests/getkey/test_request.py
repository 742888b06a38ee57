"""What Bacula, or a hostile medium, puts into the environment; and the command's own options."""

from __future__ import annotations

import base64
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hwkm.__main__ import _is_getkey
from hwkm.bacula import MAX_FIELD_BYTES, Options, Request, parse_options
from hwkm.errors import ConfigError, ParseError

if TYPE_CHECKING:
    from collections.abc import Mapping

at_leisure = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
NAMES = (b"OPERATION", b"VOLUME_NAME", b"ENC_CIPHER_KEY", b"MASTER_KEYID")
GOOD = {b"OPERATION": b"READ", b"VOLUME_NAME": b"Vol-0001", b"ENC_CIPHER_KEY": b"aGk="}

any_bytes = st.binary(max_size=300)
near_misses = st.sampled_from(
    [b"LABEL", b"READ", b"Vol-0001", b"label", b"..", b"aGk=", b"aGk", b"=", b"a-_b", b" aGk=", b""]
)
plausible = near_misses | st.binary(max_size=30).map(base64.b64encode)
environments = st.dictionaries(st.sampled_from(NAMES) | any_bytes, any_bytes | plausible)


@at_leisure
@given(environments)
def test_nothing_but_one_error(environ: Mapping[bytes, bytes]) -> None:
    try:
        request = Request.parse(environ)
    except ParseError:
        return
    assert request.operation.encode() == environ[b"OPERATION"]
    assert request.volume.encode() == environ[b"VOLUME_NAME"]
    assert re.fullmatch(r"[A-Za-z0-9:._-]{1,127}", request.volume)
    if request.operation == "LABEL":
        assert request.label is None
    elif request.label is not None:
        assert base64.b64encode(request.label) == environ[b"ENC_CIPHER_KEY"]
        assert 0 < len(request.label) <= MAX_FIELD_BYTES


@pytest.mark.parametrize(
    "name", [b".", b"..", b"-x", b"--config", b"a:b", b"A" * 127, b"0", b"_", b"a.b-c:d_e"]
)
def test_every_name_that_bacula_allows(name: bytes) -> None:
    assert Request.parse(GOOD | {b"VOLUME_NAME": name}).volume.encode() == name


@pytest.mark.parametrize(
    "name",
    [
        b"",
        b"A" * 128,
        b"A" * 2**20,
        b"../x",
        b"/etc/passwd",
        b"a b",
        b"a\nerror: injected",
        b"a\r",
        b"a\n",
        b"a\0b",
        b"\0",
        b"a;b",
        b"$(id)",
        b"a'b",
        b"a%sb",
        b"\xff\xfe",
        "Größe".encode(),
        "💾".encode(),
        "Ⅷ".encode(),
        "\N{FULLWIDTH DIGIT FOUR}".encode(),
        "\u202e".encode(),
    ],
)
def test_names_that_bacula_does_not_allow(name: bytes) -> None:
    with pytest.raises(ParseError, match="VOLUME_NAME"):
        Request.parse(GOOD | {b"VOLUME_NAME": name})


@pytest.mark.parametrize(
    "operation", [b"", b"read", b"Label", b"READ ", b"WRITE", b"READ\n", b"\0"]
)
def test_operations_that_there_are_not(operation: bytes) -> None:
    with pytest.raises(ParseError, match="OPERATION"):
        Request.parse(GOOD | {b"OPERATION": operation})


@pytest.mark.parametrize("missing", [b"OPERATION", b"VOLUME_NAME"])
def test_what_must_be_there(missing: bytes) -> None:
    with pytest.raises(ParseError, match=missing.decode()):
        Request.parse({name: value for name, value in GOOD.items() if name != missing})


@pytest.mark.parametrize(
    "value",
    [
        b"aGk",
        b"aGk==",
        b"aG k=",
        b"aGk=\n",
        b" aGk=",
        b"aGk=aGk=",
        b"a-_b",
        b"====",
        b"\xff\xff\xff\xff",
        b"aGk=\0",
        b"A" * 2**20,
        b"A" * (MAX_FIELD_BYTES * 4 // 3 + 4),
        base64.b64encode(bytes(MAX_FIELD_BYTES + 1)),
    ],
)
@pytest.mark.parametrize("name", [b"ENC_CIPHER_KEY", b"MASTER_KEYID"])
@pytest.mark.parametrize("operation", [b"READ", b"LABEL"])
def test_base64_that_is_none_or_too_long(operation: bytes, name: bytes, value: bytes) -> None:
    with pytest.raises(ParseError, match=name.decode()):
        Request.parse(GOOD | {b"OPERATION": operation, name: value})


def test_the_longest_field() -> None:
    longest = bytes(MAX_FIELD_BYTES)
    assert Request.parse(GOOD | {b"ENC_CIPHER_KEY": base64.b64encode(longest)}).label == longest


@pytest.mark.parametrize("empty", [{}, {b"ENC_CIPHER_KEY": b"", b"MASTER_KEYID": b""}])
def test_a_label_without_a_key(empty: dict[bytes, bytes]) -> None:
    request = Request.parse({b"OPERATION": b"READ", b"VOLUME_NAME": b"Vol-0001"} | empty)
    assert request.label is None


class TestOptions:
    CONFIG = Path("/etc/hwkm/config.toml")

    @pytest.mark.parametrize(
        ("words", "options"),
        [
            ([], Options(CONFIG)),
            (["getkey"], Options(CONFIG)),
            (["--config", "/a", "getkey"], Options(Path("/a"))),
            (["getkey", "--config=/a"], Options(Path("/a"))),
            (["--config", "/a", "getkey", "--config", "/b"], Options(Path("/b"))),
            (
                ["getkey", "--device", "/dev/nst0", "--job", "7", "--cipher", "AES_128_XTS"],
                Options(CONFIG, "/dev/nst0", "7", "AES_128_XTS"),
            ),
            (["getkey", "--device=a=b", "--job=%i"], Options(CONFIG, "a=b", "%i")),
            (["getkey", "--job", "--device"], Options(CONFIG, job="--device")),
            (["getkey", "--job", "a\nb\x1b[1m\u202e"], Options(CONFIG, job="a b [1m ")),
            (["getkey", "--no-agent", "a\nb"], Options(CONFIG, no_agent="a b")),
            (["getkey", "--job", "\udcff"], Options(CONFIG, job=" ")),
            (["getkey", "--job", "x" * 301], Options(CONFIG, job="x" * 299 + "…")),
        ],
    )
    def test_read(self, words: list[str], options: Options) -> None:
        assert parse_options(words, {}) == options

    def test_environment(self) -> None:
        assert parse_options([], {"HWKM_CONFIG": "/a"}).config == Path("/a")
        assert parse_options(["--config", "/b"], {"HWKM_CONFIG": "/a"}).config == Path("/b")
        assert parse_options([], {"HWKM_CONFIG": ""}).config == self.CONFIG
        assert parse_options(["--debug", "getkey"], {}).config == self.CONFIG

    @pytest.mark.parametrize(
        "words",
        [
            ["--verbose", "getkey"],
            ["getkey", "--devise", "x"],
            ["getkey", "extra"],
            ["getkey", "--device"],
            ["getkey", "--device="],
            ["getkey", "--no-agent"],
            ["getkey", "--config", ""],
            ["getkey", "-i", "7"],
            ["getkey", "--", "--job", "7"],
            ["getkey", ""],
        ],
    )
    def test_refused(self, words: list[str]) -> None:
        with pytest.raises(ConfigError):
            parse_options(words, {})

    @at_leisure
    @given(st.lists(st.text() | st.sampled_from(["getkey", "--job", "--config", "--cipher=", "="])))
    def test_any_words(self, words: list[str]) -> None:
        try:
            options = parse_options(words, {})
        except ConfigError:
            return
        assert all(text.isprintable() for text in (options.device, options.job, options.cipher))


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("getkey", True),
        ("getkey --job 7", True),
        ("--config /a getkey", True),
        ("--config=/a getkey --job 7", True),
        ("--debug getkey", True),
        ("getkey --help", False),
        ("--help", False),
        ("", False),
        ("volume show getkey", False),
        ("check --config getkey", False),
        ("volume getkey", False),
        ("--config /a volume show getkey", False),
    ],
)
def test_which_calls_are_the_encryption_command(line: str, expected: bool) -> None:
    assert _is_getkey(line.split()) is expected

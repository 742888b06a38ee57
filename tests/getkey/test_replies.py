"""Replies are read back by Bacula's rules, and nothing that hwkm writes can be misread."""

from __future__ import annotations

import re
import secrets

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hwkm import envelope as envelopes
from hwkm.bacula import error_line, reply_lines
from hwkm.envelope import Header, Scheme, Stanza
from hwkm.errors import ParseError
from hwkm.keys import Cipher, VolumeKey
from hwkm.log import one_line
from hwkm.manager import Handout

from .replies import RefusedError, Reply, decode, read_reply

at_leisure = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
PIPE_BUF = 4096
"""Up to here a write into a pipe is one piece."""


def _is_name(text: str) -> bool:
    try:
        envelopes.check_volume_name(text)
    except ParseError:
        return False
    return True


bacula_names = st.from_regex(r"[A-Za-z0-9:._-]{1,127}", fullmatch=True)
any_names = st.text(min_size=1, max_size=127).filter(_is_name)
any_text = st.lists(st.integers(0, 0x10FFFF).map(chr)).map("".join)


@st.composite
def handouts(draw: st.DrawFn) -> Handout:
    cipher = draw(st.sampled_from([Cipher.AES_128_XTS, Cipher.AES_256_XTS]))
    size = cipher.key_bytes
    data = draw(st.binary(min_size=size, max_size=size).filter(lambda d: d[: size // 2] * 2 != d))
    key = VolumeKey(cipher, data)
    header = Header(
        key_id=draw(st.binary(min_size=12, max_size=12)),
        volume=draw(bacula_names | any_names),
        generation=draw(st.integers(1, envelopes.MAX_GENERATION)),
        cipher=cipher,
        created=draw(st.integers(0, envelopes.MAX_CREATED)),
    )
    ids = draw(st.lists(st.binary(min_size=1, max_size=80), min_size=1, max_size=4, unique=True))
    blobs = st.integers(1, 600).map(secrets.token_bytes)
    stanzas = [Stanza(draw(st.sampled_from(Scheme)), one, draw(blobs)) for one in ids]
    return Handout(key, envelopes.fit(envelopes.seal(header, stanzas, key), key))


@at_leisure
@given(handouts())
def test_bacula_reads_back_what_was_written(handout: Handout) -> None:
    output = reply_lines(handout)
    reply = Reply(
        cipher=handout.cipher.name,
        key=handout.key.expose(),
        wrapped=handout.envelope.encode(),
        master_id=handout.master_id,
    )
    assert read_reply(output) == reply
    assert output.endswith(b"\n")
    assert output.count(b"\n") == 5
    assert len(output) <= PIPE_BUF


@at_leisure
@given(handouts())
def test_what_a_label_can_hold(handout: Handout) -> None:
    reply = read_reply(reply_lines(handout))
    assert len(reply.wrapped) <= 1024
    assert 0 < len(reply.master_id) <= 80


@at_leisure
@given(any_text | st.text())
def test_an_error_is_always_one_line(text: str) -> None:
    line = error_line(text)
    assert re.fullmatch(rb"error: [^\x00-\x1f\x7f]*\n", line)
    assert len(line) <= PIPE_BUF
    assert len(line.decode()) <= len("error: \n") + 500
    with pytest.raises(RefusedError) as refusal:
        read_reply(line)
    shown = one_line(text, 500).lstrip(" ")
    assert str(refusal.value) == f'got error message: "{shown}"'


@at_leisure
@given(any_text, st.integers(1, 2000))
def test_a_log_line_is_one_line(text: str, limit: int) -> None:
    line = one_line(text, limit)
    assert len(line) <= limit
    assert line.isprintable()
    line.encode()


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a\nerror: b", "a error: b"),
        ("a\r\n\tb  c", "a b c"),
        ("\x1b[31mred\x07", " [31mred "),
        ("left\u202eright", "left right"),
        ("a\u2028b\x85c\x00d", "a b c d"),
        ("x" * 30, "x" * 19 + "…"),
        ("", ""),
    ],
)
def test_one_line(text: str, line: str) -> None:
    assert one_line(text, 20) == line


class TestReader:
    """The reader itself, held to what Bacula 15.0.3 was seen to do."""

    KEY = b"cipher: AES_128_XTS\ncipher_key: " + b"A" * 43 + b"=\n"

    @pytest.mark.parametrize(
        "output",
        [
            KEY,
            KEY.replace(b"\n", b"\r\n"),
            KEY.replace(b"\n", b"\r"),
            KEY.replace(b": ", b"="),
            KEY.replace(b": ", b" \t:  "),
            b"\n\n  " + KEY,
            KEY.replace(b"=\n", b""),
            KEY.replace(b"AES", b"aes"),
            b"comment: x\nunknown_name: y\n" + KEY,
            KEY + b"# the end\nerror: never seen\n",
            b"WARNING: harmless\n" + KEY,
            b"cipher: NULL\n" + KEY,
        ],
    )
    def test_taken(self, output: bytes) -> None:
        assert read_reply(output) == Reply("AES_128_XTS", bytes(32), b"", b"")

    @pytest.mark.parametrize(
        ("output", "reason"),
        [
            (b"", "cipher is missing"),
            (b"# first\n" + KEY, "cipher is missing"),
            (b"cipher: AES_128_XTS\n", "key is missing"),
            (b"cipher: AES_128_XTS\ncipher\0_key: AAAA\n", "line format mismatch"),
            (b"cipher: AES_128_XTS \n" + KEY[20:], "unknown cipher"),
            (b"Cipher: AES_128_XTS\n" + KEY[20:], "cipher is missing"),
            (KEY.replace(b"AAAA", b"A-_A", 1), "Wrong cipher key size"),
            (KEY + b"hello world\n", "wrong separator"),
            (KEY + b"hello\n", "line format mismatch"),
            (KEY + b"enc-cipher-key: x\n", "line format mismatch"),
            (KEY + b"error: too late\n", 'got error message: "too late"'),
            (KEY + b"error:\n", 'got error message: ""'),
            (KEY + b"enc_cipher_key: " + b"A" * 2736 + b"\n", "enc_cipher_key is too large"),
            (KEY + b"Traceback (most recent call last):\n", "wrong separator"),
        ],
    )
    def test_refused(self, output: bytes, reason: str) -> None:
        with pytest.raises(RefusedError, match=re.escape(reason)):
            read_reply(output)

    def test_too_long_is_dropped(self) -> None:
        assert read_reply(self.KEY + b"enc_cipher_key: " + b"A" * 6000 + b"\n").wrapped == b""

    @at_leisure
    @given(st.binary())
    def test_base64(self, data: bytes) -> None:
        import base64

        assert decode(base64.b64encode(data)) == data
        assert decode(b" ".join([base64.b64encode(data).rstrip(b"=")])) == data

"""Other programs' key files: what they hold, and that nothing else is taken for one."""

from __future__ import annotations

import base64
import traceback

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwkm.errors import ConfigError, HwkmError, ParseError
from hwkm.key_files import MAX_FILE_BYTES, ImportedKey, KeyFileKind, detect, parse_key_file
from hwkm.keys import Cipher, VolumeKey

KEY = bytes.fromhex("00112233445566778899aabbccddeeff f0e1d2c3b4a5968778695a4b3c2d1e0f")
HEX = KEY.hex().encode()
BASE64 = base64.b64encode(KEY)
# The 64th digit is missing: stenc takes the first for the low half of a byte.
ODD = HEX[1:]

PASSPHRASE = b"Z9(kd_Yw#2?bR!tq8Lm{xV4*sJ7&uC0%"
# What Bareos gives the drive: 31 of the 32 characters, then a NUL.
BAREOS_KEY = bytes.fromhex(
    "5a39286b645f597723 32 3f 62 52 21 74 71 38 4c 6d 7b 78 56 34 2a 73 4a 37 26 75 43 30 00"
)

# A key identifier as LTFS writes it: three characters, nine bytes in hex; and as the A-KAD is.
DKI_TEXT = b"XYZ0123456789ABCDEF01"
DKI = bytes.fromhex("58595a 0123456789abcdef01")
LTFS = b"DK=" + BASE64 + b"\nDKi=" + DKI_TEXT + b"\n"


def parse(data: bytes, kind: KeyFileKind | None = None) -> tuple[bytes, bytes, KeyFileKind]:
    found = parse_key_file(data, kind)
    assert found.key.cipher is Cipher.AES_256_GCM
    return found.key.expose(), found.key_name, found.kind


class TestWhatIsRead:
    @pytest.mark.parametrize(
        ("data", "name"),
        [
            (HEX, b""),
            (HEX + b"\n", b""),
            (HEX.upper() + b"\r\nWeekly tapes\r\n", b"Weekly tapes"),
            (HEX + b"\nWeekly tapes", b"Weekly tapes"),
            (HEX + b"\nWeekly   \n\n", b"Weekly"),  # stenc pads with blanks itself
            (HEX + "\nWöchentlich\n".encode(), "Wöchentlich".encode()),
            (ODD + b"\nx\n", b"x"),
        ],
    )
    def test_stenc(self, data: bytes, name: bytes) -> None:
        assert parse(data, KeyFileKind.STENC) == (KEY, name, KeyFileKind.STENC)

    @pytest.mark.parametrize(
        "data",
        [
            LTFS,
            LTFS.rstrip(),
            LTFS.replace(b"\n", b"\r\n"),
            b"\n" + LTFS.replace(b"\nDKi", b"\n\n DKi"),
        ],
    )
    def test_ltfs(self, data: bytes) -> None:
        assert parse(data, KeyFileKind.LTFS) == (KEY, DKI, KeyFileKind.LTFS)

    @pytest.mark.parametrize("data", [PASSPHRASE, PASSPHRASE + b"\n", PASSPHRASE[:31]])
    def test_bareos_never_sends_the_last_character(self, data: bytes) -> None:
        assert parse(data, KeyFileKind.BAREOS) == (BAREOS_KEY, b"", KeyFileKind.BAREOS)

    @pytest.mark.parametrize(
        ("data", "kind"),
        [
            (KEY, KeyFileKind.RAW),
            (PASSPHRASE, KeyFileKind.RAW),
            (HEX + b"\n", KeyFileKind.HEX),
            (b" ".join(HEX[at : at + 4] for at in range(0, 64, 4)), KeyFileKind.HEX),
            (BASE64 + b"\n", KeyFileKind.BASE64),
            (BASE64[:20] + b"\n" + BASE64[20:], KeyFileKind.BASE64),
        ],
    )
    def test_bare_keys(self, data: bytes, kind: KeyFileKind) -> None:
        key = PASSPHRASE if data == PASSPHRASE else KEY
        assert parse(data, kind) == (key, b"", kind)


class TestDetection:
    @pytest.mark.parametrize(
        ("data", "kind"),
        [
            (LTFS, KeyFileKind.LTFS),
            (b"DKi=wrong", KeyFileKind.LTFS),
            (HEX, KeyFileKind.HEX),
            (HEX + b"\nWeekly tapes\n", KeyFileKind.STENC),
            (BASE64 + b"\n", KeyFileKind.BASE64),
            (KEY, KeyFileKind.RAW),
        ],
    )
    def test_told_by_content(self, data: bytes, kind: KeyFileKind) -> None:
        assert detect(data) is kind

    @pytest.mark.parametrize(
        "data", [b"", b"\n", PASSPHRASE, PASSPHRASE + b"\n", KEY[:31], KEY + b"\n", HEX[:60], b"DK"]
    )
    def test_never_guessed(self, data: bytes) -> None:
        with pytest.raises(ConfigError, match="can't be told") as caught:
            parse_key_file(data)
        assert "stenc, ltfs, bareos, raw, hex, base64" in caught.value.hint


class TestRefusals:
    @pytest.mark.parametrize(
        ("data", "kind", "says"),
        [
            (b"", KeyFileKind.STENC, "line 1"),
            (b"\n" + HEX, KeyFileKind.STENC, "line 1"),
            (HEX[:62] + b"\nname", KeyFileKind.STENC, "line 1"),
            (HEX + b"00\nname", KeyFileKind.STENC, "line 1"),
            (HEX[:63] + b"g", KeyFileKind.STENC, "line 1"),
            (HEX + b"\nname\nmore\n", KeyFileKind.STENC, "line 3"),
            (HEX + b"\n" + b"n" * 256, KeyFileKind.STENC, "line 2"),
            (b"", KeyFileKind.LTFS, "a line DK="),
            (b"DK=" + BASE64, KeyFileKind.LTFS, "a line DK="),
            (b"\n" + b"DKi=" + DKI_TEXT + b"\nDK=" + BASE64, KeyFileKind.LTFS, "line 2: not DK="),
            (LTFS.replace(b"=\n", b"\n"), KeyFileKind.LTFS, "line 1: not DK="),
            (LTFS.replace(b"DKi=XYZ", b"DKi=XY"), KeyFileKind.LTFS, "line 2: not DKi="),
            (LTFS.replace(b"EF01", b"EG01"), KeyFileKind.LTFS, "line 2: not DKi="),
            (LTFS.replace(b"XYZ", b"X\x01Z"), KeyFileKind.LTFS, "line 2: not DKi="),
            (LTFS + b"\n" + LTFS, KeyFileKind.LTFS, "line 4: the file holds more than one key"),
            (PASSPHRASE[:30], KeyFileKind.BAREOS, "line 1"),
            (PASSPHRASE + b"x", KeyFileKind.BAREOS, "line 1"),
            (KEY, KeyFileKind.BAREOS, "line 1"),
            (PASSPHRASE + b"\n\0", KeyFileKind.BAREOS, "line 1"),
            (KEY + b"\n", KeyFileKind.RAW, "the file has 33 bytes, a raw key has 32"),
            (b"", KeyFileKind.RAW, "the file has 0 bytes"),
            (HEX[:-2], KeyFileKind.HEX, "line 1"),
            (b"0x" + HEX, KeyFileKind.HEX, "line 1"),
            (BASE64[:-1], KeyFileKind.BASE64, "line 1"),
            (BASE64[:-4], KeyFileKind.BASE64, "line 1"),
            (BASE64.replace(b"=", b"-"), KeyFileKind.BASE64, "line 1"),
            (b" " * (MAX_FILE_BYTES + 1), KeyFileKind.HEX, "at most 4,096 bytes"),
        ],
    )
    def test_name_the_line(self, data: bytes, kind: KeyFileKind, says: str) -> None:
        with pytest.raises(ParseError, match=says):
            parse_key_file(data, kind)

    @pytest.mark.parametrize("kind", KeyFileKind)
    @given(data=st.binary(max_size=200))
    def test_any_bytes(self, kind: KeyFileKind, data: bytes) -> None:
        try:
            found = parse_key_file(data, kind)
        except ParseError:
            return
        assert isinstance(found, ImportedKey)
        assert len(found.key) == 32

    @given(
        data=st.binary(max_size=100)
        | st.text("0123456789abcdef\n =DKi", max_size=90).map(str.encode)
    )
    def test_any_bytes_without_a_kind(self, data: bytes) -> None:
        try:
            parse_key_file(data)
        except (ParseError, ConfigError):
            return

    @pytest.mark.parametrize("kind", KeyFileKind)
    @pytest.mark.parametrize("data", [HEX + b"zz", LTFS[:-3], BASE64 + b"!", KEY + b"!"])
    def test_never_repeat_the_key(self, kind: KeyFileKind, data: bytes) -> None:
        try:
            found: object = parse_key_file(data, kind)
        except HwkmError as error:
            shown = "".join(traceback.format_exception(error)) + error.hint
        else:
            shown = repr(found)
        for form in (HEX[:16], BASE64[:16], repr(KEY[:8])[2:-1].encode(), HEX[-16:], BASE64[-12:]):
            assert form.decode() not in shown


@given(key=st.binary(min_size=32, max_size=32), name=st.binary(min_size=12, max_size=12))
def test_round_trips(key: bytes, name: bytes) -> None:
    name = b"XY!" + name[3:]
    text = name[:3] + name[3:].hex().encode()
    files = {
        KeyFileKind.RAW: key,
        KeyFileKind.HEX: key.hex().encode(),
        KeyFileKind.BASE64: base64.b64encode(key),
        KeyFileKind.STENC: key.hex().encode() + b"\n" + text,
        KeyFileKind.LTFS: b"DK=" + base64.b64encode(key) + b"\nDKi=" + text,
    }
    names = {KeyFileKind.STENC: text, KeyFileKind.LTFS: name}
    for kind, data in files.items():
        found = parse_key_file(data, kind)
        assert found.key == VolumeKey(Cipher.AES_256_GCM, key)
        assert found.key_name == names.get(kind, b"")

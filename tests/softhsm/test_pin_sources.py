"""Where PINs come from: what is read, what is refused, and how often anybody is asked."""

from __future__ import annotations

import os
import re
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from hwkm.errors import ConfigError, PinError, TokenError
from hwkm.keys import SecretBytes
from hwkm.token.pin import MAX_PIN_BYTES, PinReader, write_pin
from hwkm.token.pin_source import PinKind, PinSource

from .sites import login, lose_login

if TYPE_CHECKING:
    from .sites import Site
    from .spy import Spied

PROMPT = PinSource(PinKind.PROMPT)
NEEDS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")


# --- what pin-source can be ---


@pytest.mark.parametrize(
    ("text", "kind", "name"),
    [
        ("file:/etc/hwkm/pin", PinKind.FILE, "/etc/hwkm/pin"),
        ("/etc/hwkm/pin", PinKind.FILE, "/etc/hwkm/pin"),
        ("file:///etc/hwkm/pin", PinKind.FILE, "/etc/hwkm/pin"),
        ("file:/with:colon", PinKind.FILE, "/with:colon"),
        ("credential:hwkm.pin", PinKind.CREDENTIAL, "hwkm.pin"),
        ("fd:3", PinKind.DESCRIPTOR, "3"),
        ("prompt", PinKind.PROMPT, ""),
        ("protected", PinKind.PROTECTED, ""),
        ("", PinKind.PROMPT, ""),
        (None, PinKind.PROMPT, ""),
    ],
)
def test_sources_that_are_understood(text: str | None, kind: PinKind, name: str) -> None:
    assert PinSource.parse(text) == PinSource(kind, name)


@pytest.mark.parametrize(
    "text",
    [
        "file:",
        "file:relative/path",
        "file",
        "credential:",
        "credential:../pin",
        "credential:a/b",
        "credential:.hidden",
        "fd:",
        "fd:-1",
        "fd:three",
        "fd:1000000",
        "prompt:now",
        "protected:yes",
        "FILE:/etc/pin",
        "|/bin/ask",
        "1234",
        "https://example.org/pin",
    ],
)
def test_sources_that_are_not(text: str) -> None:
    with pytest.raises(ConfigError, match="pin-source is not understood") as caught:
        PinSource.parse(text)
    assert "file:/path" in caught.value.hint


def test_an_error_does_not_repeat_what_may_be_the_pin_itself() -> None:
    with pytest.raises(ConfigError) as caught:
        PinSource.parse("4711-secret")
    assert "4711" not in caught.value.diagnostics()


# --- files ---


def pin_file(folder: Path, data: bytes, mode: int = 0o600) -> Path:
    path = folder / "pin"
    path.write_bytes(data)
    path.chmod(mode)
    return path


def read(path: Path) -> bytes:
    pin = PinReader().read(PinSource(PinKind.FILE, str(path)), "token")
    assert pin is not None
    return pin.expose()


@pytest.mark.parametrize(
    ("data", "pin"),
    [
        (b"1234", b"1234"),
        (b"1234\n", b"1234"),
        (b"1234\n\n", b"1234\n"),
        (b"\n1234\n", b"\n1234"),
        (b" 12 34 \n", b" 12 34 "),
        (b"1234\r\n", b"1234\r"),
        ("pässwörd\n".encode(), "pässwörd".encode()),
        (b"x" * MAX_PIN_BYTES, b"x" * MAX_PIN_BYTES),
        (b"x" * MAX_PIN_BYTES + b"\n", b"x" * MAX_PIN_BYTES),
    ],
)
def test_one_newline_at_the_end_is_no_part_of_the_pin(
    tmp_path: Path, data: bytes, pin: bytes
) -> None:
    assert read(pin_file(tmp_path, data)) == pin


@pytest.mark.parametrize(
    "data",
    [b"", b"\n", b"x" * (MAX_PIN_BYTES + 1), b"x" * MAX_PIN_BYTES + b"\n\n", b"x" * 5000],
    ids=["empty", "newline", "too long", "two newlines too long", "much too long"],
)
def test_an_impossible_length_is_refused(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(PinError, match="is empty or too long"):
        read(pin_file(tmp_path, data))


def test_a_pin_that_is_no_utf8_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PinError, match="is not UTF-8") as caught:
        read(pin_file(tmp_path, b"12\xff4711"))
    assert caught.value.__cause__ is None
    assert "4711" not in caught.value.diagnostics()


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o700])
def test_a_private_file_is_read(tmp_path: Path, mode: int) -> None:
    assert read(pin_file(tmp_path, b"1234", mode)) == b"1234"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o644, 0o610, 0o601])
def test_a_file_that_others_can_get_at_is_refused(tmp_path: Path, mode: int) -> None:
    path = pin_file(tmp_path, b"1234", mode)
    with pytest.raises(PinError, match=rf"is not private \(mode {mode:04o}\)") as caught:
        read(path)
    assert f"chmod 0600 {path}" in caught.value.hint


@NEEDS_ROOT
def test_a_file_of_somebody_else_is_refused(tmp_path: Path) -> None:
    path = pin_file(tmp_path, b"1234")
    os.chown(path, 12345, 12345)
    with pytest.raises(PinError, match="is not private"):
        read(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(PinError, match=re.escape(f"{tmp_path}/pin can't be read: No such file")):
        read(tmp_path / "pin")


def test_a_folder_is_no_pin_file(tmp_path: Path) -> None:
    with pytest.raises(PinError):
        read(tmp_path)


@pytest.mark.timeout(20)
def test_a_pipe_is_no_pin_file_and_nobody_waits_for_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pin", 0o600)
    with pytest.raises(PinError, match="is not private"):
        read(tmp_path / "pin")


def test_a_socket_is_no_pin_file(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "pin"))
        with pytest.raises(PinError):
            read(tmp_path / "pin")


def test_a_device_is_no_pin_file() -> None:
    with pytest.raises(PinError, match="is not private"):
        read(Path("/dev/zero"))


def test_a_written_pin_is_private_whatever_the_umask_and_is_never_overwritten(
    tmp_path: Path,
) -> None:
    umask = os.umask(0)
    try:
        write_pin(tmp_path / "new", SecretBytes(b"1234"))
    finally:
        os.umask(umask)
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o600
    with pytest.raises(FileExistsError):
        write_pin(tmp_path / "new", SecretBytes(b"5678"))
    assert read(tmp_path / "new") == b"1234"


# --- the other sources ---


def test_a_credential_of_systemd(tmp_path: Path) -> None:
    pin_file(tmp_path, b"1234\n", 0o440)  # systemd's own mode
    reader = PinReader(credentials=tmp_path)
    pin = reader.read(PinSource(PinKind.CREDENTIAL, "pin"), "token")
    assert pin is not None
    assert pin.expose() == b"1234"
    with pytest.raises(PinError, match="can't be read"):
        reader.read(PinSource(PinKind.CREDENTIAL, "other"), "token")


def test_a_credential_without_systemd() -> None:
    with pytest.raises(PinError, match="there is no systemd credential 'pin'") as caught:
        PinReader().read(PinSource(PinKind.CREDENTIAL, "pin"), "token")
    assert "LoadCredential" in caught.value.hint


def descriptor_with(data: bytes) -> int:
    reading, writing = os.pipe()
    os.write(writing, data)
    os.close(writing)
    return reading


def test_a_descriptor_is_read_to_its_end_and_closed() -> None:
    number = descriptor_with(b"1234\n")
    pin = PinReader().read(PinSource(PinKind.DESCRIPTOR, str(number)), "token")
    assert pin is not None
    assert pin.expose() == b"1234"
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(number)


def test_a_descriptor_that_is_not_open() -> None:
    number = descriptor_with(b"1234\n")
    os.close(number)
    with pytest.raises(PinError, match=f"no PIN can be read from file descriptor {number}"):
        PinReader().read(PinSource(PinKind.DESCRIPTOR, str(number)), "token")


def test_a_person_is_asked_by_the_tokens_name() -> None:
    questions: list[str] = []

    def answer(question: str) -> str:
        questions.append(question)
        return "pässwörd"

    pin = PinReader(prompt=answer).read(PROMPT, "backup")
    assert pin is not None
    assert pin.expose() == "pässwörd".encode()
    assert questions == ["PIN of token 'backup': "]


def test_nobody_to_ask() -> None:
    with pytest.raises(PinError, match="there is nobody to ask") as caught:
        PinReader().read(PROMPT, "backup")
    assert "pin-source=file:" in caught.value.hint


def test_a_token_with_a_pin_pad_is_asked_nothing() -> None:
    assert PinReader().read(PinSource(PinKind.PROTECTED), "backup") is None


# --- in a session, which can lose its login and need the PIN again ---


def test_a_descriptor_serves_a_session_that_logs_in_again(spied: Spied) -> None:
    number = descriptor_with(spied.site.token.user_pin.encode())
    with spied.site.with_uri(pin_source=f"fd:{number}").session() as token:
        for _ in range(3):
            assert token.info.initialized
            lose_login(token)
    assert spied.calls("C_Login") == 3


def test_a_file_that_got_the_descriptors_number_is_not_taken_for_the_pin(
    site: Site, tmp_path: Path
) -> None:
    (tmp_path / "other").write_text("not the PIN\n")
    number = descriptor_with(site.token.user_pin.encode())
    with site.with_uri(pin_source=f"fd:{number}").session() as token:
        assert token.info.initialized
        with (tmp_path / "other").open() as other:
            os.dup2(other.fileno(), number)
            lose_login(token)
            assert token.info.initialized
            if number != other.fileno():
                os.close(number)


def test_a_person_is_asked_once_in_a_session(spied: Spied) -> None:
    questions: list[str] = []

    def answer(question: str) -> str:
        questions.append(question)
        return spied.site.token.user_pin

    asked = spied.site.with_access(pins=PinReader(prompt=answer)).with_uri(pin_source="prompt")
    with asked.session() as token:
        for _ in range(3):
            assert token.info.initialized
            lose_login(token)
    assert len(questions) == 1
    assert spied.calls("C_Login") == 3


def test_a_person_who_mistyped_is_asked_anew(spied: Spied) -> None:
    answers = ["mistyped", spied.site.token.user_pin]
    prompt = PinReader(prompt=lambda _question: answers.pop(0))
    asked = spied.site.with_access(pins=prompt).with_uri(pin_source="prompt")
    with asked.session() as token:
        with pytest.raises(PinError):
            token.info  # noqa: B018
        assert token.info.initialized
    assert spied.calls("C_Login") == 2


def test_a_file_is_read_at_every_login(site: Site) -> None:
    site.put_pin("wrong")
    with site.session() as token:
        with pytest.raises(PinError):
            token.info  # noqa: B018
        site.put_pin(site.token.user_pin)
        assert token.info.initialized


def test_a_pin_pad_that_the_token_has_not_is_an_error_in_words(spied: Spied) -> None:
    with pytest.raises(TokenError, match="at its PIN pad failed"):
        login(spied.site.with_uri(pin_source="protected"))
    login(spied.site)

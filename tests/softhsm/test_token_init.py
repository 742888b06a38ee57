"""``hwkm token init``: the vendor's tool, its questions answered on a terminal of its own."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from pkcs11 import TokenFlag

from hwkm.envelope import Scheme
from hwkm.errors import PinError, PolicyError, TokenError
from hwkm.keys import SecretBytes
from hwkm.token import master
from hwkm.token.initialize import TokenRequest, initialize_token
from hwkm.token.module import TokenInfo, loaded
from hwkm.token.pin import write_pin
from hwkm.token.uri import TokenUri
from tests.modules import p11kit, softhsm

from .commands import HWKM, program, run
from .init_token import described
from .interrupt import kill, trace
from .sites import KEY_ID, Site, make_site, softhsm_token
from .spy import MODULE as SPY

if TYPE_CHECKING:
    from pathlib import Path

LABEL = "backup"


def bare_softhsm(folder: Path) -> TokenRequest:
    """Return what makes the first token of a new SoftHSM, through softhsm2-util."""
    (folder / "tokens").mkdir(mode=0o700, parents=True)
    conf = folder / "softhsm2.conf"
    conf.write_text(f"directories.tokendir = {folder / 'tokens'}\nlog.level = ERROR\n")
    return TokenRequest(
        module_path=softhsm.MODULE,
        environment={"SOFTHSM2_CONF": str(conf)},
        slot_id=0,
        label=LABEL,
        pin_file=folder / "pin",
        so_pin_file=folder / "so-pin",
    )


@pytest.fixture
def request_(tmp_path: Path) -> TokenRequest:
    return bare_softhsm(tmp_path)


@pytest.fixture
def by_opensc(request_: TokenRequest, tmp_path: Path) -> TokenRequest:
    """For the same SoftHSM, through pkcs11-tool, which knows it by another name."""
    spied = {"PKCS11SPY": request_.module_path, "PKCS11SPY_OUTPUT": str(tmp_path / "calls")}
    environment = {**request_.environment, **spied}
    return replace(request_, module_path=SPY, environment=environment)


@pytest.fixture(params=["request_", "by_opensc"])
def either(request: pytest.FixtureRequest) -> TokenRequest:
    made: TokenRequest = request.getfixturevalue(request.param)
    return made


def tokens(request: TokenRequest) -> list[TokenInfo]:
    with loaded(request.module_path, request.environment) as module:
        return [info for info, _ in module.tokens() if info.initialized]


def command(request: TokenRequest) -> tuple[str, ...]:
    variables = [f"{name}={value}" for name, value in request.environment.items()]
    return (
        *(*HWKM, "token", "init", "--module", request.module_path),
        *("--slot", str(request.slot_id), "--label", request.label),
        *("--pin-file", str(request.pin_file), "--so-pin-file", str(request.so_pin_file)),
        *[word for variable in variables for word in ("--environment", variable)],
    )


def usable(request: TokenRequest, uri: str, folder: Path) -> Site:
    """Make a master key in the token that ``uri`` names, and return its site."""
    parsed = TokenUri.parse(uri)
    [info] = [info for info in tokens(request) if info.serial == parsed.serial]
    behind = softhsm_token(info, request.pin_file.read_text().strip(), request.environment)
    behind = replace(behind, module_path=request.module_path)
    site = make_site(behind, folder).with_uri(pin_source=parsed.pin_source)
    with site.session() as token:
        master.generate(token, Scheme.GCM, KEY_ID, "made")
    return site


# --- what it makes ---


def test_the_token_can_be_used_by_the_uri_that_comes_back(
    either: TokenRequest, tmp_path: Path
) -> None:
    uri = initialize_token(either)
    [info] = tokens(either)
    assert TokenUri.parse(uri) == TokenUri(
        token=LABEL,
        serial=info.serial,
        module_path=either.module_path,
        pin_source=f"file:{either.pin_file}",
    )
    usable(either, uri, tmp_path)


def test_through_p11_kit(request_: TokenRequest, tmp_path: Path) -> None:
    nothing = TokenInfo(0, "", "", "", "", TokenFlag(0))
    behind = softhsm_token(nothing, "", request_.environment)
    with p11kit.serving(behind, tmp_path) as served:
        with loaded(served.module_path, served.env) as module:
            [(free, _)] = module.tokens()
        seen = replace(request_, module_path=served.module_path, environment=served.env)
        seen = replace(seen, slot_id=free.slot_id)
        usable(seen, initialize_token(seen), tmp_path)


def test_the_command_prints_the_uri(request_: TokenRequest, tmp_path: Path) -> None:
    done = run(*command(request_))
    assert done.returncode == 0, done
    usable(request_, done.stdout.splitlines()[-1], tmp_path)


def test_pins_are_made_at_random_private_and_different(either: TokenRequest) -> None:
    initialize_token(either)
    pins = [path.read_text() for path in (either.pin_file, either.so_pin_file)]
    assert pins[0] != pins[1]
    for path, pin in zip((either.pin_file, either.so_pin_file), pins, strict=True):
        assert path.stat().st_mode & 0o777 == 0o600
        assert re.fullmatch(r"[\w-]{20}\n", pin)


def test_pins_that_are_there_are_taken_and_kept(either: TokenRequest, tmp_path: Path) -> None:
    write_pin(either.pin_file, SecretBytes("pässwörd 1".encode()))
    write_pin(either.so_pin_file, SecretBytes(b"12345678"))
    usable(either, initialize_token(either), tmp_path)
    assert either.pin_file.read_text() == "pässwörd 1\n"
    assert either.so_pin_file.read_text() == "12345678\n"


# --- what nobody may see ---


def test_no_pin_stands_in_any_argument_or_environment(either: TokenRequest, tmp_path: Path) -> None:
    log = tmp_path / "exec"
    options = ("-f", "-v", "-s", "100000", "-e", "trace=execve", "-o", str(log))
    done = run("strace", *options, *command(either))
    assert done.returncode == 0, done
    shown = log.read_text() + done.stdout + done.stderr
    tool = "softhsm2-util" if either.module_path == softhsm.MODULE else "pkcs11-tool"
    assert f'/{tool}", ["{tool}", "--module"' in shown
    for path in (either.pin_file, either.so_pin_file):
        assert path.read_text().strip() not in shown


def test_an_error_of_the_tool_does_not_hold_the_pin(either: TokenRequest) -> None:
    write_pin(either.so_pin_file, SecretBytes(b"x1y"))
    with pytest.raises(TokenError) as caught:
        initialize_token(either)
    assert "x1y" not in caught.value.diagnostics()


# --- the tools' own ways ---


@pytest.mark.timeout(60)
def test_a_pin_that_softhsm_dislikes_is_not_typed_for_ever(request_: TokenRequest) -> None:
    write_pin(request_.so_pin_file, SecretBytes(b"123"))
    with pytest.raises(TokenError, match="does not take the SO PIN"):
        initialize_token(request_)
    assert tokens(request_) == []


@pytest.mark.timeout(60)
def test_a_tool_that_is_slow_to_hide_what_is_typed(
    either: TokenRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # pkcs11-tool throws away what was typed before it turned off the echo.
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("softhsm2-util", "pkcs11-tool"):
        slow = "exec strace -o /dev/null -e inject=ioctl:delay_enter=40000"
        (tools / name).write_text(f'#!/bin/sh\n{slow} /usr/bin/{name} "$@"\n')
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin")
    started = time.monotonic()
    usable(either, initialize_token(either), tmp_path)
    assert time.monotonic() - started > 0.2  # the delays were there


def test_a_pin_that_no_terminal_can_take(request_: TokenRequest) -> None:
    write_pin(request_.so_pin_file, SecretBytes(b"1234\x0345678"))
    with pytest.raises(TokenError, match="control characters"):
        initialize_token(request_)
    assert tokens(request_) == []


def test_a_tool_that_is_not_installed(
    either: TokenRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(TokenError, match="is not installed") as caught:
        initialize_token(either)
    assert "apt install" in caught.value.hint


# --- what is refused ---


def other(request: TokenRequest, folder: Path, **changes: object) -> TokenRequest:
    files = {"pin_file": folder / "other-pin", "so_pin_file": folder / "other-so-pin"}
    return replace(request, **{**files, **changes})  # type: ignore[arg-type]


def test_an_initialised_token_is_refused_and_keeps_its_keys(
    either: TokenRequest, tmp_path: Path
) -> None:
    site = usable(either, initialize_token(either), tmp_path)
    [info] = tokens(either)
    for label in (LABEL, "another"):
        again = other(either, tmp_path, slot_id=info.slot_id, label=label)
        with pytest.raises(PolicyError, match="holds the initialised token 'backup'"):
            initialize_token(again)
        assert not again.pin_file.exists()
        assert not again.so_pin_file.exists()
    assert tokens(either) == [info]
    with site.session() as token:
        assert master.look_at(token, Scheme.GCM, KEY_ID).label == "made"


def test_the_command_refuses_it_with_its_own_exit_code(
    request_: TokenRequest, tmp_path: Path
) -> None:
    initialize_token(request_)
    [info] = tokens(request_)
    done = run(*command(other(request_, tmp_path, slot_id=info.slot_id)))
    assert (done.returncode, done.stdout) == (7, "")


def test_a_label_that_a_token_has_already_is_refused_before_anything_is_done(
    either: TokenRequest, tmp_path: Path
) -> None:
    initialize_token(either)
    before = tokens(either)
    with loaded(either.module_path, either.environment) as module:
        [free] = [info.slot_id for info, _ in module.tokens() if not info.initialized]
    with pytest.raises(PolicyError, match="holds a token 'backup' already"):
        initialize_token(other(either, tmp_path, slot_id=free))
    assert tokens(either) == before


@pytest.mark.parametrize("label", ["", "x" * 33, "ü" * 17])
def test_a_label_of_an_impossible_length(request_: TokenRequest, label: str) -> None:
    with pytest.raises(TokenError, match="1 to 32 bytes"):
        initialize_token(replace(request_, label=label))


def test_a_slot_that_is_not_there_names_those_that_are(request_: TokenRequest) -> None:
    with pytest.raises(TokenError, match="slot 99 holds no token") as caught:
        initialize_token(replace(request_, slot_id=99))
    assert caught.value.hint == "Slots with one: 0"


# --- what was interrupted ---


@pytest.fixture
def without_user_pin(by_opensc: TokenRequest) -> TokenRequest:
    """A token as it is after pkcs11-tool: initialised, and without a user PIN."""
    write_pin(by_opensc.so_pin_file, SecretBytes(b"12345678"))
    so_pin = ("--so-pin", "12345678", "--label", LABEL, "--slot", "0")
    done = run(
        "pkcs11-tool",
        "--module",
        softhsm.MODULE,
        "--init-token",
        *so_pin,
        env=by_opensc.environment,
    )
    assert done.returncode == 0, done
    return by_opensc


def test_a_token_without_a_user_pin_is_finished(
    without_user_pin: TokenRequest, tmp_path: Path
) -> None:
    usable(without_user_pin, initialize_token(without_user_pin), tmp_path)
    assert len(tokens(without_user_pin)) == 1


def test_a_wrong_so_pin_is_tried_once(without_user_pin: TokenRequest, tmp_path: Path) -> None:
    without_user_pin.so_pin_file.write_text("wrong-so-pin")
    calls = tmp_path / "calls"
    calls.unlink(missing_ok=True)
    for words in ("the PIN is wrong", "refused this very PIN before", "this very PIN before"):
        with pytest.raises(PinError, match=words):
            initialize_token(without_user_pin)
    assert calls.read_text(errors="replace").count(": C_Login\n") == 1
    without_user_pin.so_pin_file.write_text("12345678")
    usable(without_user_pin, initialize_token(without_user_pin), tmp_path)


def moved(request: TokenRequest, folder: Path) -> TokenRequest:
    """Return ``request`` for a SoftHSM of its own in ``folder``."""
    environment = dict(request.environment)
    bare = bare_softhsm(folder)
    environment |= bare.environment
    if "PKCS11SPY" in environment:
        environment["PKCS11SPY_OUTPUT"] = str(folder / "calls")
    return replace(bare, module_path=request.module_path, environment=environment)


def test_killed_anywhere_the_next_run_finishes(either: TokenRequest, tmp_path: Path) -> None:
    whole = moved(either, tmp_path / "whole")
    calls = "write,fsync,vfork,wait4,ftruncate"
    for point in trace(program("init_token", described(whole)), calls):
        if point.call == "write" and not re.search("pin>|/dev/ptmx>", point.line):
            continue
        again = moved(either, tmp_path / str(point))
        kill(program("init_token", described(again)), point)
        try:
            initialize_token(again)
        except PolicyError as error:
            assert "holds a token 'backup' already" in str(error)  # noqa: PT017  # it was finished
        [info] = tokens(again)
        uri = TokenUri(
            token=info.label,
            serial=info.serial,
            module_path=again.module_path,
            pin_source=f"file:{again.pin_file}",
        )
        usable(again, str(uri), tmp_path / str(point))


def test_an_empty_pin_file_of_a_killed_run_is_written_anew(
    request_: TokenRequest, tmp_path: Path
) -> None:
    request_.so_pin_file.touch(mode=0o600)
    usable(request_, initialize_token(request_), tmp_path)
    assert len(request_.so_pin_file.read_text()) == 21

"""A wrong PIN reaches a token once: what the spy sees between hwkm and the module proves it."""

from __future__ import annotations

import base64
import os
import signal
import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from pkcs11 import TokenFlag

from hwkm.errors import PinError
from hwkm.keys import SecretBytes
from hwkm.token import p11
from hwkm.token.module import TokenInfo, loaded
from hwkm.token.pin import check_flags
from hwkm.token.pin_guard import (
    FILE_BYTES,
    FREE_TRIES,
    PAUSE_SECONDS,
    SLOTS,
    Begun,
    CutOffError,
    GuardState,
    Memory,
    PinGuard,
    RefusedBeforeError,
    state_of,
)
from tests.getkey import shim
from tests.modules import softhsm, tpm

from .commands import program, run
from .sites import Site, login, make_site
from .spy import Spied, watch

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WRONG = "4711-secret"
UNSHARE = ("unshare", "--mount") if os.geteuid() == 0 else ("unshare", "-Urm")
INFO = TokenInfo(0, "label", "serial", "maker", "model", TokenFlag(0))


def refusal(site: Site, pin: str) -> PinError:
    """Log in with ``pin`` in the PIN file, and return the error."""
    site.put_pin(pin)
    with pytest.raises(PinError) as caught:
        login(site)
    assert caught.value.exit_code == 4
    return caught.value


def guard_of(site: Site) -> PinGuard:
    with loaded(site.settings.module_path, site.settings.environment) as module:
        return PinGuard(site.access.runtime_dir, module.find(site.settings)[0])


# --- once and never again ---


def test_a_wrong_pin_is_tried_once(spied: Spied) -> None:
    assert "the PIN is wrong (CKR_PIN_INCORRECT, 0xa0)" in str(refusal(spied.site, WRONG))
    assert spied.calls("C_Login") == 1
    for _ in range(2):
        error = refusal(spied.site, WRONG)
        assert "refused this very PIN before; not tried again" in str(error)
        assert str(guard_of(spied.site).path) in error.hint
    assert spied.calls("C_Login") == 1


def test_another_process_does_not_try_it_either(spied: Spied) -> None:
    refusal(spied.site, WRONG)
    said = run(*program("one_shot", spied.site.for_child())).stdout
    assert "refused this very PIN before" in said
    assert spied.calls("C_Login") == 1


def test_neither_does_one_session_that_is_used_again(spied: Spied) -> None:
    spied.site.put_pin(WRONG)
    with spied.site.session() as token:
        for _ in range(3):
            with pytest.raises(PinError), token.use("trying"):
                pass
    assert spied.calls("C_Login") == 1


def test_the_right_pin_works_afterwards_and_clears_the_memory(spied: Spied) -> None:
    refusal(spied.site, WRONG)
    spied.site.put_pin(spied.site.token.user_pin)
    login(spied.site)
    assert guard_of(spied.site).path.read_bytes() == bytes(FILE_BYTES)
    assert "CKR_PIN_INCORRECT" in str(refusal(spied.site, WRONG))
    assert spied.calls("C_Login") == 3


def test_each_wrong_pin_is_remembered(spied: Spied) -> None:
    pins = [f"wrong-{number}" for number in range(SLOTS)]
    for pin in pins:
        assert "CKR_PIN_INCORRECT" in str(refusal(spied.site, pin))
    for pin in pins:
        assert "refused this very PIN before" in str(refusal(spied.site, pin))
    assert spied.calls("C_Login") == SLOTS


def test_of_too_many_wrong_pins_the_oldest_is_forgotten(spied: Spied) -> None:
    for number in range(SLOTS + 1):
        refusal(spied.site, f"wrong-{number}")
    assert "refused this very PIN before" in str(refusal(spied.site, "wrong-1"))
    assert "CKR_PIN_INCORRECT" in str(refusal(spied.site, "wrong-0"))
    assert spied.calls("C_Login") == SLOTS + 2


def test_a_wrong_pin_of_one_token_may_be_the_right_one_of_another(site: Site) -> None:
    second = replace(softhsm.add_token(site.token.env, "second"), user_pin=WRONG)
    refusal(site, WRONG)
    other = make_site(second, site.access.runtime_dir.parent, "second")
    assert "CKR_PIN_INCORRECT" in str(refusal(other, WRONG))  # asked, so not from memory


# --- what is kept ---


def test_the_memory_is_private_and_does_not_hold_the_pin(site: Site) -> None:
    wrong = [WRONG, "another wrong PIN"]
    for text in wrong:
        refusal(site, text)
    path = guard_of(site).path
    assert path.stat().st_mode & 0o777 == 0o600
    kept = path.read_bytes() + path.name.encode()
    for pin in map(str.encode, wrong):
        forms = (pin, pin.hex().encode(), base64.b64encode(pin).rstrip(b"="), pin[::-1])
        assert not any(form in kept for form in forms)


def test_the_memory_of_the_same_pin_differs_each_time(site: Site) -> None:
    refusal(site, WRONG)
    path = guard_of(site).path
    first = path.read_bytes()
    path.unlink()
    refusal(site, WRONG)
    assert path.read_bytes() != first
    assert len(path.read_bytes()) == len(first) == FILE_BYTES


def test_removing_the_memory_allows_the_pin_again(spied: Spied) -> None:
    refusal(spied.site, WRONG)
    guard_of(spied.site).path.unlink()
    assert "CKR_PIN_INCORRECT" in str(refusal(spied.site, WRONG))
    assert spied.calls("C_Login") == 2


@pytest.mark.parametrize("rubbish", [b"", b"x", b"ab" * 20, b"ab" * (FILE_BYTES // 2)])
def test_a_damaged_memory_keeps_nobody_out_and_remembers_again(
    spied: Spied, rubbish: bytes
) -> None:
    guard_of(spied.site).path.write_bytes(rubbish)
    login(spied.site)
    guard_of(spied.site).path.write_bytes(rubbish)
    refusal(spied.site, WRONG)
    assert "refused this very PIN before" in str(refusal(spied.site, WRONG))
    assert spied.calls("C_Login") == 2


def test_only_a_refused_pin_is_remembered(tmp_path: Path) -> None:
    guard = PinGuard(tmp_path, INFO)
    for error in (p11.TokenOperationError("no"), PinError("no"), KeyboardInterrupt()):
        with pytest.raises(type(error)), guard.attempt(SecretBytes(b"1234")):
            raise error
    with pytest.raises(p11.WrongPinError), guard.attempt(SecretBytes(b"1234")):
        raise p11.WrongPinError("no")
    with pytest.raises(PinError, match="before"), guard.attempt(SecretBytes(b"1234")):
        raise AssertionError("tried")


def killed_while_logging_in(guard: PinGuard, pin: bytes) -> None:
    child = os.fork()
    if child == 0:
        with guard.attempt(SecretBytes(pin)):
            os.kill(os.getpid(), signal.SIGKILL)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL


@pytest.mark.parametrize("role", ["user", "so"])
def test_what_the_token_counted_tells_whether_it_refused(tmp_path: Path, role: str) -> None:
    """Each role has its own flag; the other one's tells nothing."""
    flags = {"user": TokenFlag.USER_PIN_COUNT_LOW, "so": TokenFlag.SO_PIN_COUNT_LOW}
    own, others = flags.pop(role), next(iter(flags.values()))
    killed_while_logging_in(PinGuard(tmp_path, INFO, role), b"1234")
    with PinGuard(tmp_path, replace(INFO, flags=others), role).attempt(SecretBytes(b"1234")):
        pass
    killed_while_logging_in(PinGuard(tmp_path, INFO, role), b"1234")
    guard = PinGuard(tmp_path, replace(INFO, flags=own), role)
    with guard.attempt(SecretBytes(b"5678")):
        pass
    killed_while_logging_in(PinGuard(tmp_path, INFO, role), b"1234")
    for _ in range(2):
        with pytest.raises(RefusedBeforeError), guard.attempt(SecretBytes(b"1234")):
            raise AssertionError("tried")
    with (
        pytest.raises(RefusedBeforeError),  # it is remembered, whatever the flag says later
        PinGuard(tmp_path, INFO, role).attempt(SecretBytes(b"1234")),
    ):
        raise AssertionError("tried")


def test_a_flag_that_was_up_before_allows_one_more(tmp_path: Path) -> None:
    guard = PinGuard(tmp_path, replace(INFO, flags=TokenFlag.USER_PIN_COUNT_LOW))
    killed_while_logging_in(guard, b"1234")
    killed_while_logging_in(guard, b"1234")
    with pytest.raises(RefusedBeforeError), guard.attempt(SecretBytes(b"1234")):
        raise AssertionError("tried")
    with guard.attempt(SecretBytes(b"5678")):
        pass
    with guard.attempt(SecretBytes(b"1234")):
        pass


# --- logins that were cut off, on a real token ---


@pytest.fixture(scope="module", name="shim_module")
def _shim_module(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shim.build(tmp_path_factory.mktemp("shim"))


def cut_off(site: Site, module: Path, pin: str) -> None:
    """Log in with ``pin`` in a process that is killed when the token has its answer ready."""
    site.put_pin(pin)
    env = {
        **site.settings.environment,
        "SHIM_MODULE": site.token.module_path,
        "SHIM_PLAN": "C_Login:print C_Login:hang",
    }
    uri = replace(site.settings.uri, module_path=str(module))
    there = replace(site.settings, uri=uri, module_path=str(module), environment=env)
    command = program("one_shot", replace(site, settings=there).for_child())
    with subprocess.Popen(command, stdout=subprocess.PIPE) as running:
        assert running.stdout is not None
        assert running.stdout.readline()
        running.kill()


def begun(site: Site) -> Begun:
    return memory_of(site).begun


def memory_of(site: Site) -> Memory:
    path = guard_of(site).path
    return Memory.parse(path.read_bytes() if path.exists() else b"")


def test_the_right_pin_cut_off_again_and_again_is_not_refused(
    spied: Spied, shim_module: Path
) -> None:
    site = spied.site
    for times in range(1, FREE_TRIES):
        cut_off(site, shim_module, site.token.user_pin)
        assert (begun(site).times, memory_of(site).refused) == (times, ())
    login(site)
    assert spied.calls("C_Login") == 1
    assert guard_of(site).path.read_bytes() == bytes(FILE_BYTES)


def test_later_it_is_tried_once_an_hour(spied: Spied, shim_module: Path) -> None:
    site = spied.site
    for _ in range(FREE_TRIES):
        cut_off(site, shim_module, site.token.user_pin)
    for _ in range(2):
        with pytest.raises(CutOffError, match="tried again in 60 minutes") as caught:
            login(site)
        assert str(guard_of(site).path) in caught.value.hint
    assert spied.calls("C_Login") == 0
    assert state_of(site.access.runtime_dir) == GuardState(refused=0, unfinished=1)
    memory = memory_of(site)
    earlier = replace(memory.begun, at=memory.begun.at - PAUSE_SECONDS)
    guard_of(site).path.write_bytes(replace(memory, begun=earlier).pack())
    login(site)
    assert guard_of(site).path.read_bytes() == bytes(FILE_BYTES)


def test_a_wrong_pin_whose_refusal_nobody_saw_is_not_tried_again(
    spied: Spied, shim_module: Path
) -> None:
    """The token tells by its flag that it refused it."""
    cut_off(spied.site, shim_module, WRONG)
    for _ in range(2):
        assert "refused this very PIN before" in str(refusal(spied.site, WRONG))
    assert spied.calls("C_Login") == 0
    spied.site.put_pin(spied.site.token.user_pin)
    login(spied.site)


def test_another_pin_is_tried_at_once(spied: Spied, shim_module: Path) -> None:
    for _ in range(FREE_TRIES):
        cut_off(spied.site, shim_module, spied.site.token.user_pin)
    assert "CKR_PIN_INCORRECT" in str(refusal(spied.site, WRONG))
    assert spied.calls("C_Login") == 1


def test_user_and_security_officer_are_kept_apart(tmp_path: Path) -> None:
    pin = SecretBytes(b"1234")
    with pytest.raises(p11.WrongPinError), PinGuard(tmp_path, INFO).attempt(pin):
        raise p11.WrongPinError("no")
    with PinGuard(tmp_path, INFO, role="so").attempt(pin):
        pass
    for changed in ({"serial": "x"}, {"label": "x"}, {"manufacturer": "x"}):
        with PinGuard(tmp_path, replace(INFO, **changed)).attempt(pin):  # type: ignore[arg-type]
            pass


# --- without a memory nothing is tried ---


def test_where_the_memory_cannot_be_opened_nothing_is_tried(spied: Spied) -> None:
    guard_of(spied.site).path.mkdir()
    with pytest.raises(PinError, match=r"no PIN is tried, because .* can't be written"):
        login(spied.site)
    assert spied.calls("C_Login") == 0


@pytest.mark.parametrize(
    ("how", "code", "words"),
    [
        ("full", 4, "can't be written: No space left on device"),
        ("read-only", 3, "can't be opened: Read-only file system"),
    ],
)
def test_on_a_tight_disk_nothing_is_tried(spied: Spied, how: str, code: int, words: str) -> None:
    done = run(*UNSHARE, *program("tight_disk", spied.site.for_child(), how))
    assert done.stdout.startswith(f"{code}: "), done
    assert words in done.stdout
    assert spied.calls("C_Login") == 0
    login(spied.site)  # with the same PIN and a disk that has room
    assert spied.calls("C_Login") == 1


# --- flags of the token ---


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        (TokenFlag.USER_PIN_LOCKED, "the user PIN of token 'label' is locked"),
        (TokenFlag.USER_PIN_FINAL_TRY, "one more wrong PIN would lock token 'label'"),
        (TokenFlag.USER_PIN_FINAL_TRY | TokenFlag.USER_PIN_COUNT_LOW, "one more wrong PIN"),
        (TokenFlag.USER_PIN_FINAL_TRY | TokenFlag.USER_PIN_LOCKED, "is locked"),
    ],
)
def test_flags_that_forbid_a_login(flag: TokenFlag, words: str) -> None:
    with pytest.raises(PinError, match=words) as caught:
        check_flags(replace(INFO, flags=flag))
    assert caught.value.exit_code == 4


@pytest.mark.parametrize(
    "flag",
    [
        TokenFlag.USER_PIN_COUNT_LOW,
        TokenFlag.SO_PIN_LOCKED,
        TokenFlag.SO_PIN_FINAL_TRY,
        TokenFlag.USER_PIN_TO_BE_CHANGED,
    ],
)
def test_flags_that_do_not(flag: TokenFlag) -> None:
    check_flags(replace(INFO, flags=flag))


def test_softhsm_sets_the_count_low_flag_and_the_right_pin_clears_it(site: Site) -> None:
    refusal(site, WRONG)
    assert guard_of(site).token.flags & TokenFlag.USER_PIN_COUNT_LOW
    site.put_pin(site.token.user_pin)
    login(site)
    assert not guard_of(site).token.flags & TokenFlag.USER_PIN_COUNT_LOW


# --- a token that really locks ---


@pytest.fixture
def spied_tpm(tmp_path: Path) -> Iterator[Spied]:
    with tpm.running(tmp_path) as token:
        yield watch(make_site(token, tmp_path), tmp_path / "calls")


def test_a_loop_with_one_wrong_pin_does_not_lock_the_tpm(spied_tpm: Spied) -> None:
    for _ in range(6):
        refusal(spied_tpm.site, "000000")
    assert spied_tpm.calls("C_Login") == 1
    spied_tpm.site.put_pin(spied_tpm.site.token.user_pin)
    login(spied_tpm.site)


def test_a_locked_tpm_is_said_and_not_asked_again(spied_tpm: Spied) -> None:
    site, wrong = spied_tpm.site, 0
    while "CKR_PIN_LOCKED, 0xa4" not in str(refusal(site, f"00000{wrong}")):
        wrong += 1
        assert wrong < 9
    assert "the PIN is locked (CKR_PIN_LOCKED, 0xa4)" in str(refusal(site, site.token.user_pin))
    logins = spied_tpm.calls("C_Login")
    error = refusal(site, site.token.user_pin)
    assert "refused this very PIN before" in str(error)
    assert spied_tpm.calls("C_Login") == logins
    # Once unlocked by its owner, the hint leads on.
    tpm.clear_lockout(site.token)
    memory = guard_of(site).path
    assert str(memory) in error.hint
    memory.unlink()
    login(site)

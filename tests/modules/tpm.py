"""A TPM as the token: swtpm, a resource manager on a private D-Bus, and tpm2-pkcs11.

The resource manager (tpm2-abrmd) stands for the one that Linux puts before a real TPM
(/dev/tpmrm0). Without one, three loaded objects fill the TPM, and what a killed process had
loaded stays there.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING

from . import LIBRARIES, KeyName, TokenUnderTest, require_packages
from .processes import accepts, run_tool, server, socket_path

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

MODULE = str(LIBRARIES / "pkcs11" / "libtpm2_pkcs11.so")
SERIAL = "0000000000000000"
"""What tpm2-pkcs11 says of every token."""

LABEL = "hwkm-tpm"
USER_PIN = "123456"
SO_PIN = "12345678"
QUIET = {"TSS2_LOG": "all+NONE", "TPM2_PKCS11_LOG_LEVEL": "0"}
RESOURCE_MANAGER = "tabrmd:bus_type=session"
HMAC_KEY = KeyName(b"hwkm-hmac-1", "hwkm master")


@contextmanager
def running(directory: Path) -> Iterator[TokenUnderTest]:
    """Yield a new token in a new TPM, with one HMAC-SHA256 key in it."""
    require_packages()
    with ExitStack() as stack:
        simulator = stack.enter_context(_simulator(directory))
        bus = stack.enter_context(_session_bus(directory))
        stack.enter_context(_resource_manager(directory, simulator, bus))
        token = _token({**bus, **_store(directory), "TPM2_PKCS11_TCTI": RESOURCE_MANAGER})
        _ptool(token, "init")
        pins = ("--sopin", SO_PIN, "--userpin", USER_PIN)
        _ptool(token, "addtoken", "--pid", "1", "--label", LABEL, *pins)
        add_hmac_key(token, HMAC_KEY)
        yield token


def add_hmac_key(token: TokenUnderTest, name: KeyName) -> None:
    """Make another HMAC-SHA256 key in ``token``, which PKCS#11 calls cannot do here.

    The CKA_ID must be text: the tool takes the characters themselves, not what they may mean as
    hexadecimal digits.
    """
    chosen = ("--id", name.key_id.decode("ascii"), "--key-label", name.label)
    opened = ("--label", token.token_label, "--userpin", token.user_pin)
    _ptool(token, "addkey", "--algorithm", "hmac:sha256", *opened, *chosen)


def clear_lockout(token: TokenUnderTest) -> None:
    """Make the TPM forget the wrong PINs that it has counted."""
    run_tool("tpm2_dictionarylockout", "--clear-lockout", env=_tools_env(token.env))


def _token(env: dict[str, str]) -> TokenUnderTest:
    return TokenUnderTest(
        name="tpm",
        module_path=MODULE,
        token_label=LABEL,
        serial=SERIAL,
        user_pin=USER_PIN,
        so_pin=SO_PIN,
        env=env,
        can_generate_secret=False,
        has_gcm=False,
        has_oaep_sha256=True,
        can_restrict_rsa=False,
        rsa_bits=2048,
        hmac_key=HMAC_KEY,
    )


def _store(directory: Path) -> dict[str, str]:
    store = directory.resolve() / "store"
    store.mkdir(mode=0o700)
    return {"TPM2_PKCS11_STORE": str(store)}


@contextmanager
def _simulator(directory: Path) -> Iterator[str]:
    """Run swtpm and yield its TCTI, which looks for the control socket under this very name."""
    state = directory.resolve() / "tpm"
    state.mkdir(mode=0o700)
    path = socket_path(directory, "swtpm.sock")
    sockets = ("--server", f"type=unixio,path={path}", "--ctrl", f"type=unixio,path={path}.ctrl")
    command = ("swtpm", "socket", "--tpm2", "--tpmstate", f"dir={state}", *sockets)
    started = ("--flags", "not-need-init,startup-clear")
    with server((*command, *started), {}, directory / "swtpm.log", lambda: accepts(path)):
        yield f"swtpm:path={path}"


@contextmanager
def _session_bus(directory: Path) -> Iterator[dict[str, str]]:
    path = socket_path(directory, "bus.sock")
    address = f"unix:path={path}"
    command = ("dbus-daemon", "--session", "--nofork", "--nopidfile", f"--address={address}")
    with server(command, {}, directory / "dbus.log", lambda: accepts(path)):
        yield {"DBUS_SESSION_BUS_ADDRESS": address, **QUIET}


@contextmanager
def _resource_manager(directory: Path, simulator: str, bus: Mapping[str, str]) -> Iterator[None]:
    command = ("tpm2-abrmd", "--session", "--allow-root", f"--tcti={simulator}")
    answers = partial(_tpm_answers, _tools_env(bus))
    with server(command, bus, directory / "abrmd.log", answers):
        yield


def _tpm_answers(env: Mapping[str, str]) -> bool:
    try:
        return bool(run_tool("tpm2_getrandom", "--hex", "1", env=env))
    except RuntimeError:
        return False


def _ptool(token: TokenUnderTest, command: str, *arguments: str) -> None:
    where = ("--path", token.env["TPM2_PKCS11_STORE"])
    run_tool("tpm2_ptool", command, *where, *arguments, env=_tools_env(token.env))


def _tools_env(env: Mapping[str, str]) -> dict[str, str]:
    return {**env, "TPM2TOOLS_TCTI": RESOURCE_MANAGER}

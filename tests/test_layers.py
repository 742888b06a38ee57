"""Imports point downward only, and what is above stays out of what is below."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import hwkm

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(hwkm.__file__).parent

# From top to bottom (docs/architecture.md). A module may import what stands in a lower line, and a
# package its own modules; never what stands beside or above it. That holds for imports inside
# functions and for those of type checkers too.
LAYERS = """
__main__
cli
bacula_setup getkey
agent
bacula
initialize health recovery verify
provision
changer drive_verbs mounts
deliveries
service
installation
manager
escrow_page
escrow issuing reading
token_copy
kept proofs tokens
recipients
keystore
config
token
bacula_sd
bacula_config bacula_host
drivers
scsi
envelope
key_files policy
keys
checks flock log privileges supervise
errors
"""

RANKS = {name: rank for rank, line in enumerate(LAYERS.split("\n")) for name in line.split()}

# Each of these libraries is at home in one place; everything else goes through that.
HOMES = {
    "typer": {"cli"},
    "rich": {"cli"},
    "sqlalchemy": {"keystore"},
    "alembic": {"keystore"},
    "cbor2": {"envelope"},
    "msgspec": {"config", "agent"},
    "prometheus_client": {"agent"},
    "structlog": {"agent"},
    "segno": {"escrow_page"},
    "shamir_mnemonic": {"escrow"},
    "syslog": {"log"},
    "resource": {"supervise"},
    "pyscsi": {"scsi"},
}

# Who may touch the environment, beside cli/ and getkey.py, and what for.
ENVIRONMENT = {
    "hwkm.agent.systemd": "reads what systemd tells a service, and takes out what is told once",
    "hwkm.token.module": "sets the variables that a PKCS#11 module reads",
    "hwkm.token.vendor": "hands everything on to a vendor's tool",
}

# The parent process of the Encryption Command imports none of these, nor, in all, anything that
# takes longer than the rest of its work.
HEAVY = {
    *("typer", "click", "rich", "alembic", "mako", "sqlalchemy", "pkcs11", "asn1crypto", "cbor2"),
    *("logging", "sqlite3", "subprocess", "socket", "ssl", "asyncio", "email", "http", "json"),
    *("hwkm.cli", "hwkm.manager", "hwkm.installation", "hwkm.keystore", "hwkm.recipients"),
    *("hwkm.token.session", "hwkm.token.module", "hwkm.token.p11"),
}


def modules() -> list[tuple[str, Path]]:
    found = []
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT.parent).with_suffix("").parts
        found.append((".".join(parts).removesuffix(".__init__"), path))
    return found


MODULES = modules()


def imports(path: Path) -> Iterator[str]:
    """Yield the full name of everything that a file imports, wherever it does."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def layer(name: str) -> str:
    """Return the part of a name under ``hwkm.`` that stands in LAYERS, or ""."""
    parts = name.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in RANKS else ""


def test_every_module_has_its_place() -> None:
    there = {path.name.removesuffix(".py") for path in ROOT.iterdir() if path.suffix == ".py"}
    there |= {path.name for path in ROOT.iterdir() if (path / "__init__.py").exists()}
    assert there - {"__init__"} == set(RANKS)


@pytest.mark.parametrize(("name", "path"), MODULES, ids=[name for name, _ in MODULES])
def test_imports_point_downward(name: str, path: Path) -> None:
    own = layer(name)
    used = {layer(target) for target in imports(path) if target.startswith("hwkm.")} - {"", own}
    upward = {target for target in used if not own or RANKS[target] <= RANKS[own]}
    assert not upward, f"{name} imports from its own level or above: {sorted(upward)}"


@pytest.mark.parametrize("library", HOMES)
def test_a_library_has_one_home(library: str) -> None:
    users = {
        layer(name)
        for name, path in MODULES
        if any(target.split(".")[0] == library for target in imports(path))
    }
    assert users == HOMES[library]


@pytest.mark.parametrize("name", ["keys", "envelope", "policy", "errors", "checks"])
def test_what_is_pure_imports_no_input_or_output(name: str) -> None:
    roots = {target.split(".")[0] for target in imports(ROOT / f"{name}.py")}
    assert not roots & {"os", "io", "pathlib", "socket", "subprocess", "time", "sys", "secrets"}


@pytest.mark.parametrize(("name", "path"), MODULES, ids=[name for name, _ in MODULES])
def test_only_the_top_prints_and_reads_the_environment(name: str, path: Path) -> None:
    if layer(name) in ("cli", "getkey", "__main__"):
        return
    touched = set()
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Name(id="print" | "input") as found:
                touched.add(found.id)
            case ast.Attribute(
                value=ast.Name(id="os"),
                attr="environ" | "environb" | "getenv" | "getenvb" | "putenv" | "unsetenv" as attr,
            ):
                touched.add(attr)
            case ast.Attribute(
                value=ast.Name(id="sys"), attr="stdout" | "stderr" | "stdin" | "argv" as attr
            ):
                touched.add(attr)
    allowed = {"environ"} if name in ENVIRONMENT else set()
    assert touched <= allowed


def test_the_module_only_updates_the_environment() -> None:
    uses = [
        ast.unparse(node)
        for node in ast.walk(ast.parse((ROOT / "token" / "module.py").read_text()))
        if isinstance(node, ast.Attribute) and ast.unparse(node).startswith("os.environ.")
    ]
    assert uses == ["os.environ.update"]


def heavy(loaded: str) -> list[str]:
    """Return the modules among ``loaded`` that are in HEAVY, or inside of one that is."""
    prefixes = [name + "." for name in HEAVY]
    return sorted(
        name
        for name in loaded.split()
        if name in HEAVY or any(name.startswith(prefix) for prefix in prefixes)
    )


def output(script: str, *words: str) -> str:
    """Return what a script prints in an interpreter of its own."""
    command = [sys.executable, "-c", script, *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={})
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_encryption_command_is_light() -> None:
    assert heavy(output("import sys, hwkm.getkey; print(*sys.modules)")) == []


def test_the_encryption_command_is_light_until_it_forks(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    config = tmp_path / "config.toml"
    config.write_text(
        f'keystore = "sqlite:///{tmp_path}/keystore.db"\nruntime_dir = "{tmp_path}/run"\n'
        f'log = "{tmp_path}/log"\n[token.main]\nuri = "pkcs11:token=x?module-path=/x.so"\n'
    )
    script = (
        "import sys; from hwkm import supervise; from hwkm.__main__ import main; "
        "names = lambda: ' '.join(sys.modules).encode(); "
        "supervise.run = lambda work, deadline: supervise.Result(names(), b'', ''); main()"
    )
    loaded = output(script, "--config", str(config), "getkey")
    assert "hwkm.config" in loaded.split(), loaded
    assert heavy(loaded) == []


def test_the_gate_for_imports_can_fail() -> None:
    assert "pkcs11" in heavy(output("import sys, hwkm.token.session; print(*sys.modules)"))
    assert heavy("rich rich.console os logging.config") == [
        "logging.config",
        "rich",
        "rich.console",
    ]

"""``hwkm master create`` killed at many points: the next run ends with one good master key."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from hwkm.envelope import Scheme
from hwkm.keys import SecretBytes
from hwkm.keystore import migrate
from hwkm.keystore.records import State
from hwkm.provision import Provisioner
from hwkm.token import softhsm
from hwkm.token.pin import write_pin

from . import raw
from .commands import HWKM, hwkm
from .installations import opened
from .interrupt import CHANGES, Point, kill, spread, trace
from .workshop import CALLER, NOW

if TYPE_CHECKING:
    from pathlib import Path

    from .workshop import Workshop

POINTS = {Scheme.GCM: 12, Scheme.OAEP: 5}
AT_ONCE = 2
PIN = SecretBytes(b"a PIN of the tests")

CONFIG = """\
keystore = "sqlite:///{folder}/keystore.db"
runtime_dir = "{folder}/run"
log = "{folder}/log"
[token.main]
uri = "pkcs11:token=private?module-path={module}&pin-source=file:{folder}/pin"
environment = {{ SOFTHSM2_CONF = "{folder}/softhsm2.conf" }}
"""


def without_master(folder: Path) -> Path:
    """Make an installation with a private SoftHSM and nothing in it; return its configuration."""
    (folder / "run").mkdir(mode=0o700, parents=True)
    write_pin(folder / "pin", PIN)
    softhsm.create(folder, "private", PIN, PIN)
    config = folder / "config.toml"
    config.write_text(CONFIG.format(folder=folder, module=softhsm.module_path()))
    return config


def command(config: Path, scheme: Scheme) -> tuple[str, ...]:
    return (*HWKM, "--config", str(config), "master", "create", "--scheme", scheme.label)


def kill_at_many_points(tmp_path: Path, scheme: Scheme) -> list[Path]:
    """Kill one run at each point, each in its own installation; return the configurations."""
    points = trace(command(without_master(tmp_path / "whole"), scheme), CHANGES)
    chosen = spread(points, POINTS[scheme])
    configs = [without_master(tmp_path / f"killed-at-{point}") for point in chosen]

    def kill_one(config: Path, point: Point) -> None:
        kill(command(config, scheme), point)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(kill_one, configs, chosen))
    return configs


def create_again(config: Path, scheme: Scheme | None) -> None:
    """Make a master key unless the killed run had come so far."""
    migrate.create(f"sqlite:///{config.parent}/keystore.db", "", now=NOW, who="tester")
    with opened(config) as shop:
        if State.ACTIVE not in shop.states():
            Provisioner(shop.keystore, shop.token, CALLER, NOW).create(scheme)


def one_good_key(shop: Workshop) -> None:
    [record] = shop.masters()
    assert record.state is State.ACTIVE
    shop.check(record)
    named = [kind for kind, key_id, _ in raw.objects(shop.token) if key_id == record.master_id]
    whole = ["PRIVATE_KEY", "PUBLIC_KEY"] if record.scheme is Scheme.OAEP else ["SECRET_KEY"]
    assert named == whole
    # What else a killed process leaves has neither an id nor a value.
    others = [key_id for _, key_id, _ in raw.objects(shop.token) if key_id != record.master_id]
    assert set(others) <= {b""}


@pytest.mark.parametrize("scheme", POINTS)
def test_killed_anywhere_the_next_run_ends_well(tmp_path: Path, scheme: Scheme) -> None:
    for config in kill_at_many_points(tmp_path, scheme):
        create_again(config, scheme)
        with opened(config) as shop:
            one_good_key(shop)


def test_killed_and_then_made_in_another_scheme(tmp_path: Path) -> None:
    config = without_master(tmp_path / "home")
    points = trace(command(without_master(tmp_path / "whole"), Scheme.GCM), "ftruncate")
    of_keys = [point for point in points if re.search(r"(?<!token)\.object>", point.line)]
    kill(command(config, Scheme.GCM), of_keys[-1])
    with opened(config) as shop:
        assert [record.scheme for record in shop.masters()] == [Scheme.GCM]
    done = hwkm("--config", str(config), "master", "create", "--scheme", "hmac-kdf")
    assert done.returncode == 0, done
    with opened(config) as shop:
        assert [record.scheme for record in shop.masters()] == [Scheme.HMAC_KDF]
        one_good_key(shop)

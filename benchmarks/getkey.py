"""How long one call of the Encryption Command takes, beside Bacula's own key manager.

Whole processes are timed, as the Storage Daemon's user, in the same Debian chroot that the tests
of tests/bacula use; every round runs each command once. Needs root. From the project's folder:

    python -m benchmarks.getkey --rounds 25
"""

from __future__ import annotations

import argparse
import base64
import json
import secrets
import statistics
import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from tests.bacula.chroot import STORAGE, STORAGE_ENV, Chroot, why_not
from tests.bacula.install import install_hwkm
from tests.bacula.keymanager import HOME as INSTALLATION
from tests.bacula.keymanager import KeyManager, command

if TYPE_CHECKING:
    from collections.abc import Sequence

HOME = "/srv/benchmark"
BASELINE = "python3 -c pass"
VOLUME = "Benchmark-0001"
# Runs inside, so that neither chroot nor the change of user is measured.
TIMER = """
import json, os, subprocess, sys, time
spec = json.load(sys.stdin)
times = {command["name"]: [] for command in spec["commands"]}
for number in range(-2, spec["rounds"]):
    for command in spec["commands"]:
        start = time.perf_counter()
        done = subprocess.run(command["argv"], env=command["env"], capture_output=True)
        took = time.perf_counter() - start
        assert command["expect"] in done.stdout.decode(), (command["name"], done)
        if number >= 0:
            times[command["name"]].append(1000 * took)
print(json.dumps(times))
"""
KEY_PARAMETERS = """%no-protection-warning
Key-Type: RSA
Key-Length: 3072
Subkey-Type: RSA
Subkey-Length: 3072
Name-Real: Benchmark
Expire-Date: 0
Passphrase: {passphrase}
%commit
"""
MASTER_KEY = """[{fingerprint}]
volume_regex = .*
gnupghome = {home}/gnupg
cipher = AES_256_XTS
stealth = on
passphrase = {passphrase}
"""


@dataclass(frozen=True, slots=True)
class Command:
    """One thing to time: its name, command line and environment, and what it must print."""

    name: str
    argv: list[str]
    env: dict[str, str]
    expect: str = "cipher_key: "


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Time one call of the Encryption Command.")
    parser.add_argument("--rounds", type=int, default=25, help="runs of each command")
    rounds = parser.parse_args(arguments).rounds
    if reason := why_not():
        sys.exit(f"the benchmark can't run: {reason}")
    with Chroot() as chroot:
        report(measure(chroot, commands(chroot), rounds))


def commands(chroot: Chroot) -> list[Command]:
    """Set all key managers up; return what is to be timed."""
    install_hwkm(chroot)
    KeyManager(chroot).init()
    chroot.run(["install", "-d", "-m", "0700", "-o", "bacula", "-g", "tape", HOME])
    getkey = command(INSTALLATION, "/srv/none").replace("%i", "1").split()
    script = key_manager(chroot)
    plain = key_manager_argv(script, "plain")
    master = [*key_manager_argv(script, "master"), "--config", master_key(chroot)]
    found = [Command(BASELINE, ["/usr/bin/python3", "-c", "pass"], STORAGE_ENV, "")]
    found += pair(chroot, "hwkm getkey", getkey)
    found += pair(chroot, "key-manager.py, keys in clear", plain)
    return found + pair(chroot, "key-manager.py, GnuPG with passphrase", master)


def pair(chroot: Chroot, name: str, argv: list[str]) -> list[Command]:
    """Return a key manager's two calls; READ gets what a first LABEL answered."""
    env = STORAGE_ENV | {"VOLUME_NAME": VOLUME, "ENC_CIPHER_KEY": "", "MASTER_KEYID": ""}
    label = env | {"OPERATION": "LABEL"}
    lines = chroot.run(argv, user=STORAGE, env=label).splitlines()
    answer = dict(line.split(": ", 1) for line in lines if ": " in line)
    assert len(base64.b64decode(answer["cipher_key"])) == 64, "not AES_256_XTS"
    read = env | {
        "OPERATION": "READ",
        "ENC_CIPHER_KEY": answer.get("enc_cipher_key", ""),
        "MASTER_KEYID": answer.get("master_keyid", ""),
    }
    return [Command(f"{name}: LABEL", argv, label), Command(f"{name}: READ", argv, read)]


def key_manager(chroot: Chroot) -> str:
    """Return where Debian put Bacula's own key manager."""
    places = [chroot.path(place) for place in ("/etc/bacula", "/usr/lib/bacula", "/usr/share")]
    found = [file for place in places for file in place.rglob("key-manager.py")]
    return f"/{found[0].relative_to(chroot.root)}"


def key_manager_argv(script: str, name: str) -> list[str]:
    """Return the command line of Bacula's own key manager, with a key directory of its own."""
    places = ["--key-dir", f"{HOME}/{name}", "--log", f"{HOME}/{name}.log"]
    return [script, "getkey", "--cipher", "AES_256_XTS", *places]


def master_key(chroot: Chroot) -> str:
    """Make a GnuPG master key with a passphrase; return the key manager's configuration."""
    passphrase = secrets.token_hex(16)
    env = STORAGE_ENV | {"GNUPGHOME": f"{HOME}/gnupg"}
    chroot.run(["mkdir", "-m", "0700", f"{HOME}/gnupg"], user=STORAGE, env=env)
    make = ["gpg", "--batch", "--quiet", "--pinentry-mode", "loopback", "--generate-key"]
    parameters = KEY_PARAMETERS.format(passphrase=passphrase)
    chroot.run(make, user=STORAGE, env=env, stdin=parameters, timeout=300)
    listing = chroot.run(["gpg", "--batch", "--with-colons", "-k"], user=STORAGE, env=env)
    fingerprint = next(line for line in listing.splitlines() if line.startswith("fpr:"))
    text = MASTER_KEY.format(
        fingerprint=fingerprint.split(":")[9], home=HOME, passphrase=passphrase
    )
    chroot.path(f"{HOME}/master.conf").write_text(text)
    return f"{HOME}/master.conf"


def measure(chroot: Chroot, spec: list[Command], rounds: int) -> dict[str, list[float]]:
    """Return each command's times in milliseconds."""
    stdin = json.dumps({"rounds": rounds, "commands": [asdict(command) for command in spec]})
    argv = ["/usr/bin/python3", "-c", TIMER]
    output = chroot.run(argv, user=STORAGE, env=STORAGE_ENV, stdin=stdin, timeout=60 + 30 * rounds)
    times: dict[str, list[float]] = json.loads(output)
    return times


def report(times: dict[str, list[float]]) -> None:
    """Print the medians, in milliseconds and as multiples of starting Python."""
    base = statistics.median(times[BASELINE])
    print(f"{'median of ' + str(len(times[BASELINE])) + ' runs':48} {'ms':>7} {'ratio':>7}")
    for name, values in times.items():
        median = statistics.median(values)
        print(f"{name:48} {median:7.1f} {median / base:7.1f}")


if __name__ == "__main__":
    main()

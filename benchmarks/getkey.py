"""How long one call of the Encryption Command takes, beside Bacula's own key manager.

Whole processes are timed, from posix_spawn to wait, as the Storage Daemon's user, in the same
Debian chroot that the tests of tests/bacula use; every round runs each command once.
``hwkm-getkey`` asks an agent that runs in the chroot as the same user; ``hwkm getkey`` has an
installation of its own, for it would take the agent's token away. Needs root. From the project's
folder:

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

from tests.bacula.agent import Agent
from tests.bacula.chroot import STORAGE, STORAGE_ENV, Chroot, why_not
from tests.bacula.install import RUNTIME, install_hwkm
from tests.bacula.keymanager import HOME as INSTALLATION
from tests.bacula.keymanager import KeyManager, command

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

HOME = "/srv/benchmark"
AGENT_HOME = "/srv/agent"
PYTHON = f"{RUNTIME}/bin/python3"
BASELINE = "python3 -I -S -c pass"
AGENT, ONE_SHOT = "hwkm-getkey, an agent", "hwkm getkey, no agent"
PLAIN, MASTER = "key-manager.py, keys in clear", "key-manager.py, GnuPG with passphrase"
FSYNC = "fsync of a page"
READ, LABEL = "READ", "LABEL"
VOLUME = "Benchmark-0001"
WARM_UP = 2
# Runs inside, so that neither chroot nor the change of user is measured. What a command prints goes
# into a pipe, which takes more than any of them says; the disk is the one with the agent's folder.
TIMER = """
import json, os, sys, time
def spawned(command):
    reading, writing = os.pipe()
    out = [(os.POSIX_SPAWN_DUP2, writing, 1), (os.POSIX_SPAWN_DUP2, writing, 2)]
    start = time.perf_counter()
    pid = os.posix_spawn(command["argv"][0], command["argv"], command["env"], file_actions=out)
    os.waitpid(pid, 0)
    took = time.perf_counter() - start
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        text = pipe.read().decode()
    assert command["expect"] in text, (command["name"], text)
    return took
def synced():
    page.write(bytes(4096))
    start = time.perf_counter()
    os.fsync(page.fileno())
    return time.perf_counter() - start
spec = json.load(sys.stdin)
times = {command["name"]: [] for command in spec["commands"]} | {spec["fsync"]: []}
with open(spec["page"], "wb", buffering=0) as page:
    for number in range(-spec["warm_up"], spec["rounds"]):
        took = {command["name"]: spawned(command) for command in spec["commands"]}
        took[spec["fsync"]] = synced()
        if number >= 0:
            for name, seconds in took.items():
                times[name].append(1000 * seconds)
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
        install_hwkm(chroot)
        agent = Agent(chroot, AGENT_HOME, STORAGE)
        agent.init()
        agent.start()
        times = measure(chroot, commands(chroot, agent), rounds)
        assert agent.given() == 1 + 2 * (WARM_UP + rounds), "it was not the agent that answered"
        agent.stop()
    report(times)


def commands(chroot: Chroot, agent: Agent) -> list[Command]:
    """Set all the other key managers up; return what is to be timed."""
    KeyManager(chroot).init()
    chroot.run(["install", "-d", "-m", "0700", "-o", "bacula", "-g", "tape", HOME])
    getkey = command(INSTALLATION, "/srv/none").replace("%i", "1").split()
    script = key_manager(chroot)
    plain = key_manager_argv(script, "plain")
    master = [*key_manager_argv(script, "master"), "--config", master_key(chroot)]
    client = agent.command.replace("%a", "/srv/none").replace("%i", "1").split()
    found = [Command(BASELINE, [PYTHON, "-I", "-S", "-c", "pass"], STORAGE_ENV, "")]
    found += pair(chroot, AGENT, client)
    found += pair(chroot, ONE_SHOT, getkey)
    found += pair(chroot, PLAIN, plain)
    return found + pair(chroot, MASTER, master)


def pair(chroot: Chroot, name: str, argv: list[str]) -> list[Command]:
    """Return a key manager's two calls; READ gets what a first LABEL answered."""
    env = STORAGE_ENV | {"VOLUME_NAME": VOLUME, "ENC_CIPHER_KEY": "", "MASTER_KEYID": ""}
    label = env | {"OPERATION": LABEL}
    lines = chroot.run(argv, user=STORAGE, env=label).splitlines()
    answer = dict(line.split(": ", 1) for line in lines if ": " in line)
    assert len(base64.b64decode(answer["cipher_key"])) == 64, "not AES_256_XTS"
    read = env | {
        "OPERATION": READ,
        "ENC_CIPHER_KEY": answer.get("enc_cipher_key", ""),
        "MASTER_KEYID": answer.get("master_keyid", ""),
    }
    return [Command(named(name, LABEL), argv, label), Command(named(name, READ), argv, read)]


def named(name: str, operation: str) -> str:
    """Return what an operation of a key manager is called in the table."""
    return f"{name}: {operation}"


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
    page = f"{AGENT_HOME}/page"
    wanted = {"rounds": rounds, "warm_up": WARM_UP, "fsync": FSYNC, "page": page}
    stdin = json.dumps({**wanted, "commands": [asdict(command) for command in spec]})
    argv = ["/usr/bin/python3", "-c", TIMER]
    output = chroot.run(argv, user=STORAGE, env=STORAGE_ENV, stdin=stdin, timeout=60 + 30 * rounds)
    times: dict[str, list[float]] = json.loads(output)
    return times


def report(times: dict[str, list[float]]) -> None:
    """Print the medians, in milliseconds and as multiples of starting Python, and the aims."""
    medians = {name: statistics.median(values) for name, values in times.items()}
    base = medians[BASELINE]
    print(f"{'median of ' + str(len(times[BASELINE])) + ' runs':48} {'ms':>7} {'ratio':>7}")
    for name, median in medians.items():
        print(f"{name:48} {median:7.1f} {median / base:7.2f}")
    print(f"\n{'the agent':48} {'is':>7} {'aim':>7}")
    for what, ratio, most in aims(medians):
        print(f"{what:48} {ratio:7.3f} {most:7.3f} {'met' if ratio <= most else 'missed'}")


def aims(medians: Mapping[str, float]) -> list[tuple[str, float, float]]:
    """Return what is compared, the ratio, and what it may be at most."""
    read, label = (medians[named(AGENT, operation)] for operation in (READ, LABEL))
    return [
        (f"READ / {BASELINE}", read / medians[BASELINE], 1.5),
        (f"READ / {PLAIN}", read / medians[named(PLAIN, READ)], 1 / 3),
        (f"READ / {MASTER}", read / medians[named(MASTER, READ)], 1 / 30),
        ("LABEL / (2 READs and an fsync)", label / (2 * read + medians[FSYNC]), 1),
    ]


if __name__ == "__main__":
    main()

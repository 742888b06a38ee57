"""How long ``hwkm-getkey`` takes around an agent's answer, beside starting the same Python.

Whole processes are timed, from posix_spawn to wait, and every round runs each command once. The
agent is a process that answers at once, so what a token takes is not in here. From the project's
folder:

    python -m benchmarks.client --rounds 300
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tests.agent.lean import GIVEN, REPLY, REQUEST, SCRIPT
from tests.getkey.home import OPTIONS, STORAGE_ENV

if TYPE_CHECKING:
    from collections.abc import Sequence

LIMIT = 1.5
WARM_UP = 10
BARE, CLIENT = "python3 -I -S -c pass", "hwkm-getkey"
AGENT = f"""
import socket, sys
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen()
print(flush=True)
while True:
    connection, _ = listener.accept()
    with connection:
        connection.recv(65536)
        connection.sendall({GIVEN!r})
"""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Time hwkm-getkey beside starting Python.")
    parser.add_argument("--rounds", type=int, default=300, help="runs of each command")
    rounds = parser.parse_args(arguments).rounds
    with tempfile.TemporaryDirectory() as name:
        commands = prepare(Path(name))
        words = [sys.executable, "-c", AGENT, f"{name}/agent.sock"]
        with subprocess.Popen(words, stdout=subprocess.PIPE) as agent:
            assert agent.stdout is not None
            agent.stdout.readline()
            try:
                times = measure(commands, rounds)
            finally:
                agent.send_signal(signal.SIGKILL)
    sys.exit(report(times))


def prepare(folder: Path) -> dict[str, list[str]]:
    """Make a virtual environment with the script in it; return what is to be timed."""
    venv = [sys.executable, "-m", "venv", "--without-pip", str(folder / "venv")]
    subprocess.run(venv, check=True)
    programs = folder / "venv" / "bin"
    (programs / "hwkm-getkey").write_bytes(SCRIPT.read_bytes())
    (programs / "hwkm-getkey").chmod(0o755)
    socket = ["--socket", str(folder / "agent.sock")]
    return {
        BARE: [str(programs / "python3"), "-I", "-S", "-c", "pass"],
        CLIENT: [str(programs / "hwkm-getkey"), *socket, *OPTIONS],
        "sh -c :": ["/bin/sh", "-c", ":"],
    }


def measure(commands: dict[str, list[str]], rounds: int) -> dict[str, list[float]]:
    """Return each command's times in milliseconds."""
    times: dict[str, list[float]] = {name: [] for name in commands}
    for number in range(-WARM_UP, rounds):
        for name, argv in commands.items():
            took, output = run(argv)
            assert output == (REPLY if name == CLIENT else b""), (name, output)
            if number >= 0:
                times[name].append(took)
    return times


def run(argv: list[str]) -> tuple[float, bytes]:
    """Return how long a process took, and what it printed, which is less than a pipe holds."""
    reading, writing = os.pipe()
    start = time.perf_counter()
    out = [(os.POSIX_SPAWN_DUP2, writing, 1)]
    pid = os.posix_spawn(argv[0], argv, {**STORAGE_ENV, **REQUEST}, file_actions=out)
    os.waitpid(pid, 0)
    took = time.perf_counter() - start
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        return 1000 * took, pipe.read()


def report(times: dict[str, list[float]]) -> int:
    """Print medians in milliseconds and as multiples of starting Python; return 1 if too slow."""
    base = statistics.median(times[BARE])
    print(
        f"{'median of ' + str(len(times[BARE])) + ' runs':30} {'ms':>7} {'least':>7} {'ratio':>7}"
    )
    for name, values in times.items():
        median = statistics.median(values)
        print(f"{name:30} {median:7.2f} {min(values):7.2f} {median / base:7.2f}")
    return int(statistics.median(times[CLIENT]) > LIMIT * base)


if __name__ == "__main__":
    main()

"""hwkm's agent and its lean client as the Encryption Command of the real Bacula 15."""

from __future__ import annotations

import json
import os
import signal
from typing import TYPE_CHECKING

import pytest

from . import chroot as chroots
from . import volume
from .agent import (
    BACULA_USER,
    DEFAULT_SOCKET,
    HWKM_USER,
    Agent,
    Witness,
    found_again,
)
from .bacula import CONFIG, OK, wait_for
from .dataset import contents, shows
from .jobs import refused, restored, saved

# The main job, once more through the agent: pytest runs what it finds here with this module's own
# fixtures.
from .test_bacula import (  # noqa: F401
    test_append,
    test_backup_and_restore,
    test_bls_and_bextract,
    test_keystore_lost,
    test_nothing_holds_a_key,
    test_recycle,
    test_the_key_of_the_label_opens_the_blocks,
    test_token_away,
    test_two_drives_at_once,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .agent import Call
    from .bacula import Bacula, Job
    from .chroot import Chroot
    from .config import Lane
    from .keymanager import Syslog

if reason := chroots.why_not():
    pytest.skip(f"the real Bacula can't run: {reason}", allow_module_level=True)

pytestmark = pytest.mark.timeout(900)  # the first test builds the chroot

HOME = "/var/lib/agent-hwkm"
OWN_HOME = "/srv/own"  # a short path, since it stands in the command twice
# Root is there for bls and its like.
ADMISSION = f"""
[agent]
socket = "{DEFAULT_SOCKET}"
group = "tape"
getkey = ["bacula", "root"]
"""

SECOND_READ = 5
"""Which call of a job on new volumes reads the label of the second."""

Lanes = dict[str, "Lane"]
Data = dict[str, str]


@pytest.fixture(scope="module")
def hwkm(chroot: Chroot, syslog: Syslog) -> Iterator[Agent]:
    """An installation of the user hwkm, whose files the Storage Daemon can't read."""
    chroot.run(["useradd", "--system", "--user-group", "--groups", "tape", "hwkm"])
    chroot.run(["install", "-d", "-m", "0755", "-o", "hwkm", "-g", "hwkm", "/run/hwkm"])
    agent = Agent(chroot, HOME, HWKM_USER, DEFAULT_SOCKET)
    agent.init()
    agent.configure(ADMISSION)
    agent.start()
    yield agent
    agent.stop()


@pytest.fixture(scope="module")
def bacula(daemons: Bacula, hwkm: Agent) -> Iterator[Bacula]:
    before = daemons.setup.command
    daemons.use_command(hwkm.command)
    yield daemons
    daemons.use_command(before)


@pytest.fixture(scope="module")
def lanes(agent_lanes: Lanes) -> Lanes:
    return agent_lanes


@pytest.fixture(scope="module")
def witness(chroot: Chroot) -> Witness:
    made = Witness(chroot)
    made.install()
    return made


@pytest.fixture
def watched(bacula: Bacula, hwkm: Agent, witness: Witness) -> Iterator[Bacula]:
    """Bacula, whose calls are seen, and an agent without a past."""
    hwkm.restart()
    bacula.use_command(witness.of(hwkm))
    yield bacula
    bacula.use_command(hwkm.command)


@pytest.fixture
def own(chroot: Chroot, bacula: Bacula, hwkm: Agent, witness: Witness) -> Iterator[Agent]:
    """An installation of the Storage Daemon's own user, which it asks now."""
    agent = Agent(chroot, OWN_HOME, BACULA_USER)
    agent.init()
    try:
        agent.start()
        bacula.use_command(witness.of(agent))
        yield agent
    finally:
        agent.stop()
        bacula.use_command(hwkm.command)


def test_setup(bacula: Bacula, hwkm: Agent) -> None:
    """The advice of ``hwkm bacula setup`` is what is done here, and it finds nothing wrong."""
    status, output = hwkm.call("bacula", "setup", "--sd-config", CONFIG, "--json")
    advice = json.loads(output)
    assert {check["status"] for check in advice["checks"]} == {"ok"}, advice["checks"]
    assert {"socket", "allow-list", "sd-directive"} <= {check["name"] for check in advice["checks"]}
    assert (status, advice["ok"], advice["groups"]) == (0, True, [])
    assert advice["encryption_command"] == bacula.setup.command == hwkm.command
    unit = advice["files"]["hwkm-agent.service"]
    assert f"ExecStart={' '.join(hwkm.argv('agent', 'run'))}\n" in unit
    assert f"User={HWKM_USER.name}\nGroup={HWKM_USER.group}\n" in unit
    assert "SupplementaryGroups=tape\n" in unit


def test_the_storage_daemon_can_do_without_an_agent_of_its_own_user(
    bacula: Bacula, own: Agent, witness: Witness, lanes: Lanes, data: Data, syslog: Syslog
) -> None:
    """Killed while it is asked, and not started again before the job ends: the job has no error."""
    lane = lanes["Alone"]
    gate = witness.hold(SECOND_READ)
    job_id = bacula.start_backup(lane)
    own.take_on(gate)
    own.kill()
    job = bacula.wait(job_id)
    assert (job.status, job.errors) == (OK, 0), job.log
    calls = witness.take()
    assert [call.operation for call in calls] == ["LABEL", "READ", "LABEL"] * 4
    assert [call.error for call in calls] == [""] * 12
    said = [line for line in syslog.text.splitlines() if f"(job {job.id}, " in line]
    assert sum("ended without an answer" in line for line in said) == 1
    assert sum(f"no agent at {own.socket}" in line for line in said) == 7

    own.start()
    restored(bacula, lane, job, data)
    assert found_again(own, calls) == 12
    # By the agent: the restore's four volumes, and the twelve keys.
    assert own.given() == 4 + 12
    assert not any(shows(file) for file in bacula.volume_files(lane))


def test_agent_killed_in_the_middle_of_a_job(
    watched: Bacula, hwkm: Agent, witness: Witness, lanes: Lanes, data: Data, syslog: Syslog
) -> None:
    """Without it there is no key; once it is there again, the job goes on where it was."""
    lane = lanes["Front"]
    gate = witness.hold(SECOND_READ)
    job_id = watched.start_backup(lane)
    hwkm.take_on(gate)
    hwkm.kill()
    watched.wait_for_log(job_id, "Please mount append Volume")
    empty = [file for file in watched.volume_files(lane) if not file.stat().st_size]
    hwkm.start()
    assert "3001 OK mount requested" in watched.mount(lane)
    job = watched.wait(job_id)
    assert job.status == OK, job.log
    calls = witness.take()
    errors = [call.error for call in calls if call.error]
    # Bacula gives four more volumes up, after two tries each.
    assert (len(empty), len(errors), len(calls)) == (4, 9, 4 + 9 + 9)
    said = [line for line in syslog.text.splitlines() if f"(job {job.id}, " in line]
    for error in errors:
        assert any(error in line for line in said)
    assert sum("ended without an answer" in line for line in said) == 1
    assert sum(f"no agent at {hwkm.socket}" in line for line in said) == 8

    assert {watched.volume_status(file.name) for file in empty} == {"Error"}
    _nothing_is_lost(watched, hwkm, lane, job, calls, data)
    again = watched.backup(lane)
    assert (again.status, again.errors) == (OK, 0), again.log
    _nothing_is_lost(watched, hwkm, lane, again, witness.take(), data)


def test_token_process_killed_in_the_middle_of_a_job(
    watched: Bacula, hwkm: Agent, witness: Witness, lanes: Lanes, data: Data, syslog: Syslog
) -> None:
    """It is started anew at once, and asked again: the job does not notice."""
    lane = lanes["Token"]
    gate = witness.hold(SECOND_READ)
    job_id = watched.start_backup(lane)
    pid = hwkm.take_on(gate)
    os.kill(pid, signal.SIGKILL)
    job = watched.wait(job_id)
    assert job.status == OK, job.log
    assert "Please mount" not in job.log
    calls = witness.take()
    assert [call.error for call in calls if call.error] == []
    assert "ended by SIGKILL; it is started anew" in syslog.text
    token = hwkm.status()["token_process"]
    assert token["starts"] == 2
    assert token["pid"] != pid
    assert "SIGKILL" in token["last_error"]
    _nothing_is_lost(watched, hwkm, lane, job, calls, data)


def _nothing_is_lost(
    bacula: Bacula, hwkm: Agent, lane: Lane, job: Job, calls: list[Call], data: Data
) -> None:
    """Every key that the job was given is found again, and all of its data comes back."""
    assert found_again(hwkm, calls) == len([call for call in calls if not call.error])
    restored(bacula, lane, job, data)
    assert not any(shows(file) for file in bacula.volume_files(lane))


def test_token_away_and_back(
    watched: Bacula, hwkm: Agent, lanes: Lanes, data: Data, syslog: Syslog
) -> None:
    """The agent finds the token again by itself, though it looks for it only now and then."""
    lane = lanes["Away"]
    job, file = saved(watched, lane)
    (name,) = watched.volumes(lane)
    label = volume.label(file)
    with hwkm.taken_away("tokens"):
        job_id, reason, where = refused(watched, lane, job)
    assert "token" in reason
    assert f"no key given: {reason}" in syslog.text
    before = hwkm.status()

    def is_back() -> bool:
        return "error" not in hwkm.getkey("READ", name, label).fields

    wait_for(is_back, "the token", pause=1)
    assert "3001 OK mount requested" in watched.mount(lane)
    back = watched.wait(job_id)
    assert (back.status, back.errors) == (OK, 0), back.log
    assert contents(where) == data
    after = hwkm.status()
    assert (after["pid"], after["reloads"]) == (before["pid"], 0)
    assert after["token_process"]["starts"] == before["token_process"]["starts"] == 1

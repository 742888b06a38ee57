"""Storage Daemon configurations: how they are read, and what is found in them."""

from __future__ import annotations

import os
import pwd
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hwkm import bacula_config
from hwkm.bacula_config import boolean, read_configuration, size
from hwkm.bacula_host import can_run, debug_levels, find_program, is_safe_at_rest
from hwkm.bacula_sd import check_storage_daemon
from hwkm.checks import Check, Status, all_ok
from hwkm.errors import ParseError

if TYPE_CHECKING:
    from collections.abc import Iterator

ME = pwd.getpwuid(os.geteuid()).pw_name
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")

# In the manner of Debian's bacula-sd.conf, with what a site adds to it.
SITE = """\
#
# Bacula Storage Daemon Configuration file
#
Storage {                             # definition of myself
  Name = backup1-sd
  SDPort = 9103                  # Director's port
  WorkingDirectory = "@work@"
  Pid Directory = "/run/bacula"
  Plugin Directory = "/usr/lib/bacula"
  Maximum Concurrent Jobs = 20
  SDAddress = 127.0.0.1
  Encryption Command = "@program@ getkey --job %i --device %a"
}

Director {
  Name = backup1-dir
  Password = "kXqr{;#}=,not-to-be-shown"
}

Autochanger {
  Name = "Tape-Library"
  Device = LTO-0, LTO-1
  Changer Command = "/usr/lib/bacula/mtx-changer %c %o %S %a %d"
  Changer Device = /dev/tape/by-id/scsi-changer
}

Device {
  Name = LTO-0; Drive Index = 0; Media Type = LTO-8
  Archive Device = /dev/nst0
  AutomaticMount = yes;               # when device opened, read it
  AlwaysOpen = yes; RemovableMedia = yes
  Volume Encryption = yes
  Maximum Block Size = 1 M
  Autochanger = yes
}
Device {
  Name = LTO-1
  Drive Index = 1
  Media Type = LTO-8
  Archive Device = /dev/nst1
  VOLUMEENCRYPTION = Strong
  blockchecksum = true
  Autochanger = yes
}
Device { Name = FileStorage; Media Type = File; Archive Device = /srv/bacula
  volume  encryption=yes }

Messages {
  Name = Standard
  director = backup1-dir = all, !skipped,
}
"""
SITE = SITE.replace("!skipped,", "!skipped")


class Site:
    """A configuration file in a folder that holds a whole machine."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "root"
        self.work = folder / "work"
        self.path = folder / "bacula-sd.conf"
        self.program = folder / "hwkm"
        for made in (self.root, self.work):
            made.mkdir()
        self.program.write_text("#!/bin/sh\n")
        self.program.chmod(0o755)
        self.text = SITE.replace("@work@", str(self.work)).replace("@program@", str(self.program))

    def write(self, text: str | None = None) -> Path:
        self.path.write_text(self.text if text is None else text)
        return self.path

    def with_(self, old: str, new: str) -> Site:
        assert old in self.text
        self.text = self.text.replace(old, new)
        return self

    def checks(self, name: str = "", user: str = ME) -> list[Check]:
        found = check_storage_daemon(self.write(), sd_user=user, root=self.root)
        return [check for check in found if check.name == name or not name]

    def bad(self, name: str = "", user: str = ME) -> list[tuple[Status, str]]:
        checks = self.checks(name, user)
        assert all(check.advice for check in checks if check.status is not Status.OK)
        return [(check.status, check.detail) for check in checks if check.status is not Status.OK]


@pytest.fixture
def site() -> Iterator[Site]:
    # Not below pytest's own folder, which other users can't look into. Its name is short, so that
    # the Encryption Command is within its limit.
    folder = Path(tempfile.mkdtemp(prefix="sd"))
    folder.chmod(0o755)
    yield Site(folder)
    shutil.rmtree(folder)


def status_of(found: list[tuple[Status, str]]) -> list[str]:
    return [status.value for status, _ in found]


# --- a good site ---


def test_a_good_site_has_nothing_to_do(site: Site) -> None:
    checks = site.checks()
    assert [check for check in checks if check.status is not Status.OK] == []
    names = [check.name for check in checks]
    assert len(names) == 11
    assert names.count("sd-volume-encryption") == 3
    assert "3 devices" in checks[0].detail
    assert "hides the host name" in " ".join(check.detail for check in checks)


def test_no_finding_shows_a_password(site: Site) -> None:
    for text in (site.text, site.text.replace('Password = "', 'Password "'), site.text[:-3]):
        checks = check_storage_daemon(site.write(text), sd_user=ME, root=site.root)
        assert "not-to-be-shown" not in repr(checks)


# --- what is encrypted ---


def test_a_device_in_clear(site: Site) -> None:
    site.with_("volume  encryption=yes", "Volume Encryption = no")
    assert site.bad() == [(Status.WARN, "device FileStorage writes its volumes in clear")]


def test_a_device_that_says_nothing(site: Site) -> None:
    site.with_("volume  encryption=yes", "")
    assert site.bad() == [(Status.WARN, "device FileStorage writes its volumes in clear")]


def test_no_device_encrypts(site: Site) -> None:
    site.with_("volume  encryption=yes", "").with_("Volume Encryption = yes", "")
    site.with_("VOLUMEENCRYPTION = Strong", "")
    found = site.bad()
    assert status_of(found) == ["warn", "warn", "warn", "fail"]
    assert found[-1][1] == "no device encrypts its volumes"


def test_no_device_at_all(site: Site) -> None:
    site.text = "Storage { Name = x }"
    assert site.bad() == [(Status.FAIL, "there is no device")]


def test_an_unknown_word_for_encryption(site: Site) -> None:
    site.with_("volume  encryption=yes", "Volume Encryption = true")
    ((status, detail),) = site.bad()
    assert status is Status.FAIL
    assert "FileStorage" in detail


@pytest.mark.parametrize(
    "command",
    [
        "/usr/bin/hwkm drive changer -- /usr/lib/bacula/mtx-changer %c %o %S %a %d",
        "/usr/bin/hwkm getkey changer",
        "/usr/lib/bacula/mtx-changer %c %o %S %a %d",
    ],
)
def test_no_changer_command_makes_up_for_encryption(site: Site, command: str) -> None:
    site.with_("/usr/lib/bacula/mtx-changer %c %o %S %a %d", command)
    site.with_("Volume Encryption = yes", "Volume Encryption = no")
    assert site.bad() == [(Status.WARN, "device LTO-0 writes its volumes in clear")]


def test_no_changer_command_of_a_device_makes_up_for_encryption(site: Site) -> None:
    site.text = (
        'Device { Name = D; Changer Command = "hwkm drive changer -- mtx-changer %c %o %S %a %d" }'
    )
    assert site.bad() == [
        (Status.WARN, "device D writes its volumes in clear"),
        (Status.FAIL, "no device encrypts its volumes"),
    ]


# --- keys in tape drives ---

WRAPPED = "/usr/bin/hwkm drive changer -- /usr/lib/bacula/mtx-changer %c %o %S %a %d"


def about_drives(site: Site) -> list[tuple[Status, str]]:
    checks = check_storage_daemon(site.write(), sd_user=ME, root=site.root, by_drives=True)
    return [(check.status, check.detail) for check in checks if check.name == "sd-drives"]


def test_a_good_site_for_drives(site: Site) -> None:
    site.with_("/usr/lib/bacula/mtx-changer %c %o %S %a %d", WRAPPED)
    assert status_of(about_drives(site)) == ["ok", "ok"]


def test_drives_are_not_spoken_of_where_none_encrypts(site: Site) -> None:
    assert site.checks("sd-drives") == []


def test_a_changer_that_brings_no_key_is_found(site: Site) -> None:
    found = about_drives(site)
    assert status_of(found) == ["ok", "fail", "fail"]
    assert "LTO-0" in found[1][1]
    assert "LTO-1" in found[2][1]


def test_a_command_that_names_no_drive_is_found(site: Site) -> None:
    site.with_("/usr/lib/bacula/mtx-changer %c %o %S %a %d", WRAPPED).with_(" --device %a", "")
    assert status_of(about_drives(site)) == ["fail", "ok"]


def test_a_drive_without_a_changer_is_named(site: Site) -> None:
    site.with_("/usr/lib/bacula/mtx-changer %c %o %S %a %d", WRAPPED)
    site.with_("Device = LTO-0, LTO-1", "Device = LTO-0")
    found = about_drives(site)
    assert status_of(found) == ["ok", "warn"]
    assert "LTO-1" in found[1][1]


def test_a_device_has_a_changer_command_of_its_own(site: Site) -> None:
    site.with_("Drive Index = 1\n", f'Drive Index = 1\n  Changer Command = "{WRAPPED}"\n')
    found = about_drives(site)
    assert status_of(found) == ["ok", "fail"]
    assert "LTO-0" in found[1][1]


# --- the Encryption Command ---


def command_of(site: Site) -> str:
    return f'"{site.program} getkey --job %i --device %a"'


def test_no_encryption_command(site: Site) -> None:
    site.with_("Encryption Command", "# Encryption Command")
    ((status, detail),) = site.bad("sd-encryption-command")
    assert (status, detail) == (
        Status.FAIL,
        "device LTO-0 encrypts, and there is no Encryption Command",
    )


def test_an_empty_encryption_command(site: Site) -> None:
    site.with_(command_of(site), '""')
    assert status_of(site.bad()) == ["fail"]


def test_no_encryption_command_and_nothing_to_encrypt(site: Site) -> None:
    site.text = "Device { Name = A }"
    assert site.checks("sd-encryption-command") == []


@pytest.mark.parametrize(("length", "statuses"), [(127, []), (128, ["fail"])])
def test_length_of_the_encryption_command(site: Site, length: int, statuses: list[str]) -> None:
    command = f"{site.program} getkey --job %i ".ljust(length, "x")
    site.with_(command_of(site), f'"{command}"')
    assert status_of(site.bad()) == statuses


def test_length_is_counted_in_bytes(site: Site) -> None:
    command = f"{site.program} getkey --job %i ".ljust(100, "é")
    site.with_(command_of(site), f'"{command}"')
    ((status, detail),) = site.bad()
    assert status is Status.FAIL
    assert "bytes long" in detail


@pytest.mark.parametrize("program", ["/nonexistent/hwkm", "hwkm-of-nobody", "."])
def test_no_such_program(site: Site, program: str) -> None:
    site.with_(command_of(site), f'"{program} hwkm getkey %i"')
    ((status, detail),) = site.bad()
    assert status is Status.FAIL
    assert program in detail


def test_a_program_that_is_not_executable(site: Site) -> None:
    site.program.chmod(0o644)
    ((status, detail),) = site.bad()
    assert status is Status.FAIL
    assert detail == f"user {ME} can't run {site.program}"


def test_a_program_that_is_a_folder(site: Site) -> None:
    site.program.unlink()
    site.program.mkdir()
    assert status_of(site.bad()) == ["fail"]


@as_root
def test_a_program_for_another_user(site: Site) -> None:
    assert site.bad(user="nobody") == []


@as_root
def test_a_program_that_another_user_can_not_run(site: Site) -> None:
    site.program.chmod(0o700)
    assert site.bad(user="root") == []
    assert status_of(site.bad(user="nobody")) == ["fail"]


@as_root
def test_a_program_in_a_folder_closed_to_another_user(site: Site) -> None:
    site.program.parent.chmod(0o700)
    assert status_of(site.bad(user="nobody")) == ["fail"]


def test_a_user_that_can_not_be_tried(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 54321)
    ((status, detail),) = site.bad(user="nobody")
    assert status is Status.WARN
    assert "was not found out" in detail


@pytest.mark.parametrize("user", ["no-such-user-of-bacula", "a\0b", ""])
def test_a_user_that_is_not_there(site: Site, user: str) -> None:
    assert status_of(site.bad(user=user)) == ["warn"]


@pytest.mark.parametrize(
    "words", ["hwkm getkey", "/opt/hwkm/bin/hwkm getkey", "hwkm --config /etc/x getkey"]
)
def test_programs_that_are_hwkm(site: Site, words: str) -> None:
    site.with_(command_of(site), f'"/bin/sh -m {words} %i"')
    assert site.bad() == []


@pytest.mark.parametrize(
    "words",
    ["getkey", "hwkm", "hwkm-getkeys", "my-hwkm-getkey", "getkey hwkm", "hwkm drive changer"],
)
def test_another_key_manager(site: Site, words: str) -> None:
    site.with_(command_of(site), f'"/bin/true {words} %i"')
    assert site.bad() == [
        (Status.WARN, "the Encryption Command is /bin/true, not hwkm getkey"),
    ]


@pytest.mark.parametrize("before", ["", "/usr/bin/env "])
def test_the_client_of_the_agent(site: Site, before: str) -> None:
    program = site.program.rename(site.program.with_name("hwkm-getkey"))
    site.with_(command_of(site), f'"{before}{program} --job %i"')
    assert site.bad() == []


@pytest.mark.parametrize(
    ("options", "statuses"),
    [("--job %i", []), ("--job '%i'", []), ("%%%i", []), ("", ["warn"]), ("%%i", ["warn"])],
)
def test_the_job_id(site: Site, options: str, statuses: list[str]) -> None:
    site.with_(command_of(site), f'"{site.program} getkey {options}"')
    assert status_of(site.bad()) == statuses


def test_a_command_without_quotes_ends_at_its_first_blank(site: Site) -> None:
    site.with_(command_of(site), f"{site.program} getkey --job %i")
    (manager, job) = site.bad()
    assert manager == (Status.WARN, f"the Encryption Command is {site.program}, not hwkm getkey")
    assert job[0] is Status.WARN
    assert "%i" in job[1]


def test_a_program_with_blanks_in_its_path(site: Site) -> None:
    spaced = site.program.with_name("a b")
    spaced.mkdir()
    shutil.copy(site.program, spaced)
    site.with_(command_of(site), f"\"'{spaced}/hwkm' getkey --job %i\"")
    assert site.bad() == []


def test_everything_wrong_with_the_command_is_told(site: Site) -> None:
    site.with_(command_of(site), '"/nonexistent/key-manager.py ' + "x" * 128 + '"')
    assert status_of(site.bad()) == ["fail", "fail", "warn", "warn"]


def test_programs_are_searched_for_as_services_do() -> None:
    assert find_program("sh") in ("/usr/bin/sh", "/bin/sh")
    assert find_program("usr/bin/env") == "/usr/bin/env"
    assert find_program("") is None
    assert find_program("/a\0b") is None


def test_can_run() -> None:
    assert can_run("/bin/sh", ME) is True
    assert can_run("/etc/passwd", ME) is False
    assert can_run("/a\0b", ME) is None


# --- what is written beside the encrypted blocks ---


def test_a_spool_directory(site: Site) -> None:
    site.with_("Maximum Block Size = 1 M", "Spool Directory = /var/spool/bacula")
    assert site.bad() == [(Status.WARN, "device LTO-0 spools data in clear into /var/spool/bacula")]


@pytest.mark.parametrize("limit", ["Maximum Spool Size = 50 GB", "MaximumJobSpoolSize=0"])
def test_a_spool_in_the_working_directory(site: Site, limit: str) -> None:
    site.with_("Maximum Block Size = 1 M", limit)
    assert site.bad() == [(Status.WARN, f"device LTO-0 spools data in clear into {site.work}")]


def device_of(folder: Path) -> str:
    number = folder.stat().st_dev
    return f"{os.major(number)}:{os.minor(number)}"


def make_block(folder: Path, uuid: str, *below: Path) -> Path:
    (folder / "dm").mkdir(parents=True)
    (folder / "dm/uuid").write_text(uuid)
    (folder / "slaves").mkdir()
    for lower in below:
        (folder / "slaves" / lower.name).symlink_to(lower)
    return folder


def make_mounts(root: Path, line: str) -> None:
    (root / "proc/self").mkdir(parents=True, exist_ok=True)
    (root / "proc/self/mountinfo").write_text(f"short\n\n{line}\n")


@pytest.mark.parametrize(
    ("uuid", "safe"),
    [
        ("CRYPT-LUKS2-0123-spool\n", True),
        ("CRYPT-LUKS1-0123-spool\n", True),
        ("CRYPT-PLAIN-spool\n", True),
        ("CRYPT-VERITY-0123-spool\n", False),
        ("CRYPT-INTEGRITY-spool\n", False),
        ("LVM-0123\n", False),
        ("", False),
    ],
)
def test_a_spool_on_an_encrypted_disk(site: Site, uuid: str, safe: bool) -> None:
    make_block(site.root / "sys/dev/block" / device_of(site.work), uuid)
    make_mounts(site.root, f"1 0 {device_of(site.work)} / / rw - ext4 /dev/dm-0 rw")
    site.with_("Maximum Block Size = 1 M", f'Spool Directory = "{site.work}"')
    assert status_of(site.bad()) == ([] if safe else ["warn"])


def test_a_disk_on_disks(site: Site) -> None:
    # LVM over two disks: encrypted only if both are.
    luks = make_block(site.root / "sys/dm-1", "CRYPT-LUKS2-1")
    other = make_block(site.root / "sys/dm-2", "CRYPT-LUKS2-2")
    make_block(site.root / "sys/dev/block" / device_of(site.work), "LVM-1", luks, other)
    make_mounts(site.root, "")
    assert is_safe_at_rest(str(site.work), site.root)
    (other / "dm/uuid").write_text("LVM-2")
    assert not is_safe_at_rest(str(site.work), site.root)


def test_a_disk_on_itself_ends(site: Site) -> None:
    block = make_block(site.root / "sys/dev/block" / device_of(site.work), "LVM-1")
    (block / "slaves/loop").symlink_to(block)
    make_mounts(site.root, "")
    assert not is_safe_at_rest(str(site.work), site.root)


@pytest.mark.parametrize(
    ("mount", "safe"),
    [
        ("1 0 {} / /spool rw,nosuid shared:7 - tmpfs tmpfs rw,size=1g", True),
        ("1 0 {} / /spool rw - ramfs none rw", True),
        ("1 0 {} / /spool rw - ext4 tmpfs rw", False),
        ("1 0 9999:1 / /spool rw - tmpfs tmpfs rw", False),
    ],
)
def test_a_spool_in_memory(site: Site, mount: str, safe: bool) -> None:
    make_mounts(site.root, mount.format(device_of(site.work)))
    assert is_safe_at_rest(str(site.work), site.root) is safe


def test_a_folder_that_can_not_be_told(site: Site) -> None:
    assert not is_safe_at_rest("/nonexistent", site.root)
    assert not is_safe_at_rest(str(site.work), site.root)
    assert not is_safe_at_rest("a\0b", site.root)
    assert is_safe_at_rest("/nonexistent", Path("/")) is False


@pytest.mark.parametrize(
    "setting", ["Device Type = Dedup", "DeviceType = aligned", 'Aligned Device = "/srv/aligned"']
)
def test_deduplication(site: Site, setting: str) -> None:
    site.with_("volume  encryption=yes", f"Volume Encryption = yes; {setting}")
    ((status, detail),) = site.bad()
    assert status is Status.WARN
    assert detail.startswith("device FileStorage keeps file data apart")


@pytest.mark.parametrize("setting", ["Device Type = File", "Device Type = Tape"])
def test_other_types_of_device(site: Site, setting: str) -> None:
    assert site.with_("Maximum Block Size = 1 M", setting).bad() == []


# --- what makes encrypted blocks unsafe ---


@pytest.mark.parametrize(
    ("setting", "statuses"),
    [("yes", []), ("TRUE", []), ("no", ["fail"]), ("False", ["fail"]), ("maybe", ["fail"])],
)
def test_block_checksum(site: Site, setting: str, statuses: list[str]) -> None:
    site.with_("blockchecksum = true", f"Block Checksum = {setting}")
    assert status_of(site.bad("sd-block-checksum")) == statuses


def test_block_checksum_of_a_device_in_clear_is_no_matter_of_encryption(site: Site) -> None:
    site.with_("volume  encryption=yes", "Volume Encryption = no; Block Checksum = no")
    assert site.bad("sd-block-checksum") == []


@pytest.mark.parametrize(
    ("setting", "statuses"),
    [
        ("16777216", []),
        ("16 M", []),
        ("16m", []),
        ("16 MB", []),
        ("0", []),
        ("16777217", ["fail"]),
        ("17 mb", ["fail"]),
        ("16.5M", ["fail"]),
        ("1G", ["fail"]),
        ("20000000", ["fail"]),
        ("large", ["fail"]),
        ("-1", ["fail"]),
    ],
)
def test_block_size(site: Site, setting: str, statuses: list[str]) -> None:
    site.with_("Maximum Block Size = 1 M", f"Maximum Block Size = {setting}")
    assert status_of(site.bad("sd-block-size")) == statuses


# --- a daemon that writes keys into its trace ---


def make_process(root: Path, number: int, comm: str, *argv: str) -> None:
    folder = root / "proc" / str(number)
    folder.mkdir(parents=True)
    (folder / "comm").write_text(comm + "\n")
    (folder / "cmdline").write_text("\0".join(argv) + "\0")


@pytest.mark.parametrize(
    ("argv", "statuses"),
    [
        (["-fP", "-c", "/etc/bacula/bacula-sd.conf"], []),
        (["-fP", "-d", "100"], []),
        (["-fP", "-d", "199"], []),
        (["-fP", "-d", "200"], ["warn"]),
        (["-d200", "-fP"], ["warn"]),
        (["-fPd", "200"], ["warn"]),
        (["-fPd900"], ["warn"]),
        (["-d", "200,crypto"], ["warn"]),
        (["-c", "/etc/d200/sd.conf"], []),
        (["-dt", "-d", "300"], ["warn"]),
    ],
)
def test_debug_level_of_a_process(site: Site, argv: list[str], statuses: list[str]) -> None:
    make_process(site.root, 77, "bacula-sd", "/usr/sbin/bacula-sd", *argv)
    make_process(site.root, 78, "bacula-fd", "/usr/sbin/bacula-fd", "-d", "900")
    (site.root / "proc/79").mkdir()  # has just ended
    found = site.bad("sd-debug-level")
    assert status_of(found) == statuses
    assert all("process 77 has debug level" in detail for _, detail in found)


@pytest.mark.parametrize(
    ("file", "text", "level"),
    [
        ("etc/default/bacula-sd", 'ARGS="-d 200"\n', 200),
        ("etc/default/bacula-sd", "OPTIONS=-d250", 250),
        ("etc/default/bacula-sd", '# ARGS="-d 200"\n', 0),
        ("etc/sysconfig/bacula-sd", "OPTIONS='-fP -d 300'", 300),
        ("etc/systemd/system/bacula-sd.service.d/debug.conf", "ExecStart=/b -fP -d 500", 500),
        ("usr/lib/systemd/system/bacula-sd.service", "ExecStart=/b -fP -c $CONFIG", 0),
        ("etc/systemd/system/bacula-sd.service.d/debug.txt", "ExecStart=/b -d 500", 0),
        ("etc/init.d/bacula-sd", "start-stop-daemon --exec /b -- -d 200", 200),
    ],
)
def test_debug_level_that_will_be(site: Site, file: str, text: str, level: int) -> None:
    path = site.root / file
    path.parent.mkdir(parents=True)
    path.write_text(text)
    assert [found for _, found in debug_levels(site.root)] == ([level] if level else [])
    assert status_of(site.bad("sd-debug-level")) == (["warn"] if level else [])


def test_the_machine_itself_can_be_looked_at() -> None:
    assert list(debug_levels(Path("/"))) is not None


def test_a_folder_instead_of_defaults(site: Site) -> None:
    (site.root / "etc/default/bacula-sd").mkdir(parents=True)
    assert site.bad() == []


def test_trace_files(site: Site) -> None:
    (site.work / "empty.trace").touch()
    (site.work / "backup1-sd.9103.state").write_text("x")
    assert site.bad() == []
    (site.work / "backup1-sd.trace").write_text("backup1-sd: dev.c:1-0 cipher_key=…")
    ((status, detail),) = site.bad()
    assert status is Status.WARN
    assert f"{site.work}/backup1-sd.trace" in detail


def test_a_working_directory_that_is_not_there(site: Site) -> None:
    site.work.rmdir()
    assert site.bad() == []


def test_a_working_directory_that_can_not_be_searched(site: Site) -> None:
    site.work.rmdir()
    site.work.write_text("a file")
    ((status, detail),) = site.bad()
    assert status is Status.WARN
    assert "could not be searched" in detail


# --- includes ---


def test_an_included_file(site: Site) -> None:
    more = site.path.with_name("more.conf")
    more.write_text("Device { Name = Included }")  # no line end at its end
    site.text += f"@{more}\n"
    assert site.bad() == [(Status.WARN, "device Included writes its volumes in clear")]
    site.text = site.text.replace(f"@{more}", f'@"{more}"')
    assert status_of(site.bad()) == ["warn"]


def test_an_included_value(site: Site) -> None:
    secret = site.path.with_name("name")
    secret.write_text('"Named elsewhere"\n')
    site.with_("Name = FileStorage", f"Name = @{secret}\n")
    assert "device Named elsewhere: Volume" in " ".join(check.detail for check in site.checks())


def test_an_include_that_is_not_there(site: Site) -> None:
    site.text = "Storage { Name = a }\n@/nonexistent/more.conf\n"
    ((status, detail),) = site.bad()
    assert status is Status.FAIL
    assert detail == f"{site.path}, line 2: can't read /nonexistent/more.conf: " + os.strerror(2)


@pytest.mark.parametrize("quoting", ['@|"{}"', '@"|{}"', "@|{}"])
def test_a_command_is_not_run(site: Site, quoting: str) -> None:
    proof = site.path.with_name("run")
    proof.write_text(f"#!/bin/sh\ntouch {site.work}/it-ran\n")
    proof.chmod(0o755)
    site.text += quoting.format(proof) + "\n"
    ((status, detail),) = site.bad()
    assert status is Status.WARN
    assert f"line {site.text.count(chr(10))}: what a command writes" in detail
    assert not (site.work / "it-ran").exists()


def test_a_relative_include_is_not_guessed_at(site: Site) -> None:
    site.text += "@devices.conf\n"
    ((status, detail),) = site.bad()
    assert status is Status.WARN
    assert "relative path" in detail


def test_what_may_stand_in_a_part_not_read_is_no_failure(site: Site) -> None:
    site.text = "@|\"sh -c 'cat /etc/bacula/conf.d/*.conf'\"\n"
    found = site.bad()
    assert status_of(found) == ["warn", "warn"]
    assert "there is no device in the part that was looked at" in found[1][1]
    site.text += "Device { Name = A; Volume Encryption = yes }\n"
    assert status_of(site.bad()) == ["warn", "warn"]
    assert all_ok(site.checks())


def test_files_that_include_each_other(site: Site) -> None:
    site.text += f"@{site.path}\n"
    ((status, detail),) = site.bad()
    assert status is Status.FAIL
    assert "16 deep" in detail
    assert f"{site.path}, line" in detail


def test_too_many_files(site: Site) -> None:
    empty = site.path.with_name("empty.conf")
    empty.touch()
    site.text = f"@{empty}\n" * 511
    assert all("files" not in detail for _, detail in site.bad())
    site.text += f"@{empty}\n"
    ((status, detail),) = site.bad()
    assert status is Status.FAIL
    assert "more than 512 files" in detail


def test_too_many_bytes(site: Site) -> None:
    part = site.path.with_name("part.conf")
    part.write_text("#" * (bacula_config.MAX_BYTES // 2) + "\n")
    site.text = f"@{part}\n"
    assert all("bytes" not in detail for _, detail in site.bad())
    site.text += f"@{part}\n"
    ((status, detail),) = site.bad()
    assert status is Status.FAIL
    assert "over 2097152 bytes" in detail


# --- files that can't be read, or are broken ---


def test_a_missing_file(site: Site) -> None:
    (check,) = check_storage_daemon(site.path, sd_user=ME, root=site.root)
    assert check.status is Status.FAIL
    assert str(site.path) in check.detail
    assert "Storage Daemon's user" in check.advice


@pytest.mark.parametrize("kind", ["folder", "fifo", "device", "name"])
def test_what_is_no_file(site: Site, kind: str) -> None:
    path = {"device": Path("/dev/zero"), "name": Path("a\0b")}.get(kind, site.path)
    if kind == "folder":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    (check,) = check_storage_daemon(path, sd_user=ME, root=site.root)
    assert check.status is Status.FAIL
    assert "can't read" in check.detail
    assert check.detail.isprintable()


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("Device\n{\n Name = A\n", 1, "not closed"),
        ("Device { Name = A;\n Volume Encryption = yes\n", 1, "not closed"),
        ("Device Name = A }", 1, "expected '{'"),
        ("\n\nDevice", 3, "expected '{'"),
        ("Device = A", 1, "expected '{'"),
        ("}", 1, "expected the name of a resource"),
        ('\n"Device" { Name = A }', 2, "expected the name of a resource"),
        ("Device2 { Name = A }", 1, "expected the name of a resource"),
        ("Device {\n Name\n}", 2, "expected '='"),
        ("Device {\n Name A\n}", 2, "expected '='"),
        ("Device {\n Name = \n}", 2, "no value"),
        ("Device {\n Name = ;\n}", 2, "no value"),
        ("Device {\n Name = }\n}", 2, "no value"),
        ("Device {\n Name = , A\n}", 2, "no value"),
        ("Device {\n Name =", 2, "no value"),
        ("Device {\n Maximum Block Size =\n", 2, "not closed"),
        ("Device {\n = A\n}", 2, "expected the name of a directive"),
        ("Device {\n {\n}", 2, "expected the name of a directive"),
        ("Device {\n Name1 = A\n}", 2, "expected the name of a directive"),
        ('Device {\n "Name" = A\n}', 2, "expected the name of a directive"),
        ('Device {\n Name = "A\n}\n\n', 2, "quoted string begins here"),
        ('Device {\n Name = "A\\"\n}', 2, "quoted string begins here"),
        ('\n@"/etc/more.conf', 2, "quoted string begins here"),
        ("Storage {\n Addresses = {\n ip = {\n addr = 1 }\n", 2, "not closed"),
    ],
)
def test_broken_files(site: Site, text: str, line: int, what: str) -> None:
    site.text = text
    (check,) = site.checks()
    assert check.status is Status.FAIL
    assert check.detail.startswith(f"{site.path}, line {line}: ")
    assert what in check.detail
    assert check.advice


@pytest.mark.parametrize(
    ("data", "line"),
    [
        ("Device { Name = A }".encode("utf-16"), 1),
        ("Device { Name = A }".encode("utf-16-be"), 1),
        (b"\xfe\xff\0", 1),
        (b"Device {\n Name = A\0B\n}", 2),
    ],
)
def test_files_that_are_not_text(site: Site, data: bytes, line: int) -> None:
    site.path.write_bytes(data)
    (check,) = check_storage_daemon(site.path, sd_user=ME, root=site.root)
    assert check.status is Status.FAIL
    assert f"line {line}: this is not UTF-8 text" in check.detail


def test_a_byte_order_mark_is_allowed(site: Site) -> None:
    site.text = "\ufeff" + site.text
    assert site.bad() == []


def test_bytes_that_are_not_utf8_are_shown_as_such(site: Site) -> None:
    site.path.write_bytes(b'Device { Name = "\xe9\x1b[2J" }')
    checks = check_storage_daemon(site.path, sd_user=ME, root=site.root)
    assert all(check.detail.isprintable() for check in checks)
    assert "\\x1b[2J" in checks[1].detail


def test_deep_braces_end(site: Site) -> None:
    site.text = "Storage { Addresses = " + "{ a = " * 100_000
    ((status, detail),) = site.bad()
    assert status is Status.FAIL
    assert "not closed" in detail


def test_a_name_that_is_missing(site: Site) -> None:
    site.text = "\nDevice { Media Type = File }"
    assert site.bad()[0][1] == f"device ({site.path}, line 2) writes its volumes in clear"


# --- how a file is read ---


def read(site: Site, body: str) -> dict[str, tuple[str, ...]]:
    site.path.write_bytes(f"Thing {{\n{body}\n}}\n".encode())
    (resource,) = read_configuration(str(site.path)).resources
    return {directive.key: directive.values for directive in resource.directives}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("Volume Encryption = yes", {"volumeencryption": ("yes",)}),
        ("volume\tENCRYPTION=yes;", {"volumeencryption": ("yes",)}),
        ("Name = A; Type = B", {"name": ("A",), "type": ("B",)}),
        ("Name = A # B\n#C = D", {"name": ("A",)}),
        ('Name = "A # {B}; C"', {"name": ("A # {B}; C",)}),
        ('Name = "A\\"B\\\\C"', {"name": ('A"B\\C',)}),
        ('Name = "A\nB"', {"name": ("A\nB",)}),
        ('Name = ""', {"name": ("",)}),
        ("Name\n=\nA", None),
        ("Name\n= A", {"name": ("A",)}),
        ("Name = Two Words", {"name": ("TwoWords",)}),
        ("Name = a b-c d", {"name": ("ab-c", "d")}),
        ("Name = File 1", {"name": ("File1",)}),
        ("Path = /usr/bin/x -y z", {"path": ("/usr/bin/x", "-y", "z")}),
        ("Size = 5 GB", {"size": ("5", "GB")}),
        ("Size = 5GB", {"size": ("5GB",)}),
        ("Size =\n\n 5GB", {"size": ("5GB",)}),
        ("Device = A, B,C", {"device": ("A", "B", "C")}),
        ('Device = "A", "B C"', {"device": ("A", "B C")}),
        ("Mail = root@localhost = all, !skipped", {"mail": ("root@localhost", "all", "!skipped")}),
        ("Name = A\r\nType = B\r", {"name": ("A",), "type": ("B",)}),
        ("Name = A\rType = B", {"name": ("A",), "type": ("B",)}),
        ("#Name = A\rType = B", {"type": ("B",)}),
        ("Name = \\\n A", {"name": ("A",)}),
        ('Name = "A" \\ dropped\n B', {"name": ("A", "B")}),
        ("Name = A \\", {"name": ("A\\",)}),
        (
            "Addresses = { ip = { addr = a; port = 1 }\n ip = { addr = b } }\nName = A",
            {"addresses": (), "name": ("A",)},
        ),
        ("Options { a = b }; Name = A", {"options": (), "name": ("A",)}),
        ("Name = A B = C", {"name": ("AB", "C")}),
        ("Name = ä", {"name": ("ä",)}),
        ("Name = aä b", {"name": ("aä", "b")}),
        (";;;\n;", {}),
    ],
)
def test_lexical_rules(site: Site, body: str, expected: dict[str, tuple[str, ...]] | None) -> None:
    if expected is None:
        with pytest.raises(ParseError):
            read(site, body)
    else:
        assert read(site, body) == expected


def test_the_last_setting_counts(site: Site) -> None:
    site.with_("volume  encryption=yes", "Volume Encryption = yes; Volume Encryption = no")
    assert status_of(site.bad()) == ["warn"]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (("0",), 0),
        (("512",), 512),
        (("64k",), 65536),
        (("64", "KB"), 64000),
        (("1", "m"), 2**20),
        (("1mb",), 10**6),
        (("2G",), 2**31),
        (("2gb",), 2 * 10**9),
        (("1.5", "k"), 1536),
        (("3t",), 3 * 2**40),
        (("3TB",), 3 * 10**12),
        ((), None),
        (("k",), None),
        (("1x",), None),
        (("1kk",), None),
        (("-1",), None),
        (("1e3",), None),
        (("٣",), None),
        (("9" * 30,), None),
    ],
)
def test_sizes(values: tuple[str, ...], expected: int | None) -> None:
    assert size(values) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [("yes", True), ("True", True), ("NO", False), ("false", False), ("1", None), ("", None)],
)
def test_booleans(value: str, expected: bool | None) -> None:
    assert boolean(value) is expected


# --- arbitrary text ---

PIECES = st.sampled_from(
    [
        *"{}=;,#@|\\\"'\n\r\t ",
        *["Device", "Storage", "Autochanger", "Name", "A", "Volume Encryption", "yes", "strong"],
        *[
            "Encryption Command",
            '"/bin/true hwkm getkey %i"',
            "Spool Directory",
            "/",
            "Block Checksum",
        ],
        *[
            "Maximum Block Size",
            "1 GB",
            "Working Directory",
            "no",
            "é",
            "\x85",
            "\xa0",
            "\x1c",
            "1",
        ],
    ]
)
TEXTS = st.text() | st.lists(PIECES, max_size=40).map("".join)
FIXTURE_STAYS = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


@FIXTURE_STAYS
@given(TEXTS)
def test_arbitrary_text_never_raises(site: Site, text: str) -> None:
    site.path.write_bytes(text.encode("utf-8", "surrogatepass"))
    checks = check_storage_daemon(site.path, sd_user=ME, root=site.root)
    assert checks[0].name == "sd-config"
    assert all(check.detail.isprintable() and check.advice.isprintable() for check in checks)


@FIXTURE_STAYS
@given(st.binary(max_size=200))
def test_arbitrary_bytes_never_raise(site: Site, data: bytes) -> None:
    site.path.write_bytes(data)
    assert check_storage_daemon(site.path, sd_user=ME, root=site.root)


@FIXTURE_STAYS
@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
def test_any_quoted_value_is_read_back(site: Site, value: str) -> None:
    quoted = value.replace("\\", "\\\\").replace('"', '\\"')
    site.path.write_text(f'Device {{ Name = "{quoted}"; Type = x }}', "utf-8", newline="")
    (resource,) = read_configuration(str(site.path)).resources
    assert resource.get("name") == value.replace("\r\n", "\n").replace("\r", "\n")
    assert resource.get("type") == "x"


@FIXTURE_STAYS
@given(TEXTS)
def test_every_character_is_looked_at(site: Site, text: str) -> None:
    # Reading goes on to the end, whatever stands before: what follows a comment's line is seen.
    text = text.replace('"', "").replace("@", "").replace("\0", "").replace("\ud800", "")
    site.path.write_bytes(text.encode("utf-8", "replace") + b'\n}}}} #\n"')
    with pytest.raises(ParseError):
        read_configuration(str(site.path))

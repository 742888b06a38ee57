"""An escrow key from its making to the day when nothing else is left, with the real commands."""

from __future__ import annotations

import base64
import json
import re
import shutil
import sqlite3
import subprocess
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from hwkm.envelope import MAX_LABEL_BYTES, Envelope, Scheme, seal
from hwkm.escrow import join
from hwkm.keys import VolumeKey
from hwkm.keystore.records import EscrowKey, Operation, State
from hwkm.verify import open_all
from tests.keystore import homes
from tests.keystore.envelopes import run
from tests.keystore.homes import HWKM, ROOT, Home

from .keys import key as other_key

if TYPE_CHECKING:
    from pathlib import Path

    from hwkm.recipients.escrow import EscrowIdentity

PASSPHRASE = "correct horse battery staple"


class Paper:
    """The private half of an installation's escrow key, as ``hwkm escrow new`` gave it."""

    def __init__(self, home: Home, folder: Path, *words: str) -> None:
        self.folder = folder
        folder.mkdir()
        (folder / "passphrase").write_text(PASSPHRASE + "\n")
        self.file, self.pages = folder / "whole.json", folder / "pages"
        status, self.said = home.hwkm(
            "escrow", "new", "--pages", str(self.pages), "--file", str(self.file),
            "--passphrase-file", str(folder / "passphrase"), *words,
        )  # fmt: skip
        assert status == 0, self.said

    def in_order(self, number: int) -> str:
        """Return the words on a page, as a person reads them."""
        (path,) = self.pages.glob(f"share-{number}-of-*.html")
        cells = re.findall(r"<td>(\d+)</td><td>([a-z]+)</td>", path.read_text())
        return " ".join(word for _, word in sorted((int(place), word) for place, word in cells))

    def typed(self, *numbers: int) -> list[str]:
        """Return the options that name files with these shares."""
        options = []
        for number in numbers:
            path = self.folder / f"typed-{number}"
            path.write_text(self.in_order(number) + "\n")
            options += ["--share", str(path)]
        return options

    @property
    def key(self) -> EscrowIdentity:
        return join([self.in_order(1), self.in_order(3)])


def bare(*words: str, stdin: bytes = b"") -> tuple[int, str]:
    """Run hwkm where there is no installation at all."""
    done = subprocess.run(
        [*HWKM, "--config", "/nonexistent/config.toml", *words],
        cwd=ROOT,
        input=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=homes.COMMAND_SECONDS,
        check=False,
    )
    return done.returncode, done.stdout.decode()


def stored(home: Home) -> list[Envelope]:
    with home.keystore().reading() as transaction:
        records = list(transaction.all_generations())
        blobs = [transaction.envelope(record.key_id) for record in records]
    return [Envelope.parse(blob or b"") for blob in blobs]


def escrow_keys(home: Home) -> list[EscrowKey]:
    with home.keystore().reading() as transaction:
        return transaction.escrow_keys()


@pytest.fixture
def paper(home: Home, tmp_path: Path) -> Paper:
    return Paper(home, tmp_path / "paper")


# making one


def test_what_new_leaves_behind(home: Home, paper: Paper) -> None:
    (record,) = escrow_keys(home)
    key = paper.key
    assert (record.public_key, record.state) == (key.recipient.public, State.ACTIVE)
    assert record.recipient_id.hex() in paper.said
    made = sorted(path.name for path in paper.pages.iterdir())
    assert made == [f"share-{number}-of-3.html" for number in (1, 2, 3)]
    assert {path.stat().st_mode & 0o777 for path in paper.pages.iterdir()} == {0o600}
    assert paper.pages.stat().st_mode & 0o777 == 0o700
    assert paper.file.stat().st_mode & 0o777 == 0o600
    with home.keystore().reading() as transaction:
        assert transaction.last_event(Operation.ESCROW_NEW) is not None
    for path in home.folder.rglob("*"):
        if path.is_file():
            assert key.seed.expose() not in path.read_bytes(), path


def test_words_on_the_terminal(home: Home) -> None:
    status, said = home.hwkm("escrow", "new", "--words", "--shares", "3/5")
    assert status == 0
    shares = re.findall(r"^Share \d of 5:\n(.+)$", said, re.MULTILINE)
    assert join(shares[1:4]).recipient.public == escrow_keys(home)[0].public_key


@pytest.mark.parametrize(
    ("words", "status", "text"),
    [
        ((), 2, "where the private half goes"),
        (("--words", "--json"), 2, "no JSON"),
        (("--words", "--shares", "4/3"), 2, "there can't be"),
        (("--words", "--shares", "two"), 2, "not understood"),
        (("--file", "/nonexistent/file", "--passphrase-file", "{good}"), 2, "can't be written"),
        (("--file", "{folder}/x", "--passphrase-file", "{short}"), 2, "12 characters"),
        (("--file", "{folder}/x"), 2, "nobody to ask"),
        (("--pages", "{folder}"), 2, "can't be made"),
        (("--file", "{good}", "--passphrase-file", "{good}"), 2, "can't be written"),
    ],
    ids=range(9),
)
def test_what_new_refuses(
    home: Home, tmp_path: Path, words: tuple[str, ...], status: int, text: str
) -> None:
    (tmp_path / "good").write_text(PASSPHRASE)
    (tmp_path / "short").write_text("short")
    places = {"good": tmp_path / "good", "short": tmp_path / "short", "folder": tmp_path}
    found = home.hwkm("escrow", "new", *(word.format(**places) for word in words))
    assert found[0] == status
    assert text in " ".join(found[1].split())
    assert "Share 1" not in found[1]
    assert escrow_keys(home) == []


def test_a_second_one_only_if_told(home: Home, paper: Paper) -> None:
    status, said = home.hwkm("escrow", "new", "--words")
    assert status == 7
    assert "already" in said
    assert len(escrow_keys(home)) == 1
    assert home.hwkm("escrow", "new", "--words", "--replace")[0] == 0
    assert [one.state for one in escrow_keys(home)] == [State.DEACTIVATED, State.ACTIVE]
    home.label("V")
    assert stored(home)[0].stanzas[-1].recipient_id == escrow_keys(home)[1].recipient_id
    status, listed = home.hwkm("escrow", "list", "--json")
    assert [(one["state"], one["envelopes"]) for one in json.loads(listed)] == [
        ("deactivated", 0),
        ("active", 1),
    ]


# what is wrapped for it


def test_every_new_key_in_each_kind_of_database(site: Home, tmp_path: Path) -> None:
    before = site.label("Before")
    paper = Paper(site, tmp_path / "paper")
    handout = site.label("After")
    (alone,) = [e for e in stored(site) if e.header.volume == "Before"]
    (both,) = [e for e in stored(site) if e.header.volume == "After"]
    assert [s.scheme for s in alone.stanzas] == [s.scheme for s in before.envelope.stanzas]
    assert [s.scheme for s in both.stanzas] == [Scheme.GCM, Scheme.ESCROW]
    assert paper.key.unwrap(both.header, both.stanzas[1]) == handout.key
    # The label has no room; it is no warning, every time.
    assert [s.scheme for s in handout.envelope.stanzas] == [Scheme.GCM]
    assert len(handout.envelope.encode()) <= MAX_LABEL_BYTES
    assert handout.notes == ()
    with site.keystore().reading() as transaction:
        event = transaction.events("After")[-1]
    assert f"escrow key {paper.key.recipient.recipient_id.hex()}" in event.detail
    assert site.read("After").key == handout.key


def test_check_and_show_say_so(home: Home, paper: Paper) -> None:
    home.label("V")
    status, said = home.hwkm("volume", "check")
    assert status == 0
    recipient = paper.key.recipient.recipient_id.hex()
    assert f"; a copy for escrow key {recipient} can't be opened here" in said
    assert said.count("ok ") == 1
    shown = json.loads(home.hwkm("volume", "show", "V", "--json")[1])
    kinds = [(one["kind"], one["scheme"]) for one in shown["generations"][0]["recipients"]]
    assert kinds == [("token", "gcm"), ("escrow", "escrow")]
    shutil.rmtree(home.folder / "tokens")
    (home.folder / "tokens").mkdir()
    status, said = home.hwkm("volume", "check")
    assert status == 1, "a copy that is elsewhere is no copy that opens"
    found = open_all(home.keystore(), [], lambda records: records)
    assert (found.opened, found.unopened) == (0, 1)
    assert recipient in found.failures[0].detail, "what could open it is said"
    assert "no recipient at hand opens it" in said


def test_the_configuration_can_name_it(home: Home, paper: Paper) -> None:
    recipient = paper.key.recipient.recipient_id.hex()
    home.edit('log = "', f'escrow_key = "{recipient}"\nlog = "')
    assert home.label("V").key
    attackers = other_key().recipient
    run(home.keystore(), "DELETE FROM escrow_key")
    assert "no such active key" in home.ask("LABEL", "W").error
    with home.keystore().writing() as transaction:
        transaction.add_escrow_key(
            EscrowKey(attackers.recipient_id, attackers.public, State.ACTIVE, 1, "mallory")
        )
    assert "no such active key" in home.ask("LABEL", "W").error
    assert [e.header.volume for e in stored(home)] == ["V"]
    assert home.read("V").key, "what there is goes on to open"


def test_a_record_that_was_changed(home: Home, paper: Paper) -> None:
    public = other_key().recipient.public
    run(home.keystore(), "UPDATE escrow_key SET public_key = :public", public=public)
    assert "escrow key is damaged" in home.ask("LABEL", "V").error


# opening, on an empty machine


@pytest.fixture
def lost(home: Home, paper: Paper, tmp_path: Path) -> tuple[Paper, Path, dict[str, bytes]]:
    """Paper and a copy of the keystore, which are left, and the keys that should come back."""
    keys = {name: home.label(name).key.expose() for name in ("A", "B")}
    home.label("A")
    copy = tmp_path / "copy.db"
    with closing(sqlite3.connect(home.database)) as connection:
        connection.execute("VACUUM INTO ?", (str(copy),))
    return paper, copy, keys


def test_from_shares_and_from_the_file(lost: tuple[Paper, Path, Any]) -> None:
    paper, copy, _keys = lost
    ways = [
        paper.typed(1, 2),
        paper.typed(3, 1),
        paper.typed(1, 2, 3),
        ["--file", str(paper.file), "--passphrase-file", str(paper.folder / "passphrase")],
    ]
    for way in ways:
        status, said = bare("escrow", "open", *way, "--keystore", str(copy))
        assert status == 0, said
        assert said.count("opens with the escrow key") == 3


def test_shares_on_standard_input(lost: tuple[Paper, Path, Any]) -> None:
    paper, copy, _keys = lost
    numbered = "\n".join(f"{n} {word}" for n, word in enumerate(paper.in_order(2).split(), 1))
    for text in (
        f"{paper.in_order(1)}\n{paper.in_order(2).upper()}\n",
        f"{paper.in_order(1)}\n\n{numbered}\n",
    ):
        status, said = bare("escrow", "open", "--keystore", str(copy), stdin=text.encode())
        assert status == 0, said


def test_single_envelopes(home: Home, lost: tuple[Paper, Path, Any], tmp_path: Path) -> None:
    paper, _copy, _keys = lost
    envelope = stored(home)[0]
    raw, text = tmp_path / "raw", tmp_path / "text"
    raw.write_bytes(envelope.encode())
    text.write_bytes(base64.encodebytes(envelope.encode()))
    status, said = bare("escrow", "open", str(raw), str(text), *paper.typed(1, 2))
    assert status == 0
    assert said.count("opens with the escrow key") == 2
    # A label has the token's copy alone.
    text.write_bytes(base64.b64encode(home.label("C").envelope.encode()))
    status, said = bare("escrow", "open", str(text), *paper.typed(1, 2))
    assert status == 1
    assert "has no copy for this escrow key" in said
    text.write_text("no base64 at all!")
    assert bare("escrow", "open", str(text), *paper.typed(1, 2))[0] == 1


def test_one_volume(lost: tuple[Paper, Path, Any]) -> None:
    paper, copy, _keys = lost
    words = ["escrow", "open", *paper.typed(1, 2), "--keystore", str(copy), "--json"]
    status, said = bare(*words, "--volume", "A")
    found = json.loads(said)
    assert (status, found["ok"], len(found["checks"])) == (0, True, 2)
    assert found["escrow_key"] == paper.key.recipient.recipient_id.hex()
    status, said = bare(*words, "--volume", "None")
    assert status == 1
    assert "not in the keystore" in said


def test_the_key_alone(lost: tuple[Paper, Path, Any]) -> None:
    paper, _copy, _keys = lost
    status, said = bare("escrow", "open", *paper.typed(2, 3))
    assert (status, said) == (0, f"escrow key: {paper.key.recipient.recipient_id.hex()}\n")


@pytest.mark.parametrize("numbers", [(1,), (2, 2)])
def test_too_few_shares(lost: tuple[Paper, Path, Any], numbers: tuple[int, ...]) -> None:
    paper, copy, _keys = lost
    status, said = bare("escrow", "open", *paper.typed(*numbers), "--keystore", str(copy))
    assert status == 1
    assert "2 different shares are needed" in said


def test_somebody_elses_shares(home: Home, lost: tuple[Paper, Path, Any], tmp_path: Path) -> None:
    _paper, copy, _keys = lost
    later = Paper(home, tmp_path / "later", "--replace")
    status, said = bare("escrow", "open", *later.typed(1, 2), "--keystore", str(copy))
    assert status == 1
    assert said.count("has no copy for this escrow key") == 3
    mixed = [*_paper.typed(1), *later.typed(2)]
    status, said = bare("escrow", "open", *mixed, "--keystore", str(copy))
    assert status == 1
    assert "belong" in said


def test_nothing_that_opens_is_shown(home: Home, lost: tuple[Paper, Path, Any]) -> None:
    paper, copy, keys = lost
    said = bare("--debug", "escrow", "open", *paper.typed(1, 2), "--keystore", str(copy))[1]
    for key in [*keys.values(), paper.key.seed.expose()]:
        assert key.hex() not in said
        assert base64.b64encode(key).decode() not in said


# and wrapping what opens for a new token


def rewrap(home: Home, paper: Paper, *words: str) -> tuple[int, str]:
    return home.hwkm("escrow", "open", *paper.typed(1, 3), "--rewrap", *words)


def test_a_new_token_and_the_old_keystores_copy(
    home: Home, lost: tuple[Paper, Path, dict[str, bytes]], tmp_path: Path
) -> None:
    paper, copy, keys = lost
    labels = {name: home.read(name).envelope.encode() for name in keys}
    newest = home.read("A").key.expose()
    shutil.rmtree(home.folder)
    fresh = homes.initialize(tmp_path / "fresh")
    assert "error" in fresh.ask("READ", "B", labels["B"]).fields
    status, said = rewrap(fresh, paper, "--keystore", str(copy))
    assert status == 0, said
    assert fresh.ask("READ", "B", labels["B"]).key == keys["B"]
    assert fresh.read("A").key.expose() == newest
    with fresh.keystore().reading() as transaction:
        states = [(r.volume, r.generation, r.state) for r in transaction.all_generations()]
        assert transaction.last_event(Operation.ESCROW_OPEN) is not None
    active, gone = State.ACTIVE, State.DEACTIVATED
    assert states == [("A", 1, gone), ("A", 2, active), ("B", 1, active)]
    status, said = fresh.hwkm("volume", "check")
    assert status == 0, said
    before = stored(fresh)
    status, said = rewrap(fresh, paper, "--keystore", str(copy))
    assert status == 0
    assert said.count("already") == 3
    assert stored(fresh) == before


def test_the_keystore_itself_after_its_master_key_is_gone(
    home: Home, lost: tuple[Paper, Path, dict[str, bytes]]
) -> None:
    paper, _copy, keys = lost
    before = stored(home)
    assert home.hwkm("master", "create", "--replace")[0] == 0
    status, said = rewrap(home, paper)
    assert status == 0, said
    with home.keystore().reading() as transaction:
        new = transaction.masters()[-1]
    for old, now in zip(before, stored(home), strict=True):
        assert now.header == old.header
        assert now.stanzas[0].recipient_id == new.master_id
        kept = {(s.scheme, s.recipient_id) for s in old.stanzas}
        assert kept < {(s.scheme, s.recipient_id) for s in now.stanzas}
    assert home.read("B").key.expose() == keys["B"]
    assert len({s.recipient_id for s in stored(home)[0].stanzas}) == 3


def test_broken_off_and_begun_again(home: Home, lost: tuple[Paper, Path, dict[str, bytes]]) -> None:
    paper, _copy, _keys = lost
    home.hwkm("master", "create", "--replace")
    assert rewrap(home, paper, "--volume", "B")[0] == 0
    status, said = rewrap(home, paper)
    assert status == 0
    assert said.count("wrapped for these master keys already") == 1
    assert said.count("opens with the escrow key; wrapped for") == 2


def test_what_was_destroyed_stays_so(
    home: Home, lost: tuple[Paper, Path, dict[str, bytes]], tmp_path: Path
) -> None:
    paper, copy, _keys = lost
    run(home.keystore(), "UPDATE generation SET state = 'destroyed'")
    home.hwkm("master", "create", "--replace")
    before = stored(home)
    for words in ((), ("--keystore", str(copy))):
        status, said = rewrap(home, paper, *words)
        assert "was destroyed" in said
        assert status == (1 if words else 0)  # the copy does not know it
        assert stored(home) == before


def test_a_forged_copy_of_a_key_on_record(
    home: Home, lost: tuple[Paper, Path, dict[str, bytes]], tmp_path: Path
) -> None:
    """Whoever has the public half can make an envelope with any header."""
    paper, _copy, _keys = lost
    header = stored(home)[0].header
    key = VolumeKey(header.cipher, bytes(range(header.cipher.key_bytes)))
    forged = seal(header, [paper.key.recipient.wrap(header, key)], key)
    (tmp_path / "forged").write_bytes(forged.encode())
    before = stored(home)
    status, said = rewrap(home, paper, str(tmp_path / "forged"))
    assert status == 1
    assert "MAC is wrong" in said
    assert stored(home) == before

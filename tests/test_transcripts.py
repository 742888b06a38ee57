"""The command line is an API: what it prints is held to transcripts, and so are the documents."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.transcripts.runner import (
    Shell,
    Step,
    blocks,
    difference,
    generalise,
    parse,
    shell,
    write_home,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent
TRANSCRIPTS = sorted((ROOT / "tests" / "transcripts").glob("*.txt"))
README = ROOT / "README.md"
COMMAND_LINE = ROOT / "docs" / "command-line.md"

# The README shows a run in the home of somebody of this name.
README_HOME = "/home/you"


@pytest.fixture(name="run")
def _run() -> Iterator[Shell]:
    with shell() as run:
        yield run


@pytest.mark.parametrize("path", TRANSCRIPTS, ids=lambda path: path.stem)
def test_transcript(path: Path, run: Shell) -> None:
    differences = run.check(path.read_text(), str(path.relative_to(ROOT)))
    assert not differences, "\n" + differences


def test_readme(run: Shell) -> None:
    """README's blocks are one session, from the first to the last."""
    found = blocks(README.read_text(), "transcript")
    assert [name for name, _ in found] == ["first-run", "tape-drives"]
    for name, text in found:
        differences = run.check(generalise(write_home(text, README_HOME)), f"README.md, {name}")
        assert not differences, "\n" + differences


def _help_blocks() -> list[tuple[str, str]]:
    return blocks(COMMAND_LINE.read_text(), "help") if COMMAND_LINE.exists() else []


def test_command_line_document_shows_help() -> None:
    assert _help_blocks(), "docs/command-line.md has no block marked <!-- help: COMMAND -->"


@pytest.mark.parametrize(("command", "text"), _help_blocks(), ids=lambda value: value[:30])
def test_help_block(command: str, text: str, run: Shell) -> None:
    shown = [line.rstrip() for line in text.strip("\n").splitlines()]
    got = "\n".join(run.run(f"{command} --help")).strip("\n").splitlines()
    differences = difference(shown, got, f"docs/command-line.md, {command} --help")
    assert not differences, "\n" + differences


class TestParse:
    def test_commands_output_and_comments(self) -> None:
        steps = parse("# about\n\n$ one a\nout\n\n2> err\n[exit 2]\n\n# then\n$ two\n")
        assert steps == [Step(3, "one a", ("out", "", "2> err", "[exit 2]")), Step(10, "two", ())]

    def test_continued_command(self) -> None:
        assert parse("$ one \\\n  two\nout\n") == [Step(1, "one \\\n  two", ("out",))]

    def test_output_before_a_command_is_refused(self) -> None:
        with pytest.raises(ValueError, match="line 1"):
            parse("out\n$ one\n")


class TestDifference:
    @pytest.mark.parametrize(
        ("expected", "actual"),
        [
            ("key {hex}", "key 00ff12"),
            ("{base64}", "q83v/+A="),
            ("at {time}.", "at 2031-05-06T07:08:09Z."),
            ("{int} of {int}", "3 of 14"),
            ("{size} free", "76,017 MiB free"),
            ("in {path}.", "in $HOME_DIR/hwkm/config.toml."),
            ("a (b) {any}", "a (b) c {d}"),
            ('{"volume": {any}}', '{"volume": {"x": 1}}'),
        ],
    )
    def test_wildcard_matches(self, expected: str, actual: str) -> None:
        assert difference([expected], [actual], "t") == ""

    @pytest.mark.parametrize(
        ("expected", "actual"),
        [
            ("key {hex}", "key 00FF"),
            ("{int} keys", "no keys"),
            ("at {time}", "at noon"),
            ("in {path}", "in hwkm"),
            ("{base64}", "a-b"),
            ("a.c", "abc"),
        ],
    )
    def test_wildcard_does_not_match(self, expected: str, actual: str) -> None:
        assert f"-{expected}\n+{actual}" in difference([expected], [actual], "t")

    def test_only_the_lines_that_differ_are_marked(self) -> None:
        diff = difference(["id {hex}", "old", "end {int}"], ["id ab", "new", "end 1"], "t")
        marked = [line for line in diff.splitlines()[3:] if line[0] in "+-"]
        assert marked == ["-old", "+new"]

    @pytest.mark.parametrize("actual", [[], ["a"], ["a", "b", "c"], ["b", "a"]])
    def test_missing_further_and_exchanged_lines(self, actual: list[str]) -> None:
        assert difference(["a", "b"], actual, "t") != ""


class TestShell:
    def test_output_stderr_and_status(self, run: Shell) -> None:
        printed = run.run("echo out; echo err >&2; pwd; exit 3")
        assert printed == ["out", "$HOME_DIR", "2> err", "[exit 3]"]

    def test_a_transcript_that_holds(self, run: Shell) -> None:
        held = "$ X=12 sh -c 'echo \"$X in $HOME_DIR\"'\n{int} in $HOME_DIR\n\n$ false\n[exit 1]\n"
        assert run.check(held, "t") == ""

    @pytest.mark.parametrize("wrong", ["$ echo a\nb\n", "$ false\n", "$ echo a >&2\na\n"])
    def test_a_transcript_that_does_not_hold(self, run: Shell, wrong: str) -> None:
        assert run.check(wrong, "t").startswith("--- t:1: $ ")

    def test_commands_share_files_and_a_softhsm(self, run: Shell) -> None:
        init = "softhsm2-util --init-token --free --label x --pin 1234 --so-pin 1234"
        script = f"$ {init} >made\n\n$ softhsm2-util --show-slots | grep -c 'Label: *x'\n1\n"
        assert run.check(script, "t") == ""

    def test_the_users_environment_stays_out(
        self, run: Shell, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HWKM_CONFIG", "/elsewhere")
        assert run.run('echo "${HWKM_CONFIG-unset}"') == ["unset"]


class TestDocuments:
    def test_blocks(self) -> None:
        document = "x\n<!-- help: a b -->\n\n```text\none\n```\n\n```\ntwo\n```\n<!-- help: c -->\n"
        assert blocks(document, "help") == [("a b", "one\n")]

    @pytest.mark.parametrize(
        ("shown", "pattern"),
        [
            ("key 00112233445566778899aabb", "key {hex}"),
            ("at 2031-05-06T07:08:09Z,", "at {time},"),
            (f"as {'Qk9' * 20}", "as {base64}"),
            ("as GTytOhEDQjpgmHFqsbn75Q==", "as {base64}"),
            ("as GTytOhED... (248 characters)", "as {any} (248 characters)"),
            ("1,024 MiB free", "{size} free"),
            ("Vol-0001 in $HOME_DIR/hwkm/config.toml", "Vol-0001 in $HOME_DIR/hwkm/config.toml"),
        ],
    )
    def test_generalise(self, shown: str, pattern: str) -> None:
        assert generalise(shown) == pattern

    def test_home(self) -> None:
        assert write_home("in /home/you/hwkm", "/home/you") == "in $HOME_DIR/hwkm"

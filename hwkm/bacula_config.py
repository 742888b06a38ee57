"""Bacula configuration files: read as Bacula 15 reads them, as far as that can be done safely.

The rules are those of Bacula's lexical scanner as seen in use: blanks inside an unquoted word
don't count, ``;`` ends a line, a quoted string may go over several lines, ``@file`` stands for
what is in the file. A value that is not quoted ends at its first blank unless it is all letters.
Two things are never done: a command (``@|"command"``) is not run, and a file named from nowhere
(``@relative``) is not looked for. Both are reported as ``Unread``.

Errors name a file and a line and never repeat what stands there: these files hold passwords.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from dataclasses import dataclass
from enum import Enum, auto, unique
from typing import TYPE_CHECKING, Final

from hwkm.errors import ParseError

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_BYTES: Final = 2 * 1024 * 1024
"""Most that is read for one configuration, its included files together."""

MAX_FILES: Final = 512
MAX_DEPTH: Final = 16
"""Most files of one configuration, and how deep they may include each other."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where something stands."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{printable(self.file)}, line {self.line}"


@dataclass(frozen=True, slots=True)
class Unread:
    """A part of the configuration that was not looked at, and what it is."""

    place: Place
    what: str


@dataclass(frozen=True, slots=True)
class Directive:
    """One ``Name = value``. ``key`` is the name without blanks in lower case.

    Bacula uses the first of ``values`` for most directives; a list of names or a size with its
    unit apart has more. A block in braces leaves none.
    """

    key: str
    values: tuple[str, ...]
    place: Place


@dataclass(frozen=True, slots=True)
class Resource:
    """One ``Kind { … }``. ``kind`` is without blanks in lower case."""

    kind: str
    directives: tuple[Directive, ...]
    place: Place

    def values(self, key: str) -> tuple[str, ...]:
        """Return what a directive was set to last, or nothing. ``key`` is as in Directive."""
        found = [item.values for item in self.directives if item.key == key]
        return found[-1] if found else ()

    def get(self, key: str) -> str | None:
        """Return the value of a directive, or None if it is not set."""
        return next(iter(self.values(key)), None)

    @property
    def name(self) -> str:
        """Name of the resource, fit to be shown; its place if it has none."""
        name = self.get("name")
        return printable(name) if name else f"({self.place})"


@dataclass(frozen=True, slots=True)
class Configuration:
    """A whole configuration with the files it includes."""

    resources: tuple[Resource, ...]
    unread: tuple[Unread, ...]

    def of_kind(self, kind: str) -> tuple[Resource, ...]:
        """Return the resources of one kind (``device``), in the order of the file."""
        return tuple(resource for resource in self.resources if resource.kind == kind)


def read_configuration(path: str) -> Configuration:
    """Read a configuration file and the files it includes.

    Raises ParseError, and nothing else, if one can't be read, is too long, or is not what Bacula
    would take; its text names file and line.
    """
    source = _Source()
    resources = tuple(_Parser(source.file(path, None, 0)).resources())
    return Configuration(resources, tuple(source.unread))


_BINARY = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}
_UNITS = _BINARY | {"kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}
_SIZE = re.compile(r"([0-9]{1,18})(\.[0-9]{1,9})?([a-z]{0,2})", re.IGNORECASE | re.ASCII)


def size(values: tuple[str, ...]) -> int | None:
    """Return a size in bytes ("64k", "5 GB", "1.5m"), or None if it is none.

    One letter counts in powers of 1024, two letters in powers of 1000 (Bacula's manual, "Data
    Types", under "size").
    """
    match = _SIZE.fullmatch("".join(values))
    if match is None or match[3].lower() not in _UNITS:
        return None
    unit = _UNITS[match[3].lower()]
    return int(match[1]) * unit + int(float(match[2] or 0) * unit)


def boolean(value: str) -> bool | None:
    """Return what yes, no, true or false stand for, in any case; None for all else."""
    return {"yes": True, "true": True, "no": False, "false": False}.get(value.lower())


def printable(text: str) -> str:
    """Return a text that may come from anywhere so that it can be shown on one line."""
    short = text if len(text) <= 200 else text[:200] + "…"
    return short if short.isprintable() else ascii(short)


@unique
class _Kind(Enum):
    WORD = auto()
    QUOTED = auto()
    EQUALS = auto()
    OPEN = auto()
    CLOSE = auto()
    COMMA = auto()
    END = auto()


@dataclass(frozen=True, slots=True)
class _Token:
    kind: _Kind
    text: str
    place: Place


# Every character begins one of these, so that reading always goes on. Possessive quantifiers keep
# the time linear. The order matters: the last one takes whatever no other begins with.
_LEXEME = re.compile(
    r"""
      (?P<nothing> [ \t\f\v]++ | \#[^\n]*+ | \\(?: \n | [ ][^\n]*+\n? | . )? )
    | (?P<END>     [\n;] )
    | (?P<EQUALS>  = )
    | (?P<OPEN>    \{ )
    | (?P<CLOSE>   \} )
    | (?P<COMMA>   , )
    | (?P<QUOTED>  "(?: [^"\\] | \\(?s:.) )*+" )
    | (?P<unclosed> " )
    | (?P<include> @ [^\s{};,"\#]*+ (?: "(?: [^"\\] | \\(?s:.) )*+" )? )
    | (?P<WORD>    [A-Za-z][A-Za-z \t\f\v]*+
                     (?: (?= ["\n={};,\#] ) | \Z | [^\s={};,\#"][^\s={};,\#]*+ )
                 | [^\s={};,\#"@][^\s={};,\#]*+ )
    """,
    re.VERBOSE | re.ASCII,
)
# Directives whose value, a size or a time, Bacula also looks for on the lines that follow.
_ON_LATER_LINES = ("size", "space", "capacity", "interval", "wait", "timeout", "time")
_NO_BLANKS = dict.fromkeys(map(ord, " \t\f\v"))
_QUOTED_ESCAPE = re.compile(r"\\(.)", re.DOTALL)


class _Source:
    """Turns files into tokens, within one budget for all of them."""

    def __init__(self) -> None:
        self.unread: list[Unread] = []
        self._bytes = MAX_BYTES
        self._files = MAX_FILES

    def file(self, path: str, asker: Place | None, depth: int) -> Iterator[_Token]:
        text = self._load(path, asker)
        position, line = 0, 1
        while match := _LEXEME.match(text, position):
            yield from self._tokens(match, Place(path, line), depth)
            line += text.count("\n", position, match.end())
            position = match.end()
        yield _Token(_Kind.END, "", Place(path, line))

    def _tokens(self, match: re.Match[str], place: Place, depth: int) -> Iterator[_Token]:
        kind, text = match.lastgroup or "", match[0]
        if kind == "unclosed":
            raise _error(place, "a quoted string begins here and does not end")
        if kind == "include":
            yield from self._include(_unquoted(text[1:]), place, depth)
        elif kind == "QUOTED":
            yield _Token(_Kind.QUOTED, _unquoted(text), place)
        elif kind != "nothing":
            yield _Token(_Kind[kind], text.translate(_NO_BLANKS), place)

    def _include(self, name: str, place: Place, depth: int) -> Iterator[_Token]:
        if name.startswith("|"):
            self.unread.append(Unread(place, "what a command writes"))
        elif not name.startswith("/"):
            self.unread.append(Unread(place, "a file named by a relative path"))
        elif depth == MAX_DEPTH:
            raise _error(place, f"files include each other more than {MAX_DEPTH} deep")
        else:
            yield from self.file(name, place, depth + 1)

    def _load(self, path: str, asker: Place | None) -> str:
        self._files -= 1
        if self._files < 0:
            raise _error(Place(path, 1), f"more than {MAX_FILES} files are included")
        data = _read(path, asker, self._bytes + 1)
        self._bytes -= len(data)
        if self._bytes < 0:
            raise _error(Place(path, 1), f"the configuration is over {MAX_BYTES} bytes")
        if data.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in data:
            line = data[: max(data.find(b"\0"), 0)].count(b"\n") + 1
            raise _error(Place(path, line), "this is not UTF-8 text")
        text = data.decode("utf-8-sig", "replace")
        return text.replace("\r\n", "\n").replace("\r", "\n")  # each of them ends a line


def _read(path: str, asker: Place | None, limit: int) -> bytes:
    try:
        return _read_regular(path, limit)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "its name can't be one"
        where = f"{asker}: " if asker else ""
        raise ParseError(
            f"{where}can't read {printable(path)}: {why}",
            hint="Check the path, and run this as root or as the Storage Daemon's user",
        ) from error


def _read_regular(path: str, limit: int) -> bytes:
    # O_NONBLOCK: opening a FIFO would wait for ever.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return file.read(limit)
    finally:
        os.close(descriptor)


def _unquoted(text: str) -> str:
    """Return a text with its quoted part, if it has one, taken out of its quotes."""
    before, quote, rest = text.partition('"')
    return before + _QUOTED_ESCAPE.sub(r"\1", rest[:-1]) if quote else text


class _Parser:
    """Turns tokens into resources."""

    def __init__(self, tokens: Iterator[_Token]) -> None:
        self._tokens = tokens
        self._back: list[_Token] = []

    def resources(self) -> Iterator[Resource]:
        while token := self._after_ends():
            if not _is_name(token):
                raise _error(token.place, "expected the name of a resource")
            yield self._resource(token)

    def _resource(self, head: _Token) -> Resource:
        token = self._after_ends()
        if token is None or token.kind is not _Kind.OPEN:
            raise _error(head.place, "expected '{' behind the name of a resource")
        directives = []
        while (token := self._within(head)).kind is not _Kind.CLOSE:
            if not _is_name(token):
                raise _error(token.place, "expected the name of a directive or '}'")
            directives.append(self._directive(token))
        return Resource(head.text.lower(), tuple(directives), head.place)

    def _directive(self, name: _Token) -> Directive:
        token = self._within(name)
        if token.kind is _Kind.EQUALS:
            on_later_lines = name.text.lower().endswith(_ON_LATER_LINES)
            token = (self._within(name) if on_later_lines else self._next()) or token
        elif token.kind is not _Kind.OPEN:
            raise _error(name.place, "expected '=' behind the name of a directive")
        if token.kind is _Kind.OPEN:
            self._skip_block(token)
            return Directive(name.text.lower(), (), name.place)
        self._back.append(token)
        return Directive(name.text.lower(), tuple(self._values(name)), name.place)

    def _values(self, name: _Token) -> Iterator[str]:
        first = True
        while (token := self._next()) and token.kind not in (_Kind.END, _Kind.CLOSE):
            if token.kind in (_Kind.WORD, _Kind.QUOTED):
                yield token.text
            elif first:
                raise _error(name.place, "a directive has no value")
            first = False
        if first:
            raise _error(name.place, "a directive has no value")
        if token and token.kind is _Kind.CLOSE:
            self._back.append(token)

    def _skip_block(self, opened: _Token) -> None:
        depth = 1
        while depth:
            kind = self._within(opened).kind
            depth += (kind is _Kind.OPEN) - (kind is _Kind.CLOSE)

    def _within(self, opened: _Token) -> _Token:
        token = self._after_ends()
        if token is None:
            raise _error(opened.place, "what begins here is not closed by a '}'")
        return token

    def _after_ends(self) -> _Token | None:
        while (token := self._next()) and token.kind is _Kind.END:
            pass
        return token

    def _next(self) -> _Token | None:
        return self._back.pop() if self._back else next(self._tokens, None)


def _is_name(token: _Token) -> bool:
    return token.kind is _Kind.WORD and token.text.isascii() and token.text.isalpha()


def _error(place: Place, what: str) -> ParseError:
    return ParseError(
        f"{place}: {what}",
        hint="Check the file with bacula-sd -t; the error may lie in the lines above",
    )

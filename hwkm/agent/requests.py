"""One request of Bacula's on its way through the agent, for whichever process serves it."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from hwkm import bacula
from hwkm.agent.messages import GetKey, Reply
from hwkm.bacula import Job, Options, error_line, parse_options
from hwkm.config import DEFAULT_PATH
from hwkm.errors import HwkmError, ParseError
from hwkm.log import one_line
from hwkm.manager import Caller

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hwkm.installation import Installation
    from hwkm.service import KeyService

ENVIRONMENT = (b"OPERATION", b"VOLUME_NAME", b"ENC_CIPHER_KEY", b"MASTER_KEYID")
"""What a request is made of, in the order of its frame's fields after the verb."""


def parse(fields: Sequence[bytes], who: str) -> GetKey:
    """Return the request in a frame's fields, the verb among them.

    :raises ParseError: if fields are missing.
    """
    values, words = fields[1 : len(ENVIRONMENT) + 1], fields[len(ENVIRONMENT) + 1 :]
    if len(values) < len(ENVIRONMENT):
        raise ParseError("the request lacks fields")
    environment = {name: value for name, value in zip(ENVIRONMENT, values, strict=True) if value}
    return GetKey(environment, [word.decode("utf-8", "replace") for word in words], who)


def described(asked: GetKey) -> str:
    """Return what is asked for, for the log; nothing in it need be as it should."""
    operation, volume = (
        one_line(asked.environment.get(name, b"-").decode("utf-8", "replace"), 127)
        for name in ENVIRONMENT[:2]
    )
    try:
        return f"{operation} {volume} {bacula.described(parse_options(asked.words, {}))}"
    except HwkmError:
        return f"{operation} {volume} ({one_line(' '.join(asked.words), 300) or '-'})"


def fields_of(asked: GetKey, error: HwkmError) -> dict[str, object]:
    """Return what was asked for, and why there is no key, as fields of the log."""
    operation, volume = (
        asked.environment.get(name, b"").decode("utf-8", "replace") for name in ENVIRONMENT[:2]
    )
    try:
        options = parse_options(asked.words, {})
    except HwkmError:
        options = Options(DEFAULT_PATH)
    fields = bacula.fields_of(one_line(operation, 32), one_line(volume, 127), options)
    return fields | {"user": asked.who, **bacula.failure_fields(error)}


def job_for(asked: GetKey, installation: Installation, keys: KeyService, deadline: float) -> Job:
    """Return what :func:`hwkm.bacula.serve` needs beside Bacula's request.

    :raises ConfigError: if the command's words are wrong.
    """
    options = _options(tuple(asked.words))
    caller = Caller(asked.who, options.job or None)
    return Job(installation, keys, caller, options, deadline)


@lru_cache(maxsize=16)  # one job asks with the same words for each of its volumes
def _options(words: tuple[str, ...]) -> Options:
    return parse_options(words, {})


def reply_of(text: bytes) -> Reply:
    """Return a whole answer to Bacula as a message."""
    return Reply(text, given=not text.startswith(b"error:"))


def failed_reply(text: str) -> Reply:
    """Return an answer that says why there is no key."""
    return Reply(error_line(text), given=False)

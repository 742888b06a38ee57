"""Bacula's Encryption Command as a process: the environment in, an answer out, always status 0.

Bacula reads standard output and standard error as one stream, ignores everything if the exit
status is not 0, and kills after 60 seconds.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from hwkm import config as configuration
from hwkm import supervise
from hwkm.bacula import Job, Options, Request, described, error_line, parse_options, serve
from hwkm.errors import HwkmError, ParseError
from hwkm.log import Log
from hwkm.privileges import become_owner_of, user_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hwkm.config import Config

ANSWER_SECONDS = 20.0
"""After this long there is an answer, good or bad. Bacula would wait for 60."""


def main(arguments: Sequence[str]) -> int:
    """Answer one request. Returns 0, whatever happens."""
    deadline = time.monotonic() + ANSWER_SECONDS
    supervise.silence()
    log, options = Log(), Options(configuration.DEFAULT_PATH)
    noise, problems = b"", []
    try:
        supervise.protect()
        options = parse_options(arguments, os.environ)
        config = configuration.load(options.config)
        become_owner_of(config.runtime_dir)
        log = Log(config.log)
        result = supervise.run(lambda: _work(config, options, log, deadline), deadline)
        reply = result.answer if not result.trouble else _troubled(result.trouble)
        noise, problems = result.noise, [result.trouble] if result.trouble else []
    except HwkmError as error:
        problems = [_refused(error, options)]
        reply = error_line(problems[0])
    except Exception as error:  # noqa: BLE001  # Bacula must get its answer
        problems = [f"internal error: {supervise.where(error)}"]
        reply = error_line(f"hwkm failed: {type(error).__name__}; its log says more")
    problems += _answer(reply)
    _log_afterwards(log, options, noise, problems)
    return 0


def _log_afterwards(log: Log, options: Options, noise: bytes, problems: list[str]) -> None:
    """Log what is not part of a decision; not before the answer, since a log can be slow."""
    asked = f"getkey {described(options)}"
    if options.no_agent and not any(options.no_agent in problem for problem in problems):
        log.warning(f"{asked}: the agent was not used: {options.no_agent}")
    if noise:
        log.warning(f"{asked}: printed by a library: {noise.decode('utf-8', 'replace')}")
    for problem in problems:
        log.error(f"{asked}: {problem}")


def _refused(error: HwkmError, options: Options) -> str:
    """Say why nothing can be done here; where an agent should have done it, that comes first."""
    if not options.no_agent:
        return error.diagnostics()
    return f"{options.no_agent}; without it, {error}. Start the agent"


def _troubled(trouble: str) -> bytes:
    return error_line(f"{trouble}; hwkm token probe shows whether the token works")


def _work(config: Config, options: Options, log: Log, deadline: float) -> bytes:
    """Do the work, in the child: everything heavy is imported here."""
    from hwkm.installation import Installation
    from hwkm.manager import Caller
    from hwkm.service import OwnTokens
    from hwkm.token.pin import PinReader

    credentials = os.environ.get("CREDENTIALS_DIRECTORY")
    installation = Installation(config, PinReader(Path(credentials) if credentials else None))
    caller = Caller(user_name(), options.job or None)
    try:
        request = Request.parse(os.environb)
    except ParseError as error:
        log.error(f"getkey refused {described(options)}: {error}")
        return error_line(error.diagnostics())
    keys = OwnTokens(installation)
    job = Job(installation, keys, caller, options, deadline)
    return serve(request, job, log)


def _answer(reply: bytes) -> list[str]:
    """Write the answer, and return what went wrong with that."""
    try:
        os.write(1, reply)
    except OSError as error:
        return [f"the answer could not be written: {error.strerror}"]
    return []

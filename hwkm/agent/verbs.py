"""What ``hwkm drive`` asks of the agent, and what it is answered: JSON in a frame's field.

See docs/agent-protocol.md. Errors cross by their kind, text and hint, so that the command ends with
the same words and the same status as without an agent.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import msgspec

from hwkm import bacula
from hwkm.agent.frames import CHANGER, DRIVE
from hwkm.agent.messages import Refusal
from hwkm.checks import Check, Status
from hwkm.drive_verbs import CHANGERS, Outcome, Request, Verb
from hwkm.errors import HwkmError, ParseError
from hwkm.log import one_line

if TYPE_CHECKING:
    from collections.abc import Sequence

DONE, NOT_DONE, FAILED = "done", "not done", "failed"
"""How a verb ends: well; not well, though the drive said all there is to say; or with an error."""

_SHOWN = 127


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """A request that came over the socket; ``who`` asks, as the kernel says, for which ``job``."""

    request: Request
    job: str
    who: str


class _Wish(msgspec.Struct, forbid_unknown_fields=True):
    verb: Verb
    device: str
    volume: str = ""
    create: bool = False
    accept: str = ""
    barcode: str = ""
    job: str = ""


class _Finding(msgspec.Struct):
    name: str
    status: str
    detail: str
    advice: str


class _Error(msgspec.Struct):
    kind: str
    text: str
    hint: str


class _Outcome(msgspec.Struct):
    shown: dict[str, Any]
    checks: list[_Finding] | None
    ok: bool
    rest: dict[str, Any]
    error: _Error | None


def fields(request: Request, job: str = "") -> list[bytes]:
    """Return what is sent for ``request``: verb first, as every request."""
    if request.verb in CHANGERS:
        words = (request.verb, request.device, job)
        return [CHANGER, *(word.encode(errors="surrogateescape") for word in words)]
    wish = {
        "verb": request.verb,
        "device": request.device,
        "volume": request.volume,
        "create": request.create,
        "accept": request.accept,
        "barcode": request.barcode,
        "job": job,
    }
    return [DRIVE, json.dumps(wish).encode()]


def parse(sent: Sequence[bytes], who: str) -> Asked:
    """Return the request in a frame's fields, all of which may be hostile.

    :raises ParseError: if it is none.
    """
    try:
        wish = _of_changer(sent) if sent[0] == CHANGER else _of_drive(sent)
    except (msgspec.DecodeError, ValueError):
        raise ParseError("the request about a drive is not as it should be") from None
    texts = (wish.device, wish.volume, wish.accept, wish.barcode, wish.job)
    if not wish.device or not all(text.isprintable() for text in texts):
        raise ParseError("the request about a drive names none, or holds what can't be printed")
    request = Request(wish.verb, wish.device, wish.volume, wish.create, wish.accept, wish.barcode)
    return Asked(request=request, job=wish.job, who=who)


def verb_of(sent: Sequence[bytes]) -> str:
    """Return what is to be done, one of few words whatever the client says."""
    try:
        return parse(sent, "").request.verb.value
    except ParseError:
        return "other"


def described(asked: Asked) -> str:
    """Return what is asked for, for the log."""
    request = asked.request
    volume = f" {one_line(request.volume, _SHOWN)}" if request.volume else ""
    device, job = one_line(request.device, _SHOWN), one_line(asked.job, _SHOWN) or "-"
    return f"drive {request.verb}{volume} (job {job}, device {device}, user {asked.who})"


def fields_of(asked: Asked) -> dict[str, object]:
    """Return what is asked for as fields of the log."""
    request = asked.request
    return {
        "event": "drive",
        "verb": request.verb.value,
        "volume": request.volume,
        "device": request.device,
        "job": asked.job,
        "user": asked.who,
    }


def failure_fields(asked: Asked, error: HwkmError) -> dict[str, object]:
    """Return what is asked for, and why it could not be done, as fields of the log."""
    return fields_of(asked) | bacula.failure_fields(error) | {"outcome": FAILED}


def failed(error: HwkmError) -> Outcome:
    """Return an outcome that is nothing but an error."""
    return Outcome(ok=False, error=error)


def in_a_word(outcome: Outcome) -> str:
    """Return how it went, for the figures and the log."""
    if outcome.error is not None:
        return FAILED
    return DONE if outcome.ok else NOT_DONE


def document_of(outcome: Outcome) -> bytes:
    """Return an outcome as it is answered."""
    return msgspec.json.encode(
        {
            "shown": outcome.shown,
            "checks": None if outcome.checks is None else list(map(_finding, outcome.checks)),
            "ok": outcome.ok,
            "rest": outcome.rest,
            "error": None if outcome.error is None else _error(outcome.error),
        }
    )


def outcome_of(document: bytes) -> Outcome:
    """Return the outcome in an answer.

    :raises ParseError: if it is none.
    """
    try:
        found = msgspec.json.decode(document, type=_Outcome)
        checks = None if found.checks is None else tuple(map(_check, found.checks))
    except (msgspec.DecodeError, ValueError):
        raise ParseError("the agent's answer is not as it should be") from None
    error = found.error
    known = None if error is None else Refusal(error.kind, error.text, error.hint).error
    return Outcome(found.shown, checks, found.ok, found.rest, known)


def _of_changer(sent: Sequence[bytes]) -> _Wish:
    verb, device, job = [*(one.decode() for one in sent[1:4]), "", ""][:3]
    if Verb(verb) not in CHANGERS or len(sent) > 4:
        raise ValueError(verb)
    return _Wish(Verb(verb), device, job=job)


def _of_drive(sent: Sequence[bytes]) -> _Wish:
    _, document = sent
    wish = msgspec.json.decode(document, type=_Wish)
    if wish.verb in CHANGERS:
        raise ValueError(wish.verb)
    return wish


def _finding(check: Check) -> _Finding:
    return _Finding(check.name, check.status, check.detail, check.advice)


def _check(finding: _Finding) -> Check:
    return Check(finding.name, Status(finding.status), finding.detail, finding.advice)


def _error(error: HwkmError) -> _Error:
    crossing = Refusal.of(error)
    return _Error(crossing.kind, crossing.text, crossing.hint)

"""What a process killed in the middle of key generation leaves in the token, and who copes."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from hwkm.checks import Status
from hwkm.envelope import Scheme
from hwkm.errors import TokenError
from hwkm.keys import SecretBytes
from hwkm.recipients.token import unrecorded_master
from hwkm.recipients.token_oaep import read_public
from hwkm.token import master, p11
from hwkm.token.lint import lint
from hwkm.token.master import NoMasterKeyError
from tests.modules import softhsm

from .commands import program
from .interrupt import Point, kill, trace
from .sites import Site, make_site

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hwkm.checks import Check
    from hwkm.token.session import TokenSession

CONTEXT, SECRET = b"context", SecretBytes(bytes(range(64)))


@dataclass(frozen=True, slots=True)
class Wreck:
    """A token with a good key, and the ids of keys whose making was killed, by scheme."""

    site: Site
    blob: bytes
    killed: dict[Scheme, list[bytes]]


@pytest.fixture(scope="module")
def wreck(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wreck]:
    folder = tmp_path_factory.mktemp("wreck")
    with softhsm.running(folder) as token:
        site = make_site(token, folder)
        killed = {scheme: kill_makers(site, scheme) for scheme in (Scheme.GCM, Scheme.OAEP)}
        with site.session() as session:
            blob = unrecorded_master(session, Scheme.GCM, good(Scheme.GCM)).wrap(CONTEXT, SECRET)
        yield Wreck(site, blob, killed)


def good(scheme: Scheme) -> bytes:
    return bytes([scheme, 0])


def kill_makers(site: Site, scheme: Scheme) -> list[bytes]:
    """Make one key, then kill processes that make others, and return the ids of those.

    SoftHSM empties and writes a key's file for each attribute anew; the value comes last.
    """

    def maker(key_id: bytes) -> tuple[str, ...]:
        return program("make_key", site.for_child(), scheme.label, key_id.hex())

    ids = []
    for point in chosen(trace(maker(good(scheme)), "ftruncate")):
        ids.append(bytes([scheme, point.number]))
        kill(maker(ids[-1]), point)
    return ids


def chosen(points: list[Point]) -> list[Point]:
    """Return for each new file its point in the middle and its last two."""
    by_file: dict[str, list[Point]] = {}
    for point in points:
        name = point.line.split("<")[1].split(">")[0]
        if "token.object" not in name:
            by_file.setdefault(name, []).append(point)
    return [writes[at] for writes in by_file.values() for at in (len(writes) // 2, -2, -1)]


def half_made(findings: list[Check]) -> list[Check]:
    return [finding for finding in findings if "half-made" in finding.detail]


def test_the_good_key_still_opens_what_it_wrapped(wreck: Wreck) -> None:
    with wreck.site.session() as token:
        cipher = unrecorded_master(token, Scheme.GCM, good(Scheme.GCM))
        assert cipher.unwrap(CONTEXT, wreck.blob) == SECRET


def test_lint_finds_them_all_half_made_and_only_the_good_ones_good(wreck: Wreck) -> None:
    with wreck.site.session() as token:
        findings = lint(token)
    wrong = half_made(findings)
    assert len(wrong) == 6  # of the secret key and the private key three each
    assert {finding.status for finding in wrong} == {Status.FAIL}
    assert all("was killed while it made this key" in finding.advice for finding in wrong)
    others = [(finding.name, finding.status) for finding in findings if finding not in wrong]
    assert sorted(others) == [(f"key {good(scheme).hex()} (made)", "ok") for scheme in wreck.killed]


def test_a_public_key_without_a_value_is_an_error_in_words(wreck: Wreck) -> None:
    refused = 0
    with wreck.site.session() as token:
        for key_id in wreck.killed[Scheme.OAEP]:
            with contextlib.suppress(NoMasterKeyError):
                refused += is_refused(token, key_id)
    assert refused > 0


def is_refused(token: TokenSession, key_id: bytes) -> bool:
    try:
        read_public(token, key_id)
    except TokenError as error:
        assert "is no RSA key" in str(error)  # noqa: PT017  # not every one of them is wrong
        return True
    return False


def test_where_a_key_was_killed_a_new_one_is_made_under_the_same_id(wreck: Wreck) -> None:
    with wreck.site.session() as token:
        for scheme, ids in wreck.killed.items():
            for key_id in ids:
                master.remove(token, scheme, key_id)
                master.generate(token, scheme, key_id, "again")
                with token.use("counting") as session:
                    assert len(p11.find(session, master.object_class(scheme), id=key_id)) == 1
                assert works(token, scheme, key_id)


def works(token: TokenSession, scheme: Scheme, key_id: bytes) -> bool:
    cipher = unrecorded_master(token, scheme, key_id)
    return cipher.unwrap(CONTEXT, cipher.wrap(CONTEXT, SECRET)) == SECRET

"""Shares: those that belong together, and all others."""

from __future__ import annotations

from itertools import combinations, pairwise, permutations
from typing import TYPE_CHECKING

import pytest
import shamir_mnemonic as slip39
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from shamir_mnemonic.wordlist import WORDLIST

from hwkm.errors import ConfigError, EnvelopeError, HwkmError, ParseError
from hwkm.escrow import SHARE_WORDS, check_share, join, split
from hwkm.keys import SecretBytes
from hwkm.recipients.escrow import EscrowIdentity

from .keys import key, texts

if TYPE_CHECKING:
    from collections.abc import Sequence

ONE, TWO, THREE = texts()


def other_splitting() -> tuple[str, ...]:
    """Return shares of the same key out of another splitting; never by chance of the same set."""
    while True:
        found = tuple(share.words.expose().decode() for share in split(key()))
        if found[0].split()[:3] != ONE.split()[:3]:
            return found


def replaced(text: str, place: int, word: str) -> str:
    words = text.split()
    words[place] = word
    return " ".join(words)


def forged(text: str, **changes: object) -> str:
    """Return a share with other contents, and a right checksum."""
    fields = vars(slip39.Share.from_mnemonic(text)) | changes
    return str(slip39.Share(**fields).mnemonic())


# that fit


@pytest.mark.parametrize("order", list(permutations(range(3), 2)), ids=str)
def test_any_two_in_any_order(order: tuple[int, int]) -> None:
    assert join([texts()[number] for number in order]).seed == key().seed


def test_more_than_are_needed() -> None:
    assert join([THREE, ONE, TWO]).seed == key().seed
    assert join([ONE, ONE, TWO]).seed == key().seed


@pytest.mark.parametrize(
    ("threshold", "count"), [(1, 1), (2, 2), (3, 3), (3, 5), (2, 16), (16, 16)]
)
def test_other_numbers(threshold: int, count: int) -> None:
    shares = split(key(), threshold, count)
    assert [(s.number, s.threshold, s.count) for s in shares] == [
        (number, threshold, count) for number in range(1, count + 1)
    ]
    words = [share.words.expose().decode() for share in shares]
    assert {len(text.split()) for text in words} == {SHARE_WORDS}
    assert join(words[count - threshold :]).seed == key().seed
    assert join(words).seed == key().seed


def test_any_three_of_five() -> None:
    for chosen in combinations(texts(1, 3, 5), 3):
        assert join(chosen).seed == key().seed


def test_another_program_gives_the_seed_too() -> None:
    assert slip39.combine_mnemonics([ONE, THREE]) == key().seed.expose()


@pytest.mark.parametrize(
    "typed",
    [
        ONE.upper(),
        " ".join(word[:4] for word in ONE.split()),
        "\n".join(f"{number}. {word}" for number, word in enumerate(ONE.split(), 1)),
        ONE.replace(" ", ", ") + ".",
        f"\t{ONE}\r\n\n",
    ],
    ids=["capitals", "four letters", "numbered", "commas", "white space"],
)
def test_as_people_type(typed: str) -> None:
    assert join([typed, TWO]).seed == key().seed
    check_share(1, typed)


@settings(max_examples=20, deadline=None)
@given(st.binary(min_size=32, max_size=32))
def test_any_key(seed: bytes) -> None:
    made = split(EscrowIdentity(SecretBytes(seed)))
    assert join([share.words.expose().decode() for share in made[1:]]).seed.expose() == seed


@pytest.mark.parametrize(
    ("threshold", "count"), [(0, 0), (0, 3), (1, 2), (3, 2), (2, 17), (17, 17), (-1, 3)]
)
def test_numbers_that_can_not_be(threshold: int, count: int) -> None:
    with pytest.raises(ConfigError, match="there can't be"):
        split(key(), threshold, count)


# that don't


def refuse(given: Sequence[str], error: type[HwkmError], words: str) -> None:
    with pytest.raises(error, match=words) as caught:
        join(given)
    shown = caught.value.diagnostics().lower()
    words_of_all = " ".join(given).lower().split()  # by twos: one alone may be plain English
    assert not [pair for pair in map(" ".join, pairwise(words_of_all)) if pair in shown]
    assert "zzzz" not in shown


def test_too_few() -> None:
    refuse([], EnvelopeError, "there is no share")
    refuse([ONE], EnvelopeError, "2 different shares are needed, and there are 1")
    refuse([ONE, ONE], EnvelopeError, "2 different shares are needed, and there are 1")
    refuse([ONE, ONE.upper()], EnvelopeError, "2 different")
    refuse(texts(1, 3, 5)[:2], EnvelopeError, "3 different shares are needed, and there are 2")


def test_of_another_key() -> None:
    refuse([ONE, texts(2)[1]], EnvelopeError, "share 2 does not belong to share 1")


def test_of_another_splitting_of_the_same_key() -> None:
    other = other_splitting()
    assert join(other[:2]).seed == key().seed
    refuse([ONE, other[1]], EnvelopeError, "share 2 does not belong to share 1")
    refuse([ONE, TWO, other[2]], EnvelopeError, "share 3 does not belong to share 1")


def test_of_another_set_with_the_same_beginning() -> None:
    """As happens by chance for one in 32,768 sets, and to who forges."""
    mine = slip39.Share.from_mnemonic(ONE)
    other = forged(texts(2)[1], identifier=mine.identifier)
    refuse([ONE, other], EnvelopeError, "do not belong together")
    refuse([ONE, TWO, forged(texts(2)[2], identifier=mine.identifier)], EnvelopeError, "together")


def test_two_with_one_number() -> None:
    refuse([ONE, forged(TWO, index=0)], EnvelopeError, "do not belong together")
    refuse([ONE, TWO, forged(TWO, index=0)], EnvelopeError, "do not belong together")


@pytest.mark.parametrize(
    "changes",
    [
        {"value": bytes(16)},
        {"value": bytes(34)},
        {"group_count": 2},
        {"group_count": 2, "group_threshold": 2},
        {"iteration_exponent": 15},
        {"iteration_exponent": 1},
    ],
    ids=str,
)
def test_shares_of_something_else(changes: dict[str, object]) -> None:
    made = forged(ONE, **changes)
    words = "share of something else" if len(made.split()) == SHARE_WORDS else "words, and not"
    refuse([TWO, made], ParseError, f"share 2.*{words}")


def test_a_threshold_that_was_lowered() -> None:
    """It gives a key, but another; only what it opens can tell."""
    assert join([forged(ONE, member_threshold=1)]).seed != key().seed
    refuse([forged(t, member_threshold=1) for t in (ONE, TWO)], EnvelopeError, "together")


def test_a_word_that_is_none() -> None:
    refuse([TWO, replaced(ONE, 6, "zzzz")], ParseError, "share 2 is wrong: its word 7 is none")
    refuse([replaced(ONE, 32, "abc"), TWO], ParseError, "share 1 is wrong: its word 33 is none")


@pytest.mark.parametrize("place", range(SHARE_WORDS))
def test_a_word_taken_for_another(place: int) -> None:
    other = "academic" if ONE.split()[place] != "academic" else "acid"
    refuse([replaced(ONE, place, other), TWO], ParseError, "share 1 is wrong: its words do not go")


@given(st.data())
def test_up_to_three_words_taken_for_others(draw: st.DataObject) -> None:
    """RS1024 finds them for certain; the whole share is nowhere near right."""
    words = ONE.split()
    places = draw.draw(st.lists(st.integers(0, 32), min_size=1, max_size=3, unique=True))
    for place in places:
        other = draw.draw(st.sampled_from(WORDLIST))
        assume(other != words[place])
        words[place] = other
    with pytest.raises(ParseError):
        join([" ".join(words), TWO])


def test_words_that_changed_places() -> None:
    words = ONE.split()
    place = next(p for p in range(32) if words[p] != words[p + 1])
    words[place : place + 2] = reversed(words[place : place + 2])
    refuse([" ".join(words), TWO], ParseError, "share 1 is wrong")


def test_words_missing_or_too_many() -> None:
    refuse([ONE, ""], ParseError, "share 2 has 0 words, and not 33")
    refuse([ONE, TWO.rpartition(" ")[0]], ParseError, "share 2 has 32 words, and not 33")
    refuse([ONE, TWO + " academic"], ParseError, "share 2 has 34 words, and not 33")
    refuse([f"{ONE} {TWO}"], ParseError, "share 1 has 66 words, and not 33")


@given(st.lists(st.text(max_size=400), max_size=4))
def test_any_text_at_all(given_texts: list[str]) -> None:
    with pytest.raises((ParseError, EnvelopeError)):
        join(given_texts)


@settings(max_examples=200)
@given(
    st.lists(st.lists(st.sampled_from(WORDLIST), min_size=33, max_size=33), min_size=1, max_size=3)
)
def test_any_words_at_all(words: list[list[str]]) -> None:
    with pytest.raises((ParseError, EnvelopeError)):
        join([" ".join(share) for share in words])


def test_nothing_shows_the_words() -> None:
    (share, *_others) = split(key())
    assert share.words.expose().decode().split()[5] not in repr(share)

"""The private half of an escrow key, kept away from the machine: in a file, or in shares.

The file is sealed with a passphrase, the shares are SLIP-39's (docs/escrow.md). Pure: no I/O.
"""

from __future__ import annotations

import hmac
import json
import os
import re
import unicodedata
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import shamir_mnemonic as slip39
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from shamir_mnemonic.wordlist import WORD_INDEX_MAP, WORDLIST

from hwkm.errors import ConfigError, EnvelopeError, ParseError
from hwkm.keys import SecretBytes
from hwkm.recipients.escrow import SEED_BYTES, EscrowIdentity

if TYPE_CHECKING:
    from collections.abc import Sequence

FORMAT = "hwkm escrow key"
MAX_FILE_BYTES = 8192
MIN_PASSPHRASE_CHARACTERS = 12
SCRYPT_LOG_N = 17
"""Cost of guessing a passphrase: with r = 8, 128 MiB and a good part of a second for each."""
MAX_SHARES = 16
SHARE_WORDS = 33

_LOG_N_LIMITS = range(14, 20)  # a hostile file must not take all memory
_SCRYPT_R = 8
_SCRYPT_P = 1
_SALT_BYTES = 16
_NONCE_BYTES = 12
_TAG_BYTES = 16
_PREFIX = 4  # the words of SLIP-39 differ in their first four letters
_PREFIXES: dict[str, str] = {word[:_PREFIX]: word for word in WORDLIST}
_FIELDS = {"format", "version", "recipient_id", "scrypt_log_n", "salt", "nonce", "sealed"}


# in a file


def protect(key: EscrowIdentity, passphrase: SecretBytes, log_n: int = SCRYPT_LOG_N) -> bytes:
    """Return a file that gives ``key`` back to who knows ``passphrase`` (UTF-8).

    :raises ConfigError: if the passphrase is too short to be one.
    """
    _check_passphrase(passphrase)
    salt, nonce = os.urandom(_SALT_BYTES), os.urandom(_NONCE_BYTES)
    recipient_id = key.recipient.recipient_id
    cipher = _cipher(passphrase, salt, log_n)
    sealed = cipher.encrypt(nonce, key.seed.expose(), _about(recipient_id, log_n, salt))
    document = {
        "format": FORMAT,
        "version": 1,
        "recipient_id": recipient_id.hex(),
        "scrypt_log_n": log_n,
        "salt": salt.hex(),
        "nonce": nonce.hex(),
        "sealed": sealed.hex(),
    }
    return json.dumps(document, indent=1).encode("ascii") + b"\n"


def unprotect(data: bytes, passphrase: SecretBytes) -> EscrowIdentity:
    """Return the escrow key in a file that :func:`protect` made.

    :raises ParseError: if ``data`` is no such file.
    :raises EnvelopeError: if the passphrase is wrong, or the file was damaged.
    """
    found = _ProtectedKey.parse(data)
    cipher = _cipher(passphrase, found.salt, found.log_n)
    bound = _about(found.recipient_id, found.log_n, found.salt)
    try:
        key = EscrowIdentity(SecretBytes(cipher.decrypt(found.nonce, found.sealed, bound)))
    except InvalidTag:
        raise EnvelopeError(
            "the escrow key's file does not open: the passphrase is wrong, or the file was damaged",
            hint="Capitals and blanks count; another copy of the file may be whole",
        ) from None
    if not hmac.compare_digest(key.recipient.recipient_id, found.recipient_id):
        raise EnvelopeError("the escrow key's file holds another key than it says")
    return key


@dataclass(frozen=True, slots=True)
class _ProtectedKey:
    recipient_id: bytes
    log_n: int
    salt: bytes
    nonce: bytes
    sealed: bytes

    @classmethod
    def parse(cls, data: bytes) -> _ProtectedKey:
        """Read a file that may hold anything.

        :raises ParseError: if it is not exactly one of ours.
        """
        document = _json_object(data)
        if document.get("format") != FORMAT:
            raise ParseError("this is not the file of an escrow key")
        version, log_n = document.get("version"), document.get("scrypt_log_n")
        if type(version) is not int or version != 1:  # True is 1, too
            raise ParseError("the escrow key's file is of a version that is not known here")
        if set(document) != _FIELDS or type(log_n) is not int or log_n not in _LOG_N_LIMITS:
            raise ParseError("the escrow key's file is malformed")
        return cls(
            recipient_id=_hex(document, "recipient_id", 32),
            log_n=log_n,
            salt=_hex(document, "salt", _SALT_BYTES),
            nonce=_hex(document, "nonce", _NONCE_BYTES),
            sealed=_hex(document, "sealed", SEED_BYTES + _TAG_BYTES),
        )


def _json_object(data: bytes) -> dict[str, Any]:
    if len(data) > MAX_FILE_BYTES:
        raise ParseError("this is not the file of an escrow key: it is too long")
    try:
        document = json.loads(data.decode("ascii"))
    except (ValueError, RecursionError):
        raise ParseError("this is not the file of an escrow key") from None
    if not isinstance(document, dict):
        raise ParseError("this is not the file of an escrow key")
    return document


def _hex(document: dict[str, Any], name: str, length: int) -> bytes:
    text = document[name]
    try:
        data = bytes.fromhex(text) if isinstance(text, str) else b""
    except ValueError:
        data = b""
    if len(data) != length or data.hex() != text:
        raise ParseError(f"the escrow key's file is malformed: {name}")
    return data


def _check_passphrase(passphrase: SecretBytes) -> None:
    if len(_normal(passphrase).decode()) < MIN_PASSPHRASE_CHARACTERS:
        raise ConfigError(
            f"a passphrase has {MIN_PASSPHRASE_CHARACTERS} characters at least",
            hint="Who gets the file can guess at it for years: take six words drawn at random",
        )


def _normal(passphrase: SecretBytes) -> bytes:
    """Return the passphrase as any keyboard gives it: an accent may be a character of its own."""
    try:
        return unicodedata.normalize("NFC", passphrase.expose().decode()).encode()
    except UnicodeDecodeError:
        raise ConfigError("the passphrase is not UTF-8") from None


def _cipher(passphrase: SecretBytes, salt: bytes, log_n: int) -> AESGCM:
    kdf = Scrypt(salt=salt, length=32, n=2**log_n, r=_SCRYPT_R, p=_SCRYPT_P)
    return AESGCM(kdf.derive(_normal(passphrase)))


def _about(recipient_id: bytes, log_n: int, salt: bytes) -> bytes:
    return b"hwkm/escrow-file/1" + bytes([log_n]) + salt + recipient_id


# in shares


@dataclass(frozen=True, slots=True)
class Share:
    """One of ``count`` shares, ``threshold`` of which give the key back; ``words`` is secret."""

    number: int
    threshold: int
    count: int
    words: SecretBytes


def split(key: EscrowIdentity, threshold: int = 2, count: int = 3) -> list[Share]:
    """Return SLIP-39 shares of ``key``, which were put together again.

    :raises ConfigError: if there can't be so many, or so few.
    """
    if not 1 <= threshold <= count <= MAX_SHARES or (threshold == 1 and count > 1):
        raise ConfigError(
            f"there can't be {count} shares, {threshold} of which are enough",
            hint=f"2 to {MAX_SHARES}, such as 2 of 3; or 1 of 1, the whole key on one page",
        )
    # No passphrase: it would be one more thing to lose, and SLIP-39 can't tell a wrong one.
    (texts,) = slip39.generate_mnemonics(
        1, [(threshold, count)], key.seed.expose(), extendable=True, iteration_exponent=0
    )
    for first in range(count):
        some = [texts[(first + further) % count] for further in range(threshold)]
        if join(some).seed != key.seed:
            raise EnvelopeError("the shares do not give the escrow key back: throw them away")
    return [
        Share(number, threshold, count, SecretBytes(text.encode()))
        for number, text in enumerate(texts, 1)
    ]


def join(texts: Sequence[str]) -> EscrowIdentity:
    """Return the escrow key that shares give back; all that are given must belong together.

    Words may be in capitals, cut to four letters, or numbered. No error shows one.

    :raises ParseError: if a text is not a share, with the place of the first fault.
    :raises EnvelopeError: if they are too few, or don't belong together.
    """
    shares = _distinct([_read_share(number, text) for number, text in enumerate(texts, 1)])
    if not shares:
        raise EnvelopeError("there is no share")
    _refuse_other_sets(shares)
    needed = next(iter(shares.values())).member_threshold
    if len(shares) < needed:
        raise EnvelopeError(
            f"{needed} different shares are needed, and there are {len(shares)}",
            hint="A share that is given twice counts once",
        )
    first = dict(islice(shares.items(), needed))
    key = _combine(first)
    for number, share in islice(shares.items(), needed, None):
        others = dict(islice(first.items(), needed - 1))
        if _combine({**others, number: share}).seed != key.seed:
            raise _not_together()
    return key


def shares_in(text: str) -> list[str]:
    """Return the shares in a text: one in each line, or with blank lines between them."""
    found: list[str] = []
    for paragraph in re.split(r"\n\s*\n", text):
        lines = [line for line in paragraph.splitlines() if line.strip()]
        whole = all(len(_words(line)) == SHARE_WORDS for line in lines)
        found += lines if whole else ["\n".join(lines)]
    return found


def is_enough(texts: Sequence[str]) -> bool:
    """Return whether there are as many different shares as the first of them asks for.

    :raises ParseError: if one of them is not a share.
    """
    shares = _distinct([_read_share(number, text) for number, text in enumerate(texts, 1)])
    return bool(shares) and len(shares) >= shares[1].member_threshold


def check_share(number: int, text: str) -> None:
    """Check one share by itself, as it was typed.

    :raises ParseError: if it is not one.
    """
    _read_share(number, text)


def _read_share(number: int, text: str) -> slip39.Share:
    words = [_word(number, place, word) for place, word in enumerate(_words(text), 1)]
    if len(words) != SHARE_WORDS:
        raise ParseError(f"share {number} has {len(words)} words, and not {SHARE_WORDS}")
    try:
        share = slip39.Share.from_mnemonic(" ".join(words))
    except slip39.MnemonicError:
        raise ParseError(
            f"share {number} is wrong: its words do not go together",
            hint="One was mistaken for another, or two have changed places: compare each",
        ) from None
    # The exponent is 0 in ours; a forged one would keep a computer busy for hours.
    ours = (share.group_threshold, share.group_count, share.iteration_exponent) == (1, 1, 0)
    if len(share.value) != SEED_BYTES or not ours:
        raise ParseError(f"share {number} is a share of something else")
    return share


def _words(text: str) -> list[str]:
    found = [word.strip(".,:;") for word in text.lower().split()]
    return [word for word in found if word and not word.isdigit()]


def _word(number: int, place: int, word: str) -> str:
    if word in WORD_INDEX_MAP:
        return word
    if len(word) == _PREFIX and word in _PREFIXES:
        return _PREFIXES[word]
    raise ParseError(
        f"share {number} is wrong: its word {place} is none of SLIP-39's",
        hint="Compare it with the page; the first four letters of a word are enough",
    )


def _distinct(shares: Sequence[slip39.Share]) -> dict[int, slip39.Share]:
    """Return shares by their place in the list, without those that stand there twice."""
    return {
        number: share for number, share in enumerate(shares, 1) if share not in shares[: number - 1]
    }


def _refuse_other_sets(shares: dict[int, slip39.Share]) -> None:
    """Refuse shares of several keys, or of several splittings of one.

    :raises EnvelopeError: if there are some.
    """
    (first, model), *others = shares.items()
    for number, share in others:
        if share.group_parameters() != model.group_parameters():
            raise EnvelopeError(
                f"share {number} does not belong to share {first}: they are of different sets",
                hint="The first three words of all shares of a set are the same",
            )
    if len({share.index for share in shares.values()}) < len(shares):
        raise _not_together()


def _combine(shares: dict[int, slip39.Share]) -> EscrowIdentity:
    try:
        seed = slip39.combine_mnemonics([share.mnemonic() for share in shares.values()])
    except slip39.MnemonicError:
        raise _not_together() from None
    return EscrowIdentity(SecretBytes(seed))


def _not_together() -> EnvelopeError:
    return EnvelopeError(
        "the shares do not belong together: one was forged, or comes from another set",
        hint="Leave out one after the other, if there are more than are needed",
    )

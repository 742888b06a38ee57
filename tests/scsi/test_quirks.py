"""Quirks: what shows them, and what is then done about them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hwkm.keys import SecretBytes
from hwkm.scsi.commands import test_unit_ready as unit_ready
from hwkm.scsi.completion import Completion, Port, Status
from hwkm.scsi.pages.capabilities import Algorithm, Capabilities, DecryptionKad
from hwkm.scsi.pages.kad import Kad, KadType
from hwkm.scsi.pages.set_encryption import SetDataEncryption
from hwkm.scsi.pages.status import DecryptionMode, EncryptionMode, Scope
from hwkm.scsi.quirks import (
    BUSY_PAUSES,
    MAX_ATTENTIONS,
    AlgorithmIndexZero,
    BusyRetry,
    CartridgeChangedError,
    NoCkod,
    NoKadWhenOff,
    OneKadOnly,
    PaddedKad,
    UnitAttentionDrain,
    filters_for,
    first_explaining,
)
from hwkm.scsi.sense import Sense
from hwkm.scsi.transport import BusyError, CheckConditionError, Command

GOOD = Completion()
BUSY = Completion(status=Status.BUSY)

# stenc 1.x sending ALGORITHM INDEX 00h to an HP drive: 5/26/00 with a pointer to byte 8.
INDEX_REFUSED = Sense.parse(bytes.fromhex("700005000000001000000000260000 8F0008"))


def attention(asc: int, ascq: int = 0, *, deferred: bool = False) -> Completion:
    head = bytes((0x71 if deferred else 0x70, 0, 6, 0, 0, 0, 0, 10, 0, 0, 0, 0, asc, ascq))
    return Completion(status=Status.CHECK_CONDITION, sense=head + bytes(4))


class Script(Port):
    """Ends its commands one after the other as it was told."""

    name = "script"

    def __init__(self, *ends: Completion) -> None:
        self.ends = [*ends]
        self.closed = False

    def complete(self, command: Command) -> Completion:
        return self.ends.pop(0)

    def close(self) -> None:
        self.closed = True


def drain(*ends: Completion) -> tuple[UnitAttentionDrain, list[str]]:
    noted: list[str] = []
    return UnitAttentionDrain(Script(*ends), noted.append), noted


# Unit attentions


@pytest.mark.parametrize("count", [0, 1, MAX_ATTENTIONS])
def test_events_are_drained(count: int) -> None:
    filtered, noted = drain(*[attention(0x29)] * count, Completion(data=b"x"))
    assert filtered.execute(unit_ready()) == b"x"
    assert len(filtered.taken) == count
    assert noted == ["unit-attention"] * count


def test_events_without_end() -> None:
    filtered, _ = drain(*[attention(0x2A, 0x11)] * (MAX_ATTENTIONS + 1))
    with pytest.raises(CheckConditionError, match="6/2A/11"):
        filtered.execute(unit_ready())


def test_a_change_of_cartridge() -> None:
    filtered, _ = drain(attention(0x29), attention(0x28), GOOD, attention(0x28), GOOD)
    with pytest.raises(CartridgeChangedError, match="6/28/00"):
        filtered.execute(unit_ready())
    assert len(filtered.taken) == 2
    filtered.execute(unit_ready())
    with filtered.any_cartridge():
        filtered.execute(unit_ready())


def test_leave_to_change_ends() -> None:
    filtered, _ = drain(attention(0x28))
    with pytest.raises(ZeroDivisionError), filtered.any_cartridge():
        raise ZeroDivisionError
    with pytest.raises(CartridgeChangedError):
        filtered.execute(unit_ready())


def test_an_earlier_commands_error_is_no_event() -> None:
    filtered, noted = drain(attention(0x29, deferred=True))
    with pytest.raises(CheckConditionError):
        filtered.execute(unit_ready())
    assert noted == []


def test_a_filter_is_a_transport() -> None:
    script = Script()
    filtered = UnitAttentionDrain(script, print)
    assert filtered.name == "script"
    filtered.close()
    assert script.closed


# Busy


def test_busy_for_a_while() -> None:
    slept: list[float] = []
    noted: list[str] = []
    filtered = BusyRetry(Script(BUSY, BUSY, GOOD), noted.append, slept.append)
    filtered.execute(unit_ready())
    assert slept == [*BUSY_PAUSES[:2]]
    assert noted == ["busy", "busy"]


def test_busy_for_ever() -> None:
    ends = [BUSY] * (len(BUSY_PAUSES) + 1)
    filtered = BusyRetry(Script(*ends), lambda _: None, lambda _: None)
    with pytest.raises(BusyError):
        filtered.execute(unit_ready())


# Pages

# Two algorithms like those of an HP LTO-6; the second one's KADs have fixed lengths.
HP = Capabilities.parse(
    bytes.fromhex("0010004009" + "00" * 15)
    + bytes.fromhex("01000014 8A8C0020003C0020ED 00000000000000 00010014")
    + bytes.fromhex("02000014 8A8F0020003C0020D9 00000000000000 00010010")
)
U, A = Kad(KadType.U_KAD, b"Vol001"), Kad(KadType.A_KAD, b"HWKM00000001")
PAGE = SetDataEncryption(
    scope=Scope.ALL_I_T_NEXUS,
    encryption_mode=EncryptionMode.ENCRYPT,
    decryption_mode=DecryptionMode.MIXED,
    algorithm_index=1,
    key=SecretBytes(bytes(32)),
    kads=(U, A),
    ckod=True,
)


def algorithm(**changes: object) -> Algorithm:
    return replace(HP.algorithms[0], **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("described", "filters"),
    [
        (HP.algorithms[0], ()),
        (HP.algorithms[1], (PaddedKad(KadType.U_KAD, 32), PaddedKad(KadType.A_KAD, 60))),
        (algorithm(index=0), (AlgorithmIndexZero(),)),
        (algorithm(dkad=DecryptionKad.UNSPECIFIED), (NoKadWhenOff(),)),
        (algorithm(dkad=DecryptionKad.NOT_ALLOWED), (NoKadWhenOff(),)),
        (algorithm(dkad=DecryptionKad.REQUIRED), ()),
    ],
)
def test_what_a_description_asks_for(described: Algorithm, filters: tuple[object, ...]) -> None:
    assert filters_for(described) == filters


def test_padding() -> None:
    padded = PaddedKad(KadType.U_KAD, 32).adjusted(PAGE)
    assert padded.kads == (Kad(KadType.U_KAD, b"Vol001" + b" " * 26), A)
    alone = PaddedKad(KadType.U_KAD, 32).adjusted(replace(PAGE, kads=(A,)))
    assert alone.kads == (Kad(KadType.U_KAD, b" " * 32), A)
    both = PaddedKad(KadType.A_KAD, 60).adjusted(padded)
    assert [len(kad.value) for kad in both.kads] == [32, 60]
    assert both.kads[1].value == A.value + bytes(48)


def test_no_kads_with_a_key_that_only_decrypts() -> None:
    assert NoKadWhenOff().adjusted(PAGE) == PAGE
    off = replace(PAGE, encryption_mode=EncryptionMode.DISABLE)
    assert NoKadWhenOff().adjusted(off).kads == ()


def test_index_zero_is_left_alone() -> None:
    assert AlgorithmIndexZero().adjusted(PAGE) is PAGE


@pytest.mark.parametrize(
    ("specific", "found"),
    [
        ("CA0005", None),  # into the CDB
        ("8A0005", NoCkod()),  # byte 5, bit 2
        ("800005", NoCkod()),  # byte 5
        ("8D0005", None),  # byte 5, bit 5: RDMC
        ("800034", OneKadOnly()),  # the first KAD
        ("80003E", OneKadOnly()),  # the second
        ("800008", None),
        ("000000", NoCkod()),  # no pointer at all
    ],
)
def test_what_a_refusal_means(specific: str, found: object) -> None:
    sense = Sense.parse(bytes.fromhex("700005000000000A00000000260000" + specific))
    assert first_explaining(sense, PAGE, ()) == found


def test_what_is_known_explains_nothing_more() -> None:
    nowhere = Sense.parse(bytes.fromhex("700005000000000A00000000260000000000"))
    assert first_explaining(nowhere, PAGE, (NoCkod(),)) == OneKadOnly()
    assert first_explaining(nowhere, PAGE, (NoCkod(), OneKadOnly())) is None
    plain = replace(PAGE, ckod=False, kads=(A,))
    assert first_explaining(nowhere, plain, ()) is None


@pytest.mark.parametrize("code", ["26 02", "24 00", "74 21"])
def test_other_refusals_are_no_quirks(code: str) -> None:
    sense = Sense.parse(bytes.fromhex("700005000000000A00000000" + code + "00000000"))
    assert first_explaining(sense, PAGE, ()) is None


def test_a_real_refusal() -> None:
    assert first_explaining(INDEX_REFUSED, PAGE, ()) is None


def test_what_is_taken_out() -> None:
    assert NoCkod().adjusted(PAGE) == replace(PAGE, ckod=False)
    assert OneKadOnly().adjusted(PAGE).kads == (A,)
    assert OneKadOnly().adjusted(replace(PAGE, kads=(U,))).kads == (U,)

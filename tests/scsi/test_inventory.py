"""Who the drive and the cartridge are, asked of a drive that answers as captured."""

from __future__ import annotations

import pytest

from hwkm.errors import ParseError
from hwkm.scsi.completion import Completion, Port, Status
from hwkm.scsi.inventory import (
    Cartridge,
    DriveIdentity,
    conflicts,
    identify_cartridge,
    identify_drive,
    key_manager,
    same_cartridge,
)
from hwkm.scsi.mode_pages import KeyManager
from hwkm.scsi.sense import SenseKey
from hwkm.scsi.transport import CheckConditionError, Command, CommandTimeoutError
from tests.scsi.test_attributes import BARCODE, MAKER, SERIAL
from tests.scsi.test_inquiry import HPE_LTO_9, NAMES_PAGE, SERIAL_PAGE, UNIT_NAME
from tests.scsi.test_logs import BARCODE as LOG_BARCODE
from tests.scsi.test_logs import CLEAR, ENCRYPTED, NEVER_ENCRYPTED, NO_CLEAR, PROTECTED, page
from tests.scsi.test_logs import MAKER as LOG_MAKER
from tests.scsi.test_logs import SERIAL as LOG_SERIAL
from tests.scsi.test_mode import APPLICATION_LTO, CONFIGURATION, mode, page_3592

READY = "00"
STANDARD = "12 00"
SERIAL_NUMBER = "12 01 80"
NAMES = "12 01 83"
CHIP = "8c 00"
STATISTICS = "4d 00 57"
CONFIGURATION_PAGE = "5a 00 10"
METHOD_LTO = "5a 00 30 20"
METHOD_3592 = "5a 00 25"

WORM = bytes.fromhex("0408 80 0001 80")
DATA_TAPE = bytes.fromhex("0408 80 0001 00")
FIRST_ENCRYPTED = bytes.fromhex("0224 80 0008 0000000000000003")
FIRST_CLEAR = bytes.fromhex("0225 80 0008 ffffffffffffffff")


def sense(key: int, asc: int, ascq: int = 0, *, deferred: bool = False) -> Completion:
    data = bytes((0x70 + deferred, 0, key, 0, 0, 0, 0, 10, 0, 0, 0, 0, asc, ascq, 0, 0, 0, 0))
    return Completion(Status.CHECK_CONDITION, sense=data)


UNKNOWN_COMMAND = sense(5, 0x20)
UNKNOWN_PAGE = sense(5, 0x24)


class AnsweringDrive(Port):
    """Answers by the first bytes of the CDB, and refuses what it has no answer for."""

    name = "drive"

    def __init__(self, answers: dict[str, bytes | Completion]) -> None:
        self.answers = {bytes.fromhex(start): answer for start, answer in answers.items()}
        self.asked: list[str] = []

    def complete(self, command: Command) -> Completion:
        self.asked.append(command.name)
        for start, answer in self.answers.items():
            if command.cdb.startswith(start):
                return answer if isinstance(answer, Completion) else Completion(data=answer)
        return UNKNOWN_PAGE

    def close(self) -> None:
        self.answers.clear()


def attributes(*found: bytes) -> bytes:
    body = b"".join(found)
    return len(body).to_bytes(4) + body


HPE: dict[str, bytes | Completion] = {
    STANDARD: HPE_LTO_9,
    SERIAL_NUMBER: SERIAL_PAGE,
    NAMES: NAMES_PAGE,
}
LOADED: dict[str, bytes | Completion] = {
    READY: b"",
    CHIP: attributes(MAKER, SERIAL, DATA_TAPE, BARCODE),
    STATISTICS: page(0x17, LOG_SERIAL, LOG_BARCODE, NEVER_ENCRYPTED, NO_CLEAR),
    CONFIGURATION_PAGE: mode(CONFIGURATION),
}


def test_drive() -> None:
    assert identify_drive(AnsweringDrive(HPE)) == DriveIdentity(
        "HPE", "Ultrium 9-SCSI", "S2S1", "8031BDC7DB", UNIT_NAME
    )


def test_drive_without_vital_pages() -> None:
    drive = AnsweringDrive({STANDARD: HPE_LTO_9, SERIAL_NUMBER: UNKNOWN_COMMAND})
    assert identify_drive(drive) == DriveIdentity("HPE", "Ultrium 9-SCSI", "S2S1")


def test_designators_of_ports_are_no_names_of_the_drive() -> None:
    ports = bytes.fromhex("01 83 00 08  61 94 00 04 00 00 00 01")
    assert identify_drive(AnsweringDrive(HPE | {NAMES: ports})).designator == b""


def test_drive_that_refuses_inquiry() -> None:
    with pytest.raises(CheckConditionError):
        identify_drive(AnsweringDrive({STANDARD: UNKNOWN_PAGE}))


@pytest.mark.parametrize(
    "answer",
    [sense(6, 0x29), sense(5, 0x24, 1), sense(5, 0x26), sense(5, 0x20, deferred=True)],
)
def test_other_refusals_are_not_passed_over(answer: Completion) -> None:
    with pytest.raises(CheckConditionError):
        identify_drive(AnsweringDrive(HPE | {SERIAL_NUMBER: answer}))
    for query in (CHIP, STATISTICS, CONFIGURATION_PAGE):
        with pytest.raises(CheckConditionError):
            identify_cartridge(AnsweringDrive(LOADED | {query: answer}))


def test_a_timeout_is_not_passed_over() -> None:
    with pytest.raises(CommandTimeoutError):
        identify_cartridge(AnsweringDrive(LOADED | {STATISTICS: Completion(host_status=3)}))


def test_another_page_is_not_passed_over() -> None:
    with pytest.raises(ParseError):
        identify_drive(AnsweringDrive(HPE | {SERIAL_NUMBER: NAMES_PAGE}))
    with pytest.raises(ParseError):
        identify_cartridge(AnsweringDrive(LOADED | {STATISTICS: page(0x30)}))


def test_cartridge_of_the_chip() -> None:
    assert identify_cartridge(AnsweringDrive(LOADED)) == Cartridge(
        serial="HWK006L5_1795490944",
        barcode="HWK006L5",
        manufacturer="linuxVTL",
        worm=False,
        write_protected=False,
        sources=("chip (MAM)", "log page 17h", "mode parameters"),
    )


def test_cartridge_of_the_log_page() -> None:
    log = page(0x17, LOG_SERIAL, LOG_BARCODE, LOG_MAKER, PROTECTED, ENCRYPTED, CLEAR)
    drive = AnsweringDrive({READY: b"", STATISTICS: log})
    assert identify_cartridge(drive) == Cartridge(
        serial="2023B16307",
        barcode="Z20001L9",
        manufacturer="FUJIFILM",
        worm=True,
        write_protected=True,
        first_encrypted=2,
        first_clear=0xABCD,
        sources=("log page 17h",),
    )


def test_cartridge_of_a_drive_that_knows_nothing() -> None:
    assert identify_cartridge(AnsweringDrive({READY: b""})) == Cartridge()


def test_encrypted_blocks_of_the_chip() -> None:
    chip = attributes(SERIAL, WORM, FIRST_ENCRYPTED, FIRST_CLEAR)
    found = identify_cartridge(AnsweringDrive(LOADED | {CHIP: chip}))
    assert found is not None
    assert (found.first_encrypted, found.first_clear) == (3, None)
    assert found.worm


def test_write_protected_says_the_mode_head() -> None:
    drive = AnsweringDrive(LOADED | {CONFIGURATION_PAGE: mode(CONFIGURATION, device=0x90)})
    found = identify_cartridge(drive)
    assert found is not None
    assert found.write_protected


@pytest.mark.parametrize("ascq", [0x00, 0x01, 0x04])
def test_nothing_loaded(ascq: int) -> None:
    drive = AnsweringDrive(LOADED | {READY: sense(2, 0x3A, ascq)})
    assert identify_cartridge(drive) is None
    assert drive.asked == ["TEST UNIT READY"]


def test_taken_out_meanwhile() -> None:
    assert identify_cartridge(AnsweringDrive(LOADED | {STATISTICS: sense(2, 0x3A)})) is None


@pytest.mark.parametrize("answer", [sense(2, 0x04, 0x01), sense(2, 0x30, 0x03), sense(6, 0x28)])
def test_not_ready_is_not_empty(answer: Completion) -> None:
    with pytest.raises(CheckConditionError) as caught:
        identify_cartridge(AnsweringDrive(LOADED | {READY: answer}))
    assert caught.value.sense.key in (SenseKey.NOT_READY, SenseKey.UNIT_ATTENTION)


def test_key_manager() -> None:
    lto = AnsweringDrive({METHOD_LTO: mode(APPLICATION_LTO)})
    assert key_manager(lto) is KeyManager.APPLICATION
    assert key_manager(AnsweringDrive({METHOD_3592: mode(page_3592(0x60))})) is KeyManager.LIBRARY
    assert key_manager(AnsweringDrive({})) is KeyManager.UNKNOWN
    both = AnsweringDrive({METHOD_LTO: mode(CONFIGURATION), METHOD_3592: mode(page_3592(0x10))})
    assert key_manager(both) is KeyManager.SYSTEM


def test_same_cartridge() -> None:
    one = Cartridge(serial="1", manufacturer="A", barcode="X")
    assert same_cartridge(one, Cartridge(serial="1", manufacturer="A", barcode="Y"))
    assert not same_cartridge(one, Cartridge(serial="2", manufacturer="A", barcode="X"))
    assert not same_cartridge(one, Cartridge(serial="1", manufacturer="B", barcode="X"))


def test_same_cartridge_without_serial() -> None:
    barcode = Cartridge(barcode="X")
    assert same_cartridge(barcode, Cartridge(barcode="X"))
    assert not same_cartridge(barcode, Cartridge(barcode="Y"))
    assert not same_cartridge(barcode, Cartridge(barcode="X", serial="1"))
    assert not same_cartridge(Cartridge(), Cartridge())


@pytest.mark.parametrize(
    ("barcode", "expected"),
    [
        ("Z20001L9", "Z20001L9"),
        ("Z20001", "Z20001L9"),
        ("Z20001L9", "Z20001"),
        ("z20001l9", "Z20001L9 "),
        ("", "Z20001L9"),
        ("Z20001L9", ""),
        ("", ""),
    ],
)
def test_no_conflict(barcode: str, expected: str) -> None:
    assert conflicts(Cartridge(barcode=barcode), expected) == ""


@pytest.mark.parametrize(
    ("barcode", "expected"),
    [("Z20001L9", "Z20002L9"), ("Z20001L9", "Z20001L8"), ("Z2000", "Z2000L9"), ("Z", "Z20001L9")],
)
def test_conflict(barcode: str, expected: str) -> None:
    text = conflicts(Cartridge(barcode=barcode), expected)
    assert text == f"the cartridge's chip says {barcode} instead of {expected}"

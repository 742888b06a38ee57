"""What sense codes mean to someone who encrypts tapes, and what to do about them.

The codes of T10's list that a tape drive gives (SPC-5, SSC-5), and those of IBM's drives
(GA32-0928, Annex B). An entry by sense key goes before one for every key.
"""

from __future__ import annotations

from typing import NamedTuple


class Explanation(NamedTuple):
    """What a code means, as part of a sentence, and what to do, as a sentence or "" ."""

    text: str
    advice: str = ""


RETRY = "Try again; if it stays so, look at the drive's display and its log"
WAIT = "Wait until the drive is ready, then try again"
LOAD = "Load the cartridge, then try again"
OTHER_KEY = (
    "Load the key that the tape was written with; never guess keys: after about ten wrong"
    " ones a drive locks itself until the cartridge is unloaded"
)
LOAD_KEY = "Load the volume's key into the drive, then read again: the tape has not moved"
MANAGED = (
    "The library or a key manager gives this drive its keys: set its encryption method to"
    " application-managed, in the library's menu or with the vendor's tool; no retry helps"
)
PUSH_AGAIN = "Whatever key the drive had may be gone or another: load the key again before writing"
IDENTIFY = "Another cartridge may be in the drive: identify it again before any key is used"
SERVICE = "The drive or the cartridge may be damaged: try another cartridge, then call for service"
FIRMWARE = "Update the drive's firmware, or use another drive"
HOLDER = "Find out which other host uses the drive, and keep it away while this one does"
ALGORITHM = "Read the drive's capabilities again with this cartridge loaded"

BY_KEY: dict[tuple[int, int, int], Explanation] = {
    (0x0, 0x00, 0x16): Explanation("an operation is still in progress", WAIT),
    (0x2, 0x00, 0x16): Explanation("an operation is still in progress", WAIT),
    (0x2, 0x04, 0x13): Explanation("the drive is creating a security association", WAIT),
    (0x2, 0x30, 0x03): Explanation("a cleaning cartridge is at work", WAIT),
    (0x6, 0x28, 0x00): Explanation("a medium was loaded since the last command", IDENTIFY),
    (0x7, 0x27, 0x00): Explanation(
        "the medium is write-protected, or this drive can't write it so",
        "Look at the cartridge's switch and generation; an IBM 3592 encrypts a tape from its"
        " beginning or not at all",
    ),
}

BY_CODE: dict[tuple[int, int], Explanation] = {
    (0x00, 0x00): Explanation("the drive gives no reason", RETRY),
    (0x00, 0x01): Explanation("a filemark was met"),
    (0x00, 0x02): Explanation("the end of the tape is near or reached", "Go on with a new volume"),
    (0x00, 0x04): Explanation("the beginning of the tape was met"),
    (0x00, 0x05): Explanation("the end of the data was met"),
    (0x04, 0x00): Explanation("the drive is not ready, and does not say why", WAIT),
    (0x04, 0x01): Explanation("the drive is becoming ready", WAIT),
    (0x04, 0x02): Explanation("a cartridge is in the drive, but not loaded", LOAD),
    (0x04, 0x03): Explanation(
        "the drive needs someone's hands", "Look at the drive's display, and do what it asks for"
    ),
    (0x04, 0x04): Explanation(
        "the drive is formatting or optimising the cartridge",
        "Wait: the first optimisation of an LTO-9 cartridge can take two hours",
    ),
    (0x04, 0x07): Explanation("an operation is still in progress", WAIT),
    (0x04, 0x12): Explanation("the drive is offline", "Put it online in the library's menu"),
    (0x04, 0x13): Explanation("the drive is creating a security association", WAIT),
    (0x0C, 0x00): Explanation("a block could not be written", SERVICE),
    (0x11, 0x00): Explanation("a block could not be read", SERVICE),
    (0x14, 0x00): Explanation("what was looked for is not on the tape"),
    (0x14, 0x03): Explanation("the tape is blank: no end of data was found"),
    (0x1A, 0x00): Explanation("the length of the data sent is wrong", FIRMWARE),
    (0x20, 0x00): Explanation(
        "the drive does not know this command",
        "To encrypt, use a drive of LTO-4 or later whose encryption is enabled and licensed, or"
        " encrypt in software",
    ),
    (0x24, 0x00): Explanation(
        "the drive lacks what the command asks for, or has it disabled",
        "To encrypt, check that the drive's encryption is enabled and application-managed",
    ),
    (0x25, 0x00): Explanation("there is no device at this LUN", "Check the device's name"),
    (0x26, 0x00): Explanation(
        "the drive does not accept a field of the data sent",
        "Compare the field with what the drive's capabilities allow",
    ),
    (0x26, 0x01): Explanation("the drive does not support a parameter that was sent", ALGORITHM),
    (0x26, 0x02): Explanation("a parameter that was sent has a value it can't have", ALGORITHM),
    (0x26, 0x04): Explanation("a persistent reservation was released that is not held", HOLDER),
    (0x26, 0x10): Explanation(
        "too many wrong keys in a row: the drive takes no more",
        "Unload and load the cartridge, or power-cycle the drive; find out which key is right"
        " before the next try",
    ),
    (0x26, 0x11): Explanation(
        "the drive needs more key-associated data with this key",
        "Send the key with the same U-KAD that the tape was written with",
    ),
    (0x26, 0x12): Explanation(
        "the drive does not know the key that is referred to", "Send the key itself instead"
    ),
    (0x27, 0x00): Explanation(
        "the medium is write-protected", "Look at the cartridge's write-protect switch"
    ),
    (0x28, 0x00): Explanation("the medium may have been changed", IDENTIFY),
    (0x28, 0x01): Explanation("the import or export slot was used", IDENTIFY),
    (0x29, 0x00): Explanation("the drive was switched on or reset", PUSH_AGAIN),
    (0x29, 0x01): Explanation("the drive was switched on", PUSH_AGAIN),
    (0x29, 0x02): Explanation("the SCSI bus was reset", PUSH_AGAIN),
    (0x29, 0x03): Explanation("the drive was reset by a host", PUSH_AGAIN),
    (0x29, 0x04): Explanation("the drive reset itself", PUSH_AGAIN),
    (0x29, 0x07): Explanation("the connection to the drive was lost for a while", PUSH_AGAIN),
    (0x2A, 0x01): Explanation("another host has changed the mode parameters", HOLDER),
    (0x2A, 0x02): Explanation("log parameters were changed"),
    (0x2A, 0x03): Explanation("another host has taken the reservation over", HOLDER),
    (0x2A, 0x04): Explanation("the reservation was released by another host", HOLDER),
    (0x2A, 0x05): Explanation("another host has removed this one's registration", HOLDER),
    (0x2A, 0x0D): Explanation("the drive's encryption capabilities have changed", ALGORITHM),
    (0x2A, 0x10): Explanation(
        "the drive's clock was set (IBM: its encryption capabilities have changed)", ALGORITHM
    ),
    (0x2A, 0x11): Explanation(
        "another host has changed the drive's encryption parameters", f"{PUSH_AGAIN}. {HOLDER}"
    ),
    (0x2A, 0x12): Explanation(
        "something in the drive has changed its encryption parameters", PUSH_AGAIN
    ),
    (0x2A, 0x13): Explanation(
        "the key in the drive is not the one this host has locked: another was set since",
        f"{PUSH_AGAIN}. {HOLDER}",
    ),
    (0x2A, 0x14): Explanation("what the drive offers for security associations has changed"),
    (0x2C, 0x00): Explanation("the drive did not expect this command now", RETRY),
    (0x2C, 0x0B): Explanation("this host holds no reservation", "Reserve the drive first"),
    (0x30, 0x00): Explanation(
        "this drive can't use the cartridge", "Use a cartridge of a generation that the drive knows"
    ),
    (0x30, 0x01): Explanation("this drive can't read the cartridge's format", ALGORITHM),
    (0x30, 0x02): Explanation("this drive can't read the cartridge's format", ALGORITHM),
    (0x30, 0x03): Explanation("a cleaning cartridge is loaded", LOAD),
    (0x30, 0x05): Explanation(
        "this drive can't write the cartridge", "Use a cartridge that it can both read and write"
    ),
    (0x30, 0x0C): Explanation("a WORM medium can't be overwritten", "Append, or use another tape"),
    (0x31, 0x00): Explanation("the medium's format is damaged", SERVICE),
    (0x3A, 0x00): Explanation("no medium is loaded", LOAD),
    (0x3A, 0x04): Explanation(
        "a cartridge is in the drive, but only its chip can be read so far", LOAD
    ),
    (0x3B, 0x00): Explanation("the tape is not where the command wants it", "Rewind, and go on"),
    (0x3B, 0x0C): Explanation("the position lies before the beginning of the medium"),
    (0x3F, 0x01): Explanation("the drive's firmware was changed", PUSH_AGAIN),
    (0x44, 0x00): Explanation("the drive has an internal failure", SERVICE),
    (0x4E, 0x00): Explanation("two commands overlapped", HOLDER),
    (0x53, 0x00): Explanation("the cartridge could not be loaded or given out", SERVICE),
    (0x53, 0x02): Explanation(
        "the cartridge is locked into the drive", "The program that uses the drive must release it"
    ),
    (0x55, 0x08): Explanation(
        "the drive holds as many supplemental decryption keys as it can", "Clear its keys first"
    ),
    (0x74, 0x00): Explanation("the drive reports a security error", RETRY),
    (0x74, 0x01): Explanation("the block is encrypted, and the drive has no key for it", LOAD_KEY),
    (0x74, 0x02): Explanation(
        "the block is not encrypted, and the drive was told to expect encrypted ones only",
        "Read with the decryption mode mixed, if the tape is meant to hold both",
    ),
    (0x74, 0x03): Explanation("the block is encrypted under another key", OTHER_KEY),
    (0x74, 0x04): Explanation(
        "the block does not pass its integrity check: it is damaged or was tampered with",
        "Don't trust this tape; restore from another copy",
    ),
    (0x74, 0x05): Explanation(
        "the block could not be decrypted (HP LTO-4: its key-associated data have changed)",
        OTHER_KEY,
    ),
    (0x74, 0x06): Explanation("the key to check a signature with is unknown", MANAGED),
    (0x74, 0x07): Explanation(
        "the encryption parameters can't be used with this medium, or at this place on it",
        ALGORITHM,
    ),
    (0x74, 0x08): Explanation(
        "a digital signature is not valid", "Get the firmware image from the vendor again"
    ),
    (0x74, 0x09): Explanation(
        "the block was encrypted in another way than was asked for",
        "Load the key without that check (CEEM)",
    ),
    (0x74, 0x0A): Explanation(
        "the block may not be read without decrypting it", "Load its key, and don't read it raw"
    ),
    (0x74, 0x0B): Explanation("the encryption parameters are not right", ALGORITHM),
    (0x74, 0x0C): Explanation(
        "the drive could not unwrap the key it was sent",
        "Read the drive's public key again: another drive may be behind this device now",
    ),
    (0x74, 0x0D): Explanation("the encryption algorithm is disabled", MANAGED),
    (0x74, 0x10): Explanation("a value for a security association is not valid", FIRMWARE),
    (0x74, 0x11): Explanation("the drive has rejected a security association", FIRMWARE),
    (0x74, 0x12): Explanation("a security association was used in a way that is not valid"),
    (0x74, 0x21): Explanation("the drive takes no encryption parameters from hosts", MANAGED),
    (0x74, 0x30): Explanation("the drive does not support security associations", FIRMWARE),
    (0x74, 0x40): Explanation("the authentication failed", MANAGED),
    (0x74, 0x61): Explanation("the drive can't reach its external key manager", MANAGED),
    (0x74, 0x62): Explanation("the drive's external key manager reports an error", MANAGED),
    (0x74, 0x63): Explanation("the drive's external key manager has no such key", MANAGED),
    (0x74, 0x64): Explanation("the drive's external key manager refuses the key", MANAGED),
    (0x74, 0x6E): Explanation("the external encryption control did not answer in time", MANAGED),
    (0x74, 0x6F): Explanation("the external encryption control reports an error", MANAGED),
    (0x74, 0x71): Explanation("this host may not use the device", "Ask who manages its access"),
    (0x74, 0x79): Explanation("the security settings contradict those of the device behind it"),
}

IBM_KEY_SERVICE = 0xEE
IBM_KEY_OPTIONAL = 0xEF

IBM_BY_CODE: dict[tuple[int, int], str] = {
    (0xEE, 0x00): "the key service is not enabled",
    (0xEE, 0x01): "the key service is not configured",
    (0xEE, 0x02): "the key service is not available",
    (0xEE, 0x0D): "the content of a key message is not valid",
    (0xEE, 0x0E): "the key service did not answer in time",
    (0xEE, 0x0F): "the key service has failed",
    (0xEE, 0x10): "a key is required",
    (0xEE, 0x11): "a key is to be generated",
    (0xEE, 0x12): "a key change was detected",
    (0xEE, 0x13): "a key is to be translated",
    (0xEE, 0x18): "the key for reading has changed",
    (0xEE, 0x19): "the key for writing has changed",
    (0xEE, 0x20): "there are too many keys",
    (0xEE, 0x21): "the key's alias is too long",
    (0xEE, 0x22): "the key is reserved",
    (0xEE, 0x23): "the keys conflict",
    (0xEE, 0x24): "the key method has changed",
    (0xEE, 0x25): "the key format is not supported",
    (0xEE, 0x26): "the dAK is not authorised",
    (0xEE, 0x27): "the dSK is not authorised",
    (0xEE, 0x28): "the eAK is not authorised",
    (0xEE, 0x29): "the authentication failed",
    (0xEE, 0x2A): "the RDKi is not valid",
    (0xEE, 0x2B): "the key is not right",
    (0xEE, 0x2C): "the key could not be wrapped or unwrapped",
    (0xEE, 0x2D): "key messages came in the wrong order",
    (0xEE, 0x2E): "the type of key is not supported",
    (0xEE, 0x2F): "an encrypted write with a new key is pending",
    (0xEE, 0x30): "the request is prohibited",
    (0xEE, 0x31): "the key is unknown",
    (0xEE, 0x32): "the dCERT is not authorised",
    (0xEE, 0x40): "the key manager's id has changed",
    (0xEE, 0x41): "the key manager's challenge has changed",
    (0xEE, 0x42): "a key manager's challenge is pending",
    (0xEE, 0x50): "the initiator's id has changed",
    (0xEE, 0x51): "the initiator's response has changed",
    (0xEE, 0xE2): "the key may not be translated",
    (0xEE, 0xFF): "security prohibits the function",
    (0xEF, 0x01): "the key service is not configured",
    (0xEF, 0x10): "a key is required",
    (0xEF, 0x11): "a key is to be generated",
    (0xEF, 0x13): "a key is to be translated",
    (0xEF, 0x1A): "a key is optional",
    (0xEF, 0x31): "the key is unknown",
    (0xEF, 0xC0): "there is nothing to do",
}
"""IBM's codes: each of them shows that something else than the host manages the drive's keys."""

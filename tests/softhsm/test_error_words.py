"""Every PKCS#11 error has words, and the name and number that the standard gives it."""

from __future__ import annotations

import re

import pytest
from pkcs11 import exceptions

from hwkm.errors import PinError, TokenError
from hwkm.token import p11

STANDARD = {
    "HOST_MEMORY": 0x2,
    "GENERAL_ERROR": 0x5,
    "FUNCTION_FAILED": 0x6,
    "ARGUMENTS_BAD": 0x7,
    "ATTRIBUTE_READ_ONLY": 0x10,
    "ATTRIBUTE_SENSITIVE": 0x11,
    "ATTRIBUTE_TYPE_INVALID": 0x12,
    "ATTRIBUTE_VALUE_INVALID": 0x13,
    "DATA_INVALID": 0x20,
    "DATA_LEN_RANGE": 0x21,
    "DEVICE_ERROR": 0x30,
    "DEVICE_MEMORY": 0x31,
    "DEVICE_REMOVED": 0x32,
    "ENCRYPTED_DATA_INVALID": 0x40,
    "ENCRYPTED_DATA_LEN_RANGE": 0x41,
    "FUNCTION_NOT_SUPPORTED": 0x54,
    "KEY_HANDLE_INVALID": 0x60,
    "KEY_SIZE_RANGE": 0x62,
    "KEY_TYPE_INCONSISTENT": 0x63,
    "MECHANISM_INVALID": 0x70,
    "MECHANISM_PARAM_INVALID": 0x71,
    "OBJECT_HANDLE_INVALID": 0x82,
    "OPERATION_ACTIVE": 0x90,
    "PIN_INCORRECT": 0xA0,
    "PIN_INVALID": 0xA1,
    "PIN_LEN_RANGE": 0xA2,
    "PIN_EXPIRED": 0xA3,
    "PIN_LOCKED": 0xA4,
    "SESSION_CLOSED": 0xB0,
    "SESSION_COUNT": 0xB1,
    "SESSION_HANDLE_INVALID": 0xB3,
    "SESSION_READ_ONLY": 0xB5,
    "SESSION_READ_ONLY_EXISTS": 0xB7,
    "TEMPLATE_INCOMPLETE": 0xD0,
    "TEMPLATE_INCONSISTENT": 0xD1,
    "TOKEN_NOT_PRESENT": 0xE0,
    "TOKEN_NOT_RECOGNIZED": 0xE1,
    "TOKEN_WRITE_PROTECTED": 0xE2,
    "USER_ALREADY_LOGGED_IN": 0x100,
    "USER_NOT_LOGGED_IN": 0x101,
    "USER_PIN_NOT_INITIALIZED": 0x102,
}
"""PKCS #11 v3.0, annex A (pkcs11t.h)."""


def test_names_and_numbers_are_the_standards() -> None:
    said = [p11.describe(kind()) for kind in p11._RETURN_VALUES]
    shown = [re.fullmatch(r"([^()]+) \(CKR_(\w+), (0x[0-9a-f]+)\)", text) for text in said]
    assert all(shown), said
    assert {match[2]: int(match[3], 16) for match in shown if match} == STANDARD
    assert len({match[1] for match in shown if match}) == len(STANDARD)


def test_an_error_without_a_place_in_the_table_keeps_its_own_words() -> None:
    unmapped = exceptions.PKCS11Error("Unmapped error code 0x1b")
    assert p11.describe(unmapped) == "PKCS11Error: Unmapped error code 0x1b"


@pytest.mark.parametrize(
    "error", [AttributeError, TypeError, ValueError, NotImplementedError, OverflowError]
)
def test_what_the_library_raises_of_pythons_own_is_the_tokens_error(error: type[Exception]) -> None:
    with pytest.raises(p11.TokenOperationError, match=f"doing it failed: {error.__name__}: odd"):
        raise_inside(error("odd"))


@pytest.mark.parametrize("name", ["PinIncorrect", "PinInvalid", "PinLenRange", "PinLocked"])
def test_a_refused_pin_is_to_be_remembered(name: str) -> None:
    with pytest.raises(p11.WrongPinError, match="doing it failed: the PIN"):
        raise_inside(getattr(exceptions, name)())


@pytest.mark.parametrize("name", ["PinExpired", "UserPinNotInitialized"])
def test_a_pin_that_nobody_could_give_is_not(name: str) -> None:
    with pytest.raises(PinError) as caught:
        raise_inside(getattr(exceptions, name)())
    assert not isinstance(caught.value, p11.WrongPinError)
    assert "vendor's tool" in caught.value.hint


def test_exit_codes() -> None:
    assert (TokenError.exit_code, PinError.exit_code) == (3, 4)
    assert p11.WrongPinError.exit_code == 4


def test_anything_else_passes_through() -> None:
    with pytest.raises(ZeroDivisionError):
        raise_inside(ZeroDivisionError())


def raise_inside(error: Exception) -> None:
    with p11.errors("doing it"):
        raise error

"""The errors hwkm raises: each says what happened, why, and what to do next.

The exit codes are part of the command line's contract (docs/command-line.md).
"""

from __future__ import annotations

from typing import ClassVar


class HwkmError(Exception):
    """Base of every error that hwkm raises on purpose.

    ``str(error)`` is one sentence about what happened and why; ``hint`` says what to do next.
    Neither ever holds key bytes or a PIN.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint

    def diagnostics(self) -> str:
        """Return the whole text for a person, as one paragraph."""
        end = "" if str(self).endswith((".", "!", "?")) else "."
        return f"{self}{end} {self.hint}" if self.hint else str(self)


class NotFoundError(HwkmError):
    """A volume, a key or a generation that was asked for does not exist."""


class ConfigError(HwkmError):
    """The configuration or the way a command was called is wrong."""

    exit_code = 2


class TokenError(HwkmError):
    """The PKCS#11 token or its module does not do what is needed."""

    exit_code = 3


class PinError(HwkmError):
    """The PIN is wrong, locked or withheld. A PIN is never tried again on its own."""

    exit_code = 4


class DeviceError(HwkmError):
    """The tape drive, or the way to it, does not do what is needed."""

    exit_code = 5


class KeystoreError(HwkmError):
    """The keystore can't be read or written, or belongs to another installation."""

    exit_code = 6


class PolicyError(HwkmError):
    """The policy, or a guard that protects keys, forbids what was asked for."""

    exit_code = 7


class ParseError(HwkmError):
    """Bytes from outside are not what they should be.

    The only error that parsing arbitrary bytes may raise.
    """


class EnvelopeError(HwkmError):
    """An envelope does not open, or not to what it claims."""

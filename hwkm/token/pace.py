"""How often a token that fails is opened again.

Opening a token anew costs a login, and while a sick module is loaded and waited for again and
again nothing else is done. The memory is the process's, whoever asks for the token.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hwkm.errors import TokenError

if TYPE_CHECKING:
    from hwkm.token.settings import TokenSettings


class TokenUnavailableError(TokenError):
    """The token can't be opened: it is away, or its module does not work."""


@dataclass(slots=True)
class Pace:
    """What is remembered of one token's failures. Times are seconds of one steady clock."""

    name: str
    _why: str = ""
    _since: float = -math.inf
    _is_lost: bool = False
    _tried: float = -math.inf

    def lost(self, why: str, now: float) -> None:
        """Remember that the token failed, and what by."""
        if not self._is_lost:
            self._since = now  # what goes wrong in trying it again does not make it younger
        self._why, self._is_lost = why, True

    def found(self) -> None:
        """Remember that the token works."""
        self._is_lost = False

    def begin(self, seconds: float, now: float) -> None:
        """Allow the token to be opened: at once unless it failed, then once in ``seconds``.

        :raises TokenUnavailableError: if it was tried less than ``seconds`` ago.
        """
        if self._is_lost:
            self._refuse(seconds, now)
            self._tried = now

    def give_up(self, why: str, seconds: float, now: float) -> None:
        """Allow an open token to be taken for lost, if it may be opened again at once.

        :raises TokenUnavailableError: if it may not.
        """
        if not self._is_lost:
            self._why, self._since = why, now
        self._refuse(seconds, now)
        self.lost(why, now)

    def _refuse(self, seconds: float, now: float) -> None:
        wait = self._tried + seconds - now
        if wait > 0:
            raise TokenUnavailableError(
                f"token {self.name!r} was lost {max(now - self._since, 0):.0f} s ago "
                f"({self._why}); it is tried again in {math.ceil(wait)} s",
                hint="Connect it, or see hwkm token list for what its module shows",
            )


_paces: dict[str, Pace] = {}


def pace_of(settings: TokenSettings) -> Pace:
    """Return the memory of one token's failures in this process."""
    return _paces.setdefault(f"{settings.name}\0{settings.uri}", Pace(settings.name))

"""The configured tokens, each opened when it is first needed and closed at the end."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Self

from hwkm.recipients.token import TokenIdentity
from hwkm.token.session import TokenSession

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from hwkm.config import Config
    from hwkm.keystore.records import MasterKey
    from hwkm.token.session import Access


class Tokens:
    """All the tokens of a configuration. A context manager: leaving it logs out everywhere."""

    def __init__(self, config: Config, access: Access, *, writable: bool = False) -> None:
        self._config = config
        self._access = access
        self._writable = writable
        self._sessions: dict[str, TokenSession] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()

    def release(self) -> None:
        """Log out everywhere, and let other processes in; what is needed again logs in again."""
        for session in self._sessions.values():
            session.close()

    @property
    def seconds(self) -> float:
        """How long tokens were used in all."""
        return sum(session.seconds for session in self._sessions.values())

    @property
    def logins(self) -> int:
        """How often tokens were opened in all."""
        return sum(session.logins for session in self._sessions.values())

    @property
    def last_login(self) -> float:
        """When a token was last opened with success, in seconds since 1970; 0 if never."""
        return max((session.last_login for session in self._sessions.values()), default=0.0)

    def session(self, name: str | None = None) -> TokenSession:
        """Return the session of the token called ``name``; it logs in at its first use.

        :raises ConfigError: if there is no such token.
        """
        settings = self._config.token(name)
        if settings.name not in self._sessions:
            session = TokenSession(settings, self._access, writable=self._writable)
            self._sessions[settings.name] = self._stack.enter_context(session)
        return self._sessions[settings.name]

    def identities(self, records: Mapping[bytes, MasterKey]) -> list[TokenIdentity]:
        """Return every token as an identity, in the order of the configuration."""
        names = [settings.name for settings in self._config.tokens]
        return [TokenIdentity(self.session(name), records) for name in names]

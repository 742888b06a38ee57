"""Where the keystore is, opened once when first needed."""

from __future__ import annotations

from dataclasses import dataclass, field

from hwkm.keystore.engine import Keystore, KeystoreMissingError


@dataclass(slots=True)
class KeystoreSource:
    """A keystore's URL and the installation it must belong to (empty: any).

    ``keep`` as for :meth:`Keystore.open`.
    """

    url: str
    installation: str = ""
    keep: bool = False
    _opened: Keystore | None = field(default=None, init=False)

    def open(self) -> Keystore:
        """Return the keystore.

        :raises KeystoreError: as :meth:`Keystore.open` does.
        """
        if self.keep and self._opened is not None and self._opened.is_gone:
            self.close()
        if self._opened is None:
            self._opened = Keystore.open(self.url, self.installation, keep=self.keep)
        return self._opened

    def close(self) -> None:
        """Close it; it is opened again when needed."""
        if self._opened is not None:
            self._opened.close()
        self._opened = None

    def is_missing(self) -> bool:
        """Return whether there is no keystore at all (a broken one is not missing)."""
        try:
            self.open()
        except KeystoreMissingError:
            return True
        return False

    def open_or_create(self, now: int, who: str) -> Keystore:
        """Return the keystore, made empty if it is missing.

        :raises KeystoreError: as :meth:`Keystore.open` does, or if it can't be made.
        """
        if self.is_missing():
            from hwkm.keystore import migrate  # alembic is heavy, and rarely needed

            migrate.create(self.url, self.installation, now=now, who=who)
        return self.open()

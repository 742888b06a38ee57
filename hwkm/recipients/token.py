"""Volume keys wrapped to, and unwrapped by, master keys in tokens."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hwkm.envelope import TOKEN_SCHEMES, Header, Scheme, Stanza, StanzaError, context
from hwkm.errors import ParseError, TokenError
from hwkm.keys import VolumeKey
from hwkm.keystore.records import State
from hwkm.recipients import NotMineError, canary
from hwkm.token.master import NoMasterKeyError
from hwkm.token.p11 import TokenOperationError
from hwkm.token.pace import TokenUnavailableError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hwkm.keys import SecretBytes
    from hwkm.keystore.records import MasterKey
    from hwkm.recipients.base import MasterCipher
    from hwkm.recipients.token_oaep import OaepHash
    from hwkm.token.session import TokenSession


def unrecorded_master(token: TokenSession, scheme: Scheme, master_id: bytes) -> MasterCipher:
    """Return the master key ``master_id`` in ``token``, of which there may be no record.

    Nothing is asked of the token yet. Each scheme's module is imported at its first use: the
    Encryption Command is a hot path.
    """
    return _cipher(token, scheme, master_id, None)


def recorded_master(token: TokenSession, record: MasterKey) -> MasterCipher:
    """Return the master key on ``record``; it must also have the label that is recorded."""
    cipher = _cipher(token, record.scheme, record.master_id, record.label)
    if record.scheme is not Scheme.OAEP:
        return cipher
    from hwkm.recipients.token_oaep import TokenOaep, decode_public

    return TokenOaep(
        token=token,
        master_id=record.master_id,
        label=record.label,
        public=decode_public(record.public_key) if record.public_key else None,
        hash=_oaep_hash(record),
    )


def _oaep_hash(record: MasterKey) -> OaepHash:
    from hwkm.recipients.token_oaep import OaepHash

    name = record.parameters.get("oaep_hash")
    for kind in OaepHash:
        if kind.name == name:
            return kind
    raise ParseError(f"the record of master key {record.master_id.hex()} has no known OAEP hash")


def _cipher(
    token: TokenSession, scheme: Scheme, master_id: bytes, label: str | None
) -> MasterCipher:
    if scheme is Scheme.GCM:
        from hwkm.recipients.token_gcm import TokenGcm

        return TokenGcm(token, master_id, label)
    if scheme is Scheme.HMAC_KDF:
        from hwkm.recipients.token_hmac import TokenHmacKdf

        return TokenHmacKdf(token, master_id, label)
    from hwkm.recipients.token_oaep import TokenOaep

    return TokenOaep(token, master_id, label)


@dataclass(frozen=True, slots=True)
class TokenRecipient:
    """A master key as a recipient."""

    cipher: MasterCipher

    def wrap(self, header: Header, key: VolumeKey) -> Stanza:
        """See :meth:`hwkm.recipients.Recipient.wrap`; it is tried again if the token was lost."""
        bound = context(header, self.cipher.scheme, self.cipher.master_id)
        try:
            blob = self.cipher.wrap(bound, key)
        except (NoMasterKeyError, TokenOperationError) as error:
            # A login that was lost can look like a token without the key. Nothing is stored yet.
            self.cipher.token.give_up(str(error))
            blob = self.cipher.wrap(bound, key)
        return Stanza(self.cipher.scheme, self.cipher.master_id, blob)


@dataclass(frozen=True, slots=True)
class TokenIdentity:
    """All the master keys in one token as an identity.

    ``records`` are those in the keystore, by master id. A bare machine has none: there a fresh
    canary tells whose fault an error is.
    """

    token: TokenSession
    records: Mapping[bytes, MasterKey] = field(default_factory=dict)

    def unwrap(self, header: Header, stanza: Stanza) -> VolumeKey:
        """See :meth:`hwkm.recipients.Identity.unwrap`."""
        self._refuse_strangers(stanza)
        cipher = unrecorded_master(self.token, stanza.scheme, stanza.recipient_id)
        with self.token.kept():
            try:
                secret = self._open(cipher, header, stanza)
            except NoMasterKeyError as error:
                raise NotMineError(str(error)) from error
        try:
            return VolumeKey(header.cipher, secret.expose())
        except ParseError as error:
            raise self._broken(header, stanza, error) from error

    def _open(self, cipher: MasterCipher, header: Header, stanza: Stanza) -> SecretBytes:
        """Open ``stanza``; after an error once more, when the token was found to be well."""
        bound = context(header, stanza.scheme, stanza.recipient_id)
        try:
            return cipher.unwrap(bound, stanza.blob)
        except NoMasterKeyError as error:
            if not self._should_hold(stanza.recipient_id):
                raise
            self.token.give_up(str(error))  # a login that was lost looks like that
        except (StanzaError, TokenOperationError) as error:
            self._judge(cipher, error)
        try:
            return cipher.unwrap(bound, stanza.blob)
        except (StanzaError, TokenOperationError) as error:
            raise self._broken(header, stanza, error) from error

    def _refuse_strangers(self, stanza: Stanza) -> None:
        """Raise :class:`NotMineError` for a stanza that a stranger may have made.

        Whoever knows an RSA public key can wrap a key of their own choice to it. So an RSA key that
        is not on record, another application's perhaps, is only used where there are no records.
        """
        if stanza.scheme not in TOKEN_SCHEMES:
            raise NotMineError(f"{stanza.recipient_id.hex()} is no key of a token's")
        record = self.records.get(stanza.recipient_id)
        if record is not None and record.scheme is not stanza.scheme:
            raise NotMineError(f"{stanza.recipient_id.hex()} is on record for another scheme")
        if record is None and self.records and stanza.scheme is Scheme.OAEP:
            raise NotMineError(
                f"the RSA key {stanza.recipient_id.hex()} is no master key on record"
            )

    def _should_hold(self, master_id: bytes) -> bool:
        record = self.records.get(master_id)
        return record is not None and record.token == self.token.settings.name

    def _judge(self, cipher: MasterCipher, error: Exception) -> None:
        """Return if the token is well; if it is not, open it anew first.

        :raises TokenError: if ``error`` is the token's fault, not the blob's.
        """
        try:
            self._check(cipher)
        except TokenUnavailableError:
            raise
        except (TokenError, NoMasterKeyError) as sick:
            self.token.give_up(str(sick))
            try:
                self._check(cipher)
            except NoMasterKeyError as gone:
                raise TokenError(f"{error}, and then the master key was gone") from gone

    def _check(self, cipher: MasterCipher) -> None:
        """Let a canary be opened: the master key's own, or else another's in the same token.

        The latter so that nobody can make a token look sick by naming a key in it that is somebody
        else's. Without any record, there is only a fresh one.
        """
        record = self._with_canary(cipher.master_id)
        if record is None or record.canary is None:
            canary.make(cipher)
        else:
            canary.check(recorded_master(self.token, record), record.canary)

    def _with_canary(self, master_id: bytes) -> MasterKey | None:
        here = [
            record
            for record in self.records.values()
            if record.token == self.token.settings.name and record.state is not State.DESTROYED
        ]
        here.sort(key=lambda record: record.state is not State.ACTIVE)
        own = self.records.get(master_id)
        ranked = here if own is None else [own, *here]
        return next((record for record in ranked if record.canary is not None), None)

    def _broken(self, header: Header, stanza: Stanza, error: Exception) -> StanzaError:
        is_ours = stanza.recipient_id in self.records or not self.records
        what = "its master key" if is_ours else "its token"
        return StanzaError(
            f"the wrapped key of volume {header.volume!r}, generation {header.generation}, does "
            f"not open ({error}), though {what} works: it was damaged, or belongs to another "
            "volume, generation or cipher",
            hint="The keystore's copy is tried too; if it has none, restore the keystore's backup",
        )

"""The tables (docs/keystore.md). Times are whole seconds since 1970-01-01 UTC.

Changes come with a migration in :mod:`hwkm.keystore.migrations`; a test compares the two.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
)

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
    }
)

Count = BigInteger().with_variant(Integer(), "sqlite")
"""A 64-bit number; SQLite's INTEGER is one, and the only kind that can count up by itself."""

installation = Table(
    "installation",
    metadata,
    Column("installation_id", Text, primary_key=True),
    Column("created", Count, nullable=False),
    sqlite_strict=True,
)

master_key = Table(
    "master_key",
    metadata,
    Column("master_id", LargeBinary, primary_key=True),
    Column("label", Text, nullable=False),
    Column("token", Text, nullable=False),
    Column("serial", Text, nullable=False),
    Column("scheme", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("created", Count, nullable=False),
    Column("attributes", Text, nullable=False),
    Column("parameters", Text, nullable=False),
    Column("canary", LargeBinary),
    Column("public_key", LargeBinary),
    sqlite_strict=True,
)

volume = Table(
    "volume",
    metadata,
    Column("volume_id", Count, primary_key=True, autoincrement=True),
    Column("name", Text, nullable=False, unique=True),
    sqlite_strict=True,
)

event = Table(
    "event",
    metadata,
    Column("event_id", Count, primary_key=True, autoincrement=True),
    Column("at", Count, nullable=False),
    Column("who", Text, nullable=False),
    Column("operation", Text, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("volume", Text),
    Column("key_id", LargeBinary),
    Column("job", Text),
    Column("detail", Text, nullable=False),
    sqlite_strict=True,
    sqlite_autoincrement=True,
)

# Two key ids can share a volume and a generation number, after a label from before a lost
# keystore was imported; so the number is no key.
generation = Table(
    "generation",
    metadata,
    Column("key_id", LargeBinary, primary_key=True),
    Column("volume_id", ForeignKey(volume.c.volume_id), nullable=False),
    Column("generation", Count, nullable=False),
    Column("cipher", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("delivery", Text, nullable=False),
    Column("created", Count, nullable=False),
    Column("handed_out", ForeignKey(event.c.event_id)),
    Index(None, "volume_id", "generation"),
    sqlite_strict=True,
)

envelope = Table(
    "envelope",
    metadata,
    Column("key_id", ForeignKey(generation.c.key_id), primary_key=True),
    Column("revision", Count, primary_key=True, autoincrement=False),
    Column("created", Count, nullable=False),
    Column("blob", LargeBinary, nullable=False),
    sqlite_strict=True,
)

proof = Table(
    "proof",
    metadata,
    Column("proof_id", Count, primary_key=True, autoincrement=True),
    Column("key_id", ForeignKey(generation.c.key_id), nullable=False),
    Column("at", Count, nullable=False),
    Column("kind", Text, nullable=False),
    Column("encrypted", Count, nullable=False),
    Column("drive_serial", Text, nullable=False),
    Column("cartridge_serial", Text, nullable=False),
    Column("barcode", Text, nullable=False),
    Column("job", Text),
    Column("key_format", Text, nullable=False),
    Column("counter", Count),
    Column("checks", Text, nullable=False),
    Index(None, "key_id", "kind"),
    sqlite_strict=True,
    sqlite_autoincrement=True,
)

drive = Table(
    "drive",
    metadata,
    Column("serial", Text, primary_key=True),
    Column("fingerprint", LargeBinary, nullable=False),
    Column("pinned", Count, nullable=False),
    Column("accepted_by", Text, nullable=False),
    sqlite_strict=True,
)

# Public halves alone: the private ones are nowhere near a machine.
escrow_key = Table(
    "escrow_key",
    metadata,
    Column("recipient_id", LargeBinary, primary_key=True),
    Column("public_key", LargeBinary, nullable=False),
    Column("state", Text, nullable=False),
    Column("created", Count, nullable=False),
    Column("made_by", Text, nullable=False),
    sqlite_strict=True,
)

# Names that other programs wrote beside the blocks of their tapes: two keys can share one.
key_name = Table(
    "key_name",
    metadata,
    Column("key_id", ForeignKey(generation.c.key_id), primary_key=True),
    Column("name", LargeBinary, nullable=False),
    Index(None, "name"),
    sqlite_strict=True,
)

"""The first tables."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from hwkm.keystore import dialects

revision = "0001"
down_revision = None

Count = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Create all tables."""
    _installation_and_masters()
    _volumes_and_events()
    _generations_and_envelopes()
    for statement in dialects.named(op.get_bind().dialect.name).APPEND_ONLY:
        op.execute(statement)


def _installation_and_masters() -> None:
    op.create_table(
        "installation",
        sa.Column("installation_id", sa.Text, nullable=False),
        sa.Column("created", Count, nullable=False),
        sa.PrimaryKeyConstraint("installation_id", name="pk_installation"),
        sqlite_strict=True,
    )
    op.create_table(
        "master_key",
        sa.Column("master_id", sa.LargeBinary, nullable=False),
        sa.Column("label", sa.Text, nullable=False),
        sa.Column("token", sa.Text, nullable=False),
        sa.Column("serial", sa.Text, nullable=False),
        sa.Column("scheme", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("created", Count, nullable=False),
        sa.Column("attributes", sa.Text, nullable=False),
        sa.Column("parameters", sa.Text, nullable=False),
        sa.Column("canary", sa.LargeBinary),
        sa.Column("public_key", sa.LargeBinary),
        sa.PrimaryKeyConstraint("master_id", name="pk_master_key"),
        sqlite_strict=True,
    )


def _volumes_and_events() -> None:
    op.create_table(
        "volume",
        sa.Column("volume_id", Count, nullable=False, autoincrement=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("volume_id", name="pk_volume"),
        sa.UniqueConstraint("name", name="uq_volume_name"),
        sqlite_strict=True,
    )
    op.create_table(
        "event",
        sa.Column("event_id", Count, nullable=False, autoincrement=True),
        sa.Column("at", Count, nullable=False),
        sa.Column("who", sa.Text, nullable=False),
        sa.Column("operation", sa.Text, nullable=False),
        sa.Column("outcome", sa.Text, nullable=False),
        sa.Column("volume", sa.Text),
        sa.Column("key_id", sa.LargeBinary),
        sa.Column("job", sa.Text),
        sa.Column("detail", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("event_id", name="pk_event"),
        sqlite_strict=True,
        sqlite_autoincrement=True,
    )


def _generations_and_envelopes() -> None:
    op.create_table(
        "generation",
        sa.Column("key_id", sa.LargeBinary, nullable=False),
        sa.Column("volume_id", Count, nullable=False),
        sa.Column("generation", Count, nullable=False),
        sa.Column("cipher", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("delivery", sa.Text, nullable=False),
        sa.Column("created", Count, nullable=False),
        sa.Column("handed_out", Count),
        sa.PrimaryKeyConstraint("key_id", name="pk_generation"),
        sa.ForeignKeyConstraint(
            ["volume_id"], ["volume.volume_id"], name="fk_generation_volume_id"
        ),
        sa.ForeignKeyConstraint(
            ["handed_out"], ["event.event_id"], name="fk_generation_handed_out"
        ),
        sqlite_strict=True,
    )
    op.create_index("ix_generation_volume_id_generation", "generation", ["volume_id", "generation"])
    op.create_table(
        "envelope",
        sa.Column("key_id", sa.LargeBinary, nullable=False),
        sa.Column("revision", Count, nullable=False, autoincrement=False),
        sa.Column("created", Count, nullable=False),
        sa.Column("blob", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("key_id", "revision", name="pk_envelope"),
        sa.ForeignKeyConstraint(["key_id"], ["generation.key_id"], name="fk_envelope_key_id"),
        sqlite_strict=True,
    )

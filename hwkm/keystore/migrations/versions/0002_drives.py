"""What drives said of the keys they were given, their wrapping keys, and other programs' keys."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from hwkm.keystore import dialects

revision = "0002"
down_revision = "0001"

Count = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Create three tables; those that there are stay as they are."""
    _proofs()
    _drives()
    _key_names()
    for statement in dialects.named(op.get_bind().dialect.name).PROOFS_APPEND_ONLY:
        op.execute(statement)


def _proofs() -> None:
    op.create_table(
        "proof",
        sa.Column("proof_id", Count, nullable=False, autoincrement=True),
        sa.Column("key_id", sa.LargeBinary, nullable=False),
        sa.Column("at", Count, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("encrypted", Count, nullable=False),
        sa.Column("drive_serial", sa.Text, nullable=False),
        sa.Column("cartridge_serial", sa.Text, nullable=False),
        sa.Column("barcode", sa.Text, nullable=False),
        sa.Column("job", sa.Text),
        sa.Column("key_format", sa.Text, nullable=False),
        sa.Column("counter", Count),
        sa.Column("checks", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("proof_id", name="pk_proof"),
        sa.ForeignKeyConstraint(["key_id"], ["generation.key_id"], name="fk_proof_key_id"),
        sqlite_strict=True,
        sqlite_autoincrement=True,
    )
    op.create_index("ix_proof_key_id_kind", "proof", ["key_id", "kind"])


def _drives() -> None:
    op.create_table(
        "drive",
        sa.Column("serial", sa.Text, nullable=False),
        sa.Column("fingerprint", sa.LargeBinary, nullable=False),
        sa.Column("pinned", Count, nullable=False),
        sa.Column("accepted_by", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("serial", name="pk_drive"),
        sqlite_strict=True,
    )


def _key_names() -> None:
    op.create_table(
        "key_name",
        sa.Column("key_id", sa.LargeBinary, nullable=False),
        sa.Column("name", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("key_id", name="pk_key_name"),
        sa.ForeignKeyConstraint(["key_id"], ["generation.key_id"], name="fk_key_name_key_id"),
        sqlite_strict=True,
    )
    op.create_index("ix_key_name_name", "key_name", ["name"])

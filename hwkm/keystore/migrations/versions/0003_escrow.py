"""Escrow keys: the public halves of keys that are kept away from any machine."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

Count = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Create a table; those that there are stay as they are."""
    op.create_table(
        "escrow_key",
        sa.Column("recipient_id", sa.LargeBinary, nullable=False),
        sa.Column("public_key", sa.LargeBinary, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("created", Count, nullable=False),
        sa.Column("made_by", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("recipient_id", name="pk_escrow_key"),
        sqlite_strict=True,
    )

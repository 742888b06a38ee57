"""Run by alembic: migrates on the connection that :mod:`hwkm.keystore.migrate` hands over."""

from alembic import context

from hwkm.keystore.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transaction_per_migration=False,
)
context.run_migrations()

"""Alembic's entry: uses the connection it is given and never opens one of its own."""

from alembic import context

from ratchet.store.tables import metadata

context.configure(
    connection=context.config.attributes["connection"], target_metadata=metadata, compare_server_default=False
)
with context.begin_transaction():
    context.run_migrations()

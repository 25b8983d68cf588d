"""Alembic migrations: each takes the tables one step forward. Run them with `python -m
ratchet.store.migrate`."""

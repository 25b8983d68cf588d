"""What every part of the store raises. It needs no database driver, so services without a store can name it."""


class StoreUnavailableError(Exception):
    """Postgres cannot be reached, or cannot serve now. Trying again later may help."""

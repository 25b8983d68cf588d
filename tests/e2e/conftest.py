"""One stack for all end-to-end tests."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from http_double import serving
from running_stack import Running, running_stack


@pytest.fixture(scope="session")
async def stack(
    memorised_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Running]:
    """Everything that `ratchet up` starts, on the memorised checkpoint."""
    with serving() as serve:
        async with running_stack(tmp_path_factory.mktemp("stack"), memorised_checkpoint, serve) as running:
            yield running

"""A service's image holds what its extra names and nothing else: what the service imports must be among that."""

import subprocess
import sys

import pytest

STORE = ("alembic", "asyncpg", "redis", "sqlalchemy", "streaq")


@pytest.mark.parametrize("service", ["policy", "prm", "sandbox"])
@pytest.mark.parametrize("module", ["__main__", "app"])
def test_a_service_without_a_store_imports_no_driver_of_one(service: str, module: str) -> None:
    blocked = f"import sys; sys.modules.update(dict.fromkeys({STORE!r})); import services.{service}.{module}"
    done = subprocess.run([sys.executable, "-c", blocked], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

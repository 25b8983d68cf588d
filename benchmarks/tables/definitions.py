"""All tables by name."""

from collections.abc import Mapping

from benchmarks.tables import (
    clients,
    deployment,
    gate,
    models,
    real_rounds,
    robustness,
    rounds,
    sandbox,
    search,
    search_speed,
    trust,
)
from benchmarks.tables.documents import Table

TABLES: Mapping[str, Table] = {
    **search.TABLES,
    **search_speed.TABLES,
    **trust.TABLES,
    **models.TABLES,
    **rounds.TABLES,
    **real_rounds.TABLES,
    **gate.TABLES,
    **sandbox.TABLES,
    **deployment.TABLES,
    **robustness.TABLES,
    **clients.TABLES,
}

"""All tables by name."""

from collections.abc import Mapping

from benchmarks.tables import deployment, models, rounds, sandbox, search, trust
from benchmarks.tables.documents import Table

TABLES: Mapping[str, Table] = {
    **search.TABLES,
    **trust.TABLES,
    **models.TABLES,
    **rounds.TABLES,
    **sandbox.TABLES,
    **deployment.TABLES,
}

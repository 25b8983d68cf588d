"""`python -m tests.settings_table`: the table of docs/reference/configuration.md, from the settings themselves."""

from collections.abc import Iterator
from pathlib import Path

from ratchet import settings
from services.sandbox.container import ContainerSettings

ROLES: tuple[tuple[str, type[settings.Settings]], ...] = (
    ("all services", settings.Settings),
    ("all that use the store", settings.StoreSettings),
    ("search API, worker", settings.SearchSettings),
    ("trainer", settings.TrainerSettings),
    ("policy", settings.PolicySettings),
    ("PRM", settings.PrmSettings),
    ("sandbox", settings.SandboxSettings),
    ("sandbox in a container", ContainerSettings),
)


def rows() -> Iterator[str]:
    """A line for each setting, default and meaning."""
    readers: dict[tuple[str, str, str], list[str]] = {}
    for role, kind in ROLES:
        inherited = set().union(
            *(parent.model_fields for parent in kind.__mro__[1:] if issubclass(parent, settings.Settings))
        )
        for name, field in kind.model_fields.items():
            if name in inherited:
                continue
            default = str(field.default).replace(str(Path.home()), "~")
            shown = "none" if field.default in (None, ()) else f"`{default}`"
            readers.setdefault((name, shown, field.description or ""), []).append(role)
    for (name, shown, description), roles in readers.items():
        yield f"| `RATCHET_{name.upper()}` | {shown} | {'; '.join(roles)} | {description} |"


if __name__ == "__main__":
    print("\n".join(rows()))  # noqa: T201

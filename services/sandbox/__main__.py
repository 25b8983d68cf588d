"""`python -m services.sandbox`: check the isolation, then serve. Settings come from `RATCHET_*`."""

import sys

from ratchet.settings import SandboxSettings, load


def main() -> None:
    """Run the service until it is told to stop. Exits with a message where the isolation is too weak."""
    settings = load(SandboxSettings)

    from ratchet.web.app import serve
    from services.sandbox.app import build_app
    from services.sandbox.seccomp import Filter, SeccompMissingError, child_filter
    from services.sandbox.service import required_isolation
    from services.sandbox.zygotes import IsolationError

    try:
        level = required_isolation(settings)
        child_filter(Filter.PROGRAM, signals=True)
    except (IsolationError, SeccompMissingError) as error:
        sys.exit(f"ratchet: {error}")
    serve(build_app(settings, level), settings)


if __name__ == "__main__":
    main()

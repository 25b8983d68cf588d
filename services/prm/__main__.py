"""`python -m services.prm`."""

from ratchet.service import serve
from ratchet.settings import PrmSettings, load
from services.prm.app import build_app


def main() -> None:
    """Serve until told to stop."""
    settings = load(PrmSettings)
    serve(build_app(settings), settings)


if __name__ == "__main__":
    main()

"""`python -m services.prm`."""

from ratchet.settings import PrmSettings, load
from ratchet.web.app import serve
from services.prm.app import build_app


def main() -> None:
    """Serve until told to stop."""
    settings = load(PrmSettings)
    serve(build_app(settings), settings)


if __name__ == "__main__":
    main()

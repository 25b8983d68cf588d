"""`python -m services.search`: serve the search API."""

from ratchet.service import serve
from ratchet.settings import SearchSettings
from services.search.app import build_app

if __name__ == "__main__":
    settings = SearchSettings()
    serve(build_app(settings), settings)

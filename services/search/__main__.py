"""`python -m services.search`: serve the search API."""

from ratchet.service import serve
from ratchet.settings import SearchSettings, load
from services.search.app import build_app

if __name__ == "__main__":
    settings = load(SearchSettings)
    serve(build_app(settings), settings)

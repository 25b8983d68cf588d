"""`python -m services.search`: serve the search API."""

from ratchet.settings import SearchSettings, load
from ratchet.web.app import serve
from services.search.app import build_app

if __name__ == "__main__":
    settings = load(SearchSettings)
    serve(build_app(settings), settings)

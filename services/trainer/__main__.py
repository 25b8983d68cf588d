"""`python -m services.trainer`: serve the trainer's API."""

from ratchet.settings import TrainerSettings, load
from ratchet.web.app import serve
from services.trainer.app import build_app

if __name__ == "__main__":
    settings = load(TrainerSettings)
    serve(build_app(settings), settings)

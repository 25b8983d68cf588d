"""`python -m services.trainer`: serve the trainer's API."""

from ratchet.service import serve
from ratchet.settings import TrainerSettings, load
from services.trainer.app import build_app

if __name__ == "__main__":
    settings = load(TrainerSettings)
    serve(build_app(settings), settings)

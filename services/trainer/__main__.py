"""`python -m services.trainer`: serve the trainer's API."""

from ratchet.service import serve
from ratchet.settings import TrainerSettings
from services.trainer.app import build_app

if __name__ == "__main__":
    settings = TrainerSettings()
    serve(build_app(settings), settings)

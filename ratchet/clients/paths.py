"""Paths of the things that services hold, whatever their names hold."""

from urllib.parse import quote


def model_path(version: str) -> str:
    return f"/models/{quote(version, safe='/@+')}"


def round_path(round_id: str) -> str:
    return f"/rounds/{quote(round_id, safe='')}"


def run_path(run: str) -> str:
    return f"/runs/{quote(run, safe='')}"


def session_path(session: str) -> str:
    return f"/sessions/{quote(session, safe='')}"


def search_path(search: str) -> str:
    return f"/search/{quote(search, safe='')}"

"""Models of the hub: asked whether it has one, downloaded by the hub's own library, which keeps a cache.

Limit: a hub id is taken at its newest revision, or at what the cache holds when the hub cannot be reached.
"""

import contextlib
import os
from pathlib import Path

import httpx
from tenacity import retry, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from ratchet.models.checkpoint import ModelSourceError, Progress, ProgressCallback, disk_error
from ratchet.models.mirror import MIRRORS

HUB_FILES = ["*.safetensors", "*.json", "*.jinja", "tokenizer*", "merges.txt", "vocab.txt", "*.model"]
HUB_CONNECT_SECONDS = 4.0


class _HubUnreachableError(Exception):
    """The hub does not answer, or not as it should."""


def _hub_address(hub: str | None) -> str:
    return (hub or os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")


@retry(
    retry=retry_if_exception_type(_HubUnreachableError),
    stop=stop_after_attempt(2),
    wait=wait_random_exponential(multiplier=0.2, max=1),
    reraise=True,
)
def _ask_hub(hub_id: str, address: str) -> None:
    """Whether the hub answers and has this model. A machine without a hub goes on within seconds."""
    from huggingface_hub import get_token

    token = get_token()
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        response = httpx.get(
            f"{address}/api/models/{hub_id}",
            headers=headers,
            timeout=httpx.Timeout(20.0, connect=HUB_CONNECT_SECONDS),
            follow_redirects=True,
        )
    except httpx.HTTPError as error:
        raise _HubUnreachableError(f"{type(error).__name__}: {error}") from error
    if response.status_code in (401, 403, 404):
        # The hub says 401 for a name that does not exist as well as for a private one.
        raise ModelSourceError(
            f"The hub has no model {hub_id} for you (status {response.status_code}): check the spelling; for a gated "
            "or private model set HF_TOKEN."
        )
    if response.status_code >= 400:
        raise _HubUnreachableError(f"the hub at {address} answered with status {response.status_code}")


def from_hub(hub_id: str, progress: ProgressCallback, hub: str | None) -> Path:
    """The folder of the hub's cache that holds this model; `hub` as in `resolve`. Raises ModelSourceError."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (  # type: ignore[attr-defined]
        HfHubHTTPError,
        # Of the HTTP client that this version of the library uses: httpx, or since 2.0 httpx2.
        HTTPError,
        LocalEntryNotFoundError,
    )

    address = _hub_address(hub)
    progress(Progress(f"asking the hub for {hub_id}"))
    unreachable = "HF_HUB_OFFLINE is set"
    if os.environ.get("HF_HUB_OFFLINE", "").upper() not in ("1", "TRUE", "YES", "ON"):
        try:
            _ask_hub(hub_id, address)
            progress(Progress(f"downloading {hub_id} from the hub"))
            return Path(
                snapshot_download(
                    hub_id, allow_patterns=HUB_FILES, endpoint=address, etag_timeout=10, max_workers=4
                )
            )
        except _HubUnreachableError as error:
            unreachable = str(error)
        except (HTTPError, LocalEntryNotFoundError) as error:
            raise ModelSourceError(
                f"Downloading {hub_id} from the hub failed ({type(error).__name__}): {error}. Run it again: what is "
                "there already is kept."
            ) from error
        except OSError as error:
            raise disk_error(error, Path.home(), None) from error
    # The newest revision cannot be known without the hub; what its cache holds is good enough.
    with contextlib.suppress(LocalEntryNotFoundError, HfHubHTTPError, OSError, ValueError):
        return Path(snapshot_download(hub_id, allow_patterns=HUB_FILES, local_files_only=True))
    raise ModelSourceError(
        f"The hub cannot be reached for {hub_id} ({unreachable}), and its cache does not hold this model. "
        "Give a local folder, or one of the names that have a mirror: " + ", ".join(sorted(MIRRORS)) + "."
    )

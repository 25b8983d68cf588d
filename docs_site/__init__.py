"""The documentation's site: docs/ as pages, with a reference that is made from the code when the site is built.

`python -m docs_site` lays the pages out in build/pages (`pages.py`: those of docs/ and a few documents beside it,
`cli_reference.py`, `http_reference.py`, `python_reference.py`), has Zensical make build/site of them, and looks each link,
anchor and asset of the result up (`check.py`).

Limits: nothing of it is deployed with the services, and no service imports it.
"""

from pathlib import Path

ROOT = Path(__file__).parents[1]
"""The checkout."""

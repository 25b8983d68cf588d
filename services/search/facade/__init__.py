"""Searches for those who speak OpenAI's Chat Completions API: every client of it can ask, and none has to be changed.

A request is translated into searches (`requests.py`, `models.py`, `translation.py`), what a search finds into completions
(`words.py`, `completions.py`); all of that is pure. `routes.py` begins the searches, `following.py` follows them, and who goes
away cancels them. A search behind the façade is a search like any other: it has a tree, a proof and a row.

Limits: what a search cannot honour is refused by name (422) unless the client leaves it at its default;
docs/how-to/openai.md has the list.
"""

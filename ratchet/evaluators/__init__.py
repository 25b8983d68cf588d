"""Ratchet inside other evaluators: Inspect AI (`inspect_ai.py`, with `jail.py` as its sandbox) and lm-eval (`lm_eval.py`).

Each needs the extra of its name, and a running search service: the one at a given address, otherwise that of the data folder.
"""

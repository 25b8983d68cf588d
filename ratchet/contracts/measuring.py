"""How searches are known that measure a model: what they found is no training data."""

MEASURING_KEY = "eval-"
"""How their idempotency keys begin, of `ratchet eval` and of the evaluators."""

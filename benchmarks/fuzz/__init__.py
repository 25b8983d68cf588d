"""Hostile callers and hostile model text against all five services: no server error, no poisoned search."""

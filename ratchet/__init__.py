"""Ratchet: a math solver that searches over executed steps, verifies its answers, and improves itself."""

__version__ = "0.2.0"

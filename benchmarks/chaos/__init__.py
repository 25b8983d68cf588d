"""Kills, freezes and starves a running stack while it searches, and counts what that has cost."""

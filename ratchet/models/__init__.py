"""Models: where weights come from, and which version they are."""

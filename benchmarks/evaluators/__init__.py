"""Is the accuracy that others measure the one that we say? `ratchet eval` beside lm-eval and Inspect AI."""

"""One program per claim. Each prints a JSON object as its last line; docs/measurements.md says what came out."""

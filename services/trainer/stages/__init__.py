"""The stages of a round, a file each. The files are named after what the round does; no stage imports another."""

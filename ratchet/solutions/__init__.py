"""A solution as a program: its steps as text, its answer, its canonical form, and the proof of it."""

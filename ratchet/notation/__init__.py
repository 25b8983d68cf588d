"""How answers are written: their syntax, their meaning, and when two of them are equal.

One syntax for problem files, votes and the grader. Nothing here does I/O or evaluates a text as a program, so that the
grading jail uses the same modules.
"""

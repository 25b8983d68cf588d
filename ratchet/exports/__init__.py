"""Data that leaves: what rounds and searches have found, in the shapes in which others train and evaluate.

`kinds.py` names the shapes and their columns, `shapes.py` makes the rows (pure), `withheld.py` says what does not leave,
`rounds.py` and `searches.py` read what there is, `writers.py` and `card.py` write the folder.
"""

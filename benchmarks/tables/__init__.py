"""The tables of the documents, made from `benchmarks/results/*.json`: `python -m benchmarks.tables`.

A document holds a table between two marks, `<!-- table: NAME -->` and `<!-- end -->`. What stands between them is written by
this program, and a test holds the documents to it. `definitions` says which results a table shows, and in what form.
"""

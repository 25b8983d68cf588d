"""The report of a run of rounds: what its figures say, drawn and written for people.

`metrics` reads figures out of rounds that may have ended anywhere; `sections` makes tables of them, `curve` the accuracy
curve, `page` the HTML. Pure: the files are written in `services.trainer.report.write`.
"""

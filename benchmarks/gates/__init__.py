"""Rows as gates, red on a regression and not by noise: `python -m benchmarks.gates`.

    counted.py   instructions of one call, against what was accepted --+
    promised.py  time and memory, against what the rows promise -------+--> verdict.py   the table
    seeds.py     regressions that have to turn each gate red ----------+--> record.py    one run as
                                                                                         JSON

All gates are about the compiled core. What they say is in `benchmarks/README.md`.
"""

"""Speed of the map: many items through `@opmap` and through the peers, in one run.

    work.py   what is mapped
    sides.py  who maps it: opero and the peers, each kept warm where it can be
    turns.py  the sides take turns over the same items, the fastest turn of each is kept

    tiny.py  busy.py  payloads.py  resilience.py  first.py  memory.py    the rows
    sweep.py    cost per item as the batch grows
    rows.py     all rows in the order of the table, and those that are gates

`python -m benchmarks.maps` prints the table, `python -m benchmarks.maps.plot` draws the sweep.
"""

"""Speed of stored caches and of limits that processes share: opero and its peers, in one run.

    server.py   a redis-server of the benchmark's own
    place.py    where the sides of a row keep things: a directory, a server, an event loop
    values.py   what is stored: a small dict, a KiB of text, a MiB of bytes
    sides.py    what a side is, and those that are opero
    turns.py    the sides take turns, the fastest loop of each is kept

    disk.py  remote.py  permits.py  signing.py  the rows and the peers of each
    rows.py     all rows in the order of the table, and those that docs/performance.md prints

`python -m benchmarks.stores` prints the table.
"""

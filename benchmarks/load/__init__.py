"""Stored caches and limits under load: processes that are killed, forgeries, many waiters.

    caches.py   processes over one cache on disk or in Redis, some of them killed: what is judged
    calls.py    one of these processes: it calls, checks each value, and reports
    crew.py     starts such processes, kills some, replaces them, and hears them
    forger.py   changes entries in the store, as somebody would who can write to it
    limits.py   processes, threads and tasks before one limit: what is judged
    waiters.py  one of these processes: it takes permits and notes when
    table.py    verdicts, and the tables

`python -m benchmarks.load` prints the figures that docs/backends.md and docs/limits.md quote.
"""

"""The caches that outlive a process: on disk and in Redis, for processes and hosts to share.

    calls.py      the decorated function over a stored cache
    leases.py     waiting for another process's run of the same call
    archive.py    values by their stored keys: a shelf, a seal and an eye on outages
    sealing.py    entries that cannot be forged, swapped or replayed
    payloads.py   values to bytes and back
    shelves.py    what every shelf can do: bytes under names
    disk.py       a shelf on disk
    remote.py     shelves in Redis, for threads and for coroutines
    clients.py    connections to Redis, one client per URL
    outages.py    what is done while a shelf does not answer
    places.py     directories that nobody else can write to
    secret.py     where the secret that seals entries comes from

A value goes from `calls` through `archive`, which has `payloads` write it and `sealing` seal it, to
a shelf; and back the same way. A shelf never sees a value, and a seal never sees a shelf.
"""

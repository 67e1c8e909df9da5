"""The caches that outlive a process: on disk and in Redis, for processes and hosts to share.

    sync.py, aio.py   the decorated function over a stored cache
    stored_cache.py   values by their stored keys: a backend, a signer and an eye on outages
    operations.py     what a store is asked for, derived from a backend's five primitives
    steps.py          operations written once, for threads and for tasks
    leases.py         of several processes that miss one value, one runs: how they agree
    stored_refresh.py values renewed in the background before their end
    renewer.py        the thread that renews the leases of this process
    signing.py        entries that cannot be forged, swapped or replayed
    codecs.py         values to bytes and back
    backends.py       what every backend can do: five primitives over bytes under names
    in_threads.py     a backend of threads for tasks
    disk.py           a backend on disk
    database.py       its file, the log beside it, and the bound on both
    connections.py    connections to SQLite, none of which is in use in a fork
    turns.py          threads that write one after the other
    redis.py          backends in Redis, for threads and for coroutines
    open_store.py     a store that is open, and whether it is in order
    off.py            what takes the place of a store that cannot be used
    opening.py        from checked options to a stored cache
    by_hand.py        a stored cache that is used by hand
    directories.py    directories that nobody else can write to
    secret.py         where the secret that signs entries comes from

A value goes from `sync` or `aio` through `stored_cache`, which has `codecs` write it and `signing`
sign it, to `operations` and a backend; and back the same way. A backend never sees a value or a
lease, and a signer never sees a backend.
"""

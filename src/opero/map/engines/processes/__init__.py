"""Mode `process`: a warm pool of worker processes, and the engine that runs a map's jobs there.

`engine` leases workers from `pool`, which starts them through `start`, and talks to each over a
socket in the messages of `wire`; `worker` runs at the other end. Numbers in memory that both share
(`cells`) say which attempt is under way, and since when: they outlive the worker.

A worker takes on the program's settings (`surroundings`) and log handlers (`worker_logs`), and what
`worker_init` sets up (`initializer`). `worker_end` ends a worker, and `renewal` decides when a new
one replaces it.
"""

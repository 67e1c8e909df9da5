"""Mode `process`: a warm pool of worker processes, and the engine that runs a map's jobs there.

`engine` leases workers from `pool`, which has them started by `start`, and talks to each over a
socket, in the messages of `wire`; what runs at the other end is in `worker`. Numbers in memory that
both share (`cells`) tell which attempt is under way, and since when: they outlive the worker.

What a worker has of the program: its settings (`surroundings`), the handlers of its log
(`worker_logs`), what `worker_init` has made (`initializer`). How it ends is in `worker_end`, when
it is renewed in `renewal`.
"""

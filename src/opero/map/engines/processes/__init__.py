"""Mode `process`: a warm pool of worker processes, and the engine that runs a map's jobs there.

`engine` leases workers from `pool`, which has them started by `start`, and talks to each over a
socket, in the messages of `wire`; what runs at the other end is in `worker`. Two numbers in memory
that both share tell which attempt is under way, and since when: they outlive the worker.
"""

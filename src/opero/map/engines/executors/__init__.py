"""`executor=`: the attempts are made by any `concurrent.futures.Executor` that the user brings.

    job -> Envelope --submit--> (pickled on its way, if there is one) -> run -> Reply -> Report
              |                                                          |
              |<--- the worker does not know the function yet: again ----|
              '<--- the executor lost the worker: each item by itself ---'

Threads, processes, loky, a dask cluster: an executor does not say whether its workers share this
process. So an `Envelope` and its `Reply` pack what they hold only when something pickles them, item
by item: what cannot be pickled fails its own item, and nothing of the user's is unpickled by the
executor's own threads and processes, which do not survive every error there.

`engine` submits and takes in, `envelope` is what goes there and back, and `executor_errors` says
what an executor means by its errors.
"""

"""`executor=`: any `concurrent.futures.Executor` that the user passes makes the attempts.

    job -> Envelope --submit--> (pickled if sent elsewhere) -> run -> Reply -> Report
              |                                                  |
              |<- the worker does not know the function: again --|
              '<- the executor lost the worker: item by item ----'

An executor (threads, processes, loky, a dask cluster) does not say whether its workers share this
process. So an `Envelope` and its `Reply` pack their contents, item by item, only when something
pickles them. An item that cannot be pickled fails alone. The executor's own machinery never
unpickles the user's objects, because it does not survive every error there.

`engine` submits jobs and takes in outcomes, `envelope` defines what travels there and back, and
`executor_errors` interprets an executor's errors.
"""

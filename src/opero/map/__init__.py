"""The map: one scheduler, and the engines that make the attempts.

mapped.py        what `@opmap` returns         options.py     its options, checked
driver.py        input in, jobs out, results   task_driver.py  the same in a coroutine
progress.py      the bar and the log           std_streams.py  numbers that programs may have closed
scheduler.py     what runs next                sharing.py     equal items, one run
jobs.py          what a worker does            item_jobs.py   how items become jobs
refused.py       jobs before an open breaker   renewals.py    values renewed before their end
spares.py        outdated values               item_history.py  the attempts of one item
reader.py        where the items come from     task_reader.py  asynchronous ones
lookups.py       which values are stored       weights.py     how large the items are
chunk_limits.py  chunks neither too small nor too large
stored_items.py  values in a store             worker_options.py  how workers are set up
event_loops.py   loops that opero makes        interrupts.py  Ctrl-C at a bad moment
invocation.py    how an item is called         gates.py       what an item passes first
output.py        results, in order and counted  error_limit.py  too many failures
result.py        what a map returns            item_notes.py  which item it was
finished_frames.py  failures without locals    receivers.py   methods and their instances
init_errors.py   a `worker_init` that fails    loading.py     no maps while loading

engines/         they make the attempts: threads, tasks, processes, executors
serialization/   how functions, items and results travel to a worker
"""

"""The engines, which make a map's attempts: in threads, tasks, processes, or a user's executor.

base.py         what an engine is
threads.py      mode `thread`
tasks.py        mode `async`; its slots are in `task_slots.py`
inline.py       while opero is switched off: the map's own thread or task
processes/      mode `process` and mode `async_process`
executors/      `executor=`
"""

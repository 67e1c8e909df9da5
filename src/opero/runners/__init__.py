"""What waits: the core decides, and these sleep (`sync.py`) or await (`aio.py`).

sync.py           ordinary functions            aio.py             coroutine functions
streams.py        generator functions           async_streams.py   asynchronous ones
lingering.py      values beyond their time      task_lingering.py  the same, awaited
refreshes.py      values renewed before that    background.py      the threads that do it
daemon_threads.py threads for jobs of any kind
task_flight.py    one run for all tasks that want a value
deadlines.py      deadlines of what is awaited  effects.py         what a policy asks a runner for
loops.py          the loop that runs            loop_time.py       loops with their own time
naming.py         what is made bears the function's name
"""

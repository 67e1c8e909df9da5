"""The map: one scheduler, and the engines that make the attempts.

mapping     what `@opmap` returns           plan        its options, checked
driver      input in, jobs out, results on  progress    the bar
scheduler   what runs next                  sharing     equal items, one run
filling     chunks for coroutines           engine      what an engine is:
threads     mode thread
processes/  mode process; with worker_loop, mode async_process
tasks       mode async, in slots; loops that opero makes
executors/  executor=

interrupts  Ctrl-C at a bad moment          traces      tracebacks that begin in the function
"""

# C types for core/outcomes.py.

cpdef int judge(object call, object attempts, object error, long long deadline) except -1
cpdef int outcome_of(object attempts, object error) except -1
cpdef object conclude(object call, object attempts, object error, int verdict)
cpdef object no_entry(object call, object attempts, str awaited, long long wait)
cpdef pause_queues(object call, long long length)
cpdef long long pause_after(object call, object attempts) except -1
cpdef note_wait(object call, long long waited)
cpdef object too_late(object call, object attempts, str what)
cpdef bint misfits(object call, object error, object args, object kwargs) except -1

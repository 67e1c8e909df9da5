# C types for core/outcomes.py.

from .attempts cimport Attempts
from .state cimport State

cdef int AGAIN, GIVE_UP, LATE, NO_FAILURE, REFUSED
cdef int FAILED, NEUTRAL, REJECTED
cdef long long NEVER

cpdef int judge(State call, Attempts attempts, object error, long long deadline) except -1
cpdef int outcome_of(Attempts attempts, object error) except -1
cpdef object conclude(State call, Attempts attempts, object error, int verdict)
cpdef object no_entry(object call, object attempts, str awaited, long long wait)
cpdef pause_queues(State call, long long length)
cpdef long long pause_after(State call, Attempts attempts) except -1
cpdef note_wait(object call, long long waited)
cpdef object too_late(object call, object attempts, str what)
cpdef bint misfits(State call, object error, object args, object kwargs) except -1

# C types for core/retrying.py.

cimport cython

from .attempts cimport Attempts
from .gate cimport Gate, enter_all, leave_all, probed
from .outcomes cimport (
    conclude, judge, misfits, no_entry, note_wait, outcome_of, pause_after, pause_queues, too_late,
)
from .state cimport State

cdef int AGAIN, OPEN
cdef int NEUTRAL, SUCCEEDED, WITHDRAWN
cdef long long NEVER


cdef class Retrying:
    cdef readonly State call
    cdef readonly tuple args
    cdef readonly dict kwargs
    cdef readonly long long deadline
    cdef readonly object flight
    cdef readonly Attempts attempts
    cdef readonly object error
    cdef readonly long long delay
    cdef readonly Py_ssize_t passed
    cdef readonly tuple gates
    cdef readonly tuple queues
    cdef readonly list tickets
    cdef readonly long long entered
    cdef readonly bint spare
    cdef object probing
    cdef readonly bint over
    cdef readonly object given
    cdef readonly Py_ssize_t width
    cdef readonly tuple own_args
    cdef readonly dict own_kwargs
    @cython.locals(call=State)
    cdef begin(self, Py_ssize_t value, Py_ssize_t passed=*)
    @cython.locals(call=State, gate=Gate, todo=int)
    cpdef int next(self) except -1
    @cython.locals(call=State, gate=Gate, until=cython.longlong, verdict=int, before=Py_ssize_t)
    cdef int refused(self) except -2
    @cython.locals(call=State, now=cython.longlong)
    cdef int wait_for_probe(self) except -2
    @cython.locals(gate=Gate, wait=cython.longlong)
    cdef int refuse(self, long long now) except -2
    @cython.locals(call=State)
    cdef take_value(self)
    @cython.locals(call=State, verdict=int, outcome=int)
    cpdef judge(self)
    cpdef look_at_deadline(self)
    cpdef bint returned(self, object value) except -1
    cpdef failed(self, object error)
    cpdef slept(self, long long nanoseconds)
    cpdef queue(self)
    cpdef waited(self, long long nanoseconds)
    @cython.locals(
        now=cython.longlong, at=Py_ssize_t, gate=Gate, answer=cython.longlong,
    )
    cdef look_back(self)
    @cython.locals(tickets=list)
    cdef leave(self, int outcome)
    cpdef abandoned(self)
    cpdef withdrawn(self)
    cpdef fail(self, object error)

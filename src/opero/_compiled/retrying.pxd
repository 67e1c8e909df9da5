# C types for core/retrying.py.

from .outcomes cimport judge, misfits, note_wait, too_late
from .state cimport State


cdef class Retrying:
    cdef readonly State call
    cdef readonly tuple args
    cdef readonly dict kwargs
    cdef readonly long long deadline
    cdef readonly object flight
    cdef readonly object attempts
    cdef readonly object error
    cdef readonly long long delay
    cdef readonly Py_ssize_t passed
    cdef readonly Py_ssize_t gates
    cdef readonly long long entered
    cdef readonly bint under_way
    cdef readonly bint over
    cdef readonly object given
    cdef readonly Py_ssize_t width
    cdef readonly tuple own_args
    cdef readonly dict own_kwargs
    cpdef int next(self) except -1
    cpdef judge(self)
    cpdef look_at_deadline(self)
    cpdef bint returned(self, object value) except -1
    cpdef failed(self, object error)
    cpdef slept(self, long long nanoseconds)
    cpdef queue(self)
    cpdef waited(self, long long nanoseconds)
    cpdef abandoned(self, object error)

# C types for core/deadline.py.

cimport cython

from .clock cimport Clock

cdef class TimeLimit:
    cdef readonly long long length
    cdef readonly Clock clock
    cdef readonly object times
    cdef public object queue


cdef class Deadline:
    cdef readonly TimeLimit limit
    cdef readonly object task
    cdef readonly long long deadline
    cdef readonly Py_ssize_t cancelling
    cdef public object attempts
    cdef readonly bint stopping
    cdef readonly DeadlineQueue queue
    cpdef begin(self, TimeLimit limit, object task)
    cpdef move_to(self, long long deadline)
    @cython.locals(limit=TimeLimit)
    cpdef join(self)
    cpdef cut(self)
    @cython.locals(queue=DeadlineQueue)
    cpdef leave(self)


cdef class DeadlineQueue:
    cdef object __weakref__
    cdef readonly object loop
    cdef readonly long long latest
    cdef readonly Clock clock
    cdef readonly object times
    cdef readonly unsigned long long thread
    cdef readonly object timer
    cdef readonly long long due
    cdef readonly long long left
    cdef readonly object waiting
    cpdef add(self, Deadline deadline)
    cpdef remove(self, Deadline deadline)
    @cython.locals(left=cython.longlong)
    cpdef arm(self, long long due)
    @cython.locals(first=Deadline)
    cpdef ring(self)
    cpdef Deadline first(self)

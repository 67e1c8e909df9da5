# C types for core/flight.py.

cimport cython

from . cimport gil


@cython.final
@cython.freelist(8)
cdef class Flight:
    cdef readonly unsigned long long owner
    cdef readonly bint done
    cdef readonly object value
    cdef readonly object error
    cdef readonly object traceback
    cdef readonly dict waiters
    cpdef join(self, object bell)
    cpdef leave(self, object bell)
    cpdef land(self, object value, object error)
    cdef dict _end(self, object value, object error)

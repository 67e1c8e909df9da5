# C types for core/traced.py.

from .retrying cimport Retrying


cdef class TracedRetrying(Retrying):
    cdef readonly long long began
    cdef readonly long long started
    cdef readonly long long paused
    cdef readonly long long kept
    cdef readonly long long delayed
    cdef readonly bint running
    cdef readonly bint eventful
    cdef readonly bint told
    cdef readonly list history
    cpdef note(self, object error)
    cpdef end(self, object error)

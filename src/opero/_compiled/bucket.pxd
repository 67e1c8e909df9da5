# C types for core/bucket.py.

cimport cython


cdef class TokenBucket:
    cdef public long long interval
    cdef public long long tolerance
    cdef public long long arrival
    cdef public long long latest
    cdef public long long refunded
    cdef public Py_ssize_t queued
    cdef public object lock
    cpdef long long take(self, long long now) except -1
    cpdef long long admit(self, long long now) noexcept
    @cython.locals(refund=cython.longlong)
    cpdef undo(self, long long token)

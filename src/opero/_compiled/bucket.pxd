# C types for core/bucket.py.

cimport cython

from .gate cimport Gate


cdef long long _LONGEST


cdef class TokenBucket(Gate):
    cdef public long long interval
    cdef public long long tolerance
    cdef public long long arrival
    cdef public long long latest
    cdef public long long floor
    cdef public long long refunded
    cdef public Py_ssize_t queued
    cdef public object lock
    cpdef long long enter(self, long long now) except? -1
    cpdef long long admit(self, long long now) noexcept
    cpdef long long take_many(self, long long now, long long weight) except -1
    @cython.locals(wait=cython.longlong)
    cpdef long long admit_many(self, long long now, long long weight) noexcept
    cpdef long long lack(self, long long now, long long weight) noexcept
    cpdef void spend(self, long long now, long long weight) noexcept
    @cython.locals(arrival=cython.longlong, free=cython.longlong)
    cpdef long long due(self, long long now, long long weight, long long ahead) noexcept
    @cython.locals(floor=cython.longlong)
    cpdef pause(self, long long now, long long length)
    cpdef pause_as_asked(self, long long now, long long length)
    cpdef receipt(self)
    @cython.locals(refund=cython.longlong)
    cpdef undo(self, receipt, long long weight=*)


cdef class WindowedBucket(TokenBucket):
    cdef readonly tuple others
    cpdef long long admit(self, long long now) noexcept
    @cython.locals(other=TokenBucket, longest=cython.longlong, wait=cython.longlong)
    cpdef long long lack(self, long long now, long long weight) noexcept
    @cython.locals(other=TokenBucket)
    cpdef void spend(self, long long now, long long weight) noexcept
    @cython.locals(other=TokenBucket, latest=cython.longlong, free=cython.longlong)
    cpdef long long due(self, long long now, long long weight, long long ahead) noexcept
    @cython.locals(other=TokenBucket)
    cpdef receipt(self)
    @cython.locals(other=TokenBucket)
    cpdef undo(self, receipt, long long weight=*)

# C types for core/shared_bucket.py.

cimport cython

from .bucket cimport TokenBucket, WindowedBucket
from .clock cimport Clock
from .shared_counters cimport SharedCounters

cdef long long BUSY
cdef long long GRACE
cdef long long _GLANCE


cdef class SharedBucket(WindowedBucket):
    cdef readonly SharedCounters words
    cdef readonly Clock clock
    cdef readonly Clock real
    cdef readonly Py_ssize_t count
    cdef public long long before
    cdef public long long claim
    cdef object _receipts
    cpdef long long enter(self, long long now) except? -1
    cpdef long long take_many(self, long long now, long long weight) except -1
    cpdef long long admit(self, long long now) noexcept
    @cython.locals(wait=cython.longlong)
    cpdef long long admit_many(self, long long now, long long weight) noexcept
    @cython.locals(claim=cython.longlong)
    cdef long long _held_up(self, long long now) noexcept
    @cython.locals(
        words=SharedCounters, before=cython.longlong, after=cython.longlong, wait=cython.longlong,
        done=cython.int,
    )
    cdef long long _attempt(self, long long now, long long weight) noexcept
    @cython.locals(
        receipts=list, limit=TokenBucket, at=cython.Py_ssize_t, before=cython.longlong,
        after=cython.longlong, wait=cython.longlong, done=cython.int,
    )
    cdef long long _attempt_all(self, long long now, long long weight) except -2
    @cython.locals(at=cython.Py_ssize_t, other=TokenBucket)
    cdef void _refresh(self) noexcept
    @cython.locals(at=cython.Py_ssize_t)
    cdef _return(self, receipts)
    cpdef long long due(self, long long now, long long weight, long long ahead) noexcept
    @cython.locals(floor=cython.longlong, before=cython.longlong, done=cython.int)
    cpdef pause(self, long long now, long long length)
    cpdef receipt(self)
    cpdef undo(self, receipt, long long weight=*)
    @cython.locals(
        at=cython.Py_ssize_t, until=cython.longlong, claim=cython.longlong, done=cython.int
    )
    cpdef stake(self, long long now, long long weight)
    cpdef waive(self)
    cpdef void want(self) noexcept
    cpdef long long wanted(self) noexcept

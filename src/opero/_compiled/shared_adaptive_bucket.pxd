# C types for core/shared_adaptive_bucket.py.

cimport cython

from .adaptive_bucket cimport AdaptiveBucket
from .bucket cimport TokenBucket
from .clock cimport Clock
from .rate_control cimport RateControl
from .shared_bucket cimport SharedBucket
from .shared_counters cimport SharedCounters

cdef int _SUCCEEDED
cdef int _REJECTED
cdef Py_ssize_t _INTERVAL
cdef Py_ssize_t _PAUSED
cdef Py_ssize_t _LEASE
cdef Py_ssize_t _TOP
cdef Py_ssize_t _BASE
cdef Py_ssize_t _HOLD
cdef Py_ssize_t _CLEAN
cdef Py_ssize_t _CREDIT
cdef Py_ssize_t _SERVED
cdef Py_ssize_t _HEARD
cdef Py_ssize_t _CUT
cdef Py_ssize_t _SINCE
cdef long long _BEGUN
cdef double _UNIT
cdef long long _LONGEST_LEASE
cdef long long _SERIES
cdef long long _NEWS


cdef class SharedAdaptiveBucket(SharedBucket):
    cdef readonly long long burst
    cdef readonly RateControl control
    cdef public object watcher
    cdef public long long told
    cdef readonly Py_ssize_t first
    cpdef double rate(self) except? -1
    @cython.locals(interval=cython.longlong)
    cpdef void look(self) noexcept
    cpdef long long admit_many(self, long long now, long long weight) noexcept
    cpdef long long due(self, long long now, long long weight, long long ahead) noexcept
    cpdef pause(self, long long now, long long length)
    cpdef pause_as_asked(self, long long now, long long length)
    @cython.locals(news=cython.int, real=cython.longlong)
    cpdef leave(self, long long now, int outcome, long long entered, long long ticket)
    @cython.locals(news=cython.int)
    cpdef int learn(self, long long now, int outcome, long long entered) except -1
    @cython.locals(at=Py_ssize_t, now=cython.longlong, lease=cython.longlong, done=cython.int)
    cdef bint have_lease(self, bint patient) noexcept
    @cython.locals(
        words=SharedCounters, control=RateControl, first=Py_ssize_t, since=cython.longlong,
    )
    cdef read(self)
    @cython.locals(words=SharedCounters, control=RateControl, first=Py_ssize_t)
    cdef write(self, long long now, bint cut)
    @cython.locals(
        before=cython.longlong, interval=cython.longlong, paused=cython.longlong,
        since=cython.longlong, tolerance=cython.longlong, done=cython.int,
        arrival=cython.longlong, then=cython.longlong, owed=cython.longlong,
    )
    cdef retime(self, long long now, bint cut)

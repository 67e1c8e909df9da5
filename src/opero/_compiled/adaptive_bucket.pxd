# C types for core/adaptive_bucket.py.

cimport cython

from .bucket cimport TokenBucket, WindowedBucket
from .rate_control cimport RateControl

cdef int _SUCCEEDED
cdef int _REJECTED
cdef long long _NEWS


cdef class AdaptiveBucket(WindowedBucket):
    cdef readonly long long burst
    cdef readonly RateControl control
    cdef public object watcher
    cdef public long long told
    cpdef double rate(self) except? -1
    @cython.locals(news=cython.int)
    cpdef leave(self, long long now, int outcome, long long entered, long long ticket)
    cpdef int learn(self, long long now, int outcome, long long entered) except -1
    @cython.locals(
        before=cython.longlong, interval=cython.longlong, paused=cython.longlong,
        since=cython.longlong, tolerance=cython.longlong, owed=cython.longlong,
        then=cython.longlong,
    )
    cpdef retime(self, long long now)

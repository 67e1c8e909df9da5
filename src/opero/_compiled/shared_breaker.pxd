# C types for core/shared_breaker.py.

cimport cython

from .clock cimport Clock
from .gate cimport Gate
from .shared_counters cimport SharedCounters

cdef int TENTHS
cdef long long _GLANCE
cdef long long _MS
cdef long long _GENERATION
cdef long long _TIME
cdef long long _INDEX
cdef long long _MOST
cdef long long _AGAIN
cdef long long _HELD_UP
cdef int _SUCCEEDED
cdef int _REJECTED


cdef class SharedBreaker(Gate):
    cdef readonly SharedCounters words
    cdef public object lock
    cdef readonly Clock clock
    cdef readonly Clock real
    cdef readonly long long tenth
    cdef readonly double failure_ratio
    cdef readonly long long minimum
    cdef readonly long long open_for
    cdef readonly long long lease
    cdef readonly Py_ssize_t probes
    cdef public long long seen
    cdef public long long probed
    cdef public dict held
    cdef public long long serial
    cdef readonly long long taken
    cdef readonly Py_ssize_t place
    cdef public object watcher
    cdef public long long deaf_until
    cdef public str why
    @cython.locals(word=cython.longlong)
    cpdef long long enter(self, long long now) except? -1
    cpdef leave(self, long long now, int outcome, long long entered, long long ticket)
    cpdef bint is_common(self, long long ticket) except -1
    @cython.locals(word=cython.longlong)
    cpdef bint holds(self, long long now, long long ticket) except -1
    cpdef long long machine_time(self, long long now) noexcept
    @cython.locals(answer=cython.longlong)
    cpdef long long knock(self, long long now) except? -1
    @cython.locals(
        answer=cython.longlong, mine=cython.longlong, place=cython.Py_ssize_t,
        ticket=cython.longlong,
    )
    cdef long long _knock(self, long long now) except? -1
    @cython.locals(
        words=SharedCounters, word=cython.longlong, generation=cython.longlong,
        wait=cython.longlong, moment=cython.longlong, length=cython.longlong,
        at=cython.Py_ssize_t, before=cython.longlong, left=cython.longlong,
        mine=cython.longlong, good=cython.Py_ssize_t,
    )
    cdef long long _take(self, long long now) except? -1
    cdef bint is_under_way(self, long long ticket) except -1
    cdef _forget(self, long long generation)
    @cython.locals(good=cython.Py_ssize_t, at=cython.Py_ssize_t)
    cdef Py_ssize_t _count_good(self, long long generation) noexcept
    @cython.locals(word=cython.longlong)
    cpdef report(self, long long now, long long ticket, int outcome)
    @cython.locals(
        at=cython.Py_ssize_t, mine=cython.longlong, words=SharedCounters, word=cython.longlong,
        fresh=cython.longlong, done=cython.int,
    )
    cdef long long _report(self, long long now, long long ticket, int outcome) except? -2
    @cython.locals(word=cython.longlong)
    cpdef count(self, long long now, long long generation, bint failed)
    @cython.locals(
        words=SharedCounters, word=cython.longlong, fresh=cython.longlong, done=cython.int,
    )
    cdef long long _count(self, long long now, long long generation, bint failed) except? -1
    @cython.locals(
        words=SharedCounters, index=cython.longlong, at=cython.Py_ssize_t, tag=cython.longlong,
        word=cython.longlong, before=cython.longlong, attempts=cython.longlong,
        failures=cython.longlong, done=cython.int,
    )
    cdef int _add(self, long long now, long long generation, bint failed) noexcept
    @cython.locals(
        attempts=cython.longlong, failures=cython.longlong, index=cython.longlong,
        at=cython.Py_ssize_t, word=cython.longlong,
    )
    cdef bint _is_too_much(self, long long now, long long generation) except -1
    @cython.locals(until=cython.longlong)
    cpdef trip(self, long long now, long long length, str reason)
    cpdef reset(self, str reason)
    @cython.locals(word=cython.longlong, fresh=cython.longlong, done=cython.int)
    cpdef long long move(self, long long time, int opened) except? -1
    cdef long long _next(self, long long word, long long time, int opened) noexcept
    cpdef long long left(self, long long word, long long now) noexcept
    @cython.locals(word=cython.longlong, wait=cython.longlong)
    cpdef long long opens_in(self, long long now) except? -1
    @cython.locals(
        moment=cython.longlong, wait=cython.longlong, at=cython.Py_ssize_t,
        before=cython.longlong, left=cython.longlong,
    )
    cdef long long _busy(self, long long now, long long generation) noexcept
    @cython.locals(word=cython.longlong)
    cpdef int state_at(self, long long now) except -1
    @cython.locals(at=cython.Py_ssize_t)
    cpdef bint is_used(self)
    @cython.locals(before=cython.longlong)
    cpdef notice(self, long long word, str reason)
    cpdef after_fork(self, lock)

# C types for core/remote_breaker.py.

cimport cython

from .clock cimport Clock
from .gate cimport Gate
from .shared_breaker cimport SharedBreaker

cdef long long _PERIOD
cdef long long _ASK_GAP
cdef long long _EPOCH
cdef long long _GLANCE
cdef int _SUCCEEDED
cdef int _REJECTED
cdef int _WITHDRAWN
cdef int _TELL


cdef class RemoteBreaker(Gate):
    cdef readonly SharedBreaker local
    cdef public object lock
    cdef readonly Clock real
    cdef readonly long long open_for
    cdef public object summon
    cdef public object order
    cdef public object watcher
    cdef public bint alone
    cdef public bint opened
    cdef public long long until
    cdef public long long generation
    cdef public long long confirmed
    cdef public long long epoch
    cdef public long long changed
    cdef public long long heard
    cdef public bint due
    cdef public long long attempts
    cdef public long long failures
    cdef public list reports
    cdef public list leases
    cdef public dict held
    cdef public long long serial
    cdef public long long asked
    cdef public bint used
    cdef public bint claimed
    @cython.locals(answer=cython.longlong)
    cpdef long long enter(self, long long now) except? -1
    cpdef leave(self, long long now, int outcome, long long entered, long long ticket)
    cpdef bint is_common(self, long long ticket) except -1
    cpdef bint holds(self, long long now, long long ticket) except -1
    cdef _count(self, long long ticket, int outcome)
    @cython.locals(over=cython.longlong, ticket=cython.longlong)
    cdef long long _probe(self, long long now) except? -1
    cdef long long unheard(self) noexcept
    cdef bint is_under_way(self, long long ticket) except -1
    @cython.locals(state=cython.int)
    cpdef report(self, long long now, int outcome, long long ticket)
    cdef int _report(self, long long now, int outcome, long long ticket) except -2
    cdef _change(self, long long now, bint opened, long long until, long long generation)
    cpdef bint consults(self, long long now) except -1
    @cython.locals(claimed=cython.bint)
    cpdef bint claim(self) except -1
    cpdef long long opens_in(self, long long now) except? -1
    cpdef call_for(self)
    cpdef tuple parcel(self, long long now)
    @cython.locals(left=cython.longlong)
    cdef tuple _parcel(self, long long now)
    @cython.locals(state=cython.int)
    cpdef adopt(
        self, long long now, long long since, long long generation, bint opened, long long left,
        str reason, str lease
    )
    @cython.locals(before=cython.bint)
    cdef int _adopt(
        self, long long now, long long since, long long generation, bint opened, long long left,
        str lease
    ) except -2
    cpdef go_alone(self, long long now)
    cdef _go_alone(self, long long now)
    cpdef trip(self, long long now, long long length, str reason)
    cpdef reset(self, str reason)
    cpdef bint is_used(self)
    cpdef int state_at(self, long long now) except -1
    cpdef after_fork(self, lock)

# C types for core/breaker.py.

cimport cython

from .gate cimport Gate

cdef int REJECTED, SUCCEEDED

cdef class CircuitBreaker(Gate):
    cdef readonly long long slice
    cdef readonly double ratio
    cdef readonly Py_ssize_t minimum
    cdef public long long open_for
    cdef readonly Py_ssize_t probes
    cdef public int state
    cdef public long long ticket
    cdef public long long serial
    cdef public long long good
    cdef public long long bad
    cdef public long long ends
    cdef readonly list goods
    cdef readonly list bads
    cdef readonly Py_ssize_t place
    cdef public long long until
    cdef readonly dict leases
    cdef public Py_ssize_t succeeded
    cdef public object lock
    cdef public object watcher
    cdef public object news
    @cython.locals(ticket=cython.longlong, answer=cython.longlong)
    cpdef long long enter(self, long long now) except? -1
    cpdef long long opens_in(self, long long now) except? -1
    cpdef bint is_common(self, long long ticket) except -1
    cpdef bint holds(self, long long now, long long ticket) except -1
    cpdef leave(self, long long now, int outcome, long long entered, long long ticket)
    cpdef trip(self, long long now, long long length, str reason)
    cpdef reset(self, str reason)
    cpdef bint is_used(self)
    cpdef int state_at(self, long long now)
    @cython.locals(wait=cython.longlong, ticket=cython.longlong, begins=bint)
    cpdef long long admit(self, long long now) except? -1
    cdef bint is_under_way(self, long long ticket) except -1
    @cython.locals(
        busy=Py_ssize_t, wait=cython.longlong, left=cython.longlong, expiry=cython.longlong
    )
    cpdef long long lack(self, long long now) except? -1
    cpdef note(self, long long now, int outcome, long long ticket)
    @cython.locals(steps=cython.longlong, good=cython.longlong, bad=cython.longlong)
    cpdef turn(self, long long now)
    @cython.locals(failed=cython.longlong, count=cython.longlong, at=Py_ssize_t)
    cpdef judge(self, long long now)
    cpdef open(self, long long now, long long length, str reason)
    @cython.locals(at=Py_ssize_t)
    cpdef close(self, str reason)
    cdef forget_oldest(self)
    cpdef add_news(self, str reason)
    cdef take_news(self)
    cpdef tell(self)

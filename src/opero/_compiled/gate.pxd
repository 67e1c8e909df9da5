# C types for core/gate.py.

cimport cython


cdef class Gate:
    cdef public bint observes
    cdef public bint refuses
    cpdef long long enter(self, long long now) except? -1
    cpdef long long opens_in(self, long long now) except? -1
    cpdef bint is_common(self, long long ticket) except -1
    cpdef bint holds(self, long long now, long long ticket) except -1
    cpdef bint consults(self, long long now) except -1
    @cython.locals(ticket=cython.longlong)
    cdef bint is_within(self) except -1
    cdef bint is_under_way(self, long long ticket) except -1
    cpdef leave(self, long long now, int outcome, long long entered, long long ticket)


@cython.locals(gate=Gate, ticket=cython.longlong)
cpdef tuple probed(tuple gates, list tickets)


@cython.locals(at=Py_ssize_t, answer=cython.longlong, gate=Gate)
cpdef Py_ssize_t enter_all(tuple gates, long long now, Py_ssize_t first, list tickets) except? -1


@cython.locals(at=Py_ssize_t, gate=Gate)
cpdef leave_all(tuple gates, long long now, int outcome, long long entered, list tickets)

# C types for core/attempts.py.

cimport cython

cdef long long NEVER
cdef double _LONGEST
cdef bint _matches(object error, tuple types, object predicate, bint never) except -1


cdef class Policy:
    cdef readonly Py_ssize_t rounds
    cdef readonly double factor
    cdef readonly double min_delay
    cdef readonly double max_delay
    cdef readonly bint jitter
    cdef readonly tuple types
    cdef readonly object predicate
    cdef readonly object retry_after
    cdef readonly tuple fallback_types
    cdef readonly object fallback_predicate
    cdef readonly object rejects
    cdef readonly bint reraise
    cdef readonly bint pauses
    cpdef bint matches(self, object error) except -1
    cpdef bint falls_back(self, object error) except -1
    cpdef object rejection(self, object value)


cdef class Attempts:
    cdef readonly Policy policy
    cdef readonly Py_ssize_t width
    cdef readonly Py_ssize_t round
    cdef readonly Py_ssize_t value
    cdef readonly long long delay
    cdef readonly double ceiling
    cdef readonly list errors
    cdef readonly set dropped
    cdef readonly dict refusals
    cdef readonly long long opens
    cdef readonly bint probing
    cdef readonly bint counts
    cdef readonly bint begins
    cdef readonly double asked
    cdef readonly double told
    cdef readonly bint heeds
    cdef readonly str trouble
    cdef readonly bint troubled
    cdef public object index
    @cython.locals(policy=Policy, again=bint, falls=bint)
    cpdef int failed(self, object error, long long now, long long deadline) except -1
    @cython.locals(value=Py_ssize_t)
    cpdef int refused(self, long long until, long long now, long long deadline) except -1
    @cython.locals(policy=Policy, asked="long long")
    cdef int next_round(self, long long now, long long deadline) except -1
    cdef int wait_for_probe(self) except -1
    cpdef reconsider(self)
    cdef object drop(self)
    cdef Py_ssize_t left(self, Py_ssize_t value) except -1
    @cython.locals(seconds=double)
    cdef object ask(self, object error)
    @cython.locals(asked=double, delay="long long")
    cdef long long asked_delay(self) except -1
    @cython.locals(policy=Policy, ceiling=double)
    cpdef long long backoff(self) except -1

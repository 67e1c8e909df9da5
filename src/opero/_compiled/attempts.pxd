# C types for core/attempts.py.

cimport cython

cdef long long NEVER
cdef double _LONGEST


cdef class Policy:
    cdef readonly Py_ssize_t rounds
    cdef readonly double factor
    cdef readonly double min_delay
    cdef readonly double max_delay
    cdef readonly bint jitter
    cdef readonly tuple types
    cdef readonly object predicate
    cdef readonly object retry_after
    cpdef bint matches(self, object error) except -1


cdef class Attempts:
    cdef readonly Policy policy
    cdef readonly Py_ssize_t width
    cdef readonly Py_ssize_t round
    cdef readonly Py_ssize_t value
    cdef readonly long long delay
    cdef readonly double ceiling
    cdef readonly list errors
    cdef readonly double asked
    cdef readonly bint heeds
    cdef readonly str trouble
    cdef readonly bint troubled
    @cython.locals(policy=Policy, asked="long long")
    cpdef int failed(self, object error, long long now, long long deadline) except -1
    @cython.locals(seconds=double)
    cdef object ask(self, object error)
    @cython.locals(asked=double, delay="long long")
    cdef long long asked_delay(self) except -1
    @cython.locals(policy=Policy, ceiling=double)
    cpdef long long backoff(self) except -1

# C types for core/rate_control.py.

cimport cython

cdef double _CUT
cdef double _DEPTH
cdef double _DEEP
cdef double _DEEPEST
cdef double _DOUBT
cdef Py_ssize_t _AT_ONCE
cdef long long _GRACE
cdef double _LEAST
cdef double _MARGIN
cdef double _MEMORY
cdef double _HOLD
cdef double _LONGEST_HOLD
cdef double _RECOVERY
cdef double _GROWTH
cdef double _EARNED
cdef double _SAVINGS
cdef double _BEGINNING
cdef long long _UNHEARD


cdef class RateControl:
    cdef readonly double given
    cdef readonly double floor
    cdef public double rate
    cdef public double top
    cdef public double base
    cdef public double hold
    cdef public double clean
    cdef public double credit
    cdef public double served
    cdef public long long heard
    cdef public long long cut
    cdef public Py_ssize_t since
    cdef public bint series
    @cython.locals(
        gap=cython.double, left=cython.double, beyond=cython.double, rate=cython.double,
        before=cython.double,
    )
    cpdef bint succeeded(self, long long now, long long entered, Py_ssize_t count=*) except -1
    @cython.locals(served=cython.double, earning=cython.double)
    cpdef bint rejected(self, long long now, long long entered) except -1
    @cython.locals(gap=cython.double)
    cdef double _hear(self, long long now) except? -1

# C types for core/fallback.py.

cdef class Fallback:
    cdef readonly str function
    cdef readonly str name
    cdef readonly Py_ssize_t position
    cdef readonly bint by_name
    cdef readonly object default
    cdef readonly tuple before
    cdef readonly object listed
    cpdef Py_ssize_t check(self, object value) except -1
    cpdef object plain(self, object value, Py_ssize_t number)

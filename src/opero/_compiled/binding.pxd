# C types for core/binding.py.

cimport cython

from .keys cimport Freezer


cdef class Binding:
    cdef readonly str name
    cdef readonly object signature
    cdef readonly Freezer freezer
    cdef readonly tuple names
    cdef readonly Py_ssize_t positional
    cdef readonly Py_ssize_t positional_only
    cdef readonly dict slots
    cdef readonly tuple defaults
    cdef readonly tuple constants
    cdef readonly object star
    cdef readonly object starstar
    cdef readonly bint plain
    cpdef object key(self, tuple args, object kwargs)
    cpdef tuple arguments(self, tuple args, object kwargs)

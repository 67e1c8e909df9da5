# C types for core/journal.py.

cdef class Journal:
    cdef readonly object logger
    cdef readonly bint watched
    cdef public int debug
    cpdef hit(self, str name)
    cpdef permit(self, str name, double waited)

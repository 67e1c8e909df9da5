# C types for core/events.py.

cdef class Events:
    cdef readonly object logger
    cdef readonly bint watched
    cdef public int debug
    cpdef hit(self, str name)
    cpdef permit(self, str name, double waited)

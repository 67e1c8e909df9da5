# C types for core/events.py.

cdef class Events:
    cdef readonly object logger
    cdef readonly dict listeners
    cdef readonly bint watched
    cdef public int heeded
    cdef public long long changes
    cpdef hit(self, object call)
    cpdef miss(self, object call)
    cpdef permit(self, object call, double waited)
    cpdef retry(self, object call, object attempts, object error)
    cpdef fallback(self, object call, object attempts, object error)
    cpdef bint is_wanted(self, str kind) except -1

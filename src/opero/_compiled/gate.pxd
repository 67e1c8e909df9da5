# C types for core/gate.py.

cdef class Gate:
    cdef public bint observes
    cpdef long long enter(self, long long now) except -1
    cpdef leave(self, long long now, object outcome, long long entered)

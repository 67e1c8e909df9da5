# C types of shared words; the twin of core/shared_counters.py is shared_counters.pyx.

cimport cython


@cython.no_gc_clear
cdef class SharedCounters:
    cdef Py_buffer _view
    cdef bint _held
    cdef long long *_flag
    cdef long long *_numbers
    cdef int _lock
    cdef long long _at
    cdef long long _owner
    cdef int _depth
    cdef readonly object use
    cdef public long long look_at
    cdef object __weakref__
    cpdef look(self, long long now)
    cdef bint is_mine(self) noexcept
    cpdef bint begin(self) noexcept
    cpdef void end(self) noexcept
    cpdef long long load(self, Py_ssize_t at) noexcept
    cpdef int swap(self, Py_ssize_t at, long long old, long long new) noexcept
    cpdef void put(self, Py_ssize_t at, long long number) noexcept

# C types for core/chunk.py.

cimport cython

from . cimport marks


cdef long long _LEAP
cdef long long _TAIL
cdef long long _MOST


@cython.final
cdef class ChunkSizer:
    cdef readonly long long workers
    cdef readonly long long aim
    cdef readonly long long fixed
    cdef readonly long long left
    cdef readonly long long current
    cdef readonly long long pace
    @cython.locals(share=cython.longlong)
    cpdef long long size(self) noexcept
    cpdef fed(self, long long count)
    @cython.locals(pace=cython.longlong)
    cpdef observe(self, long long count, long long elapsed)


@cython.final
cdef class ChunkRunner:
    cdef memoryview _mark
    @cython.locals(place=cython.longlong, begun=cython.longlong)
    cpdef run(self, function, list values, list results, list failures, long long patience=*)

# C types for core/entry.py and its twin, entry.pyx.

cimport cython
from cpython.object cimport PyObject


cdef enum:
    DEAD = -1
    RESERVED = -2


@cython.final
@cython.no_gc
@cython.freelist(64)
cdef class Entry:
    cdef readonly object key
    cdef readonly long long mark
    cdef public object value
    cdef readonly long long expires
    cdef PyObject *behind  # the next one in its queue
    cdef readonly int uses
    cdef bint queued


@cython.final
cdef class EntryQueue:
    cdef object seen  # None; with it, the garbage collector looks at queues
    cdef PyObject *first
    cdef PyObject *last
    cdef Py_ssize_t length
    cpdef append(self, Entry entry)
    cpdef Entry take(self)
    cpdef clear(self)

# C types for core/entry.py and its twin, entry.pyx.

cimport cython
from cpython.object cimport PyObject

from .flight cimport Flight


cdef enum:
    IS_VALUE = 0
    IS_DEAD = -1
    IS_RESERVED = -2
    IS_UNDER_WAY = -3


@cython.final
@cython.no_gc
@cython.freelist(64)
cdef class Entry:
    cdef readonly object key
    cdef readonly long long mark
    cdef readonly object value
    cdef readonly Flight flight
    cdef readonly long long expires
    cdef PyObject *behind  # the next one in its queue
    cdef readonly int uses
    cdef readonly signed char state
    cdef readonly signed char queued
    cdef PyObject **place  # where it is among the `places` of its store, see lookup.pxi


cpdef Flight follow(Entry entry)
cpdef land(Entry entry, object value, object error)
cpdef bint detach(Entry entry, Flight flight) except -1


@cython.final
cdef class EntryQueue:
    cdef object seen  # None; with it, the garbage collector looks at queues
    cdef PyObject *first
    cdef PyObject *last
    cdef Py_ssize_t length
    cpdef append(self, Entry entry)
    cpdef Entry take(self)
    cpdef clear(self)


@cython.final
cdef class UnderWay:
    cdef readonly long long count
    cpdef begin(self, Entry entry)
    cpdef bint claim(self, Entry entry, long long expires, long long owner) except -1
    cpdef fill(self, Entry entry, object value, long long expires)
    cpdef stop(self, Entry entry)
    cpdef kill(self, Entry entry)
    cpdef revive(self, Entry entry)

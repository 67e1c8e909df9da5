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


cpdef Entry new_entry(object key, signed char state, long long expires)
cpdef Flight follow(Entry entry)
cpdef int land(Entry entry, object value, object error) except -1
cpdef bint detach(Entry entry, Flight flight) except -1


@cython.final
cdef class EntryQueue:
    cdef object seen  # None; with it, the garbage collector looks at queues
    cdef PyObject *first
    cdef PyObject *last
    cdef readonly Py_ssize_t length
    cpdef int append(self, Entry entry) except -1
    cpdef Entry take(self)
    cpdef int clear(self) except -1


@cython.final
cdef class EntryStates:
    cdef readonly long long held
    cpdef int enter(self, Entry entry) except -1
    cpdef bint claim(self, Entry entry, long long expires, long long owner) except -1
    cpdef int fill(self, Entry entry, object value, long long expires) except -1
    cpdef int stop(self, Entry entry) except -1
    cpdef int kill(self, Entry entry) except -1
    cpdef int revive(self, Entry entry) except -1


@cython.final
cdef class Ghosts:
    cdef unsigned short *table
    cdef unsigned long long mask
    cpdef int remember(self, long long mark) except -1
    cpdef bint recall(self, long long mark) except -1
    cpdef int clear(self) except -1
    cdef int begin(self) except -1

"""One stored value, and the queue in which it waits for its eviction; the twin of `core/entry.py`.

The entries of a queue are linked to each other, so that being in one costs an entry a pointer. They
are no objects of the garbage collector, which would look at each of them on its own. A queue shows
it what its entries refer to, so that a value which refers to the function that returned it does not
live for ever. Of an entry that something else refers to as well, it shows nothing: what that entry
holds can be reached.
"""

cimport cython
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF

ctypedef int (*Visit)(PyObject *, void *) noexcept
ctypedef int (*Traverse)(PyObject *, Visit, void *) noexcept
ctypedef int (*Clear)(PyObject *) noexcept

cdef extern from "Python.h":
    ctypedef struct PyTypeObject:
        Traverse tp_traverse
        Clear tp_clear
    Py_ssize_t Py_REFCNT(PyObject *) noexcept


@cython.final
@cython.no_gc
@cython.freelist(64)
cdef class Entry:
    """One stored value (see `core/entry.py`)."""


@cython.final
cdef class EntryQueue:
    """Entries, first in, first out; an entry is in one queue at most."""

    def __dealloc__(self):
        release(self)

    cpdef append(self, Entry entry):
        """Put an entry at the end, unless it is in a queue."""
        cdef PyObject *item = <PyObject *>entry
        with cython.critical_section(self, entry):
            if not entry.queued:
                Py_INCREF(entry)
                entry.queued = True
                entry.behind = NULL
                if self.last is NULL:
                    self.first = item
                else:
                    (<Entry>self.last).behind = item
                self.last = item
                self.length += 1

    cpdef Entry take(self):
        """Take the first entry out; None if there is none."""
        cdef PyObject *item
        with cython.critical_section(self):
            item = self.first
            if item is not NULL:
                self.first = (<Entry>item).behind
                if self.first is NULL:
                    self.last = NULL
                self.length -= 1
                (<Entry>item).queued = False
        if item is NULL:
            return None
        entry = <Entry>item
        Py_DECREF(entry)
        return entry

    cpdef clear(self):
        """Take all entries out."""
        release(self)

    def __iter__(self):
        cdef PyObject *item
        cdef list entries = []
        with cython.critical_section(self):
            item = self.first
            while item is not NULL:
                entries.append(<object>item)
                item = (<Entry>item).behind
        return iter(entries)

    def __len__(self):
        return self.length


cdef void release(EntryQueue queue) noexcept:
    """Take all entries out, and only then let go of them: their ends may run anything."""
    cdef PyObject *item
    cdef PyObject *behind
    with cython.critical_section(queue):
        item = queue.first
        queue.first = queue.last = NULL
        queue.length = 0
    while item is not NULL:
        behind = (<Entry>item).behind
        (<Entry>item).queued = False
        Py_DECREF(<Entry>item)
        item = behind


cdef Traverse plain_traverse = (<PyTypeObject *>EntryQueue).tp_traverse
cdef Clear plain_clear = (<PyTypeObject *>EntryQueue).tp_clear


cdef int traverse(PyObject *this, Visit visit, void *arg) noexcept:
    """Show the garbage collector what the entries of a queue refer to."""
    cdef int stop = plain_traverse(this, visit, arg)
    cdef PyObject *item = (<EntryQueue>this).first
    cdef Py_ssize_t own
    while item is not NULL and not stop:
        own = 1 if (<Entry>item).uses == DEAD else 2  # the queue's, and that of the dictionary
        if Py_REFCNT(item) == own:
            stop = visit(<PyObject *>(<Entry>item).key, arg)
            if not stop:
                stop = visit(<PyObject *>(<Entry>item).value, arg)
        item = (<Entry>item).behind
    return stop


cdef int clear(PyObject *this) noexcept:
    release(<EntryQueue>this)
    return plain_clear(this)


(<PyTypeObject *>EntryQueue).tp_traverse = traverse
(<PyTypeObject *>EntryQueue).tp_clear = clear

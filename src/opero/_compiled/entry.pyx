"""One stored value, and the queue in which it waits for its eviction; the twin of `core/entry.py`.

The entries of a queue are linked to each other, so that being in one costs an entry a pointer. They
are no objects of the garbage collector, which would look at each of them on its own. A queue shows
it what its entries refer to, so that a value which refers to the function that returned it does not
live for ever. Of an entry that something else refers to as well, it shows nothing: what that entry
holds can be reached.
"""

cimport cython
from cpython.mem cimport PyMem_Calloc, PyMem_Free
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.string cimport memset

from . cimport gil
from .flight cimport Flight

ctypedef int (*Visit)(PyObject *, void *) noexcept
ctypedef int (*Traverse)(PyObject *, Visit, void *) noexcept
ctypedef int (*Clear)(PyObject *) noexcept

cdef extern from "Python.h":
    ctypedef struct PyTypeObject:
        Traverse tp_traverse
        Clear tp_clear
    Py_ssize_t Py_REFCNT(PyObject *) noexcept

cdef enum:
    MOST_GHOSTS = 1 << 24

cdef unsigned long long GOLDEN = 0x9E3779B97F4A7C15U

VALUE = IS_VALUE
DEAD = IS_DEAD
RESERVED = IS_RESERVED
UNDER_WAY = IS_UNDER_WAY


@cython.final
@cython.no_gc
@cython.freelist(64)
cdef class Entry:
    """One value, or the place for it (see `core/entry.py`)."""


cpdef Entry new_entry(object key, signed char state, long long expires):
    """Make an entry that is in no table yet."""
    cdef Entry entry = Entry.__new__(Entry)
    entry.mark = hash(key)
    entry.key = key
    entry.expires = expires
    entry.state = state
    return entry


cpdef Flight follow(Entry entry):
    """Return what tells when the run of an entry is over; None if none is under way."""
    cdef Flight flight = Flight.__new__(Flight)
    cdef Flight found = None
    flight.owner = entry.expires
    with cython.critical_section(entry):
        if entry.state == IS_UNDER_WAY:
            if entry.flight is None:
                entry.flight = flight
            found = entry.flight
    return found


cpdef int land(Entry entry, object value, object error) except -1:
    """Make the outcome of a run known to those who follow, if anybody does."""
    cdef Flight flight
    if not gil.FREE_THREADED and entry.flight is None:
        return 0
    with cython.critical_section(entry):
        flight = entry.flight
        entry.flight = None
    if flight is not None:
        flight.land(value, error)


cpdef bint detach(Entry entry, Flight flight) except -1:
    """Take the flight of a run that is lost off its entry; return whether it was there still."""
    cdef bint there = False
    with cython.critical_section(entry):
        if entry.flight is flight:
            entry.flight = None
            there = True
    return there


@cython.final
cdef class EntryQueue:
    """Entries, first in, first out; an entry is in one queue at most."""

    def __dealloc__(self):
        release(self)

    cpdef int append(self, Entry entry) except -1:
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

    cpdef int clear(self) except -1:
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


@cython.final
cdef class EntryStates:
    """Changes the states of a store's entries, and counts those that its bound counts."""

    def __init__(self, entries):
        """Begin; `entries` is for the plain half, which counts by it."""

    cpdef int enter(self, Entry entry) except -1:
        """Count a new entry that is in the dictionary now."""
        if entry.state == IS_RESERVED:
            gil.add(&self.held, 1)

    cpdef bint claim(self, Entry entry, long long expires, long long owner) except -1:
        """Let an entry be under way again, unless somebody was quicker."""
        cdef bint done = False
        with cython.critical_section(entry):
            if entry.expires == expires and entry.state in (IS_VALUE, IS_RESERVED):
                entry.state = IS_UNDER_WAY
                entry.expires = owner
                gil.add(&self.held, -1)
                done = True
        return done

    cpdef int fill(self, Entry entry, object value, long long expires) except -1:
        """Let an entry be a value, unless it is dead."""
        cdef object old = None
        with cython.critical_section(entry):
            if entry.state != IS_DEAD:
                if entry.state == IS_UNDER_WAY:
                    gil.add(&self.held, 1)
                old = entry.value
                entry.value = value
                entry.expires = expires
                entry.state = IS_VALUE

    cpdef int stop(self, Entry entry) except -1:
        """Let an entry be reserved, if it was under way."""
        with cython.critical_section(entry):
            if entry.state == IS_UNDER_WAY:
                gil.add(&self.held, 1)
                entry.state = IS_RESERVED

    cpdef int kill(self, Entry entry) except -1:
        """Let an entry be dead."""
        with cython.critical_section(entry):
            if entry.state == IS_VALUE or entry.state == IS_RESERVED:
                gil.add(&self.held, -1)
            entry.state = IS_DEAD

    cpdef int revive(self, Entry entry) except -1:
        """Let a dead entry, which could not be taken out, be reserved."""
        with cython.critical_section(entry):
            if entry.state == IS_DEAD:
                gil.add(&self.held, 1)
                entry.state = IS_RESERVED


@cython.final
cdef class Ghosts:
    """What is left of entries that were evicted not long ago (see `core/entry.py`)."""

    def __init__(self, long long maxsize):
        """Begin without any."""
        self.mask = 64
        while self.mask <= <unsigned long long>maxsize and self.mask < MOST_GHOSTS:
            self.mask *= 2
        self.mask -= 1

    def __dealloc__(self):
        PyMem_Free(self.table)

    cpdef int remember(self, long long mark) except -1:
        """Keep in mind that a key with this hash was evicted."""
        cdef unsigned long long mixed = <unsigned long long>mark * GOLDEN
        cdef unsigned long long at = mixed >> 23 & self.mask
        if self.table is NULL:
            self.begin()
        self.table[at ^ 1] = self.table[at]
        self.table[at] = what_is_left(mixed)

    cpdef bint recall(self, long long mark) except -1:
        """Return whether a key with this hash was evicted not long ago."""
        cdef unsigned long long mixed = <unsigned long long>mark * GOLDEN
        cdef unsigned long long at = mixed >> 23 & self.mask
        cdef unsigned short left
        if self.table is NULL:
            return False
        left = what_is_left(mixed)
        return self.table[at] == left or self.table[at ^ 1] == left

    cdef int begin(self) except -1:
        cdef void *table = PyMem_Calloc(self.mask + 1, sizeof(unsigned short))
        if table is NULL:
            raise MemoryError
        with cython.critical_section(self):
            if self.table is NULL:
                self.table = <unsigned short *>table
                table = NULL
        PyMem_Free(table)

    cpdef int clear(self) except -1:
        """Forget all; the table stays, as others may be looking at it."""
        if self.table is not NULL:
            memset(self.table, 0, (self.mask + 1) * sizeof(unsigned short))

    def __len__(self):
        return 0 if self.table is NULL else (self.mask + 1) * sizeof(unsigned short)


cdef inline unsigned short what_is_left(unsigned long long mixed) noexcept:
    """Return what the table keeps of a mixed hash; not 0, which an empty place has."""
    cdef unsigned short left = mixed >> 48
    return left if left & 255 else left | 1


cdef Traverse plain_traverse = (<PyTypeObject *>EntryQueue).tp_traverse
cdef Clear plain_clear = (<PyTypeObject *>EntryQueue).tp_clear


cdef int traverse(PyObject *this, Visit visit, void *arg) noexcept:
    """Show the garbage collector what the entries of a queue refer to."""
    cdef int stop = plain_traverse(this, visit, arg)
    cdef PyObject *item = (<EntryQueue>this).first
    cdef Py_ssize_t own
    while item is not NULL and not stop:
        own = 1 if (<Entry>item).state == IS_DEAD else 2  # the queue's, and that of the dictionary
        if Py_REFCNT(item) == own:
            stop = visit(<PyObject *>(<Entry>item).key, arg)
            if not stop:
                stop = visit(<PyObject *>(<Entry>item).value, arg)
            if not stop:
                stop = visit(<PyObject *>(<Entry>item).flight, arg)
        item = (<Entry>item).behind
    return stop


cdef int clear(PyObject *this) noexcept:
    release(<EntryQueue>this)
    return plain_clear(this)


(<PyTypeObject *>EntryQueue).tp_traverse = traverse
(<PyTypeObject *>EntryQueue).tp_clear = clear

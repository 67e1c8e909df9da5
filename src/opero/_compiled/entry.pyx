"""One stored value, and the queue in which it waits for eviction; the twin of `core/entry.py`.

The entries of a queue are linked to each other, so a place in a queue costs an entry one pointer.
The garbage collector does not track entries, because it would visit each of them separately.
Instead, a queue shows it the objects that its entries refer to, so that a value that refers to the
function that returned it does not live forever. The queue skips an entry that something else refers
to, because the objects in that entry are reachable.
"""

cimport cython
from cpython.mem cimport PyMem_Calloc, PyMem_Free
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF
from libc.string cimport memset

from . cimport gil, readers
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
    SHORTEST_SPAN = 4

VALUE = IS_VALUE
DEAD = IS_DEAD
RESERVED = IS_RESERVED
UNDER_WAY = IS_UNDER_WAY
UNKNOWN = IS_UNKNOWN
LOST = IS_LOST
JUST_LOST = IS_JUST_LOST
SPENT = IS_SPENT

cdef readers.Readers *all_readers = readers.readers_here()


cdef readers.Readers *entry_readers() noexcept:
    """Return the readers of entries, for other modules."""
    return all_readers


@cython.final
@cython.no_gc
@cython.freelist(64)
cdef class Entry:
    """One value, or the place for it (see `core/entry.py`)."""


cpdef Entry new_entry(object key, long long mark, signed char state, long long expires):
    """Make an entry that is in no table yet."""
    cdef Entry entry = Entry.__new__(Entry)
    entry.mark = mark
    entry.key = key
    entry.expires = expires
    entry.state = state
    return entry


cpdef Flight follow(Entry entry):
    """Return the flight to wait on until the run of an entry ends; None if no run is under way."""
    cdef Flight flight = Flight.__new__(Flight)
    cdef Flight found = None
    flight.owner = entry.expires
    with cython.critical_section(entry):
        if entry.state == IS_UNDER_WAY:
            if entry.flight is None:
                entry.flight = flight
            found = entry.flight
        elif entry.state == IS_VALUE:  # it may have the flight of its renewal
            found = entry.flight
    return found


cpdef object value_of(Entry entry):
    """Return the value of an entry, which another thread may be replacing at this moment."""
    with cython.critical_section(entry):
        return entry.value


cdef int wake(Entry entry, object value, object error) except -1:
    """Pass the outcome of a run to its followers."""
    cdef Flight flight = take_flight(entry)
    if flight is not None:
        flight.land(value, error)


cpdef Flight take_flight(Entry entry):
    """Take the flight off its entry, and return it; None if nobody follows."""
    cdef Flight flight
    with cython.critical_section(entry):
        flight = entry.flight
        entry.flight = None
    return flight


cpdef bint detach(Entry entry, Flight flight) except -1:
    """Take the flight of a lost run off its entry; return whether the entry still had it."""
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

    cdef void clear(self) noexcept:
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
    """Take all entries out, and only then release them: freeing them may run any code."""
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
        """Begin; only the plain half uses `entries`, for counting."""

    cdef bint claim(self, Entry entry, long long expires, long long owner) noexcept:
        """Put an entry under way again, unless another thread was quicker or is renewing it."""
        cdef bint done = False
        with cython.critical_section(entry):
            if entry.expires == expires and (
                entry.state == IS_RESERVED
                or (entry.state == IS_VALUE and entry.flight is None)
            ):
                entry.state = IS_UNDER_WAY
                gil.fence()  # a reader of the new `expires` must see that it is not a time
                entry.expires = owner
                gil.add(&self.held, -1)
                done = True
        return done

    cdef bint postpone(self, Entry entry, long long expires, long long until) noexcept:
        """Change when hits on a value look closer, unless another thread was quicker."""
        cdef bint done = False
        with cython.critical_section(entry):
            if entry.state == IS_VALUE and entry.expires == expires:
                entry.expires = until
                done = True
        return done

    cdef bint attach(self, Entry entry, long long expires, Flight flight) noexcept:
        """Attach the flight of a run that renews a value, unless the value has changed."""
        cdef bint done = False
        with cython.critical_section(entry):
            if (
                entry.state == IS_VALUE
                and entry.expires == expires
                and entry.flight is None
            ):
                entry.flight = flight
                done = True
        return done

    cdef void stop(self, Entry entry) noexcept:
        """Make an entry reserved, if it was under way."""
        with cython.critical_section(entry):
            if entry.state == IS_UNDER_WAY:
                gil.add(&self.held, 1)
                entry.state = IS_RESERVED

    cdef void restore(self, Entry entry) noexcept:
        """Turn an entry that is under way back into the outdated value that it was."""
        with cython.critical_section(entry):
            if entry.state == IS_UNDER_WAY:
                gil.add(&self.held, 1)
                entry.expires = entry.fresh
                gil.fence()
                entry.state = IS_VALUE

    cdef void revive(self, Entry entry) noexcept:
        """Make a dead entry that could not be taken out reserved."""
        with cython.critical_section(entry):
            if entry.state == IS_DEAD:
                gil.add(&self.held, 1)
                entry.state = IS_RESERVED


@cython.final
cdef class Ghosts:
    """Traces of entries that were evicted lately (see `core/entry.py`)."""

    def __init__(self, Py_ssize_t maxsize):
        """Begin without ghosts."""
        self.maxsize = maxsize

    def __dealloc__(self):
        PyMem_Free(self.past)

    cdef int begin(self) except -1:
        cdef size_t size = 64
        cdef Past *past
        while size <= <size_t>self.maxsize and size < MOST_GHOSTS:
            size *= 2
        past = <Past *>PyMem_Calloc(1, sizeof(Past) + (size - 1) * sizeof(unsigned short))
        if past is NULL:
            raise MemoryError
        past.mask = size - 1
        past.span = max(SHORTEST_SPAN, self.maxsize // 10)
        start(past)
        with cython.critical_section(self):
            if self.past is NULL:
                self.past = past
                past = NULL
        PyMem_Free(past)

    cdef void clear(self) noexcept:
        """Forget all; the table stays, because other threads may be reading it."""
        if self.past is not NULL:
            memset(self.past.table, 0, (self.past.mask + 1) * sizeof(unsigned short))
            start(self.past)

    def __len__(self):
        return 0 if self.past is NULL else (self.past.mask + 1) * sizeof(unsigned short)


cdef void start(Past *past) noexcept:
    """Let the spans of both queues begin."""
    past.tags[0] = 1
    past.tags[1] = 17
    past.left[0] = past.left[1] = past.span


cdef Traverse plain_traverse = (<PyTypeObject *>EntryQueue).tp_traverse
cdef Clear plain_clear = (<PyTypeObject *>EntryQueue).tp_clear


cdef int traverse(PyObject *this, Visit visit, void *arg) noexcept:
    """Show the garbage collector what the entries of a queue refer to."""
    cdef int stop = plain_traverse(this, visit, arg)
    cdef PyObject *item = (<EntryQueue>this).first
    cdef Py_ssize_t own
    while item is not NULL and not stop:
        own = 1 if (<Entry>item).state == IS_DEAD else 2  # from the queue and the dictionary
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

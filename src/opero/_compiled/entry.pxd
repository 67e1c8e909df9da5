# C types for core/entry.py and its twin, entry.pyx.

cimport cython
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF

from . cimport gil
from .flight cimport Flight
from .readers cimport Readers, wait_for

cdef extern from *:
    """
    #define OPERO_GOLDEN 0x9E3779B97F4A7C15ULL
    """
    unsigned long long GOLDEN "OPERO_GOLDEN"


cdef enum:
    IS_VALUE = 0
    IS_DEAD = -1
    IS_RESERVED = -2
    IS_UNDER_WAY = -3


cdef enum:
    IS_UNKNOWN = 0
    IS_LOST = 1
    IS_JUST_LOST = 2
    IS_SPENT = 3


@cython.final
@cython.no_gc
@cython.freelist(64)
cdef class Entry:
    cdef readonly object key
    cdef readonly long long mark
    cdef readonly object value
    cdef readonly Flight flight
    cdef readonly long long expires
    cdef readonly long long fresh
    cdef PyObject *behind  # the next one in its queue
    cdef readonly int uses
    cdef readonly signed char state
    cdef readonly signed char queued
    cdef PyObject **place  # its place in the `places` of its store, see lookup.pxi


cpdef Entry new_entry(object key, long long mark, signed char state, long long expires)
cpdef Flight follow(Entry entry)
cdef Readers *entry_readers() noexcept
cdef int wake(Entry entry, object value, object error) except -1
cpdef bint detach(Entry entry, Flight flight) except -1
cpdef object value_of(Entry entry)
cpdef Flight take_flight(Entry entry)


cdef inline int land(Entry entry, object value, object error) except -1:
    """Pass the outcome of a run to its followers, if there are any."""
    if not gil.FREE_THREADED and entry.flight is None:
        return 0
    return wake(entry, value, error)


@cython.final
cdef class EntryQueue:
    cdef object seen  # None; an object field makes the garbage collector track queues
    cdef PyObject *first
    cdef PyObject *last
    cdef readonly Py_ssize_t length

    cdef inline void append(self, Entry entry) noexcept:
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

    cdef inline PyObject *pull(self) noexcept:
        """Take the first entry out, with the queue's reference to it; NULL if there is none."""
        cdef PyObject *item
        with cython.critical_section(self):
            item = self.first
            if item is not NULL:
                self.first = (<Entry>item).behind
                if self.first is NULL:
                    self.last = NULL
                self.length -= 1
                (<Entry>item).queued = False
        return item

    cdef inline Entry take(self):
        """Take the first entry out; None if there is none."""
        cdef PyObject *item = self.pull()
        if item is NULL:
            return None
        entry = <Entry>item
        Py_DECREF(entry)
        return entry

    cdef void clear(self) noexcept


@cython.final
cdef class EntryStates:
    cdef readonly long long held

    cdef inline void enter(self, Entry entry) noexcept:
        """Count a new entry: before it is in the dictionary, or as soon as it is."""
        if entry.state == IS_RESERVED:
            gil.add(&self.held, 1)

    cdef bint claim(self, Entry entry, long long expires, long long owner) noexcept

    cdef bint postpone(self, Entry entry, long long expires, long long until) noexcept

    cdef bint attach(self, Entry entry, long long expires, Flight flight) noexcept

    cdef inline int fill(
        self, Entry entry, object value, long long expires, long long fresh
    ) except -1:
        """Make an entry a value, unless it is dead; readers of the old value finish first."""
        cdef object _old = value  # released at the end
        with cython.critical_section(entry):
            if entry.state != IS_DEAD:
                if entry.state == IS_UNDER_WAY:
                    gil.add(&self.held, 1)
                _old = entry.value
                entry.value = value
                entry.fresh = fresh
                gil.fence()
                entry.expires = expires
                gil.fence()
                entry.state = IS_VALUE
        if gil.FREE_THREADED and entry.place is not NULL:
            wait_for(entry_readers(), <PyObject *>entry)
        return 0

    cdef void stop(self, Entry entry) noexcept

    cdef void restore(self, Entry entry) noexcept

    cdef inline void kill(self, Entry entry) noexcept:
        """Make an entry dead."""
        with cython.critical_section(entry):
            if entry.state == IS_VALUE or entry.state == IS_RESERVED:
                gil.add(&self.held, -1)
            entry.state = IS_DEAD

    cdef void revive(self, Entry entry) noexcept


cdef struct Past:
    # The table of ghosts, and for each queue its tag and the number of evictions until the tag
    # changes.
    size_t mask
    Py_ssize_t span
    Py_ssize_t left[2]
    unsigned short tags[2]
    unsigned short table[1]


@cython.final
cdef class Ghosts:
    cdef Py_ssize_t maxsize
    cdef Past *past

    cdef int begin(self) except -1

    cdef inline int remember(self, long long mark, bint main) except -1:
        """Remember that a key with this hash was evicted, and from which queue."""
        cdef unsigned long long mixed = <unsigned long long>mark * GOLDEN
        cdef Past *past = self.past
        cdef size_t at
        if past is NULL:
            self.begin()
            past = self.past
        at = mixed >> 23 & past.mask
        past.table[at ^ 1] = past.table[at]
        past.table[at] = <unsigned short>(mixed >> 53 << 5 | past.tags[main])
        past.left[main] -= 1
        if past.left[main] <= 0:
            past.left[main] = past.span
            past.tags[main] = past.tags[main] & 16 | past.tags[main] + 1 & 15
        return 0

    cdef inline int recall(self, long long mark) noexcept:
        """Return what is known about a key with this hash."""
        cdef unsigned long long mixed = <unsigned long long>mark * GOLDEN
        cdef Past *past = self.past
        cdef unsigned int left, found
        cdef size_t at
        if past is NULL:
            return IS_UNKNOWN
        at = mixed >> 23 & past.mask
        left = <unsigned int>(mixed >> 53)
        found = past.table[at]
        if found >> 5 != left:
            found = past.table[at ^ 1]
            if found >> 5 != left:
                return IS_UNKNOWN
        if found & 16:
            return IS_SPENT if found & 31 == past.tags[1] else IS_UNKNOWN
        return IS_JUST_LOST if found & 31 == past.tags[0] else IS_LOST

    cdef void clear(self) noexcept

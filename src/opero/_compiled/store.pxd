# C types for core/store.py.

cimport cython
from cpython.object cimport PyObject

from . cimport gil
from .clock cimport Clock
from .entry cimport (
    Entry, EntryQueue, EntryStates, Ghosts, detach, follow, new_entry, take_flight, value_of,
)
from .flight cimport Flight


cdef int DEAD
cdef int JUST_LOST
cdef int RESERVED
cdef int SPENT
cdef int UNDER_WAY
cdef int VALUE
cdef int _LEAST_SHARE
cdef int _LESS
cdef int _MORE
cdef int _MOST_SHARE
cdef int _WHOLE
cdef int _MOST_USES
cdef int _TRIES
cdef long long NEVER


cdef struct Place:
    Py_hash_t mark
    PyObject *entry


cdef struct Places:
    # Entries of a store that were looked up lately, by the lowest bits of their hash; see
    # lookup.pxi, which defines the type behind this pointer.
    size_t mask
    size_t passed
    Place at[1]


@cython.final
cdef class MemoryStore:
    cdef object __weakref__
    cdef readonly Clock clock
    cdef readonly Py_ssize_t maxsize
    cdef readonly long long ttl
    cdef readonly long long early
    cdef readonly long long late
    cdef readonly bint lingers
    cdef readonly bint sharp
    cdef readonly int share
    cdef readonly dict entries
    cdef readonly EntryStates states
    cdef dict _flights
    cdef readonly Py_ssize_t probation
    cdef readonly EntryQueue small
    cdef readonly EntryQueue main
    cdef readonly Ghosts ghosts
    cdef readonly object whose
    cdef Places *places
    cdef PyObject **place  # its place in the `places` of its `InstanceStores`
    @cython.locals(entry=Entry)
    cpdef Entry find(self, object key)
    cpdef bint counts(self, Entry entry) except -1
    cpdef put(self, object key, object value)
    @cython.locals(entry=Entry, old=Entry)
    cpdef Entry reserve(self, object key)
    @cython.locals(expires=cython.longlong, fresh=cython.longlong)
    cpdef int fill(self, Entry entry, object value) except -1
    @cython.locals(old=Entry)
    cpdef Entry begin(self, Entry entry)
    @cython.locals(expires=cython.longlong, gone=Entry)
    cpdef bint begin_again(self, Entry entry, long long owner) except -1
    cpdef int settle(self, Entry entry, object value) except -1
    cpdef int release(self, Entry entry) except -1
    cpdef abandon(self, Entry entry, Flight flight)
    @cython.locals(entry=Entry)
    cpdef strand(self)
    @cython.locals(entry=Entry)
    cpdef Entry look_closer(self, object key)
    cpdef bint is_fresh(self, Entry entry) except -1
    cpdef bint serves(self, Entry entry) except -1
    cpdef object value_of(self, Entry entry)
    cpdef Entry new_run(self, object key, long long owner)
    cpdef Flight follow(self, Entry entry)
    cpdef bint postpone(self, Entry entry, long long expires, long long until) except -1
    @cython.locals(flight=Flight)
    cpdef Flight begin_refresh(self, Entry entry, long long owner)
    cpdef end_refresh(self, Entry entry, Flight flight, object value, object error)
    @cython.locals(flight=Flight)
    cpdef land(self, Entry entry, object value, object error)
    @cython.locals(
        entry=Entry, gone=Entry, dropped=cython.bint, filled=cython.bint, missed=cython.int
    )
    cpdef bint drop(self, object key) except -1
    @cython.locals(entry=Entry, gone=list)
    cpdef clear(self)
    cdef inline int make_room(self, Py_ssize_t most) except -1
    @cython.locals(known=cython.int)
    cdef inline int line_up(self, Entry entry) except -1
    cdef int line_up_again(self, Entry entry, int known) except -1
    cpdef int move_share(self, int steps) except -1
    @cython.locals(entry=Entry, renewed=Py_ssize_t)
    cpdef bint evict(self) except -1
    @cython.locals(gone=Entry, tries=cython.int, over=cython.bint)
    cpdef int forget(self, Entry entry) except -1
    cdef bint holds(self, Entry entry) except -1
    @cython.locals(entry=Entry, now=cython.longlong)
    cpdef int expire(self) except -1
    @cython.locals(entry=Entry, queue=EntryQueue)
    cpdef int compact(self) except -1


@cython.final
cdef class InstanceStores:
    cdef object __weakref__
    cdef readonly Clock clock
    cdef readonly Py_ssize_t maxsize
    cdef readonly long long ttl
    cdef readonly long long early
    cdef readonly long long late
    cdef readonly dict stores
    cdef readonly object bury
    cdef PyObject **places  # the stores that were looked up lately
    @cython.locals(held=MemoryStore)
    cpdef MemoryStore of(self, object instance)
    cpdef list all(self)

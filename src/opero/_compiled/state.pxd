# C types for core/state.py.

cimport cython

from .attempts cimport Policy
from .binding cimport Binding
from .breaker cimport CircuitBreaker
from .clock cimport Clock
from .entry cimport Entry
from .events cimport Events
from .fallback cimport Fallback
from .gate cimport Gate
from .store cimport InstanceStores, MemoryStore

cdef long long NEVER


cdef class State:
    cdef object __weakref__
    cdef readonly object func
    cdef readonly object face
    cdef readonly str name
    cdef readonly object options
    cdef readonly object decorate
    cdef readonly bint awaited
    cdef readonly object runner
    cdef readonly Clock clock
    cdef readonly Events events
    cdef public object origin
    cdef readonly Policy policy
    cdef readonly Fallback fallback
    cdef readonly tuple queues
    cdef readonly tuple gates
    cdef readonly Gate gate
    cdef readonly bint observed
    cdef readonly bint guarded
    cdef readonly bint permits
    cdef readonly bint refusing
    cdef readonly CircuitBreaker breaker
    cdef readonly Gate behind
    cdef readonly Gate shared
    cdef readonly bint by_value
    cdef readonly long long timeout
    cdef readonly long long attempt_timeout
    cdef readonly Binding binding
    cdef readonly Binding keying
    cdef readonly object generate
    cdef readonly object cache_key
    cdef readonly MemoryStore store
    cdef readonly InstanceStores instances
    cdef readonly object stored_cache
    cdef readonly bint method
    cdef readonly bint single
    cdef readonly bint indirect
    cdef readonly Py_ssize_t straight
    cdef readonly long long cleared_hits
    cdef readonly long long cleared_misses
    @cython.locals(keying=Binding)
    cdef _settle(self)
    cpdef leave_to_runner(self, bint always)
    cpdef tuple locate(self, tuple args, dict kwargs)
    cpdef object lasting(self, object key)
    cpdef Entry reserve(self, MemoryStore store, object key)
    cpdef object own_key(self, tuple args, dict kwargs)


@cython.locals(missed=cython.int)
cpdef take_all(dict flights, object key)

cpdef empty(dict flights)

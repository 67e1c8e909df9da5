"""Calls decorated functions, in C; the twin of `core/call.py`, which explains how it works.

It is written by hand for one reason: instances are called by the vectorcall protocol (PEP 590), so
the arguments of a call stay in the C array in which they arrive. A hit creates no tuple and no
dict; a first attempt that succeeds creates nothing at all. Calls that leave this path pack their
arguments for the runner, or for `Binding.key`.
"""

cimport cython
from cpython.dict cimport PyDict_GetItemWithError
from cpython.mem cimport PyMem_Calloc, PyMem_Free, PyMem_Malloc
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from cpython.tuple cimport PyTuple_GET_SIZE, PyTuple_New, PyTuple_SET_ITEM
from cpython.unicode cimport PyUnicode_CheckExact

from . cimport counting, gil, readers
from .binding cimport Binding
from .breaker cimport CircuitBreaker
from .clock cimport Clock, coarse_time
from .deadline cimport Deadline, TimeLimit
from .entry cimport IS_UNDER_WAY, IS_VALUE, Entry, entry_readers, follow, land, new_entry
from .flight cimport Flight
from .function cimport FunctionLike, MethodLike
from .gate cimport enter_all, leave_all
from .keys cimport _FLOAT, Freezer, Key
from .state cimport State, empty, take_all
from .store cimport _MOST_USES, InstanceStores, MemoryStore, Place, Places

import sys

from .binding import EMPTY as _EMPTY
from .retrying import Retrying
from .traced import TracedRetrying
from opero.exceptions import CacheKeyError
from opero.identity import identifier, is_of_threads
from opero.never_failures import is_never_failure
from opero.once_only import check
from opero.tracebacks import shorten

cdef extern from *:
    """
    static PyObject *opero_pack(PyObject *const *values, Py_ssize_t count) {
        PyObject *packed = PyTuple_New(count);
        if (packed == NULL) return NULL;
        for (Py_ssize_t at = 0; at < count; at++) {
            Py_INCREF(values[at]);
            PyTuple_SET_ITEM(packed, at, values[at]);
        }
        return packed;
    }

    static PyObject *opero_pack_named(PyObject *const *values, PyObject *names) {
        PyObject *packed = PyDict_New();
        if (packed == NULL || names == NULL) return packed;
        for (Py_ssize_t at = 0; at < PyTuple_GET_SIZE(names); at++) {
            if (PyDict_SetItem(packed, PyTuple_GET_ITEM(names, at), values[at]) < 0) {
                Py_DECREF(packed);
                return NULL;
            }
        }
        return packed;
    }

    /* Takes the exception that is set, with its traceback, and clears the indicator. */
    static PyObject *opero_take_error(void) {
    #if PY_VERSION_HEX >= 0x030C0000
        return PyErr_GetRaisedException();
    #else
        PyObject *kind, *error, *traceback;
        PyErr_Fetch(&kind, &error, &traceback);
        PyErr_NormalizeException(&kind, &error, &traceback);
        if (traceback != NULL) PyException_SetTraceback(error, traceback);
        Py_XDECREF(kind);
        Py_XDECREF(traceback);
        return error;
    #endif
    }

    /* Sets an exception again, with the traceback that it has. */
    static void opero_raise_again(PyObject *error) {
        Py_INCREF(error);
    #if PY_VERSION_HEX >= 0x030C0000
        PyErr_SetRaisedException(error);
    #else
        Py_INCREF(Py_TYPE(error));
        PyErr_Restore((PyObject *)Py_TYPE(error), error, PyException_GetTraceback(error));
    #endif
    }

    /* Whether to ask `opero.once_only`. */
    static CYTHON_INLINE int opero_may_be_once_only(PyObject *value) {
        PyAsyncMethods *async = Py_TYPE(value)->tp_as_async;
        if (Py_TYPE(value)->tp_iternext != NULL && PyIter_Check(value)) return 1;
        return async != NULL && (async->am_await != NULL || async->am_anext != NULL);
    }

    #define opero_item(tuple, at) PyTuple_GET_ITEM(tuple, at)
    #define opero_items(tuple) (((PyTupleObject *)(tuple))->ob_item)

    /* A `__dict__` that can be set, like that of a function; Cython's cannot. */
    static PyGetSetDef opero_dict = {
        "__dict__", PyObject_GenericGetDict, PyObject_GenericSetDict, NULL, NULL
    };
    #define opero_new_dict(kind) PyDescr_NewGetSet(kind, &opero_dict)
    """
    object opero_pack(PyObject *const *values, Py_ssize_t count)
    object opero_pack_named(PyObject *const *values, PyObject *names)
    object opero_take_error()
    bint opero_may_be_once_only(object value) noexcept
    void opero_raise_again(object error) noexcept
    object opero_new_dict(PyTypeObject *kind)
    PyObject *opero_item(object values, Py_ssize_t at) noexcept
    PyObject **opero_items(object values) noexcept

cdef extern from "Python.h":
    ctypedef PyObject *(*vectorcallfunc)(
        PyObject *, PyObject *const *, size_t, PyObject *
    ) except NULL
    ctypedef struct PyTypeObject:
        Py_ssize_t tp_vectorcall_offset
        unsigned long tp_flags
        void *tp_call
        PyObject *tp_dict
    unsigned long Py_TPFLAGS_HAVE_VECTORCALL
    unsigned long Py_TPFLAGS_METHOD_DESCRIPTOR
    size_t PY_VECTORCALL_ARGUMENTS_OFFSET
    PyObject *PyVectorcall_Call(PyObject *, PyObject *, PyObject *)
    PyObject *PyObject_Call(PyObject *, PyObject *, PyObject *) except NULL
    Py_ssize_t PyVectorcall_NARGS(size_t) noexcept
    PyObject *PyObject_Vectorcall(PyObject *, PyObject *const *, size_t, PyObject *) noexcept
    bint PyLong_CheckExact(object) noexcept
    void PyType_Modified(PyTypeObject *) noexcept
    unsigned long PyThread_get_thread_ident() noexcept
    PyObject *PyErr_Occurred() noexcept

cdef enum:  # the places in `opero.stats.Stats` of the counters used here
    CALLS = 0
    HITS = 1
    MISSES = 2
    ATTEMPTS = 3
    FAILURES = 6

cdef enum:
    CO_NESTED = 0x0010

cdef enum:  # of `core/gate.py`
    SUCCEEDED = 0

cdef long long NEVER = <long long>1 << 62
cdef object EMPTY = _EMPTY


cdef class _Counting(State):
    """A state that several threads count in."""

    cdef readonly object identify
    cdef readonly object retrying
    cdef bint by_thread
    cdef bint lent
    cdef tuple counters
    cdef counting.Counts counts

    def __init__(self, parts):
        from opero.stats import COUNTERS

        State.__init__(self, parts)
        self.identify = identifier()
        self.by_thread = is_of_threads(self.identify)
        self.lent = not self.by_thread or "gevent" in sys.modules
        self.retrying = Retrying
        self.counters = COUNTERS

    def __dealloc__(self):
        counting.free(&self.counts)

    def add(self, counter, long long amount):
        """Add an amount, which may be negative, to the counter of this name in `Stats`."""
        cdef Py_ssize_t place
        for place in range(PyTuple_GET_SIZE(self.counters)):
            if opero_item(self.counters, place) == <PyObject *>counter:  # both are interned
                counting.add(&self.counts, place, amount)
                return
        counting.add(&self.counts, self.counters.index(counter), amount)

    def counted(self):
        """Return the counts by their names, waits in nanoseconds."""
        return {
            name: counting.total(&self.counts, place) for place, name in enumerate(self.counters)
        }

    def trace(self, on):
        """Make calls report their history when they end, or make them as usual."""
        traced = on and not (self.single and self.gate is None)
        self.retrying = TracedRetrying if traced else Retrying
        self.leave_to_runner(traced)


cdef inline object value_of(Entry entry):
    """Return the value of an entry, which another thread may be replacing at this moment."""
    with cython.critical_section(entry):
        return entry.value


cdef inline object part(Freezer freezer, object value):
    """Return the key part of one argument."""
    if PyUnicode_CheckExact(value) or PyLong_CheckExact(value):
        return value
    return freezer.probe(value)


cdef object straight_key(
    Binding binding, PyObject *const *args, Py_ssize_t count, PyObject *names
):
    """Return the key of a call if its arguments match the parameters directly, or None."""
    cdef Py_ssize_t size = PyTuple_GET_SIZE(binding.names)
    cdef Py_ssize_t at, named, slot
    cdef Py_ssize_t given = 0 if names is NULL else PyTuple_GET_SIZE(<object>names)
    cdef PyObject *name
    cdef PyObject *found
    cdef object value, frozen
    cdef object key
    if size == 1 and count == 1 and given == 0:
        frozen = part(binding.freezer, <object>args[0])
        # None means "no match" here; the long way then finds the key None as well
        return frozen
    key = PyTuple_New(size)
    for at in range(count):
        frozen = part(binding.freezer, <object>args[at])
        Py_INCREF(frozen)
        PyTuple_SET_ITEM(key, at, frozen)
    for named in range(given):
        name = opero_item(<object>names, named)
        for slot in range(binding.positional_only, size):
            if opero_item(binding.names, slot) == name:
                break
        else:
            found = PyDict_GetItemWithError(binding.slots, <object>name)
            if found is NULL:
                return None
            slot = <object>found
        if opero_item(key, slot) is not NULL:
            return None
        frozen = part(binding.freezer, <object>args[count + named])
        Py_INCREF(frozen)
        PyTuple_SET_ITEM(key, slot, frozen)
    if count + given < size:
        for slot in range(count, size):
            if opero_item(key, slot) is NULL:
                frozen = <object>opero_item(binding.constants, slot)
                if frozen is None:
                    value = <object>opero_item(binding.defaults, slot)
                    if value is EMPTY:
                        return None
                    frozen = part(binding.freezer, value)
                Py_INCREF(frozen)
                PyTuple_SET_ITEM(key, slot, frozen)
    if size == 1:
        return <object>opero_item(key, 0)
    return key


cdef MemoryStore store_of(State call, PyObject *const *args, Py_ssize_t count):
    """Return the store for a call with these arguments; None if its instance counts as a value."""
    cdef MemoryStore store
    if not call.method or call.cache_key is not None:
        return call.store
    if count == 0:
        raise TypeError(f"{call.name}() is missing its instance")
    store = call.instances.of(<object>args[0])
    if not gil.FREE_THREADED and store is not None:
        keep_store_at_hand(call.instances, args[0], store)
    return store


cdef object key_of(State call, PyObject *const *args, Py_ssize_t count, PyObject *names):
    """Return the key of a call with these arguments."""
    if call.cache_key is not None:
        return long_key(call, args, count, names)
    if call.method:
        args += 1
        count -= 1
    if call.keying.plain and count <= call.keying.positional:
        try:
            key = straight_key(call.keying, args, count, names)
        except CacheKeyError:
            key = None  # the long way raises an error that names the argument
        if key is not None:
            return key
    return long_key(call, args, count, names)


cdef object long_key(State call, PyObject *const *args, Py_ssize_t count, PyObject *names):
    """Make the key of a call from its packed arguments."""
    cdef object packed = opero_pack(args, count)
    cdef object named = opero_pack_named(args + count, names)
    if call.cache_key is not None:
        return call.own_key(packed, named)
    return call.keying.key(packed, named)


cdef inline object taken(PyObject *value):
    """Take over a reference from C."""
    result = <object>value
    Py_DECREF(result)
    return result


include "lookup.pxi"


cdef class Call(_Counting):
    """The state of an ordinary function."""

    cdef PyObject *run(
        self,
        PyObject *const *args,
        size_t argsf,
        PyObject *names,
        long long deadline,
        object error,
        Py_ssize_t passed,
        long long entered,
        list tickets,
    ) except NULL:
        """Pass the call to the runner, and shorten the traceback of its error."""
        cdef Py_ssize_t count = PyVectorcall_NARGS(argsf)
        cdef object run = self.runner.run
        cdef object packed = opero_pack(args, count)
        cdef object named = opero_pack_named(args + count, names)
        cdef object until = deadline
        cdef object gates = passed
        cdef object since = entered
        cdef PyObject *given[8]
        cdef PyObject *result
        given[0] = <PyObject *>self
        given[1] = <PyObject *>packed
        given[2] = <PyObject *>named
        given[3] = <PyObject *>until
        given[4] = <PyObject *>error
        given[5] = <PyObject *>gates
        given[6] = <PyObject *>since
        given[7] = <PyObject *>tickets
        result = PyObject_Vectorcall(<PyObject *>run, given, 8, NULL)
        if result is NULL:
            opero_raise_again(shorten(opero_take_error()))
        return result

    cdef PyObject *missed(
        self,
        MemoryStore store,
        object key,
        long long mark,
        PyObject *const *args,
        size_t argsf,
        PyObject *names,
        long long deadline,
    ) except NULL:
        """Call `fly`, and shorten the traceback of its error."""
        cdef PyObject *value = (<Flying>fly)(self, store, key, mark, args, argsf, names, deadline)
        if value is NULL:
            opero_raise_again(shorten(opero_take_error()))
        return value

    cdef PyObject *lost(self, MemoryStore store, Entry entry) except NULL:
        """End a run that failed with the current exception, which stays set."""
        cdef object error = opero_take_error()
        try:
            self.let_go(store, entry, None)
        finally:
            land(entry, None, error)
        opero_raise_again(error)
        return NULL

    cdef PyObject *not_kept(self, MemoryStore store, Entry entry, PyObject *value) except NULL:
        """End a run whose value could not be stored because of the current exception.

        A key's own `__eq__` may raise anything. The call continues regardless.
        """
        cdef object error = opero_take_error()
        if not isinstance(error, Exception):
            Py_DECREF(<object>value)
            opero_raise_again(error)
            return self.lost(store, entry)
        try:
            store.release(entry)
        except Exception:  # only the first error is reported
            pass
        land(entry, <object>value, None)
        self.events.not_cached(self.name, error)
        return value

    cdef int let_go(self, MemoryStore store, Entry entry, Flight flight) except -1:
        """Let go of an entry that gets no value: one led here, or one whose leader is lost."""
        try:
            if flight is None:
                store.release(entry)
            else:
                store.abandon(entry, flight)
        except Exception as error:  # a key's own __eq__ may raise anything
            self.events.not_cached(self.name, error)

    cdef PyObject *guarded_attempt(
        self,
        PyObject *const *args,
        size_t argsf,
        PyObject *names,
        long long deadline,
        long long entered,
        long long ticket,
    ) except NULL:
        """Make the first attempt after several gates, or after one that observes."""
        cdef list tickets = [ticket] if self.observed else None
        cdef Py_ssize_t passed = enter_all(self.gates, entered, 1, tickets)
        cdef PyObject *result
        if passed < PyTuple_GET_SIZE(self.gates):
            return self.run(args, argsf, names, deadline, None, passed, entered, tickets)
        if self.permits and self.events.heeded:
            self.events.permit(self, 0.0)
        counting.add(&self.counts, ATTEMPTS, 1)
        result = PyObject_Vectorcall(<PyObject *>self.func, args, argsf, names)
        if result is NULL:
            error = opero_take_error()
            if self.single:
                raise_again(self, error)
                return NULL
            return self.run(args, argsf, names, deadline, error, 0, entered, tickets)
        if tickets is not None:
            try:
                leave_all(self.gates, self.clock.now(), SUCCEEDED, entered, tickets)
            except BaseException:
                Py_DECREF(<object>result)
                raise
        return result

    cdef PyObject *shared_attempt(
        self, PyObject *const *args, size_t argsf, PyObject *names, long long deadline
    ) except NULL:
        """Make the first attempt after a breaker that processes share."""
        cdef long long now = self.clock.now()
        cdef long long ticket = -self.shared.enter(now)
        cdef PyObject *result
        if ticket < 0:
            return self.run(args, argsf, names, deadline, None, 0, 0, None)
        if not self.shared.is_common(ticket):
            return self.run(args, argsf, names, deadline, None, 1, now, [ticket])
        counting.add(&self.counts, ATTEMPTS, 1)
        result = PyObject_Vectorcall(<PyObject *>self.func, args, argsf, names)
        if result is NULL:
            return self.run(args, argsf, names, deadline, opero_take_error(), 0, now, [ticket])
        try:
            self.shared.leave(self.clock.now(), SUCCEEDED, now, ticket)
        except BaseException:
            Py_DECREF(<object>result)
            raise
        return result


cdef int report(CircuitBreaker breaker, Clock clock, long long ticket) except -1:
    """Tell a breaker that an attempt succeeded, if counting it takes more than an addition."""
    cdef long long now = clock.now()
    breaker.leave(now, SUCCEEDED, now, ticket)
    return 0


ctypedef int (*Reporting)(CircuitBreaker, Clock, long long) noexcept


cdef inline bint counted(PyObject *breaker, PyObject *clock, long long ticket) noexcept:
    """Count a success in a closed breaker, if one addition is enough; return whether it was."""
    if not gil.FREE_THREADED and ticket == (<CircuitBreaker>breaker).ticket:
        if coarse_time(clock) < (<CircuitBreaker>breaker).ends:
            (<CircuitBreaker>breaker).good += 1
            return True
    return False


@cython.final
cdef class AsyncCall(_Counting):
    """The state of a coroutine function."""

    cdef readonly object attempted
    cdef TimeLimit limit
    cdef object ready
    cdef object guard
    cdef object guard_one
    cdef object gated
    cdef object gated_one
    cdef object watched
    cdef object watched_one
    cdef object run_until
    cdef object run_until_one
    cdef object share
    cdef object linger
    cdef readonly object lead
    cdef object recall

    def __init__(self, parts):
        _Counting.__init__(self, parts)
        named = self.runner.named
        times = self.runner.loop_time
        if self.timeout:
            self.limit = TimeLimit(self.timeout, self.clock, times)
        self.attempted = self.func if self.generate is None else self.runner.first_item
        if self.attempt_timeout:
            limit = TimeLimit(self.attempt_timeout, self.clock, times)
            self.attempted = self.runner.limited(self.attempted, self.name, limit, Deadline)
        self.ready = named(self.runner.ready, self.name)
        self.guard = named(self.runner.guard, self.name)
        self.guard_one = named(self.runner.guard_one, self.name)
        self.gated = named(self.runner.gated, self.name)
        self.gated_one = named(self.runner.gated_one, self.name)
        self.watched = named(self.runner.watched, self.name)
        self.watched_one = named(self.runner.watched_one, self.name)
        self.run_until = named(self.runner.run_until, self.name)
        self.run_until_one = named(self.runner.run_until_one, self.name)
        self.share = named(self.runner.share, self.name)
        if self.store is not None and self.store.lingers:
            self.linger = named(self.runner.linger, self.name)
        lead = self.runner.lead
        if self.stored_cache is not None:
            self.recall = named(type(self.stored_cache).recall, self.name)
            lead = type(self.stored_cache).lead
        self.lead = named(lead, self.name)

    def begin(self, task):
        """Return the deadline of a call that begins now in a task."""
        cdef Deadline deadline = Deadline.__new__(Deadline)
        deadline.begin(self.limit, task)
        return deadline

    def admit(self):
        """Let a first attempt begin, if all gates admit it immediately (see `core/call.py`)."""
        cdef long long now
        cdef Py_ssize_t passed
        if self.indirect or self.observed:
            return 0
        if self.gate is not None:
            now = self.clock.now()
            if self.gate.enter(now) > 0:
                return 0
            if self.guarded:
                passed = enter_all(self.gates, now, 1, None)
                if passed < PyTuple_GET_SIZE(self.gates):
                    return passed
            if self.permits and self.events.heeded:
                self.events.permit(self, 0.0)
        counting.add(&self.counts, ATTEMPTS, 1)
        return None

    def come_in(self):
        """Let a first attempt begin after a closed breaker, if no other gate refuses it.

        Returns:
            The ticket for `go_out`, or 0 if the runner must ask all gates.
        """
        cdef long long ticket = 0 if self.breaker is None else self.breaker.ticket
        if not ticket:
            return 0
        if self.behind is not None:
            if self.behind.enter(self.clock.now()) > 0:
                return 0
            if self.events.heeded:
                self.events.permit(self, 0.0)
        counting.add(&self.counts, ATTEMPTS, 1)
        return ticket

    def go_out(self, long long ticket):
        """Record that such an attempt succeeded."""
        cdef PyObject *breaker = <PyObject *>self.gate  # `breaker` may have been unset
        if not counted(breaker, <PyObject *>self.clock, ticket):
            report(<CircuitBreaker>breaker, self.clock, ticket)

    def _ground(self, store, key):
        if store.has_flights:
            for flights in list(store.flights.values()):  # one table for each event loop
                take_all(flights, key)

    def _ground_all(self, store):
        if store.has_flights:
            for flights in list(store.flights.values()):
                empty(flights)


cdef PyObject *owned(object value) noexcept:
    """Return a new reference to `value`, for C."""
    Py_INCREF(value)
    return <PyObject *>value


cdef PyObject *first_attempt(
    Call call, PyObject *const *args, size_t argsf, PyObject *names, long long deadline
) except NULL:
    """Make the first attempt of a call that is not `indirect`; the runner makes the others.

    This attempt passes no gate, or all its gates admit it immediately.
    """
    cdef PyObject *result
    cdef long long now, answer
    if call.gate is not None:
        now = call.clock.now()
        answer = call.gate.enter(now)
        if answer > 0:
            return call.run(
                args, argsf, names, deadline, None, 0, now, [] if call.observed else None
            )
        if call.guarded:
            return call.guarded_attempt(args, argsf, names, deadline, now, -answer)
        if call.events.heeded:
            call.events.permit(call, 0.0)
    counting.add(&call.counts, ATTEMPTS, 1)
    result = PyObject_Vectorcall(<PyObject *>call.func, args, argsf, names)
    if result is not NULL:
        return result
    if call.single:
        raise_again(call, opero_take_error())
        return NULL
    return call.run(args, argsf, names, deadline, opero_take_error(), 0, 0, None)


cdef PyObject *indirect_attempt(
    Call call, PyObject *const *args, size_t argsf, PyObject *names, long long deadline
) except NULL:
    """Make the first attempt if its breaker is closed; otherwise the runner makes it."""
    cdef PyObject *breaker = <PyObject *>call.breaker
    cdef long long ticket
    cdef long long now = 0
    cdef PyObject *result
    if <object>breaker is None:
        if call.shared is not None:
            return call.shared_attempt(args, argsf, names, deadline)
        return call.run(args, argsf, names, deadline, None, 0, 0, None)
    ticket = (<CircuitBreaker>breaker).ticket
    if not ticket:
        return call.run(args, argsf, names, deadline, None, 0, 0, None)
    if call.behind is not None:
        now = call.clock.now()
        if call.behind.enter(now) > 0:
            return call.run(args, argsf, names, deadline, None, 1, now, [ticket])
        if call.events.heeded:
            call.events.permit(call, 0.0)
    counting.add(&call.counts, ATTEMPTS, 1)
    result = PyObject_Vectorcall(<PyObject *>call.func, args, argsf, names)
    if result is NULL:
        tickets = [ticket] if PyTuple_GET_SIZE(call.gates) == 1 else [ticket, 0]
        return call.run(args, argsf, names, deadline, opero_take_error(), 0, now, tickets)
    if not counted(breaker, <PyObject *>call.clock, ticket):
        if (<Reporting>report)(<CircuitBreaker>breaker, call.clock, ticket) < 0:
            Py_DECREF(<object>result)
            return NULL
    return result


cdef PyObject *held_attempt(
    Call call, PyObject *const *args, size_t argsf, PyObject *names, long long deadline
) except NULL:
    """Make the first attempt, and keep its arguments alive meanwhile.

    The caller should keep them alive, but when gevent kills a greenlet, it releases the greenlet's
    arguments while the function that received them is still running.
    """
    cdef Py_ssize_t count = PyVectorcall_NARGS(argsf)
    cdef object keys = None if names is NULL else <object>names
    cdef object held = opero_pack(
        args, count if names is NULL else count + PyTuple_GET_SIZE(keys)
    )
    if call.indirect:
        return indirect_attempt(call, opero_items(held), count, names, deadline)
    return first_attempt(call, opero_items(held), count, names, deadline)


# Callers of functions of these types check themselves whether an exception is set.
ctypedef PyObject *(*Attempting)(Call, PyObject *const *, size_t, PyObject *, long long) noexcept
ctypedef PyObject *(*Flying)(
    Call, MemoryStore, object, long long, PyObject *const *, size_t, PyObject *, long long
) noexcept
ctypedef int (*Checking)(Call, PyObject *) noexcept
ctypedef int (*Keeping)(MemoryStore, Entry, PyObject *) noexcept


cdef int check_value(Call call, PyObject *value) except -1:
    """Raise an error if a value can be used only once."""
    check(call.name, <object>value)


cdef int keep_value(MemoryStore store, Entry entry, PyObject *value) except -1:
    return store.settle(entry, <object>value)


cdef PyObject *fly(
    Call call,
    MemoryStore store,
    object key,
    long long mark,
    PyObject *const *args,
    size_t argsf,
    PyObject *names,
    long long deadline,
) except NULL:
    """Run a call whose value is missing and store it, or follow the run that is under way."""
    cdef long long me = PyThread_get_thread_ident() if call.by_thread else call.identify()
    cdef Entry mine = new_entry(key, mark, IS_UNDER_WAY, me)
    cdef Entry entry = store.begin(mine)
    cdef PyObject *value
    cdef PyObject *led = NULL
    if entry is not mine:
        value = follow_up(call, store, mine, entry, args, argsf, names, deadline, &led)
        if led is NULL:
            return value
        entry = taken(led)
    if call.lent:
        value = (<Attempting>held_attempt)(call, args, argsf, names, deadline)
    elif call.indirect:
        value = (<Attempting>indirect_attempt)(call, args, argsf, names, deadline)
    else:
        value = (<Attempting>first_attempt)(call, args, argsf, names, deadline)
    if value is NULL:
        return call.lost(store, entry)
    if opero_may_be_once_only(<object>value) and (<Checking>check_value)(call, value) < 0:
        Py_DECREF(<object>value)
        return call.lost(store, entry)
    if (<Keeping>keep_value)(store, entry, value) < 0:
        return call.not_kept(store, entry, value)
    land(entry, <object>value, None)
    return value


cdef PyObject *follow_up(
    Call call,
    MemoryStore store,
    Entry mine,
    Entry entry,
    PyObject *const *args,
    size_t argsf,
    PyObject *names,
    long long deadline,
    PyObject **led,
) except? NULL:
    """Continue with a key that already has an entry.

    Returns:
        The value; NULL if this thread now leads, with the entry to lead in `led`.
    """
    cdef Py_ssize_t count = PyVectorcall_NARGS(argsf)
    cdef Flight flight
    while entry is not mine and not store.begin_again(entry, mine.expires):
        flight = follow(entry)
        if flight is not None:
            named = opero_pack_named(args + count, names)
            packed = opero_pack(args, count)
            value = call.runner.follow(call, flight, packed, named, deadline)
            if value is call.runner.LOST:
                call.let_go(store, entry, flight)
            elif value is not call.runner.AGAIN:
                return owned(value)
        elif store.counts(entry):  # another thread has stored a value since the lookup
            return owned(value_of(entry))
        entry = store.begin(mine)
    led[0] = owned(entry)
    return NULL


cdef int raise_again(Call call, object error) except -1:
    """Count a failure, and set the function's own exception again, unchanged."""
    if not is_never_failure(error):
        counting.add(&call.counts, FAILURES, 1)
    opero_raise_again(error)
    return 0


# The objects that users hold. The code reads their state through a pointer: it lives as long as the
# function, and the caller holds the function.

@cython.final
cdef class Function(FunctionLike):
    """A decorated ordinary function."""

    cdef vectorcallfunc vectorcall

    def __init__(self, Call call not None):
        FunctionLike.__init__(self, call)
        share(self, call)
        self.vectorcall = call_uncached if call.store is None else call_cached
        if call.store is not None and call.store.lingers:
            self.vectorcall = call_lingering
        if call.stored_cache is not None:
            self.vectorcall = call_stored

    def __get__(self, instance, owner):
        return self if instance is None else Method(self, instance)


@cython.final
cdef class AsyncFunction(FunctionLike):
    """A decorated coroutine function."""

    cdef vectorcallfunc vectorcall

    def __init__(self, AsyncCall call not None):
        FunctionLike.__init__(self, call)
        share(self, call)
        self.vectorcall = acall_uncached if call.store is None else acall_cached
        if call.store is not None and call.store.lingers:
            self.vectorcall = acall_lingering
        if call.stored_cache is not None:
            self.vectorcall = acall_stored

    def __get__(self, instance, owner):
        return self if instance is None else Method(self, instance)


@cython.final
cdef class StreamFunction(FunctionLike):
    """A decorated generator function, ordinary or asynchronous."""

    cdef vectorcallfunc vectorcall

    def __init__(self, _Counting call not None):
        FunctionLike.__init__(self, call)
        share(self, call)
        self.vectorcall = call_stream

    def __get__(self, instance, owner):
        return self if instance is None else Method(self, instance)


cdef share(FunctionLike function, State call):
    """Let threads call a function without counting references to it, unless it is nested."""
    code = getattr(call.face, "__code__", None)
    if gil.FREE_THREADED and code is not None and not code.co_flags & CO_NESTED:
        gil.share(function)


cdef inline PyObject *state_of(PyObject *function) noexcept:
    """Return the state of a decorated function, which lives as long as the function."""
    return <PyObject *>(<FunctionLike>function).__opero__


cdef PyObject *call_uncached(
    PyObject *this, PyObject *const *args, size_t argsf, PyObject *names
) except NULL:
    cdef PyObject *state = state_of(this)
    cdef long long deadline = NEVER
    counting.add(&(<Call>state).counts, CALLS, 1)
    if (<Call>state).timeout:
        deadline = (<Call>state).clock.now() + (<Call>state).timeout
    if (<Call>state).lent:
        return held_attempt(<Call>state, args, argsf, names, deadline)
    if (<Call>state).indirect:
        return indirect_attempt(<Call>state, args, argsf, names, deadline)
    return first_attempt(<Call>state, args, argsf, names, deadline)


# A function that returns the result of one of these adds no entry to a traceback.
ctypedef PyObject *(*Unchecked)(
    Call, PyObject *const *, size_t, PyObject *, Look *
) noexcept


cdef PyObject *call_cached(
    PyObject *this, PyObject *const *args, size_t argsf, PyObject *names
) except NULL:
    cdef PyObject *state = state_of(this)
    cdef Py_ssize_t count = PyVectorcall_NARGS(argsf)
    cdef PyObject *found
    cdef Look look
    counting.add(&(<Call>state).counts, CALLS, 1)
    found = at_hand(state, args, count, names, &look)
    if found is NULL:
        return (<Unchecked>call_searched)(<Call>state, args, argsf, names, &look)
    counting.add(&(<Call>state).counts, HITS, 1)
    if (<Call>state).events.heeded:
        return owned(told_hit(<State>state, taken(found)))
    return found


cdef PyObject *call_searched(
    Call call, PyObject *const *args, size_t argsf, PyObject *names, Look *look
) except NULL:
    """Call a cached function whose entry is not at hand."""
    cdef long long deadline = NEVER
    cdef long long mark
    cdef MemoryStore store
    cdef Entry entry
    cdef object key
    if look.store is not NULL and call.straight == 1 and (
        PyUnicode_CheckExact(<object>look.values[0]) or PyLong_CheckExact(<object>look.values[0])
    ):  # the same as `search`, for an argument that is its own key
        store = <MemoryStore>look.store
        key = <object>look.values[0]
        mark = look.mark
        entry = store.find(key)
        if entry is not None:
            keep_at_hand(store, entry)
            counting.add(&call.counts, HITS, 1)
            return owned(told_hit(call, value_of(entry)))
    elif search(call, args, PyVectorcall_NARGS(argsf), names, look):
        counting.add(&call.counts, HITS, 1)
        return owned(told_hit(call, value_of(taken(look.entry))))
    else:
        store = taken(look.missing_store)
        key = taken(look.missing_key)
        mark = hash(key)
    counting.add(&call.counts, MISSES, 1)
    if call.events.heeded:
        call.events.miss(call)
    if not (PyUnicode_CheckExact(key) or PyLong_CheckExact(key)):
        key = call.binding.freezer.keep(key)
    if call.timeout:
        deadline = call.clock.now() + call.timeout
    return call.missed(store, key, mark, args, argsf, names, deadline)


cdef PyObject *call_lingering(
    PyObject *this, PyObject *const *args, size_t argsf, PyObject *names
) except NULL:
    """Call a function whose cached values are refreshed, or serve after they expire."""
    cdef PyObject *state = state_of(this)
    cdef Py_ssize_t count = PyVectorcall_NARGS(argsf)
    cdef PyObject *found
    cdef Look look
    counting.add(&(<Call>state).counts, CALLS, 1)
    found = at_hand(state, args, count, names, &look)
    if found is NULL:
        return (<Unchecked>call_looked_closer)(<Call>state, args, argsf, names, &look)
    counting.add(&(<Call>state).counts, HITS, 1)
    if (<Call>state).events.heeded:
        return owned(told_hit(<State>state, taken(found)))
    return found


cdef PyObject *call_looked_closer(
    Call call, PyObject *const *args, size_t argsf, PyObject *names, Look *look
) except NULL:
    """Call such a function if the entry is not at hand, or a hit must look closer."""
    cdef Py_ssize_t count = PyVectorcall_NARGS(argsf)
    cdef object store, key, failure
    if search(call, args, count, names, look):
        counting.add(&call.counts, HITS, 1)
        return owned(told_hit(call, value_of(taken(look.entry))))
    store = taken(look.missing_store)
    key = taken(look.missing_key)
    try:
        return owned(
            call.runner.linger(
                call, store, key, opero_pack(args, count), opero_pack_named(args + count, names)
            )
        )
    except BaseException as error:
        failure = shorten(error)
    opero_raise_again(failure)
    return NULL


cdef object told_hit(State call, object value):
    """Return a value that was found, after notifying listeners."""
    if call.events.heeded:
        call.events.hit(call)
    return value


cdef PyObject *call_stored(
    PyObject *this, PyObject *const *args, size_t argsf, PyObject *names
) except NULL:
    cdef Call call = <Call>state_of(this)
    cdef Py_ssize_t count = PyVectorcall_NARGS(argsf)
    cdef object failure
    counting.add(&call.counts, CALLS, 1)
    try:
        return owned(
            call.stored_cache.recall(
                call, opero_pack(args, count), opero_pack_named(args + count, names)
            )
        )
    except BaseException as error:
        failure = shorten(error)
    opero_raise_again(failure)
    return NULL


cdef PyObject *acall_stored(
    PyObject *this, PyObject *const *args, size_t argsf, PyObject *names
) except NULL:
    cdef AsyncCall call = <AsyncCall>state_of(this)
    cdef Py_ssize_t count = PyVectorcall_NARGS(argsf)
    counting.add(&call.counts, CALLS, 1)
    return owned(
        call.recall(
            call.stored_cache,
            call,
            opero_pack(args, count),
            opero_pack_named(args + count, names),
        )
    )


cdef PyObject *acall_cached(
    PyObject *this, PyObject *const *args, size_t argsf, PyObject *names
) except NULL:
    cdef PyObject *state = state_of(this)
    cdef Py_ssize_t count = PyVectorcall_NARGS(argsf)
    cdef PyObject *found
    cdef object store, key, value
    cdef Look look
    counting.add(&(<AsyncCall>state).counts, CALLS, 1)
    if gil.FREE_THREADED:
        found = at_hand(state, args, count, names, &look)
    else:
        found = glance(state, args, count, names, &look)
    if found is not NULL:
        value = taken(found) if gil.FREE_THREADED else (<Entry>found).value
    elif search(<State>state, args, count, names, &look):
        value = value_of(taken(look.entry))
    else:
        store = taken(look.missing_store)
        key = taken(look.missing_key)
        counting.add(&(<AsyncCall>state).counts, MISSES, 1)
        if (<AsyncCall>state).events.heeded:
            (<AsyncCall>state).events.miss(<State>state)
        key = (<AsyncCall>state).binding.freezer.keep(key)
        return owned(
            (<AsyncCall>state).share(
                <State>state,
                store,
                key,
                opero_pack(args, count),
                opero_pack_named(args + count, names),
            )
        )
    counting.add(&(<AsyncCall>state).counts, HITS, 1)
    if (<AsyncCall>state).events.heeded:
        (<AsyncCall>state).events.hit(<State>state)
    found = <PyObject *>value
    return PyObject_Vectorcall(<PyObject *>(<AsyncCall>state).ready, &found, 1, NULL)


cdef PyObject *acall_lingering(
    PyObject *this, PyObject *const *args, size_t argsf, PyObject *names
) except NULL:
    """Call a coroutine function whose cached values are refreshed, or serve after they expire."""
    cdef AsyncCall call = <AsyncCall>state_of(this)
    cdef Py_ssize_t count = PyVectorcall_NARGS(argsf)
    cdef PyObject *found
    cdef object store, key, value
    cdef Look look
    counting.add(&call.counts, CALLS, 1)
    found = at_hand(<PyObject *>call, args, count, names, &look)
    if found is not NULL:
        value = taken(found)
    elif search(call, args, count, names, &look):
        value = value_of(taken(look.entry))
    else:
        store = taken(look.missing_store)
        key = call.binding.freezer.keep(taken(look.missing_key))
        return owned(
            call.linger(
                call, store, key, opero_pack(args, count), opero_pack_named(args + count, names)
            )
        )
    counting.add(&call.counts, HITS, 1)
    if call.events.heeded:
        call.events.hit(call)
    found = <PyObject *>value
    return PyObject_Vectorcall(<PyObject *>call.ready, &found, 1, NULL)


cdef PyObject *acall_uncached(
    PyObject *this, PyObject *const *args, size_t argsf, PyObject *names
) except NULL:
    cdef PyObject *state = state_of(this)
    cdef Py_ssize_t count = PyVectorcall_NARGS(argsf)
    cdef PyObject *given[4]
    cdef PyObject *guard
    cdef PyObject *guard_one
    cdef object packed, named
    counting.add(&(<AsyncCall>state).counts, CALLS, 1)
    if (<AsyncCall>state).timeout:
        guard = <PyObject *>(<AsyncCall>state).run_until
        guard_one = <PyObject *>(<AsyncCall>state).run_until_one
    elif (<AsyncCall>state).breaker is not None:
        guard = <PyObject *>(<AsyncCall>state).watched
        guard_one = <PyObject *>(<AsyncCall>state).watched_one
    elif (<AsyncCall>state).gate is not None or (<AsyncCall>state).indirect:
        guard = <PyObject *>(<AsyncCall>state).gated
        guard_one = <PyObject *>(<AsyncCall>state).gated_one
    else:
        counting.add(&(<AsyncCall>state).counts, ATTEMPTS, 1)
        guard = <PyObject *>(<AsyncCall>state).guard
        guard_one = <PyObject *>(<AsyncCall>state).guard_one
    given[0] = state
    given[1] = <PyObject *>(<AsyncCall>state).attempted
    if count == 1 and names is NULL:
        given[2] = args[0]
        return PyObject_Vectorcall(guard_one, given, 3, NULL)
    packed = opero_pack(args, count)
    named = opero_pack_named(args + count, names)
    given[2] = <PyObject *>packed
    given[3] = <PyObject *>named
    return PyObject_Vectorcall(guard, given, 4, NULL)


cdef PyObject *call_stream(
    PyObject *this, PyObject *const *args, size_t argsf, PyObject *names
) except NULL:
    cdef _Counting call = <_Counting>state_of(this)
    cdef Py_ssize_t count = PyVectorcall_NARGS(argsf)
    cdef PyObject *made
    counting.add(&call.counts, CALLS, 1)
    # this immediately rejects arguments that do not fit
    made = PyObject_Vectorcall(<PyObject *>call.func, args, argsf, names)
    if made is NULL:
        return NULL
    first = taken(made)
    return owned(
        call.generate(call, opero_pack(args, count), opero_pack_named(args + count, names), first)
    )


@cython.final
cdef class Method(MethodLike):
    """A decorated method together with its instance."""

    cdef vectorcallfunc vectorcall

    def __init__(self, func, instance):
        if self.__func__ is not None:  # a call that is under way still needs it
            raise TypeError("a bound method cannot be initialized again; bind the function again")
        MethodLike.__init__(self, func, instance)
        self.vectorcall = call_bound

    def __get__(self, instance, owner):
        return self  # it is already bound

    @property
    def __doc__(self):
        return self.__func__.__doc__


cdef PyObject *call_bound(
    PyObject *this, PyObject *const *args, size_t argsf, PyObject *names
) except NULL:
    """Put the instance before the arguments, in the free place there or in a copy of the array."""
    cdef Method self = <Method>this
    cdef Py_ssize_t count = PyVectorcall_NARGS(argsf)
    cdef Py_ssize_t total = count
    cdef Py_ssize_t at
    cdef PyObject **array
    cdef PyObject *kept
    cdef PyObject *result
    if argsf & PY_VECTORCALL_ARGUMENTS_OFFSET:
        array = <PyObject **>args - 1
        kept = array[0]
        array[0] = <PyObject *>self.__self__
        result = PyObject_Vectorcall(<PyObject *>self.__func__, array, count + 1, names)
        array[0] = kept
        return result
    if names is not NULL:
        total += PyTuple_GET_SIZE(<object>names)
    array = <PyObject **>PyMem_Malloc((total + 1) * sizeof(PyObject *))
    if array is NULL:
        raise MemoryError
    array[0] = <PyObject *>self.__self__
    for at in range(total):
        array[at + 1] = args[at]
    result = PyObject_Vectorcall(<PyObject *>self.__func__, array, count + 1, names)
    PyMem_Free(array)
    return result


def __call__(self, /, *args, **kwargs):
    """Call the function."""
    return self(*args, **kwargs)


cdef by_vectorcall(type kind, Py_ssize_t offset, unsigned long flags):
    """Let instances of `kind` be called by the function pointer at `offset` in them.

    Their `__call__` is for code that looks it up; ordinary calls do not use it.
    """
    cdef PyTypeObject *slots = <PyTypeObject *>kind
    (<dict>slots.tp_dict)["__call__"] = __call__
    slots.tp_vectorcall_offset = offset
    slots.tp_flags |= Py_TPFLAGS_HAVE_VECTORCALL | flags
    slots.tp_call = <void *>PyVectorcall_Call
    PyType_Modified(slots)


cdef PyObject *undecorated(PyObject *this, PyObject *args, PyObject *kwargs) except NULL:
    """Call the function that was decorated."""
    return PyObject_Call(<PyObject *>(<State>state_of(this)).func, args, kwargs)


def bypass(bint on):
    """Make all decorated functions behave as if undecorated, or as usual again.

    Callers ask the type whether the instance has a function pointer.
    """
    cdef PyTypeObject *slots
    for kind in (Function, AsyncFunction, StreamFunction):
        slots = <PyTypeObject *>kind
        if on:
            slots.tp_call = <void *>undecorated
            slots.tp_flags &= ~Py_TPFLAGS_HAVE_VECTORCALL
        else:
            slots.tp_flags |= Py_TPFLAGS_HAVE_VECTORCALL
            slots.tp_call = <void *>PyVectorcall_Call
        PyType_Modified(slots)


cdef with_dict(type kind):
    """Allow setting the `__dict__` of instances of `kind`."""
    cdef PyTypeObject *slots = <PyTypeObject *>kind
    (<dict>slots.tp_dict)["__dict__"] = opero_new_dict(slots)
    PyType_Modified(slots)


def without_new(type kind):
    """Allow creating instances of `kind` only by calling it.

    `__new__` alone would leave None in fields in which C code expects other objects.
    """
    cdef PyTypeObject *slots = <PyTypeObject *>kind
    (<dict>slots.tp_dict).pop("__new__", None)
    PyType_Modified(slots)


with_dict(FunctionLike)
with_dict(Function)
with_dict(AsyncFunction)
with_dict(StreamFunction)
cdef Function function = Function.__new__(Function)
cdef AsyncFunction coroutine_function = AsyncFunction.__new__(AsyncFunction)
cdef StreamFunction generator_function = StreamFunction.__new__(StreamFunction)
cdef Method method = Method.__new__(Method)
by_vectorcall(
    Function,
    <char *>&function.vectorcall - <char *><void *>function,
    Py_TPFLAGS_METHOD_DESCRIPTOR,
)
by_vectorcall(
    AsyncFunction,
    <char *>&coroutine_function.vectorcall - <char *><void *>coroutine_function,
    Py_TPFLAGS_METHOD_DESCRIPTOR,
)
by_vectorcall(
    StreamFunction,
    <char *>&generator_function.vectorcall - <char *><void *>generator_function,
    Py_TPFLAGS_METHOD_DESCRIPTOR,
)
by_vectorcall(Method, <char *>&method.vectorcall - <char *><void *>method, 0)
function = coroutine_function = generator_function = method = None

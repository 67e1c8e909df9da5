"""The decorated function in C; the twin of `core/call.py`, which tells how it works.

It is written by hand for one thing: an instance is called by the vectorcall protocol (PEP 590), so
the arguments of a call stay in the C array they come in. A hit makes no tuple and no dict; a first
attempt that succeeds makes nothing at all. What leaves the straight path is packed and handed to
the runner, or to `Binding.key`.
"""

cimport cython
from cpython.dict cimport PyDict_GetItemWithError
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from cpython.tuple cimport PyTuple_GET_SIZE, PyTuple_New, PyTuple_SET_ITEM
from cpython.unicode cimport PyUnicode_CheckExact

from . cimport gil
from .attempts cimport Policy
from .binding cimport Binding
from .clock cimport Clock
from .fallback cimport Fallback
from .flight cimport Flight
from .events cimport Events
from .gate cimport Gate
from .keys cimport Freezer
from .store cimport Entry, InstanceStores, MemoryStore

from .binding import EMPTY as _EMPTY
from opero.exceptions import CacheKeyError
from opero.never_failures import is_never_failure

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

    #define opero_item(tuple, at) PyTuple_GET_ITEM(tuple, at)

    /* Without the interpreter's lock, threads count at the same time. */
    #if !defined(Py_GIL_DISABLED)
      #define opero_add(counter, amount) (*(counter) += (amount))
    #elif defined(_MSC_VER)
      #include <intrin.h>
      #define opero_add(counter, amount) _InterlockedExchangeAdd64(counter, amount)
    #else
      #define opero_add(counter, amount) __atomic_fetch_add(counter, amount, __ATOMIC_RELAXED)
    #endif
    """
    void opero_add(long long *counter, long long amount) noexcept
    Py_ssize_t Py_REFCNT(object) noexcept
    object opero_pack(PyObject *const *values, Py_ssize_t count)
    object opero_pack_named(PyObject *const *values, PyObject *names)
    object opero_take_error()
    void opero_raise_again(object error) noexcept
    PyObject *opero_item(object values, Py_ssize_t at) noexcept

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
    Py_ssize_t PyVectorcall_NARGS(size_t) noexcept
    PyObject *PyObject_Vectorcall(PyObject *, PyObject *const *, size_t, PyObject *) noexcept
    bint PyLong_CheckExact(object) noexcept
    void PyType_Modified(PyTypeObject *) noexcept
    unsigned long PyThread_get_thread_ident() noexcept

cdef enum:  # the places in `opero.stats.Stats` of what is counted here
    CALLS = 0
    HITS = 1
    MISSES = 2
    ATTEMPTS = 3
    FAILURES = 6
    ROOM = 32

cdef extern from *:
    Py_ssize_t PY_SSIZE_T_MAX

cdef long long NEVER = <long long>1 << 62
cdef object EMPTY = _EMPTY

FUNCTION_ATTRIBUTES = frozenset(
    {"__code__", "__defaults__", "__kwdefaults__", "__globals__", "__closure__", "__builtins__"}
)


cdef class _Wrapper:
    """What `Call` and `AsyncCall` have in common (see `core/call.py`)."""

    cdef vectorcallfunc vectorcall
    cdef dict __dict__
    cdef object __weakref__
    cdef readonly object func
    cdef readonly object face
    cdef readonly str name
    cdef readonly object runner
    cdef readonly Clock clock
    cdef readonly Events events
    cdef public object origin
    cdef readonly Policy policy
    cdef readonly Fallback fallback
    cdef readonly tuple queues
    cdef readonly tuple gates
    cdef readonly bint observed
    cdef Gate gate
    cdef bint guarded
    cdef readonly long long timeout
    cdef readonly Binding binding
    cdef readonly Binding keying
    cdef readonly object cache_key
    cdef readonly MemoryStore store
    cdef readonly InstanceStores instances
    cdef readonly object stored_cache
    cdef readonly bint method
    cdef readonly bint single
    cdef readonly bint indirect
    cdef readonly bint lone
    cdef tuple counters
    cdef long long counts[ROOM]
    cdef long long hits_cleared
    cdef long long misses_cleared

    def __init__(
        self,
        func,
        face,
        name,
        runner,
        Clock clock not None,
        Events events not None,
        Policy policy not None,
        Fallback fallback,
        tuple queues not None,
        long long timeout,
        Binding binding,
        cache_key,
        MemoryStore store,
        InstanceStores instances,
        stored_cache=None,
    ):
        from opero.stats import COUNTERS

        self.counters = COUNTERS
        self.func = func
        self.face = face
        self.name = name
        self.runner = runner
        self.clock = clock
        self.events = events
        self.policy = policy
        self.fallback = fallback
        self.queues = queues
        self.gates = tuple([queue.gate for queue in queues])
        self.gate = self.gates[0] if queues else None
        self.observed = any([gate.observes for gate in self.gates])
        self.guarded = self.observed or len(queues) > 1
        self.timeout = timeout
        self.binding = binding
        self.cache_key = cache_key
        self.store = store
        self.instances = instances
        self.stored_cache = stored_cache
        self.keying = None if store is None else binding
        self.single = policy.rounds == 1 and fallback is None
        self.indirect = policy.rejects is not None or (
            fallback is not None and fallback.listed is None
        )
        self._settle()

    def _settle(self):
        """Note whether the one argument of a call may be its key."""
        self.lone = (
            self.keying is not None
            and self.cache_key is None
            and not self.method
            and self.keying.plain
            and len(self.keying.names) == 1
            and self.keying.positional == 1
        )

    # --- a function like any other ----------------------------------------------------------

    def __set_name__(self, owner, name):
        inner = getattr(type(self.func), "__set_name__", None)
        if inner is not None:
            inner(self.func, owner, name)
        if self.face.__qualname__.rpartition(".")[0] == owner.__qualname__:
            self.become_method()

    def become_method(self):
        """Let the first argument count by identity, and a cache of its own go with it."""
        if not self.method:
            self.method = True
            if self.keying is not None:
                self.keying = self.keying.without_first()
            self._settle()

    def __get__(self, instance, owner):
        return self if instance is None else BoundCall(self, instance)

    def __getattr__(self, name):
        if name in FUNCTION_ATTRIBUTES:
            return getattr(self.face, name)
        if name == "__annotations__":  # since Python 3.14 `update_wrapper` leaves them to be read
            return self.func.__annotations__
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __reduce__(self):
        return self.__qualname__

    def __repr__(self):
        return f"<opero function {self.name}>"

    def fits(self, args, kwargs):
        """Tell whether a call's arguments fit the signature."""
        return self.binding is None or self.binding.fits(args, kwargs)

    # --- figures and the cache --------------------------------------------------------------

    def stats(self):
        """Return what has happened since the function was decorated."""
        from opero.stats import stats_of

        counts = {name: self.counts[place] for place, name in enumerate(self.counters)}
        if self.stored_cache is not None:
            counts.update(self.stored_cache.counts)
        return stats_of(counts)

    def add(self, counter, long long amount):
        """Add to a counter, given by its name in `opero.stats.Stats`; it may be less than 0."""
        cdef Py_ssize_t place
        for place in range(PyTuple_GET_SIZE(self.counters)):
            if opero_item(self.counters, place) == <PyObject *>counter:  # both are interned
                opero_add(&self.counts[place], amount)
                return
        opero_add(&self.counts[<Py_ssize_t>self.counters.index(counter)], amount)

    def cache_info(self):
        """Return hits and misses since the last `cache_clear`, and the size of the cache."""
        from opero.stats import CacheInfo

        if self.store is None and self.stored_cache is None:
            inner = getattr(self.func, "cache_info", None)
            return CacheInfo(0, 0, 0, 0) if inner is None else inner()
        stored = self.stored_cache is not None
        return CacheInfo(
            self.counts[HITS] - self.hits_cleared,
            self.counts[MISSES] - self.misses_cleared,
            None if self.store is None else self.store.maxsize or None,
            self.stored_cache.count() if stored else sum([len(store) for store in self._stores()]),
        )

    def restart_cache_info(self):
        """Let `cache_info` count hits and misses from now on."""
        self.hits_cleared = self.counts[HITS]
        self.misses_cleared = self.counts[MISSES]

    def cache_clear(self):
        """Forget every value; what is running now will not be stored either."""
        if self.stored_cache is not None:
            self.stored_cache.clear()
        elif self.store is None and hasattr(self.func, "cache_clear"):
            self.func.cache_clear()
        self.restart_cache_info()
        for store in self._stores():
            self._ground_all(store)
            store.clear()
            self._ground_all(store)

    def cache_invalidate(self, /, *args, **kwargs):
        """Forget the value of one call, given by its arguments; tell whether there was one."""
        if self.stored_cache is not None:
            return bool(self.stored_cache.invalidate(self, args, kwargs))
        if self.store is None:
            inner = getattr(self.func, "cache_invalidate", None)
            return False if inner is None else inner(*args, **kwargs)
        store, key = self._locate(args, kwargs)
        self._ground(store, key)
        dropped = store.drop(key)
        self._ground(store, key)
        return bool(dropped)

    def ground(self, store, key, flight):
        """Take a flight that nobody flies any more out of the table."""
        if gil.look_up(store.flights, key) is flight:
            store.flights.pop(key, None)

    def after_fork(self):
        """Forget the runs that are under way: in a child process nobody will end them."""
        for store in self._stores():
            store.flights.clear()
        if self.stored_cache is not None:
            self.stored_cache.after_fork()

    def _stores(self):
        if self.store is None:
            return []
        return [self.store, *self.instances.all()]

    def _ground(self, store, key):
        take_all(store.flights, key)

    def _ground_all(self, store):
        empty(store.flights)

    def _locate(self, args, kwargs):
        """Return the store and the key of a call."""
        if self.cache_key is not None:
            return self.store, self._own_key(args, kwargs)
        if not self.method:
            return self.store, self.keying.key(args, kwargs)
        if not args:
            raise TypeError(f"{self.name}() is missing its instance")
        return self.instances.of(args[0]), self.keying.key(args[1:], kwargs)

    def _own_key(self, args, kwargs):
        """Return the key that the user's `cache_key` makes."""
        key = self.cache_key(*args, **kwargs)
        try:
            return self.binding.freezer.probe(key)
        except CacheKeyError as error:
            raise CacheKeyError(f"{self.name}(): the result of cache_key: {error}") from error

    def enter(self, long long now, Py_ssize_t first=0):
        """Enter the gates from number `first` on; return how many have let the attempt in."""
        return self.enter_from(first, now)

    cdef Py_ssize_t enter_from(self, Py_ssize_t first, long long now) except -1:
        cdef Py_ssize_t at
        for at in range(first, PyTuple_GET_SIZE(self.gates)):
            if (<Gate>opero_item(self.gates, at)).enter(now):
                return at
        return PyTuple_GET_SIZE(self.gates)

    def leave(self, outcome, long long entered, Py_ssize_t passed=PY_SSIZE_T_MAX):
        """Tell the gates that observe how an attempt has ended."""
        cdef long long now = self.clock.now()
        cdef Gate gate
        for gate in self.gates[:passed]:
            if gate.observes:
                gate.leave(now, outcome, entered)

    def reserve(self, store, key):
        """Make room for a value; if that fails, the call goes on all the same."""
        return self.room(store, key)

    cdef Entry room(self, MemoryStore store, object key):
        """Make room for a value; if that fails, the call goes on all the same."""
        try:
            return store.reserve(key)
        except Exception as error:
            self.events.not_cached(self.name, error)
            return None

    cdef MemoryStore backend(self, PyObject *const *args, Py_ssize_t count):
        """Return the store for a call with these arguments."""
        if not self.method or self.cache_key is not None:
            return self.store
        if count == 0:
            raise TypeError(f"{self.name}() is missing its instance")
        return self.instances.of(<object>args[0])

    cdef object key(self, PyObject *const *args, Py_ssize_t count, PyObject *names):
        """Return the key of a call with these arguments."""
        if self.cache_key is not None:
            return self._own_key(opero_pack(args, count), opero_pack_named(args + count, names))
        if self.method:
            args += 1
            count -= 1
        if self.keying.plain and count <= self.keying.positional:
            try:
                key = straight_key(self.keying, args, count, names)
            except CacheKeyError:
                key = None  # the long way says which argument it was
            if key is not None:
                return key
        return self.keying.key(opero_pack(args, count), opero_pack_named(args + count, names))


cdef take_all(dict flights, object key):
    """Take every flight of `key` out of a table: it may be there twice, or be missed."""
    cdef int missed = 0
    while missed < 2:
        missed = missed + 1 if flights.pop(key, None) is None else 0


cdef empty(dict flights):
    """Take every flight out of a table, which its `clear` must not do (see `store`)."""
    try:
        while flights:
            flights.popitem()
    except KeyError:  # another thread took the last one
        pass


cdef inline object value_of(Entry entry):
    """Return what an entry holds: another thread may put a newer value there at this moment."""
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
    """Return the key of a call whose arguments are all named ones, or None if they do not fit."""
    cdef Py_ssize_t size = PyTuple_GET_SIZE(binding.names)
    cdef Py_ssize_t at, named, slot
    cdef Py_ssize_t given = 0 if names is NULL else PyTuple_GET_SIZE(<object>names)
    cdef PyObject *name
    cdef PyObject *found
    cdef object value, frozen
    cdef object key
    if size == 1 and count == 1 and given == 0:
        frozen = part(binding.freezer, <object>args[0])
        # None stands for "does not fit" here, and the long way finds the key None too
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


cdef class Call(_Wrapper):
    """A decorated ordinary function.

    A flight that nobody followed is kept in `spare` and flown again: most flights are like that.
    """

    cdef Flight spare

    def __init__(self, *args):
        _Wrapper.__init__(self, *args)
        self.vectorcall = call_uncached if self.store is None else call_cached
        if self.stored_cache is not None:
            self.vectorcall = call_stored

    cdef object fly(
        self,
        MemoryStore store,
        object key,
        PyObject *const *args,
        size_t argsf,
        PyObject *names,
        long long deadline,
    ):
        """Run a call whose value is missing and store it, or follow the run that is under way."""
        cdef Flight flight = self.spare
        cdef Entry entry
        cdef object other
        cdef bint again = False
        cdef bint simple = PyUnicode_CheckExact(key) or PyLong_CheckExact(key)
        cdef bint listed
        cdef Py_ssize_t count = PyVectorcall_NARGS(argsf)
        if flight is None:
            flight = Flight.__new__(Flight)
        else:
            self.spare = None
        flight.owner = PyThread_get_thread_ident()
        while True:
            other = store.flights.setdefault(key, flight)
            if other is flight:
                break
            if (<Flight>other).done and gil.look_up(store.flights, key) is other:
                store.flights.pop(key, None)  # it could not be taken out when it landed
                continue
            named = opero_pack_named(args + count, names)
            packed = opero_pack(args, count)
            value = self.runner.follow(self, store, key, other, packed, named, deadline)
            if value is not self.runner.AGAIN:
                return value
            again = True  # and much may have happened meanwhile
        other = None
        try:
            entry = None
            # comparing another kind of key may run Python code, and let a thread store it meanwhile
            if again or not simple or gil.FREE_THREADED:
                entry = store.find(key)
            if entry is None:
                value = self.attempt(args, argsf, names, deadline)
                entry = store.reserve(key) if simple else self.room(store, key)
                if gil.FREE_THREADED:
                    listed = self.is_listed(store, key, flight)
                else:
                    listed = self.take_out(store, key, flight)
                if entry is not None:
                    if listed:  # and nobody has looked since it was taken out
                        store.fill(entry, value)
                    else:  # it was invalidated meanwhile
                        store.drop(key)
                if gil.FREE_THREADED:  # only now: who comes next has to find the value
                    self.take_out(store, key, flight)
            else:
                value = value_of(entry)
                listed = self.take_out(store, key, flight)
        except BaseException as error:
            self.take_out(store, key, flight)
            flight.land(None, error)
            raise
        if not gil.FREE_THREADED and listed and Py_REFCNT(flight) == 1:
            self.spare = flight  # nobody else has seen it, and now nobody can
        else:
            flight.land(value, None)
        return value

    cdef bint take_out(self, MemoryStore store, object key, Flight flight) except -1:
        """Leave nothing under the key of a flight that is over.

        Returns:
            Whether it was in the table still: whoever invalidates its key takes it out.
        """
        cdef object gone
        if not gil.FREE_THREADED and (
            PyUnicode_CheckExact(key) or PyLong_CheckExact(key)  # no other thread can cut in
        ):
            gone = store.flights.pop(key, None)
            if gone is not flight and gone is not None:
                store.flights[key] = gone
            return gone is flight
        try:
            if gil.look_up(store.flights, key) is flight:
                return store.flights.pop(key, None) is flight
        except Exception as error:  # comparing keys may raise; the next call tidies up
            self.events.not_cached(self.name, error)
        return False

    cdef bint is_listed(self, MemoryStore store, object key, Flight flight) except -1:
        """Tell whether a flight is in the table still."""
        try:
            return gil.look_up(store.flights, key) is flight
        except Exception as error:  # comparing keys may raise; the next call tidies up
            self.events.not_cached(self.name, error)
        return False

    cdef object attempt(
        self, PyObject *const *args, size_t argsf, PyObject *names, long long deadline
    ):
        """Make the first attempt; as an object, for callers that catch what it raises."""
        cdef PyObject *result = first_attempt(self, args, argsf, names, deadline)
        value = <object>result
        Py_DECREF(value)
        return value

    cdef object run(
        self,
        PyObject *const *args,
        size_t argsf,
        PyObject *names,
        long long deadline,
        object error,
        Py_ssize_t passed,
    ):
        """Hand the call to the runner."""
        cdef Py_ssize_t count = PyVectorcall_NARGS(argsf)
        return self.runner.run(
            self,
            opero_pack(args, count),
            opero_pack_named(args + count, names),
            deadline,
            error,
            passed,
        )

    cdef object guarded_attempt(
        self,
        PyObject *const *args,
        size_t argsf,
        PyObject *names,
        long long deadline,
        long long entered,
    ):
        """Make the first attempt behind more gates than one, or one that observes."""
        cdef Py_ssize_t passed = self.enter_from(1, entered)
        cdef PyObject *result
        if passed < PyTuple_GET_SIZE(self.gates):
            return self.run(args, argsf, names, deadline, None, passed)
        if self.events.heeded:
            self.events.permit(self, 0.0)
        opero_add(&self.counts[ATTEMPTS], 1)
        result = PyObject_Vectorcall(<PyObject *>self.func, args, argsf, names)
        if result is NULL:
            error = opero_take_error()
            self.leave(error, entered)
            if self.single:
                if not is_never_failure(error):
                    opero_add(&self.counts[FAILURES], 1)
                raise error
            return self.run(args, argsf, names, deadline, error, 0)
        value = <object>result
        Py_DECREF(value)
        self.leave(None, entered)
        return value


cdef PyObject *owned(object value) noexcept:
    """Return a new reference to `value`, for C."""
    Py_INCREF(value)
    return <PyObject *>value


cdef PyObject *first_attempt(
    Call self, PyObject *const *args, size_t argsf, PyObject *names, long long deadline
) except NULL:
    """Make the first attempt, if all gates let it in at once; the runner goes on."""
    cdef PyObject *result
    cdef long long now
    if self.indirect:
        return owned(self.run(args, argsf, names, deadline, None, 0))
    if self.gate is not None:
        now = self.clock.now()
        if self.gate.enter(now):
            return owned(self.run(args, argsf, names, deadline, None, 0))
        if self.guarded:
            return owned(self.guarded_attempt(args, argsf, names, deadline, now))
        if self.events.heeded:
            self.events.permit(self, 0.0)
    opero_add(&self.counts[ATTEMPTS], 1)
    result = PyObject_Vectorcall(<PyObject *>self.func, args, argsf, names)
    if result is not NULL:
        return result
    if self.single:
        raise_again(self, opero_take_error())
        return NULL
    return owned(self.run(args, argsf, names, deadline, opero_take_error(), 0))


cdef int raise_again(Call self, object error) except -1:
    """Count a failure, and set the function's own exception again, as it was."""
    if not is_never_failure(error):
        opero_add(&self.counts[FAILURES], 1)
    opero_raise_again(error)
    return 0


cdef PyObject *call_uncached(
    PyObject *this, PyObject *const *args, size_t argsf, PyObject *names
) except NULL:
    cdef Call self = <Call>this
    cdef long long deadline = NEVER
    opero_add(&self.counts[CALLS], 1)
    if self.timeout:
        deadline = self.clock.now() + self.timeout
    return first_attempt(self, args, argsf, names, deadline)


cdef PyObject *call_cached(
    PyObject *this, PyObject *const *args, size_t argsf, PyObject *names
) except NULL:
    cdef Call self = <Call>this
    cdef Py_ssize_t count = PyVectorcall_NARGS(argsf)
    cdef long long deadline = NEVER
    cdef MemoryStore store
    cdef Entry entry
    cdef object key
    opero_add(&self.counts[CALLS], 1)
    if self.lone and count == 1 and names is NULL and (
        PyUnicode_CheckExact(<object>args[0]) or PyLong_CheckExact(<object>args[0])
    ):
        store = self.store
        key = <object>args[0]
    else:
        store = self.backend(args, count)
        key = self.key(args, count, names)
    entry = store.find(key)
    if entry is not None:
        opero_add(&self.counts[HITS], 1)
        if self.events.heeded:
            self.events.hit(self)
        if gil.FREE_THREADED:
            return owned(value_of(entry))
        return owned(entry.value)
    opero_add(&self.counts[MISSES], 1)
    if self.events.heeded:
        self.events.miss(self)
    if not (PyUnicode_CheckExact(key) or PyLong_CheckExact(key)):
        key = self.binding.freezer.keep(key)
    if self.timeout:
        deadline = self.clock.now() + self.timeout
    return owned(self.fly(store, key, args, argsf, names, deadline))


cdef PyObject *call_stored(
    PyObject *this, PyObject *const *args, size_t argsf, PyObject *names
) except NULL:
    cdef _Wrapper self = <_Wrapper>this
    cdef Py_ssize_t count = PyVectorcall_NARGS(argsf)
    opero_add(&self.counts[CALLS], 1)
    return owned(
        self.stored_cache.recall(
            self, opero_pack(args, count), opero_pack_named(args + count, names)
        )
    )


cdef class AsyncCall(_Wrapper):
    """A decorated coroutine function."""

    cdef object ready
    cdef object guard
    cdef object guard_one

    def __init__(self, *args):
        _Wrapper.__init__(self, *args)
        self.ready = self.runner.ready
        self.guard = self.runner.guard
        self.guard_one = self.runner.guard_one
        self.vectorcall = acall_uncached if self.store is None else acall_cached
        if self.stored_cache is not None:
            self.vectorcall = call_stored

    def _ground(self, store, key):
        for flights in list(store.flights.values()):
            take_all(flights, key)

    def _ground_all(self, store):
        for flights in list(store.flights.values()):
            empty(flights)


cdef PyObject *acall_cached(
    PyObject *this, PyObject *const *args, size_t argsf, PyObject *names
) except NULL:
    cdef AsyncCall self = <AsyncCall>this
    cdef Py_ssize_t count = PyVectorcall_NARGS(argsf)
    cdef MemoryStore store
    cdef Entry entry
    cdef object key, found
    cdef PyObject *value[1]
    opero_add(&self.counts[CALLS], 1)
    if self.lone and count == 1 and names is NULL and (
        PyUnicode_CheckExact(<object>args[0]) or PyLong_CheckExact(<object>args[0])
    ):
        store = self.store
        key = <object>args[0]
    else:
        store = self.backend(args, count)
        key = self.key(args, count, names)
    entry = store.find(key)
    if entry is not None:
        opero_add(&self.counts[HITS], 1)
        if self.events.heeded:
            self.events.hit(self)
        if gil.FREE_THREADED:
            found = value_of(entry)
            value[0] = <PyObject *>found
        else:
            value[0] = <PyObject *>entry.value
        return PyObject_Vectorcall(<PyObject *>self.ready, value, 1, NULL)
    opero_add(&self.counts[MISSES], 1)
    if self.events.heeded:
        self.events.miss(self)
    key = self.binding.freezer.keep(key)
    return owned(
        self.runner.share(
            self, store, key, opero_pack(args, count), opero_pack_named(args + count, names)
        )
    )


cdef PyObject *acall_uncached(
    PyObject *this, PyObject *const *args, size_t argsf, PyObject *names
) except NULL:
    cdef AsyncCall self = <AsyncCall>this
    cdef Py_ssize_t count = PyVectorcall_NARGS(argsf)
    cdef PyObject *given[4]
    cdef object packed, named
    opero_add(&self.counts[CALLS], 1)
    if self.timeout or self.gate is not None or self.fallback is not None or self.indirect:
        packed = opero_pack(args, count)
        named = opero_pack_named(args + count, names)
        if self.timeout:
            return owned(self.runner.run_until(self, packed, named))
        return owned(self.runner.run(self, packed, named))
    opero_add(&self.counts[ATTEMPTS], 1)
    given[0] = this
    given[1] = <PyObject *>self.func
    if count == 1 and names is NULL:
        given[2] = args[0]
        return PyObject_Vectorcall(<PyObject *>self.guard_one, given, 3, NULL)
    packed = opero_pack(args, count)
    named = opero_pack_named(args + count, names)
    given[2] = <PyObject *>packed
    given[3] = <PyObject *>named
    return PyObject_Vectorcall(<PyObject *>self.guard, given, 4, NULL)


cdef class BoundCall:
    """A decorated method together with its instance."""

    cdef vectorcallfunc vectorcall
    cdef object __weakref__
    cdef readonly object __func__
    cdef readonly object __self__

    def __init__(self, func, instance):
        self.__func__ = func
        self.__self__ = instance
        self.vectorcall = call_bound

    def cache_invalidate(self, /, *args, **kwargs):
        """Forget the value of one call on this instance; tell whether there was one."""
        return bool(self.__func__.cache_invalidate(self.__self__, *args, **kwargs))

    def __getattr__(self, name):
        return getattr(self.__func__, name)

    @property
    def __doc__(self):
        return self.__func__.__doc__

    @property
    def __signature__(self):
        from opero.signatures import signature_of

        signature = signature_of(self.__func__)
        return signature.replace(parameters=list(signature.parameters.values())[1:])

    def __eq__(self, other):
        if not isinstance(other, BoundCall):
            return NotImplemented
        return self.__self__ is other.__self__ and self.__func__ is other.__func__

    def __hash__(self):
        return hash((id(self.__self__), id(self.__func__)))

    def __reduce__(self):
        return getattr, (self.__self__, self.__func__.__name__)

    def __repr__(self):
        return f"<bound opero function {self.__func__.name} of {self.__self__!r}>"


cdef PyObject *call_bound(
    PyObject *this, PyObject *const *args, size_t argsf, PyObject *names
) except NULL:
    """Put the instance before the arguments: in the free place there, or in a copy of the array."""
    cdef BoundCall self = <BoundCall>this
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

    Their `__call__` is for those who look for one; no call goes there by itself.
    """
    cdef PyTypeObject *slots = <PyTypeObject *>kind
    (<dict>slots.tp_dict)["__call__"] = __call__
    slots.tp_vectorcall_offset = offset
    slots.tp_flags |= Py_TPFLAGS_HAVE_VECTORCALL | flags
    slots.tp_call = <void *>PyVectorcall_Call
    PyType_Modified(slots)


cdef _Wrapper wrapper = _Wrapper.__new__(_Wrapper)
cdef BoundCall bound = BoundCall.__new__(BoundCall)
cdef Py_ssize_t in_wrapper = <char *>&wrapper.vectorcall - <char *><void *>wrapper
cdef Py_ssize_t in_bound = <char *>&bound.vectorcall - <char *><void *>bound
by_vectorcall(_Wrapper, in_wrapper, Py_TPFLAGS_METHOD_DESCRIPTOR)
by_vectorcall(Call, in_wrapper, Py_TPFLAGS_METHOD_DESCRIPTOR)
by_vectorcall(AsyncCall, in_wrapper, Py_TPFLAGS_METHOD_DESCRIPTOR)
by_vectorcall(BoundCall, in_bound, 0)
wrapper = None
bound = None

# Looks up the arguments of a call, for `call.pyx`, which includes this file.
#
# The dict of a store is authoritative. In front of it is an array of entries looked up lately, with
# one place for each value of the lowest bits of the hash. Arguments that are exact builtins are
# hashed and compared where they are, in the C array of the call: a hit creates no object.
#
#     glance    reads the array; on a miss, returns what it has worked out
#     search    reads the dict, with a `Probe` that stands for the tuple of the arguments, or with a
#               key made from them; puts the entry that it finds into the array
#
# The array keeps nothing alive. An entry knows its place and leaves it when it is freed. An entry
# that has left the dict but still has an owner is dead, and never found. Nothing in `glance` runs
# Python code, so its result is as reliable as a lookup in the dict. Methods have a similar array of
# the stores of their instances, in which a store's weak reference identifies its instance. All this
# relies on the GIL. Without the GIL, `seek` replaces `glance`: it reads the array, recording what
# it reads (see `readers.pxd`), or the dict. Methods then have no array.

cdef extern from *:
    """
    #include <string.h>

    static Py_hash_t opero_none, opero_true, opero_false;
    static uint64_t opero_float;

    static CYTHON_INLINE Py_hash_t opero_text_hash(PyObject *text) {
    #if PY_VERSION_HEX >= 0x030F0000
        Py_hash_t known = PyUnstable_Unicode_GET_CACHED_HASH(text);
    #else
        Py_hash_t known = ((PyASCIIObject *)text)->hash;
    #endif
        return known != -1 ? known : PyObject_Hash(text);
    }

    /* Gets the value of an int of one digit; false for a longer int. */
    static CYTHON_INLINE int opero_small(PyObject *number, Py_ssize_t *value) {
    #if PY_VERSION_HEX >= 0x030C0000
        if (!PyUnstable_Long_IsCompact((PyLongObject *)number)) return 0;
        *value = PyUnstable_Long_CompactValue((PyLongObject *)number);
    #else
        Py_ssize_t size = Py_SIZE(number);
        if (size < -1 || size > 1) return 0;
        *value = size * (Py_ssize_t)((PyLongObject *)number)->ob_digit[0];
    #endif
        return 1;
    }

    /* Gets the hash of the key part of an exact str, int, float, None or bool; otherwise false. */
    static CYTHON_INLINE int opero_part_hash(PyObject *value, Py_hash_t *hash) {
        PyTypeObject *kind = Py_TYPE(value);
        if (kind == &PyUnicode_Type) {
            *hash = opero_text_hash(value);
        } else if (kind == &PyLong_Type) {
            if (!opero_small(value, hash)) *hash = PyObject_Hash(value);
            else if (*hash == -1) *hash = -2;
        } else if (kind == &PyFloat_Type) {
            uint64_t mixed = opero_float;
            double number = PyFloat_AS_DOUBLE(value);
            if (number == number) mixed ^= (uint64_t)opero_hash(value);
            *hash = (Py_hash_t)mixed;
            if (*hash == -1) *hash = -2;
        } else if (value == Py_None) {
            *hash = opero_none;
        } else if (value == Py_True) {
            *hash = opero_true;
        } else if (value == Py_False) {
            *hash = opero_false;
        } else {
            return 0;
        }
        return 1;
    }

    /* Hashes a tuple of such parts as CPython does since 3.8 (xxHash by Y. Collet). */
    #if SIZEOF_PY_HASH_T > 4
      #define OPERO_PRIME_1 11400714785074694791U
      #define OPERO_PRIME_2 14029467366897019727U
      #define OPERO_PRIME_5 2870177450012600261U
      #define opero_turn(sum) ((sum << 31) | (sum >> 33))
    #else
      #define OPERO_PRIME_1 2654435761U
      #define OPERO_PRIME_2 2246822519U
      #define OPERO_PRIME_5 374761393U
      #define opero_turn(sum) ((sum << 13) | (sum >> 19))
    #endif
    static CYTHON_INLINE int opero_tuple_hash(
        PyObject *const *values, Py_ssize_t size, Py_hash_t *hash
    ) {
        Py_uhash_t sum = OPERO_PRIME_5;
        for (Py_ssize_t at = 0; at < size; at++) {
            Py_hash_t part;
            if (!opero_part_hash(values[at], &part)) return 0;
            sum += (Py_uhash_t)part * OPERO_PRIME_2;
            sum = opero_turn(sum);
            sum *= OPERO_PRIME_1;
        }
        sum += (Py_uhash_t)size ^ (OPERO_PRIME_5 ^ 3527539U);
        *hash = sum == (Py_uhash_t)-1 ? 1546275796 : (Py_hash_t)sum;
        return 1;
    }

    /* Whether two objects are equal exact str, int or float. Neither of them is None or a bool. */
    static CYTHON_INLINE int opero_equal(PyObject *one, PyObject *two) {
        PyTypeObject *kind = Py_TYPE(one);
        if (kind != Py_TYPE(two)) return 0;
        if (kind == &PyUnicode_Type) {
            Py_ssize_t length = PyUnicode_GET_LENGTH(one);
            return length == PyUnicode_GET_LENGTH(two)
                && PyUnicode_KIND(one) == PyUnicode_KIND(two)
                && !memcmp(PyUnicode_DATA(one), PyUnicode_DATA(two), length * PyUnicode_KIND(one));
        }
        if (kind == &PyLong_Type) {
            Py_ssize_t mine, theirs;
            int small = opero_small(one, &mine);
            if (small != opero_small(two, &theirs)) return 0;
            if (small) return mine == theirs;
            PyObject *equal = kind->tp_richcompare(one, two, Py_EQ);
            Py_XDECREF(equal);
            return equal == Py_True;
        }
        if (kind == &PyFloat_Type) {
            double mine = PyFloat_AS_DOUBLE(one), theirs = PyFloat_AS_DOUBLE(two);
            return !memcmp(&mine, &theirs, sizeof(double));
        }
        return 0;
    }

    /* The object of a weak reference, or None, as a borrowed reference. */
    #define opero_referent(ref) (((PyWeakReference *)(ref))->wr_object)
    #define opero_dict_size(entries) PyDict_GET_SIZE(entries)
    #define opero_is_a(value, kind) ((PyObject *)Py_TYPE(value) == (kind))

    typedef struct { PyTypeObject *kind; destructor freed; } OperoKind;
    static void opero_watch(OperoKind *watched, PyObject *kind, destructor freed) {
        if (((PyTypeObject *)kind)->tp_dealloc == freed) return;  /* the module runs again */
        watched->kind = (PyTypeObject *)kind;
        watched->freed = watched->kind->tp_dealloc;
        watched->kind->tp_dealloc = freed;
    }
    """
    ctypedef void (*destructor)(PyObject *) noexcept
    ctypedef struct OperoKind:
        destructor freed
    void opero_watch(OperoKind *watched, object kind, destructor freed)
    Py_hash_t opero_none, opero_true, opero_false
    unsigned long long opero_float
    bint opero_part_hash(PyObject *value, Py_hash_t *hash) noexcept
    bint opero_tuple_hash(PyObject *const *values, Py_ssize_t size, Py_hash_t *hash) noexcept
    bint opero_equal(PyObject *one, PyObject *two) noexcept
    bint opero_is_a(PyObject *value, PyObject *kind) noexcept
    PyObject *opero_referent(PyObject *ref) noexcept
    Py_ssize_t opero_dict_size(object entries) noexcept
    PyObject *PyLong_FromVoidPtr(void *) noexcept

cdef enum:
    FEW = 8
    MANY = 4096
    INSTANCES = 64
    MOST_PARTS = 16

cdef PyObject *KEY = <PyObject *>Key
cdef PyObject *TUPLE = <PyObject *>tuple
cdef PyObject *TEXT = <PyObject *>str
cdef PyObject *NUMBER = <PyObject *>int


cdef readers.Readers *all_readers = entry_readers()


cdef struct Look:
    # What `glance` has worked out about a call whose entry it did not find.
    PyObject *store  # If this is NULL, none of it is valid.
    PyObject *const *values  # by position, with defaults filled in
    Py_hash_t mark
    PyObject *bound[MOST_PARTS]
    # The result of `search`, as new references.
    PyObject *entry
    PyObject *missing_store
    PyObject *missing_key


cdef inline bint is_part(PyObject *kept, PyObject *value) noexcept:
    """Return whether `kept` is the key part of `value`, an exact builtin."""
    if kept == value:
        return True
    if opero_is_a(kept, KEY):
        kept = <PyObject *>(<Key>kept).value
        if kept == value:
            return True
    return opero_equal(kept, value)


cdef inline bint is_key(PyObject *kept, PyObject *const *values, Py_ssize_t size) noexcept:
    """Return whether `kept` is the key of several values, all of them exact builtins."""
    cdef Py_ssize_t at
    if not opero_is_a(kept, TUPLE) or PyTuple_GET_SIZE(<object>kept) != size:
        return False
    for at in range(size):
        if not is_part(opero_item(<object>kept, at), values[at]):
            return False
    return True


@cython.final
@cython.internal
cdef class Probe:
    """Stands for the key of the arguments in a lookup.

    With the GIL, a single probe serves all lookups.

    A dict first asks the stored key whether it is equal. No kind of key knows a `Probe`, so the
    dict then asks the `Probe`, which runs no Python code either.
    """

    cdef Py_hash_t mark
    cdef PyObject *const *values
    cdef Py_ssize_t size

    def __hash__(self):
        return self.mark

    def __eq__(self, other):
        return is_key(<PyObject *>other, self.values, self.size)


cdef Probe the_probe = Probe()


cdef bint bind(
    PyObject *binding, PyObject *const *args, Py_ssize_t count, PyObject *names, PyObject **bound
) noexcept:
    """Put the values of all parameters in order; return False if the arguments do not fit."""
    cdef PyObject *parameters = <PyObject *>(<Binding>binding).names
    cdef Py_ssize_t size = PyTuple_GET_SIZE(<object>parameters)
    cdef Py_ssize_t given = 0 if names is NULL else PyTuple_GET_SIZE(<object>names)
    cdef Py_ssize_t at, slot
    cdef PyObject *name
    if count > (<Binding>binding).positional:
        return False
    for at in range(count):
        bound[at] = args[at]
    for at in range(count, size):
        bound[at] = NULL
    for at in range(given):
        name = opero_item(<object>names, at)
        for slot in range((<Binding>binding).positional_only, size):
            if opero_item(<object>parameters, slot) == name:  # both are nearly always interned
                break
        else:
            return False
        if slot < count or bound[slot] is not NULL:
            return False
        bound[slot] = args[count + at]
    if count + given < size:
        for at in range(count, size):
            if bound[at] is NULL:
                bound[at] = opero_item((<Binding>binding).defaults, at)
                if bound[at] == <PyObject *>EMPTY:
                    return False
    return True


cdef inline PyObject **place_of(InstanceStores stores, PyObject *instance) noexcept:
    """Return the place of the store of an instance."""
    cdef size_t address = <size_t>instance
    return &stores.places[(address >> 4 ^ address >> 10) & INSTANCES - 1]


cdef inline PyObject *store_at_hand(PyObject *stores, PyObject *instance) noexcept:
    """Return the store of an instance, or NULL if it was not looked up lately."""
    cdef PyObject *store
    if (<InstanceStores>stores).places is NULL:
        return NULL
    store = place_of(<InstanceStores>stores, instance)[0]
    if store is NULL or <PyObject *>(<MemoryStore>store).whose == <PyObject *>None:
        return NULL
    if opero_referent(<PyObject *>(<MemoryStore>store).whose) != instance:
        return NULL
    return store


cdef inline PyObject *glance(
    PyObject *state, PyObject *const *args, Py_ssize_t count, PyObject *names, Look *look
) noexcept:
    """Return the living entry of a call if it was looked up lately, otherwise NULL."""
    cdef Py_ssize_t size = (<State>state).straight
    cdef PyObject *store
    cdef PyObject *entry
    cdef Places *places
    cdef Place *place
    look.store = NULL
    if gil.FREE_THREADED or size < 0:
        return NULL
    if (<State>state).method:
        if count == 0:
            return NULL
        store = store_at_hand(<PyObject *>(<State>state).instances, args[0])
        if store is NULL:
            return NULL
        args += 1
        count -= 1
    else:
        store = <PyObject *>(<State>state).store
    look.values = args
    if names is not NULL or count != size or count > (<State>state).keying.positional:
        if not bind(<PyObject *>(<State>state).keying, args, count, names, look.bound):
            return NULL
        look.values = look.bound
    if size == 1:
        if not opero_part_hash(look.values[0], &look.mark):
            return NULL
    elif not opero_tuple_hash(look.values, size, &look.mark):
        return NULL
    look.store = store
    places = (<MemoryStore>store).places
    if places is NULL:
        return NULL
    place = &places.at[look.mark & places.mask]
    entry = place.entry
    if place.mark != look.mark or entry is NULL or (<Entry>entry).state != IS_VALUE:
        return NULL
    if size == 1:
        if not is_part(<PyObject *>(<Entry>entry).key, look.values[0]):
            return NULL
    elif not is_key(<PyObject *>(<Entry>entry).key, look.values, size):
        return NULL
    if (<MemoryStore>store).ttl and (<Entry>entry).expires <= time_of(store):
        return NULL
    if (<Entry>entry).uses < _MOST_USES:
        (<Entry>entry).uses = (<Entry>entry).uses + 1
    return entry


cdef inline PyObject *at_hand(
    PyObject *state, PyObject *const *args, Py_ssize_t count, PyObject *names, Look *look
) noexcept:
    """Return a new reference to the value of a call if its living entry is at hand, or NULL."""
    cdef PyObject *entry
    if gil.FREE_THREADED:
        look.store = NULL
        return seek(state, args, count, names, look.bound)
    entry = glance(state, args, count, names, look)
    return NULL if entry is NULL else owned((<Entry>entry).value)


cdef PyObject *seek(
    PyObject *state,
    PyObject *const *args,
    Py_ssize_t count,
    PyObject *names,
    PyObject **bound,
) noexcept:
    """Return a new reference to the value of a call that has a living entry, or NULL.

    Without the GIL, this replaces `glance`, and also reads the dict. Threads that count references
    to one object wait for each other, so if the entry is in the array, this counts a reference only
    to the value. NULL with an exception set means that comparing other keys raised it.
    """
    cdef Py_ssize_t size = (<State>state).straight
    cdef PyObject *store
    cdef PyObject *value
    cdef PyObject *const *values
    cdef Py_hash_t mark
    if size < 0:
        return NULL
    if (<State>state).method:
        if count == 0:
            return NULL
        args += 1
        count -= 1
    values = args
    if names is not NULL or count != size or count > (<State>state).keying.positional:
        if not bind(<PyObject *>(<State>state).keying, args, count, names, bound):
            return NULL
        values = bound
    if size == 1:
        if not opero_part_hash(values[0], &mark):
            return NULL
    elif not opero_tuple_hash(values, size, &mark):
        return NULL
    if (<State>state).method:
        store = store_by_dict(<PyObject *>(<State>state).instances, args[-1])
        if store is NULL:
            return NULL
        value = by_dict(state, store, values, mark)
        Py_DECREF(<object>store)
        return value
    store = <PyObject *>(<State>state).store
    value = by_place(store, values, size, mark)
    if value is NULL:
        value = by_dict(state, store, values, mark)
    return value


cdef inline bint is_of(
    PyObject *entry, PyObject *store, PyObject *const *values, Py_ssize_t size, Py_hash_t mark
) noexcept:
    """Return whether an entry is a living one for these arguments; if so, count a use.

    Other threads may change it meanwhile. They change its time after its state when it gets under
    way, and before its state when it becomes a value again, so this reads the time first.
    """
    cdef long long expires = (<Entry>entry).expires
    if (<Entry>entry).mark != mark:
        return False
    if size == 1:
        if not is_part(<PyObject *>(<Entry>entry).key, values[0]):
            return False
    elif not is_key(<PyObject *>(<Entry>entry).key, values, size):
        return False
    gil.fence()
    if (<Entry>entry).state != IS_VALUE:
        return False
    gil.fence()
    if (<MemoryStore>store).ttl and expires <= time_of(store):
        return False
    if (<Entry>entry).uses < _MOST_USES:
        (<Entry>entry).uses = (<Entry>entry).uses + 1
    return True


cdef inline PyObject *by_place(
    PyObject *store, PyObject *const *values, Py_ssize_t size, Py_hash_t mark
) noexcept:
    """Return a new reference to the value of the entry in the array of a store, or NULL."""
    cdef PyObject *value = NULL
    cdef PyObject *entry = readers.read_at(
        all_readers, <readers.SharedPlaces **>&(<MemoryStore>store).places, mark
    )
    if entry is NULL:
        return NULL
    if is_of(entry, store, values, size, mark):
        value = <PyObject *>(<Entry>entry).value
        Py_INCREF(<object>value)
    readers.read_no_more(all_readers)
    return value


cdef PyObject *by_dict(
    PyObject *state, PyObject *store, PyObject *const *values, Py_hash_t mark
) noexcept:
    """Return a new reference to the value found through the dict of a store, or NULL."""
    cdef Py_ssize_t size = (<State>state).straight
    cdef PyObject *entry = NULL
    cdef PyObject *value = NULL
    cdef gil.Section section
    cdef object key
    if size == 1:
        key = part((<State>state).binding.freezer, <object>values[0])
    else:
        key = new_probe(values, size, mark)
    gil.get(<PyObject *>(<MemoryStore>store).entries, <PyObject *>key, &entry)
    if entry is NULL:
        return NULL
    if is_of(entry, store, values, size, mark):
        gil.enter(&section, entry)
        value = <PyObject *>(<Entry>entry).value
        Py_INCREF(<object>value)
        gil.exit(&section)
        if not (<State>state).method:
            readers.put_at(
                all_readers,
                <readers.SharedPlaces **>&(<MemoryStore>store).places,
                entry,
                mark,
                <void ***>&(<Entry>entry).place,
            )
    Py_DECREF(<object>entry)
    return value


cdef object new_probe(PyObject *const *values, Py_ssize_t size, Py_hash_t mark):
    cdef Probe probe = Probe.__new__(Probe)
    probe.mark = mark
    probe.values = values
    probe.size = size
    return probe


cdef PyObject *store_by_dict(PyObject *stores, PyObject *instance) noexcept:
    """Return a new reference to the store of an instance, or NULL if it has none."""
    cdef PyObject *store = NULL
    cdef PyObject *ident = PyLong_FromVoidPtr(instance)
    if ident is NULL:
        return NULL
    gil.get(<PyObject *>(<InstanceStores>stores).stores, ident, &store)
    Py_DECREF(<object>ident)
    if store is not NULL and (
        opero_referent(<PyObject *>(<MemoryStore>store).whose) != instance
    ):
        Py_DECREF(<object>store)
        return NULL
    return store


cdef inline long long time_of(PyObject *store) noexcept:
    """Return the time by which the entries of a store expire."""
    cdef PyObject *clock = <PyObject *>(<MemoryStore>store).clock
    if (<MemoryStore>store).sharp:
        return (<Clock>clock).now()
    return coarse_time(clock)


cdef bint search(
    State call, PyObject *const *args, Py_ssize_t count, PyObject *names, Look *look
) except -1:
    """Look for the entry of a call in the dict.

    Returns:
        Whether there is a living one, now in `look.entry`. If not, `look.missing_store` is the
        store and `look.missing_key` the key, which may hold the arguments themselves.
    """
    cdef object failure
    if gil.FREE_THREADED and PyErr_Occurred() is not NULL:
        opero_raise_again(shorten(opero_take_error()))
        return -1
    if look.store is not NULL:
        return search_parts(call, look)  # runs no user code
    try:
        return search_key(call, args, count, names, look)
    except BaseException as error:
        failure = shorten(error)
    opero_raise_again(failure)
    return -1


cdef bint search_parts(State call, Look *look) except -1:
    """Look for the entry of a call whose arguments are exact builtins."""
    cdef MemoryStore store = <MemoryStore>look.store
    cdef Entry entry
    cdef object key
    if call.straight == 1:
        key = part(call.binding.freezer, <object>look.values[0])
        entry = store.find(key)
    else:
        the_probe.mark = look.mark
        the_probe.values = look.values
        the_probe.size = call.straight
        entry = store.find(the_probe)
        if entry is None:
            key = parts(call.binding.freezer, look.values, call.straight)
    if entry is not None:
        keep_at_hand(store, entry)
        look.entry = owned(entry)
        return True
    look.missing_store = owned(store)
    look.missing_key = owned(key)
    return False


cdef bint search_key(
    State call, PyObject *const *args, Py_ssize_t count, PyObject *names, Look *look
) except -1:
    """Look for the entry of any other call."""
    cdef MemoryStore store = store_of(call, args, count)
    cdef Entry entry
    cdef object key
    if store is None:
        store, key = call.locate(opero_pack(args, count), opero_pack_named(args + count, names))
    else:
        key = key_of(call, args, count, names)
    entry = store.find(key)
    if entry is not None:
        look.entry = owned(entry)
        return True
    look.missing_store = owned(store)
    look.missing_key = owned(key)
    return False


cdef tuple parts(Freezer freezer, PyObject *const *values, Py_ssize_t size):
    """Return the key of several values."""
    cdef tuple key = PyTuple_New(size)
    cdef Py_ssize_t at
    for at in range(size):
        value = part(freezer, <object>values[at])
        Py_INCREF(value)
        PyTuple_SET_ITEM(key, at, value)
    return key


cdef int make_places(MemoryStore store) except -1:
    """Give a store an array of a size that suits its number of entries."""
    cdef size_t most = len(store.entries)
    cdef size_t size = FEW
    cdef Places *places
    while size < MANY and size < most:
        size *= 2
    places = <Places *>PyMem_Calloc(1, sizeof(Places) + (size - 1) * sizeof(Place))
    if places is NULL:
        raise MemoryError
    places.mask = size - 1
    forget_entries(<PyObject *>store)
    store.places = places
    return 0


cdef inline int keep_at_hand(MemoryStore store, Entry entry) except -1:
    """Put an entry into the array of its store, which grows with the store.

    An entry already in the place makes room only one time in eight. If more keys are in use than
    there are places, replacing entries all the time would cost more than reading the dict.
    """
    cdef Places *places = store.places
    cdef Place *place
    if places is NULL or (
        places.mask + 1 < MANY and places.mask + 1 < <size_t>opero_dict_size(store.entries)
    ):
        make_places(store)
        places = store.places
    place = &places.at[entry.mark & places.mask]
    if place.entry is not NULL:
        places.passed += 1
        if places.passed & 7:
            return 0
        (<Entry>place.entry).place = NULL
    if entry.place is not NULL:
        entry.place[0] = NULL
    entry.place = &place.entry
    place.entry = <PyObject *>entry
    place.mark = entry.mark
    return 0


cdef keep_store_at_hand(InstanceStores stores, PyObject *instance, MemoryStore store):
    """Put the store of an instance into the array of the stores of instances."""
    cdef PyObject **place
    if stores.places is NULL:
        stores.places = <PyObject **>PyMem_Calloc(INSTANCES, sizeof(PyObject *))
        if stores.places is NULL:
            raise MemoryError
    place = place_of(stores, instance)
    if place[0] is not NULL:
        (<MemoryStore>place[0]).place = NULL
    if store.place is not NULL:
        store.place[0] = NULL
    store.place = place
    place[0] = <PyObject *>store


cdef void forget_entries(PyObject *store) noexcept:
    """Free the array of a store."""
    cdef Places *places = (<MemoryStore>store).places
    cdef size_t at
    if gil.FREE_THREADED:
        readers.drop_places(<readers.SharedPlaces **>&(<MemoryStore>store).places)
        return
    if places is NULL:
        return
    (<MemoryStore>store).places = NULL
    for at in range(places.mask + 1):
        if places.at[at].entry is not NULL:
            (<Entry>places.at[at].entry).place = NULL
    PyMem_Free(places)


# Freed objects leave their places first.

cdef OperoKind entries_kind, stores_kind, instances_kind


cdef void free_entry(PyObject *entry) noexcept:
    if gil.FREE_THREADED:
        if (<Entry>entry).place is not NULL:
            readers.leave(all_readers, <void **>(<Entry>entry).place, entry)
    elif (<Entry>entry).place is not NULL:
        (<Entry>entry).place[0] = NULL
        (<Entry>entry).place = NULL
    entries_kind.freed(entry)


cdef void free_store(PyObject *store) noexcept:
    if (<MemoryStore>store).place is not NULL:
        (<MemoryStore>store).place[0] = NULL
        (<MemoryStore>store).place = NULL
    forget_entries(store)
    stores_kind.freed(store)


cdef void free_instances(PyObject *instances) noexcept:
    cdef PyObject **places = (<InstanceStores>instances).places
    cdef Py_ssize_t at
    if places is not NULL:
        (<InstanceStores>instances).places = NULL
        for at in range(INSTANCES):
            if places[at] is not NULL:
                (<MemoryStore>places[at]).place = NULL
        PyMem_Free(places)
    instances_kind.freed(instances)


cdef know_parts():
    """Compute the hashes of constant key parts, and check the hash of tuples."""
    global opero_none, opero_true, opero_false, opero_float
    cdef Freezer freezer = Freezer()
    cdef Py_hash_t mark
    sample = "text", 12345, -1, None, 2.5, True, False, 1 << 70
    opero_none = hash(None)
    opero_true = hash(freezer.true)
    opero_false = hash(freezer.false)
    opero_float = _FLOAT
    if not opero_tuple_hash(opero_items(sample), len(sample), &mark) or mark != hash(
        tuple([freezer.probe(value) for value in sample])
    ):
        raise SystemError("this Python hashes tuples in another way than opero expects")


know_parts()
opero_watch(&entries_kind, Entry, free_entry)
opero_watch(&stores_kind, MemoryStore, free_store)
opero_watch(&instances_kind, InstanceStores, free_instances)

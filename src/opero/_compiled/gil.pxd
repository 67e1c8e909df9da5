# `opero.gil` for compiled modules: a constant of the C compiler, so that what is for the other case
# is left out of the machine code, and a look-up in C.

cdef extern from *:
    """
    #if defined(Py_GIL_DISABLED)
      #define OPERO_FREE_THREADED 1
    #else
      #define OPERO_FREE_THREADED 0
    #endif

    #if !OPERO_FREE_THREADED
      #define opero_add_to(counter, amount) (*(counter) += (amount))
    #elif defined(_MSC_VER)
      #include <intrin.h>
      #define opero_add_to(counter, amount) _InterlockedExchangeAdd64(counter, amount)
    #else
      #define opero_add_to(counter, amount) __atomic_fetch_add(counter, amount, __ATOMIC_RELAXED)
    #endif

    static CYTHON_INLINE PyObject *opero_look_up(PyObject *table, PyObject *key) {
        PyObject *found;
    #if OPERO_FREE_THREADED
        if (PyDict_GetItemRef(table, key, &found) != 0) return found;
    #else
        found = PyDict_GetItemWithError(table, key);
        if (found == NULL && PyErr_Occurred()) return NULL;
        if (found != NULL) {
            Py_INCREF(found);
            return found;
        }
    #endif
        Py_RETURN_NONE;
    }
    """
    const bint FREE_THREADED "OPERO_FREE_THREADED"
    object look_up "opero_look_up"(dict table, object key)
    void add "opero_add_to"(long long *counter, long long amount) noexcept

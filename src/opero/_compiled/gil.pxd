# `opero.gil` for compiled modules: a constant of the C compiler, so that what is for the other case
# is left out of the machine code, and a look-up in C.

cdef extern from *:
    """
    #if defined(Py_GIL_DISABLED)
      #define OPERO_FREE_THREADED 1
    #else
      #define OPERO_FREE_THREADED 0
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

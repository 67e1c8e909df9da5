# `opero.gil` for compiled modules: a compile-time constant, so that the machine code leaves out the
# other case, and a lookup in C.

from cpython.object cimport PyObject

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
      #include <windows.h>
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

    #if !OPERO_FREE_THREADED
      typedef char opero_section;
      #define opero_enter(section, object) ((void)(section), (void)(object))
      #define opero_exit(section) ((void)(section))
      #define opero_get(table, key, found) ((void)(table), (void)(key), *(found) = NULL, 0)
      #define opero_share(function) ((void)(function))
      #define opero_order() ((void)0)
    #else
      typedef PyCriticalSection opero_section;
      #define opero_enter PyCriticalSection_Begin
      #define opero_exit PyCriticalSection_End
      #define opero_get PyDict_GetItemRef
      #if defined(_MSC_VER)
        #define opero_order() MemoryBarrier()
      #else
        #define opero_order() __atomic_thread_fence(__ATOMIC_ACQ_REL)
      #endif

      /* Lets threads call one function without counting references to it. CPython does the same for
         functions made by `def`, except nested ones: those must be freed immediately, because they
         are created again and again. */
      static CYTHON_INLINE void opero_share(PyObject *function) {
      #if PY_VERSION_HEX >= 0x030E0000
          PyUnstable_Object_EnableDeferredRefcount(function);
      #else
          (void)function;
      #endif
      }
    #endif
    """
    const bint FREE_THREADED "OPERO_FREE_THREADED"
    object look_up "opero_look_up"(dict table, object key)
    void add "opero_add_to"(long long *counter, long long amount) noexcept
    ctypedef struct Section "opero_section":
        pass
    void enter "opero_enter"(Section *section, PyObject *object) noexcept
    void exit "opero_exit"(Section *section) noexcept
    int get "opero_get"(PyObject *table, PyObject *key, PyObject **found) noexcept
    void share "opero_share"(object function) noexcept
    void fence "opero_order"() noexcept

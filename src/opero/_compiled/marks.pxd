# `opero.marks` for compiled modules: creates no object for a number and looks up no index.

cdef extern from *:
    """
    static CYTHON_INLINE void opero_put(PyObject *memory, long long place) {
        *(long long *)PyMemoryView_GET_BUFFER(memory)->buf = place;
    }
    """
    void put "opero_put"(memoryview memory, long long place) noexcept

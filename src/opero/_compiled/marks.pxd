# `opero.marks` for compiled modules: no number becomes an object, and no index is looked up.

cdef extern from *:
    """
    static CYTHON_INLINE void opero_put(PyObject *memory, long long place) {
        *(long long *)PyMemoryView_GET_BUFFER(memory)->buf = place;
    }
    """
    void put "opero_put"(memoryview memory, long long place) noexcept

# `opero.bits` for compiled modules, in a few instructions.

cdef extern from *:
    """
    #if defined(_MSC_VER)
    #include <intrin.h>
    static CYTHON_INLINE int opero_width(Py_ssize_t size) {
        unsigned long at;
        unsigned long long number = (unsigned long long)size | 1;
        if (_BitScanReverse(&at, (unsigned long)(number >> 32))) return (int)at + 33;
        _BitScanReverse(&at, (unsigned long)number);
        return (int)at + 1;
    }
    #else
    static CYTHON_INLINE int opero_width(Py_ssize_t size) {
        return 64 - __builtin_clzll((unsigned long long)size | 1);
    }
    #endif
    """
    int width "opero_width"(Py_ssize_t size) noexcept

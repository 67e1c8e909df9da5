# C types for core/keys.py.

cimport cython

from . cimport bits, gil
from .canonical cimport Canonical
from .decompose cimport Recipe, Decomposer

ctypedef unsigned long long word

# Replaces the builtin `hash`: a str with a cached hash, and a float, need no call. A float's hash
# may differ from Python's: only keys of one process and one implementation are ever compared.
cdef extern from *:
    """
    #include <string.h>
    static CYTHON_INLINE Py_hash_t opero_hash(PyObject *value) {
    #if CYTHON_COMPILING_IN_CPYTHON && (PY_VERSION_HEX < 0x030E0000 || \\
        (PY_VERSION_HEX < 0x030F0000 && !defined(Py_GIL_DISABLED)))
        if (PyUnicode_CheckExact(value)) {
            Py_hash_t known = ((PyASCIIObject *)value)->hash;
            if (known != -1)
                return known;
        }
    #endif
        if (PyFloat_CheckExact(value)) {
            double number = PyFloat_AS_DOUBLE(value);
            uint64_t bits;
            memcpy(&bits, &number, sizeof(bits));
            bits *= 0x9E3779B97F4A7C15u;
            bits ^= bits >> 32;
            bits ^= bits >> 16;  /* short fractions differ in their high bits only */
            return (Py_hash_t)(bits == (uint64_t)-1 ? 1 : bits);
        }
        return PyObject_Hash(value);
    }
    """
    Py_hash_t hash "opero_hash" (object value) except? -1

cdef int _MOST_NODES
cdef int _WIDEST
cdef int _WIDEST_OBJECT
cdef word _WIDER
cdef int _COUNTED
cdef int _DIGEST_ABOVE
cdef object _ABSENT
cdef word _MASK
cdef word _FACTOR
cdef word _SPREAD
cdef word _NONE
cdef word _TRUE
cdef word _FALSE
cdef word _FLOAT
cdef word _LIST
cdef word _TUPLE
cdef word _DICT
cdef word _BYTES
cdef frozenset _ATOMS
cdef frozenset _CONSTANT


@cython.final
cdef class Table:
    cdef readonly tuple flat
    cdef readonly dict entries
    @cython.locals(found=dict)
    cpdef dict mapping(self)


@cython.final
cdef class Node:
    cdef readonly word hash
    cdef readonly object cls
    cdef readonly tuple items
    cdef readonly object own


@cython.final
cdef class Key:
    cdef readonly Py_hash_t hash
    cdef readonly bint live
    cdef readonly object value
    cdef bint _is(self, Key other) except -1
    cdef bint _same(self, object one, object two) except -1
    cdef bint _same_text(self, str one, str two) except -1
    cdef bint _same_float(self, double one, double two) except -1
    @cython.locals(flat=tuple, at=Py_ssize_t)
    cdef bint _same_dict(self, dict one, Table two) except -1
    cdef bint _same_mapping(self, dict one, dict two) except -1
    @cython.locals(size=Py_ssize_t, at=Py_ssize_t)
    cdef bint _same_list(self, list one, list two) except -1
    @cython.locals(size=Py_ssize_t, at=Py_ssize_t)
    cdef bint _same_tuple(self, tuple one, tuple two) except -1
    cdef bint _same_node(self, Node one, Node two) except -1


@cython.final
cdef class Freezer:
    cdef readonly Canonical canonical
    cdef readonly Decomposer shapes
    cdef readonly Key true
    cdef readonly Key false
    @cython.locals(found=word)
    cpdef object probe(self, object value)
    cpdef object freeze(self, object value)
    cpdef object keep(self, object key)
    cpdef bint is_constant(self, object value) except -1
    cdef bint _is_constant(self, object value, int depth) except -1
    @cython.locals(key=Key)
    cdef Key _key(self, word number, bint live, object value)
    cdef Key _kept(self, Key key)
    cdef object _wider(self, object value, word found)
    @cython.locals(canonical=Canonical)
    cdef Key _large(self, object value)
    cdef int _count(self, object value, int left, int depth) except -3
    cdef word _walk(self, object value, int depth, bint kept) except? 0
    cdef word _walk_float(self, object value, double number) except? 0
    @cython.locals(found=word, total=word)
    cdef word _walk_list(self, list value, int depth, bint kept) except? 0
    @cython.locals(found=word, total=word)
    cdef word _walk_tuple(self, tuple value, int depth, bint kept) except? 0
    @cython.locals(found=word, total=word)
    cdef word _walk_dict(self, dict value, int depth) except? 0
    @cython.locals(found=word, total=word, flat=tuple, at=Py_ssize_t)
    cdef word _walk_table(self, Table value) except? 0
    cdef word _walk_node(self, Node value) noexcept
    @cython.locals(found=word)
    cdef object _frozen(self, object value, int depth)
    cdef object _copy(self, object value, int depth)
    cdef int _down(self, int depth, Py_ssize_t size) except? -1
    @cython.locals(flat=list)
    cdef object _copy_dict(self, dict value, int depth)
    @cython.locals(recipe=Recipe, items=list)
    cdef Node _take_apart(self, object value, int depth)
    @cython.locals(total=word, node=Node)
    cdef Node _node(self, object cls, tuple items, object own)

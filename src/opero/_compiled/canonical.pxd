# C types for core/canonical.py.

cimport cython

from .decompose cimport Recipe, Decomposer

cdef int _MOST_NODES
cdef int _MOST_JSON
cdef int _LONG
cdef int _AT
cdef int _ATTRIBUTE
cdef int _INSIDE
cdef int _ROOT
cdef int _VARIABLE
cdef int _MOST_CODES


@cython.final
cdef class Writing:
    cdef readonly bint code
    cdef readonly list functions
    cdef public Py_ssize_t references
    cdef public Py_ssize_t shortened
    cdef readonly dict known
    cdef readonly dict leaves
    cdef readonly dict numbers
    cdef bytes leaf(self, object cls, object name, object leaf)


@cython.final
cdef class Canonical:
    cdef readonly Decomposer shapes
    cdef readonly object dumps
    cdef readonly object hexdigest
    cdef readonly dict codes
    cdef readonly tuple common
    cdef tuple _common(self, tuple scope)
    cpdef bytes encode(self, object value)
    cpdef tuple identify(self, object value)
    cpdef str digest(self, bytes data)
    cpdef bint is_plain(self, object value) except -1
    cdef str _source(self, object func)
    cdef str _code_digest(self, object code)
    cdef bytes _captured(self, object code)
    cdef bytes _encode(self, object value, object where)
    cdef int _count_plain(self, object value, int depth, int left, bint written) except -2
    cdef bint _is_utf8(self, str text) except -1
    @cython.locals(size=Py_ssize_t, start=Py_ssize_t, references=Py_ssize_t, shortened=Py_ssize_t)
    cdef object _write(self, bytearray out, object value, int depth, object where, Writing run)
    cdef object _write_parts(
        self, bytearray out, object value, int depth, object where, Writing run
    )
    cdef object _write_text(self, bytearray out, str text)
    cdef object _write_bytes(self, bytearray out, bytes data)
    cdef object _write_long(self, bytearray out, bytes head, bytes data)
    @cython.locals(at=Py_ssize_t)
    cdef object _write_items(
        self, bytearray out, bytes tag, object items, int depth, object where, int how, Writing run
    )
    @cython.locals(found=list, one=bytearray)
    cdef object _write_set(
        self, bytearray out, bytes tag, object items, int depth, object where, Writing run
    )
    @cython.locals(found=list, one=bytearray, two=bytearray)
    cdef object _write_dict(self, bytearray out, dict items, int depth, object where, Writing run)
    @cython.locals(recipe=Recipe, parts=tuple, at=Py_ssize_t, bases=Py_ssize_t)
    cdef object _write_object(
        self, bytearray out, object value, int depth, object where, Writing run
    )
    cdef bint _has_key(self, object value, int depth, object where, Writing run) except -1
    @cython.locals(functions=list)
    cdef object _write_code(
        self, bytearray out, object code, int depth, object where, Writing run
    )
    cdef object _write_named(
        self, bytearray out, object named, int depth, object where, Writing run
    )
    cdef object _write_class(
        self, bytearray out, object cls, Recipe recipe, bint instance, object where,
        Writing run
    )

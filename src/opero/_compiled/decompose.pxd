# C types for core/decompose.py.

cimport cython

from . cimport gil


@cython.final
cdef class Recipe:
    cdef readonly object alive
    cdef public bint opaque
    cdef public bint whole
    cdef public tuple takes
    cdef public object fields
    cdef public tuple slots
    cdef public frozenset lazy
    cdef public bint hidden
    cdef public bint member
    cdef public object tag
    cdef public object label


@cython.final
cdef class Decomposer:
    cdef readonly dict recipes
    @cython.locals(found=Recipe, made=Recipe)
    cpdef Recipe recipe(self, object cls)
    @cython.locals(found=list, unset=list, slots=dict)
    cpdef tuple parts(self, object value, Recipe recipe)

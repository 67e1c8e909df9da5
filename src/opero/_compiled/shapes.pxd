# C types for core/shapes.py.

cimport cython

from . cimport gil


@cython.final
cdef class Plan:
    cdef readonly object alive
    cdef public bint opaque
    cdef public bint whole
    cdef public tuple takes
    cdef public object fields
    cdef public tuple slots
    cdef public bint hidden
    cdef public bint member
    cdef public object tag
    cdef public object label


@cython.final
cdef class Shapes:
    cdef readonly dict plans
    @cython.locals(found=Plan, made=Plan)
    cpdef Plan plan(self, object cls)
    @cython.locals(found=list, unset=list, slots=dict)
    cpdef tuple parts(self, object value, Plan plan)

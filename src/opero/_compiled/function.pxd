# C types for core/function.py.


cdef class FunctionLike:
    cdef dict __dict__
    cdef object __weakref__
    cdef readonly object __opero__


cdef class MethodLike:
    cdef object __weakref__
    cdef readonly object __func__
    cdef readonly object __self__

# C types of the clock; the twin of core/clock.py is clock.pyx.

cdef class Clock:
    cdef public long long offset
    cdef public bint frozen
    cdef public bint skipping
    cpdef long long now(self) noexcept
    cpdef long long coarse(self) noexcept
    cpdef void advance(self, long long nanoseconds) noexcept
    cpdef void move_to(self, long long time) noexcept
    cpdef void freeze(self) noexcept
    cpdef void thaw(self) noexcept

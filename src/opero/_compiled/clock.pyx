"""Monotonic time in whole nanoseconds, read by C; the twin of `core/clock.py`."""

NEVER = 1 << 62


cdef class Clock:
    """A monotonic clock that tests can move (see `core/clock.py`)."""

    def __init__(self):
        self.offset = 0
        self.frozen = False
        self.skipping = False

    cpdef long long now(self) noexcept:
        """Return the time in nanoseconds."""
        if self.frozen:
            return self.offset
        return opero_now() + self.offset

    cpdef long long coarse(self) noexcept:
        """Return the time in nanoseconds, maybe some milliseconds late: a quarter of the cost."""
        return coarse_time(<PyObject *>self)

    cpdef void advance(self, long long nanoseconds) noexcept:
        """Move time forward by `nanoseconds`."""
        self.offset += nanoseconds

    cpdef void move_to(self, long long time) noexcept:
        """Move time forward to `time` in nanoseconds, unless it is already there."""
        cdef long long ahead = time - self.now()
        if ahead > 0:
            self.offset += ahead

    cpdef void freeze(self) noexcept:
        """Stop time until it is moved."""
        self.offset = self.now()
        self.frozen = True

    cpdef void thaw(self) noexcept:
        """Let time continue from its current value; it never goes back."""
        if self.frozen:
            self.offset -= opero_now()
            self.frozen = False

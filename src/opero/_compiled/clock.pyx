"""Monotonic time in whole nanoseconds, read by C; the twin of `core/clock.py`."""

cdef extern from *:
    """
    #if defined(_WIN32)
      #include <windows.h>
      static long long opero_now(void) {
          static LARGE_INTEGER frequency;
          LARGE_INTEGER count;
          if (frequency.QuadPart == 0) QueryPerformanceFrequency(&frequency);
          QueryPerformanceCounter(&count);
          return (count.QuadPart / frequency.QuadPart) * 1000000000LL
               + (count.QuadPart % frequency.QuadPart) * 1000000000LL / frequency.QuadPart;
      }
      static long long opero_coarse(void) { return (long long)GetTickCount64() * 1000000LL; }
    #else
      #include <time.h>
      static long long opero_read(clockid_t which) {
          struct timespec time;
          clock_gettime(which, &time);
          return (long long)time.tv_sec * 1000000000LL + time.tv_nsec;
      }
      static long long opero_now(void) { return opero_read(CLOCK_MONOTONIC); }
      #if defined(CLOCK_MONOTONIC_COARSE)
        static long long opero_coarse(void) { return opero_read(CLOCK_MONOTONIC_COARSE); }
      #elif defined(CLOCK_MONOTONIC_RAW_APPROX)
        static long long opero_coarse(void) { return opero_read(CLOCK_MONOTONIC_RAW_APPROX); }
      #else
        static long long opero_coarse(void) { return opero_read(CLOCK_MONOTONIC); }
      #endif
    #endif
    """
    long long opero_now() noexcept nogil
    long long opero_coarse() noexcept nogil

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
        """Return the time in nanoseconds, maybe some milliseconds late: a quarter of the price."""
        if self.frozen:
            return self.offset
        return opero_coarse() + self.offset

    cpdef void advance(self, long long nanoseconds) noexcept:
        """Move time forward by `nanoseconds`."""
        self.offset += nanoseconds

    cpdef void move_to(self, long long time) noexcept:
        """Move time forward to `time` in nanoseconds, unless it is there already."""
        cdef long long ahead = time - self.now()
        if ahead > 0:
            self.offset += ahead

    cpdef void freeze(self) noexcept:
        """Let time stand still until it is moved."""
        self.offset = self.now()
        self.frozen = True

    cpdef void thaw(self) noexcept:
        """Let time run on from where it stands; it never goes back."""
        if self.frozen:
            self.offset -= opero_now()
            self.frozen = False

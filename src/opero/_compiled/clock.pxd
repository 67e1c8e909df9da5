# C types of the clock; the twin of core/clock.py is clock.pyx.

from cpython.object cimport PyObject

cdef extern from *:
    """
    #define OPERO_CLOCK static CYTHON_INLINE long long
    #if defined(_WIN32)
      #include <windows.h>
      OPERO_CLOCK opero_now(void) {
          static LARGE_INTEGER frequency;
          LARGE_INTEGER count;
          if (frequency.QuadPart == 0) QueryPerformanceFrequency(&frequency);
          QueryPerformanceCounter(&count);
          return (count.QuadPart / frequency.QuadPart) * 1000000000LL
               + (count.QuadPart % frequency.QuadPart) * 1000000000LL / frequency.QuadPart;
      }
      OPERO_CLOCK opero_coarse(void) { return (long long)GetTickCount64() * 1000000LL; }
    #else
      #include <time.h>
      OPERO_CLOCK opero_read_clock(clockid_t which) {
          struct timespec time;
          clock_gettime(which, &time);
          return (long long)time.tv_sec * 1000000000LL + time.tv_nsec;
      }
      OPERO_CLOCK opero_now(void) { return opero_read_clock(CLOCK_MONOTONIC); }
      #if defined(CLOCK_MONOTONIC_COARSE)
        OPERO_CLOCK opero_coarse(void) { return opero_read_clock(CLOCK_MONOTONIC_COARSE); }
      #elif defined(CLOCK_MONOTONIC_RAW_APPROX)
        OPERO_CLOCK opero_coarse(void) { return opero_read_clock(CLOCK_MONOTONIC_RAW_APPROX); }
      #else
        OPERO_CLOCK opero_coarse(void) { return opero_read_clock(CLOCK_MONOTONIC); }
      #endif
    #endif
    """
    long long opero_now() noexcept nogil
    long long opero_coarse() noexcept nogil


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


cdef inline long long coarse_time(PyObject *clock) noexcept:
    """Return the same as `clock.coarse()`, without the cost of a Python call."""
    if (<Clock>clock).frozen:
        return (<Clock>clock).offset
    return opero_coarse() + (<Clock>clock).offset

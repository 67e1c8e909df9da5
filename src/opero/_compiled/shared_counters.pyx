"""Numbers in memory that processes share, by compare-and-swap.

The twin of `core/shared_counters.py`.
"""

from cpython.buffer cimport PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer

cdef extern from *:
    """
    #if defined(_MSC_VER)
      #include <windows.h>
      #include <intrin.h>
      static long long opero_load(long long *word) {
          return _InterlockedCompareExchange64((volatile long long *)word, 0, 0);
      }
      static int opero_swap(long long *word, long long old, long long fresh) {
          return _InterlockedCompareExchange64((volatile long long *)word, fresh, old) == old;
      }
      static void opero_store(long long *word, long long fresh) {
          _InterlockedExchange64((volatile long long *)word, fresh);
      }
    #else
      static long long opero_load(long long *word) {
          return __atomic_load_n(word, __ATOMIC_ACQUIRE);
      }
      static int opero_swap(long long *word, long long old, long long fresh) {
          return __atomic_compare_exchange_n(
              word, &old, fresh, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
      }
      static void opero_store(long long *word, long long fresh) {
          __atomic_store_n(word, fresh, __ATOMIC_RELEASE);
      }
    #endif

    #if defined(_WIN32)
      #include <io.h>
      #include <windows.h>
      #include <sys/locking.h>
      static int opero_lock(int file) { return _locking(file, _LK_NBLCK, 1) == 0; }
      static void opero_unlock(int file) { _locking(file, _LK_UNLCK, 1); }
      static void opero_nap(void) { Sleep(1); }
      static long long opero_time(void) { return (long long)GetTickCount64() * 1000000LL; }
    #else
      #include <sys/file.h>
      #include <time.h>
      static int opero_lock(int file) { return flock(file, LOCK_EX | LOCK_NB) == 0; }
      static void opero_unlock(int file) { flock(file, LOCK_UN); }
      static void opero_nap(void) {
          struct timespec nap = {0, 50000};
          nanosleep(&nap, 0);
      }
      static long long opero_time(void) {
          struct timespec now;
          clock_gettime(CLOCK_MONOTONIC, &now);
          return (long long)now.tv_sec * 1000000000LL + now.tv_nsec;
      }
    #endif
    """
    long long opero_load(long long *word) noexcept nogil
    bint opero_swap(long long *word, long long old, long long fresh) noexcept nogil
    void opero_store(long long *word, long long fresh) noexcept nogil
    bint opero_lock(int file) noexcept nogil
    void opero_unlock(int file) noexcept nogil
    void opero_nap() noexcept nogil
    long long opero_time() noexcept nogil

STRIDE = 64
PATIENCE = 0.05

cdef Py_ssize_t STEP = 8
cdef long long LONGEST = 50_000_000


cdef class SharedCounters:
    """Signed numbers of 62 bits (see `core/shared_counters.py`)."""

    def __init__(self, memory, Py_ssize_t first, Py_ssize_t count, int lock):
        if self._held:
            raise TypeError("it has been made already")
        PyObject_GetBuffer(memory, &self._view, PyBUF_WRITABLE)
        self._held = True
        if first < 0 or first % 8 or first + (count + 1) * STRIDE > self._view.len:
            raise ValueError("the words do not fit into the memory")
        self._flag = <long long *>(<char *>self._view.buf + first)
        self._numbers = self._flag + STEP
        self._lock = lock

    def __dealloc__(self):
        if self._held:
            PyBuffer_Release(&self._view)

    def relock(self, int lock):
        """Use another descriptor of the lock file, in a forked child."""
        self._lock = lock
        self._locked = False

    cpdef bint begin(self) noexcept:
        """Begin a step; return whether the file lock was to be had, if it has to be.

        While a step lasts, the interpreter's lock is not let go: so no other thread can be in one.
        """
        cdef long long last
        if not opero_load(self._flag) & 1:
            return True
        if opero_lock(self._lock):
            self._locked = True
            return True
        last = opero_time() + LONGEST
        while opero_time() < last:
            with nogil:
                opero_nap()
            if opero_lock(self._lock):
                self._locked = True
                return True
        return False

    cpdef void end(self) noexcept:
        """End a step."""
        if self._locked:
            self._locked = False
            opero_unlock(self._lock)

    cpdef long long load(self, Py_ssize_t at) noexcept:
        """Return a number."""
        return opero_load(self._numbers + at * STEP) >> 1

    cpdef int swap(self, Py_ssize_t at, long long old, long long new) noexcept:
        """Put `new` in the place of `old`; 1: done, 0: another number stands there, -1: again."""
        cdef long long *word = self._numbers + at * STEP
        if self._locked:
            return opero_swap(word, old * 2 + (opero_load(word) & 1), new * 2 + 1)
        if opero_swap(word, old * 2, new * 2):
            return 1
        return -1 if opero_load(self._flag) & 1 else 0

    cpdef void put(self, Py_ssize_t at, long long number) noexcept:
        """Put a number in the place of whatever stands there."""
        cdef long long *word = self._numbers + at * STEP
        opero_store(word, number * 2 + (opero_load(word) & 1))

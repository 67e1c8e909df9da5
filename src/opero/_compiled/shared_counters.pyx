"""Numbers in memory that processes share, by compare-and-swap.

The twin of `core/shared_counters.py`.
"""

cimport cython
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
      static int opero_lock(int file, long long at) {
          return _lseeki64(file, at, SEEK_SET) == at && _locking(file, _LK_NBLCK, 1) == 0;
      }
      static void opero_unlock(int file, long long at) {
          if (_lseeki64(file, at, SEEK_SET) == at) _locking(file, _LK_UNLCK, 1);
      }
      static void opero_nap(void) { Sleep(1); }
      static long long opero_time(void) { return (long long)GetTickCount64() * 1000000LL; }
    #else
      #include <fcntl.h>
      #include <time.h>
      #include <unistd.h>
      static int opero_set_lock(int file, long long at, short kind) {
          struct flock lock = {0};
          lock.l_type = kind;
          lock.l_whence = SEEK_SET;
          lock.l_start = (off_t)at;
          lock.l_len = 1;
          return fcntl(file, F_SETLK, &lock) == 0;
      }
      static int opero_lock(int file, long long at) { return opero_set_lock(file, at, F_WRLCK); }
      static void opero_unlock(int file, long long at) { opero_set_lock(file, at, F_UNLCK); }
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
    bint opero_lock(int file, long long at) noexcept nogil
    void opero_unlock(int file, long long at) noexcept nogil
    void opero_nap() noexcept nogil
    long long opero_time() noexcept nogil

cdef extern from "pythread.h":
    unsigned long PyThread_get_thread_ident() noexcept nogil

STRIDE = 64
PATIENCE = 0.05
GLANCE = 100_000_000

cdef Py_ssize_t STEP = 8
cdef long long LONGEST = 50_000_000
cdef long long _GLANCE = GLANCE
cdef long long NEVER = <long long>1 << 62


# if the garbage collector cleared it, the memory would go, but the buffer would not be released
@cython.no_gc_clear
cdef class SharedCounters:
    """Signed 62-bit numbers (see `core/shared_counters.py`)."""

    def __init__(
        self, memory, Py_ssize_t first, Py_ssize_t count, int lock, long long at=0, use=None
    ):
        if self._held:
            raise TypeError("it has been made already")
        self.use = use
        self.look_at = NEVER if use is None else 0
        self.move(memory, first, count, lock, at)

    def move(self, memory, Py_ssize_t first, Py_ssize_t count, int lock, long long at):
        """Use other memory, which must outlive this object."""
        cdef Py_buffer view
        PyObject_GetBuffer(memory, &view, PyBUF_WRITABLE)
        if first < 0 or first % 8 or first + (count + 1) * STRIDE > view.len:
            PyBuffer_Release(&view)
            raise ValueError("the words do not fit into the memory")
        if self._held:
            PyBuffer_Release(&self._view)
        self._view = view
        self._held = True
        self._flag = <long long *>(<char *>view.buf + first)
        self._numbers = self._flag + STEP
        self._lock = lock
        self._at = at

    def __dealloc__(self):
        if self._held:
            PyBuffer_Release(&self._view)

    cpdef look(self, long long now):
        """Check whether the file still exists."""
        self.look_at = now + _GLANCE
        if self.use is not None:
            self.use.look(self)

    def after_fork(self):
        """Drop the lock, in a child process."""
        self._owner = 0
        self._depth = 0

    cpdef bint begin(self) noexcept:
        """Begin a step; return whether the lock was free, if it is needed."""
        cdef long long me, now, last
        if not opero_load(self._flag) & 1:
            return True
        me = <long long>PyThread_get_thread_ident() | 1
        if self._depth and opero_load(&self._owner) == me:
            self._depth += 1
            return True
        last = 0
        while True:
            if opero_swap(&self._owner, 0, me):
                if opero_lock(self._lock, self._at):
                    self._depth = 1
                    return True
                opero_store(&self._owner, 0)
            now = opero_time()
            if last == 0:
                last = now + LONGEST
            elif now >= last:
                return False
            with nogil:
                opero_nap()

    cpdef void end(self) noexcept:
        """End a step."""
        if self._depth and self.is_mine():
            self._depth -= 1
            if self._depth == 0:
                opero_unlock(self._lock, self._at)
                opero_store(&self._owner, 0)

    cdef bint is_mine(self) noexcept:
        """Return whether this thread has the lock."""
        return opero_load(&self._owner) == (<long long>PyThread_get_thread_ident() | 1)

    cpdef long long load(self, Py_ssize_t at) noexcept:
        """Return a number."""
        return opero_load(self._numbers + at * STEP) >> 1

    cpdef int swap(self, Py_ssize_t at, long long old, long long new) noexcept:
        """Replace `old` with `new`; return 1 if replaced, 0 if the number differs, -1 to repeat."""
        cdef long long *word = self._numbers + at * STEP
        if self._depth and self.is_mine():
            return opero_swap(word, old * 2 + (opero_load(word) & 1), new * 2 + 1)
        if opero_swap(word, old * 2, new * 2):
            return 1
        return -1 if opero_load(self._flag) & 1 else 0

    cpdef void put(self, Py_ssize_t at, long long number) noexcept:
        """Replace a word with a number, whatever it holds."""
        cdef long long *word = self._numbers + at * STEP
        opero_store(word, number * 2 + (opero_load(word) & 1))

# The counters of one decorated function, in C: plain numbers on builds with the GIL.
#
# Without the GIL, threads that add to one number wait for each other's access to its cache line. So
# each thread has its own numbers on its own cache lines (a "stripe"), and adds to them without
# atomic operations. A stripe belongs to the thread that created it, identified by the number that
# CPython uses for counting references. The stripe stays when the thread ends, because the sum needs
# it; the system later gives that number, and so the stripe, to another thread. There are at most
# `OPERO_STRIPES`. A thread that gets none adds atomically to the shared numbers of a stripe, as in
# Java's `Striped64` (D. Lea). The sum of all is exact once no thread is counting.

cdef extern from *:
    """
    #define OPERO_COUNTERS 15

    #if !defined(Py_GIL_DISABLED)
      typedef struct { long long numbers[OPERO_COUNTERS]; } opero_counts;
      #define opero_count(counts, place, amount) ((counts)->numbers[place] += (amount))
      #define opero_total(counts, place) ((counts)->numbers[place])
      #define opero_free_counts(counts) ((void)(counts))
    #else
      #include <stdint.h>
      #if defined(_MSC_VER)
        #include <intrin.h>
        #define opero_peek(word) (*(volatile long long *)(word))
        #define opero_poke(word, number) (*(volatile long long *)(word) = (number))
        #define opero_add_shared(word, amount) _InterlockedExchangeAdd64(word, amount)
        #define opero_first(place, stripe) \\
            (_InterlockedCompareExchangePointer((void *volatile *)(place), stripe, NULL) == NULL)
        #define opero_stripe_at(place) \\
            ((opero_stripe *)_InterlockedCompareExchangePointer( \\
                (void *volatile *)(place), NULL, NULL))
      #else
        #define opero_peek(word) __atomic_load_n(word, __ATOMIC_RELAXED)
        #define opero_poke(word, number) __atomic_store_n(word, number, __ATOMIC_RELAXED)
        #define opero_add_shared(word, amount) __atomic_fetch_add(word, amount, __ATOMIC_RELAXED)
        static CYTHON_INLINE int opero_first_in(void **place, void *stripe) {
            void *none = NULL;
            return __atomic_compare_exchange_n(
                place, &none, stripe, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
        }
        #define opero_first(place, stripe) opero_first_in((void **)(place), stripe)
        #define opero_stripe_at(place) __atomic_load_n(place, __ATOMIC_ACQUIRE)
      #endif

      #define OPERO_STRIPES 32
      #define OPERO_PROBES 8
      #define OPERO_LINE 128  /* two lines: processors fetch the neighbour too */

      typedef struct {
          uintptr_t owner;  /* the thread that alone adds to `own`; never changed */
          long long own[OPERO_COUNTERS];
          long long shared[OPERO_COUNTERS];
          void *memory;
      } opero_stripe;

      typedef struct {
          opero_stripe *stripes[OPERO_STRIPES];
          long long rest[OPERO_COUNTERS];  /* counts made when memory is exhausted */
      } opero_counts;

      static opero_stripe *opero_new_stripe(uintptr_t owner) {
          opero_stripe *stripe;
          void *memory = PyMem_RawCalloc(1, sizeof(opero_stripe) + 2 * OPERO_LINE);
          if (memory == NULL) return NULL;
          stripe = (opero_stripe *)((char *)memory + OPERO_LINE - (uintptr_t)memory % OPERO_LINE);
          stripe->owner = owner;
          stripe->memory = memory;
          return stripe;
      }

      static CYTHON_INLINE unsigned int opero_stripe_of(uintptr_t owner) {
          return (unsigned int)(((uint64_t)owner * 0x9E3779B97F4A7C15u) >> 59);
      }

      /* Counts for a thread that does not find its stripe at the first place. */
      static void opero_count_farther(
          opero_counts *counts, uintptr_t owner, int place, long long amount
      ) {
          unsigned int first = opero_stripe_of(owner);
          opero_stripe *stripe;
          for (unsigned int step = 0; step < OPERO_PROBES; step++) {
              opero_stripe **at = &counts->stripes[(first + step) % OPERO_STRIPES];
              stripe = opero_stripe_at(at);
              if (stripe == NULL) {
                  opero_stripe *fresh = opero_new_stripe(owner);
                  if (fresh == NULL) {
                      opero_add_shared(&counts->rest[place], amount);
                      return;
                  }
                  fresh->own[place] = amount;
                  if (opero_first(at, fresh)) return;
                  PyMem_RawFree(fresh->memory);
                  stripe = opero_stripe_at(at);
              }
              if (stripe->owner == owner) {
                  opero_poke(&stripe->own[place], opero_peek(&stripe->own[place]) + amount);
                  return;
              }
          }
          stripe = opero_stripe_at(&counts->stripes[first]);
          opero_add_shared(&stripe->shared[place], amount);
      }

      static CYTHON_INLINE void opero_count(opero_counts *counts, int place, long long amount) {
          uintptr_t owner = _Py_ThreadId();
          opero_stripe *stripe = opero_stripe_at(&counts->stripes[opero_stripe_of(owner)]);
          if (stripe != NULL && stripe->owner == owner) {
              opero_poke(&stripe->own[place], opero_peek(&stripe->own[place]) + amount);
          } else {
              opero_count_farther(counts, owner, place, amount);
          }
      }

      static long long opero_total(opero_counts *counts, int place) {
          long long sum = opero_peek(&counts->rest[place]);
          for (int at = 0; at < OPERO_STRIPES; at++) {
              opero_stripe *stripe = opero_stripe_at(&counts->stripes[at]);
              if (stripe != NULL) {
                  sum += opero_peek(&stripe->own[place]) + opero_peek(&stripe->shared[place]);
              }
          }
          return sum;
      }

      static void opero_free_counts(opero_counts *counts) {
          for (int at = 0; at < OPERO_STRIPES; at++) {
              if (counts->stripes[at] != NULL) PyMem_RawFree(counts->stripes[at]->memory);
              counts->stripes[at] = NULL;
          }
      }
    #endif
    """
    ctypedef struct Counts "opero_counts":
        pass
    void add "opero_count"(Counts *counts, int place, long long amount) noexcept
    long long total "opero_total"(Counts *counts, int place) noexcept
    void free "opero_free_counts"(Counts *counts) noexcept

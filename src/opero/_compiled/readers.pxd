# Which thread is reading which entry, on builds without the GIL: "hazard pointers". Source:
# M. Michael, "Hazard pointers: safe memory reclamation for lock-free objects", IEEE TPDS 15 (2004).
#
# Threads that count references to one entry wait for each other's access to its cache line. So a
# thread that finds an entry in the array of a store only records, on its own cache line, that it
# reads the entry, and then checks that the entry is still in the array. A thread that frees an
# entry, or a value that it held, first takes it out and then waits for its readers. This takes
# nanoseconds, because they run no Python code.
#
# A thread keeps its place forever, like its counters. There are `OPERO_READERS` places; a thread
# that gets none looks into the dict.

from cpython.object cimport PyObject

cdef extern from *:
    """
    #if !defined(Py_GIL_DISABLED)
      typedef char opero_readers;
      typedef char opero_places;
      #define opero_read_at(readers, places, mark) \\
          ((void)(readers), (void)(places), (void)(mark), NULL)
      #define opero_read_no_more(readers) ((void)(readers))
      #define opero_put_at(readers, places, entry, mark, where) ((void)(readers), (void)(entry))
      #define opero_leave(readers, place, entry) ((void)(readers), (void)(place), (void)(entry))
      #define opero_wait_for(readers, entry) ((void)(readers), (void)(entry))
      #define opero_drop_places(places) ((void)(places))
      #define opero_readers_here() NULL
    #else
      #include <stdint.h>
      #include <string.h>
      #if defined(_MSC_VER)
        #include <intrin.h>
        #include <windows.h>
        #define opero_load_pointer(place) \\
            _InterlockedCompareExchangePointer((void *volatile *)(place), NULL, NULL)
        #define opero_swap_pointer(place, fresh) \\
            _InterlockedExchangePointer((void *volatile *)(place), fresh)
        #define opero_replace_pointer(place, old, fresh) \\
            (_InterlockedCompareExchangePointer((void *volatile *)(place), fresh, old) == (old))
        #define opero_release_pointer(place, fresh) opero_swap_pointer(place, fresh)
        #define opero_fence() MemoryBarrier()
        #define opero_let_others() SwitchToThread()
      #else
        #include <pthread.h>
        #include <sched.h>
        #define opero_load_pointer(place) __atomic_load_n((void **)(place), __ATOMIC_SEQ_CST)
        #define opero_swap_pointer(place, fresh) \\
            __atomic_exchange_n((void **)(place), (void *)(fresh), __ATOMIC_SEQ_CST)
        static CYTHON_INLINE int opero_replace_in(void **place, void *old, void *fresh) {
            return __atomic_compare_exchange_n(
                place, &old, fresh, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
        }
        #define opero_replace_pointer(place, old, fresh) \\
            opero_replace_in((void **)(place), (void *)(old), (void *)(fresh))
        #define opero_release_pointer(place, fresh) \\
            __atomic_store_n((void **)(place), (void *)(fresh), __ATOMIC_RELEASE)
        #define opero_fence() __atomic_thread_fence(__ATOMIC_SEQ_CST)
        #define opero_let_others() sched_yield()
      #endif

      #define OPERO_READERS 128
      #define OPERO_TRIES 16

      typedef struct {
          uintptr_t owner;  /* never changed */
          void *reading;
          unsigned int turn;
          char line[128 - 3 * sizeof(void *)];
      } opero_reader;

      typedef struct { opero_reader *at[OPERO_READERS]; } opero_readers;

      /* Returns the place of the thread as a reader; NULL if none is free. */
      static opero_reader *opero_find_reader(
          opero_readers *readers, uintptr_t owner, unsigned int first
      ) {
          for (unsigned int step = 0; step < OPERO_TRIES; step++) {
              opero_reader **place = &readers->at[(first + step) % OPERO_READERS];
              opero_reader *reader = (opero_reader *)opero_load_pointer(place);
              if (reader == NULL) {
                  char *memory = (char *)PyMem_RawCalloc(1, sizeof(opero_reader) + 128);
                  if (memory == NULL) return NULL;
                  reader = (opero_reader *)(memory + 128 - (uintptr_t)memory % 128);
                  reader->owner = owner;
                  if (opero_replace_pointer(place, NULL, reader)) return reader;
                  PyMem_RawFree(memory);
                  reader = (opero_reader *)opero_load_pointer(place);
              }
              if (reader->owner == owner) return reader;
          }
          return NULL;
      }

      static CYTHON_INLINE opero_reader *opero_this_reader(opero_readers *readers) {
          uintptr_t owner = _Py_ThreadId();
          unsigned int first = (unsigned int)(((uint64_t)owner * 0x9E3779B97F4A7C15u) >> 57);
          opero_reader *reader = (opero_reader *)opero_load_pointer(&readers->at[first]);
          if (reader != NULL && reader->owner == owner) return reader;
          return opero_find_reader(readers, owner, first);
      }

      #define OPERO_PLACES 256
      #define OPERO_WAYS 4
      #define OPERO_TURNS 16

      /* The entries of a store that were looked up lately, and their hashes as hints. */
      typedef struct opero_places {
          void *entries[OPERO_PLACES];
          Py_hash_t marks[OPERO_PLACES];
          struct opero_places *next;
      } opero_places;

      /* Returns the entry at a place, which stays alive until `opero_read_no_more`; or NULL, which
         needs no such call. */
      static CYTHON_INLINE PyObject *opero_read_at(
          opero_readers *readers, opero_places **places, Py_hash_t mark
      ) {
          opero_places *all = (opero_places *)opero_load_pointer(places);
          if (all == NULL) return NULL;
          for (size_t way = 0; way < OPERO_WAYS; way++) {
              size_t at = ((size_t)mark & (OPERO_PLACES - 1)) ^ way;
              if (*(volatile Py_hash_t *)&all->marks[at] == mark) {
                  void *entry = opero_load_pointer(&all->entries[at]);
                  opero_reader *reader;
                  if (entry == NULL) continue;
                  reader = opero_this_reader(readers);
                  if (reader == NULL) return NULL;
                  (void)opero_swap_pointer(&reader->reading, entry);
                  if (opero_load_pointer(&all->entries[at]) == entry) return (PyObject *)entry;
                  opero_release_pointer(&reader->reading, NULL);
                  return NULL;
              }
          }
          return NULL;
      }

      static CYTHON_INLINE void opero_read_no_more(opero_readers *readers) {
          opero_release_pointer(&opero_this_reader(readers)->reading, NULL);
      }

      /* Arrays are reused, never freed: an entry that outlives its store may still read its place
         in one. */
      static PyMutex opero_idle_lock;
      static opero_places *opero_idle;

      static void opero_lay_aside(opero_places *places) {
          memset(places->marks, 0, sizeof(places->marks));
          for (size_t at = 0; at < OPERO_PLACES; at++) {
              (void)opero_swap_pointer(&places->entries[at], NULL);
          }
          PyMutex_Lock(&opero_idle_lock);
          places->next = opero_idle;
          opero_idle = places;
          PyMutex_Unlock(&opero_idle_lock);
      }

      static void opero_drop_places(opero_places **places) {
          opero_places *all = (opero_places *)opero_swap_pointer(places, NULL);
          if (all != NULL) opero_lay_aside(all);
      }

      static opero_places *opero_places_at(opero_places **places) {
          opero_places *all = (opero_places *)opero_load_pointer(places);
          if (all != NULL) return all;
          PyMutex_Lock(&opero_idle_lock);
          all = opero_idle;
          if (all != NULL) opero_idle = all->next;
          PyMutex_Unlock(&opero_idle_lock);
          if (all == NULL) all = (opero_places *)PyMem_RawCalloc(1, sizeof(opero_places));
          if (all != NULL && !opero_replace_pointer(places, NULL, all)) {
              opero_lay_aside(all);
              all = (opero_places *)opero_load_pointer(places);
          }
          return all;
      }

      static void *opero_nowhere;  /* the place of an entry that had one */

      /* Puts an entry, which the caller holds, into the array, unless it is already there. `where`
         is the field of the entry that holds its place. If all places are taken, one is cleared
         occasionally, not each time: threads that take turns at a place wait for each other. */
      static void opero_put_at(
          opero_readers *readers,
          opero_places **places,
          PyObject *entry,
          Py_hash_t mark,
          void ***where
      ) {
          size_t first = (size_t)mark & (OPERO_PLACES - 1);
          size_t field = (size_t)((char *)where - (char *)entry);
          opero_places *all = opero_places_at(places);
          opero_reader *reader = opero_this_reader(readers);
          void **known = (void **)opero_load_pointer(where);
          void **place = NULL;
          void *old = NULL;
          if (all == NULL || reader == NULL) return;
          if (known != NULL && known != &opero_nowhere) {  /* it may have another entry's mark */
              size_t at = (size_t)(known - all->entries);
              if (at < OPERO_PLACES) *(volatile Py_hash_t *)&all->marks[at] = mark;
              return;
          }
          for (size_t way = 0; way < OPERO_WAYS && place == NULL; way++) {
              if (opero_load_pointer(&all->entries[first ^ way]) == NULL) {
                  place = &all->entries[first ^ way];
              }
          }
          if (place == NULL) {
              if (++reader->turn % OPERO_TURNS != 0) return;
              place = &all->entries[first ^ (reader->turn / OPERO_TURNS % OPERO_WAYS)];
              old = opero_load_pointer(place);
              if (old == NULL) return;
              (void)opero_swap_pointer(&reader->reading, old);
              if (opero_load_pointer(place) != old) {
                  opero_release_pointer(&reader->reading, NULL);
                  return;
              }
          }
          if (opero_replace_pointer(where, known, place)) {
              if (!opero_replace_pointer(place, old, entry)) {
                  (void)opero_swap_pointer(where, &opero_nowhere);
              } else {
                  *(volatile Py_hash_t *)&all->marks[place - all->entries] = mark;
                  if (old != NULL) {
                      opero_replace_pointer((char *)old + field, place, &opero_nowhere);
                  }
              }
          }
          if (old != NULL) opero_release_pointer(&reader->reading, NULL);
      }

      static void opero_wait_for(opero_readers *readers, PyObject *entry) {
          opero_fence();
          for (unsigned int at = 0; at < OPERO_READERS; at++) {
              opero_reader *reader = (opero_reader *)opero_load_pointer(&readers->at[at]);
              if (reader == NULL) continue;
              for (unsigned int turn = 1; opero_load_pointer(&reader->reading) == entry; turn++) {
                  if (turn % 64 == 0) opero_let_others();
              }
          }
      }

      /* Takes an entry out of its place, and waits for its readers. */
      static void opero_leave(opero_readers *readers, void **place, PyObject *entry) {
          opero_replace_pointer(place, entry, NULL);
          opero_wait_for(readers, entry);
      }

      static opero_readers opero_all_readers;

      #if !defined(_WIN32)
        /* A child process does not have the other threads. */
        static void opero_only_reader(void) {
            for (unsigned int at = 0; at < OPERO_READERS; at++) {
                if (opero_all_readers.at[at] != NULL) opero_all_readers.at[at]->reading = NULL;
            }
        }
      #endif

      static opero_readers *opero_readers_here(void) {
      #if !defined(_WIN32)
          pthread_atfork(NULL, NULL, opero_only_reader);
      #endif
          return &opero_all_readers;
      }
    #endif
    """
    ctypedef struct Readers "opero_readers":
        pass
    ctypedef struct SharedPlaces "opero_places":
        pass
    PyObject *read_at "opero_read_at"(
        Readers *readers, SharedPlaces **places, Py_hash_t mark
    ) noexcept
    void read_no_more "opero_read_no_more"(Readers *readers) noexcept
    void put_at "opero_put_at"(
        Readers *readers, SharedPlaces **places, PyObject *entry, Py_hash_t mark, void ***where
    ) noexcept
    void leave "opero_leave"(Readers *readers, void **place, PyObject *entry) noexcept
    void wait_for "opero_wait_for"(Readers *readers, PyObject *entry) noexcept
    void drop_places "opero_drop_places"(SharedPlaces **places) noexcept
    Readers *readers_here "opero_readers_here"() noexcept

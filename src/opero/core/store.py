"""The memory store: bounded, with expiry. A hit moves nothing.

Eviction is S3-FIFO: a small queue on probation, a main queue, and a memory of keys that probation
evicted ("ghosts"). A hit only increments the entry's uses. Source: J. Yang, Y. Zhang, Z. Qiu,
Y. Yue, K. V. Rashmi, "FIFO queues are all you need for cache eviction", SOSP 2023. This store
differs in four ways. A ghost takes two bytes, in a table with two places for each ghost, where
later ghosts replace earlier ones; there is no queue of ghosts. A promoted entry gets one more round
in the main queue. A dropped entry stays in its queue, dead, until it reaches the end or the queue
is compacted. And probation has no fixed share of the entries:

    a key returns that probation evicted lately       a longer probation would have kept it
    a key returns that the main queue evicted lately  a longer main queue would have kept it

Each such key moves the bound between the queues a little. When the keys in use keep changing, so
that a key must be kept before its second use, probation grows to as much as nine tenths of the
store. When a few keys are used all the time, it shrinks to as little as one tenth. Source:
A. Cidon, A. Eisenman, M. Alizadeh, S. Katti, "Cliffhanger: scaling performance cliffs in web memory
caches", NSDI 2016. Its shadow queues are short too: long ones would mistake a loop over too many
keys for keys that keep changing.

Only single operations of dicts, lists and queues touch shared state. Each is atomic, with the GIL
and without it, so threads, and finalizers that run in the middle of a call, find the store
consistent. Compiled code follows two rules to keep it so:

    fields      a field that others read keeps its object, except an entry's value and flight (see
                `entry`), and the table of flights, which is set once, late
    lookups     go through `gil.look_up` on builds without the GIL

A lookup is not quite atomic if comparing two keys runs Python code, because other threads may
change the dictionary meanwhile. The lookup starts over when it notices, but it can miss a change:

    insertions      may add a key that is already in the dictionary
    two rebuilds    may bring the table back to the same address; the lookup then continues in
                    what it takes for the old table, and may miss a key that was never removed
    `dict.clear`    in the middle of a `setdefault` makes CPython 3.11 and later store a key without
                    its hash, and read the hash from where a str keeps it

So one miss is trusted only if a mistake costs no more than another run, and no dictionary of keys
that other threads read is emptied with `clear`.

A store may linger: its values are renewed before they expire, or serve after that. A hit still
checks only one time, the first at which there is something to decide; after it, `find` finds
nothing. The rest happens off the fast path (see `runners.lingering`).

    stored -- hits --> expires -- a hit begins a refresh --> fresh -- may serve --> gone
                       = ttl - early                         = ttl                  = ttl + late

A hit that begins a refresh moves `expires` to `fresh`, so later hits are plain again.
"""

from __future__ import annotations

import weakref

from opero import gil

from . import flight as flights
from .clock import NEVER, Clock
from .entry import (
    DEAD,
    JUST_LOST,
    RESERVED,
    SPENT,
    UNDER_WAY,
    VALUE,
    Entry,
    EntryQueue,
    EntryStates,
    Ghosts,
    detach,
    follow,
    new_entry,
    take_flight,
    value_of,
)
from .flight import Flight

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_MOST_USES = 3
_LEAST_SHARE = 40
_MOST_SHARE = 360
_WHOLE = 400
"""Probation holds between one tenth and nine tenths of a store, in steps of a 400th."""
_MORE = 2
"""The share grows by this many steps when a key returns that probation evicted ..."""
_LESS = 3
"""... and shrinks by this many when a key returns that the main queue evicted."""
_TRIES = 20
"""If an entry in the dictionary is missed this many times, its key's hash must have changed."""
_FEW = 64
"""Scanning up to this many queued entries costs next to nothing."""


class MemoryStore:
    """Values by key, for one function (of one instance, if it is a method).

    Attributes:
        clock: Tells the time.
        maxsize: The greatest number of entries; 0 for no bound.
        ttl: How long a value is valid, in nanoseconds; 0 for forever. In a store that lingers, how
            long hits need no closer look.
        early: How long a value stays fresh after that.
        late: How long it may then serve if there is nothing better.
        lingers: Whether `early` or `late` is set.
        sharp: Whether the exact clock measures the `ttl`, because it is short.
        entries: The values, and the runs of an ordinary function that are under way.
        states: Changes the states of entries, and counts those that are not under way.
        small: The queue on probation.
        share: The share of the entries that probation may hold, in 400ths.
        probation: The same as a number of entries; at this length, eviction takes from probation.
        main: The main queue.
        ghosts: The traces of evicted entries.
        whose: A weak reference to the instance that owns the values; None for a function.
    """

    __slots__ = (
        "__weakref__",
        "_flights",
        "clock",
        "early",
        "entries",
        "ghosts",
        "late",
        "lingers",
        "main",
        "maxsize",
        "probation",
        "share",
        "sharp",
        "small",
        "states",
        "ttl",
        "whose",
    )

    def __init__(self, clock: Clock, maxsize: int, ttl: int, early: int = 0, late: int = 0) -> None:
        """Begin without values.

        Args:
            clock: Tells the time.
            maxsize: The greatest number of entries; 0 for no bound.
            ttl: How long a value is fresh, in nanoseconds; 0 for forever.
            early: How long before it expires a hit begins to renew it, in nanoseconds.
            late: How long after that it may serve if there is nothing better, in nanoseconds.
        """
        self.clock: Clock = clock
        self.maxsize: int = maxsize
        self.ttl: int = ttl - early
        self.early: int = early
        self.late: int = late
        self.lingers: bool = early > 0 or late > 0
        # the exact clock measures lifetimes shorter than 1 s
        self.sharp: bool = self.ttl < 1_000_000_000
        self.entries: dict[Any, Entry] = {}
        self.states: EntryStates = EntryStates(self.entries)
        self._flights: dict[Any, Any] | None = None
        self.share: int = _LEAST_SHARE
        self.probation: int = max(1, maxsize // 10)
        self.small: EntryQueue = EntryQueue()
        self.main: EntryQueue = EntryQueue()
        self.ghosts: Ghosts = Ghosts(maxsize)
        self.whose: Any = None

    def find(self, key: Any) -> Entry | None:
        """Return the entry of `key`, or None if it has no valid value."""
        entry = gil.look_up(self.entries, key) if gil.FREE_THREADED else self.entries.get(key)
        if entry is None or not self.counts(entry):
            return None
        if entry.uses < _MOST_USES:
            entry.uses += 1
        return entry

    def counts(self, entry: Entry) -> bool:
        """Return whether an entry is a value that has not expired."""
        if self.ttl and entry.expires <= (self.clock.now() if self.sharp else self.clock.coarse()):
            return False
        return entry.state == VALUE

    # --- storing a value that exists ------------------------------------------------------------

    def put(self, key: Any, value: Any) -> None:
        """Store `value` under `key`, evicting others if the store is full."""
        self.fill(self.reserve(key), value)

    def reserve(self, key: Any) -> Entry:
        """Make room for a value of `key`, and return the entry for `fill` to put it into.

        An invalidation between the two calls takes the entry out, so `fill` then fills an entry
        that no lookup finds. If the caller also checks for invalidations between the two calls, a
        value computed before an invalidation is never stored after it.
        """
        entry = new_entry(key, hash(key), RESERVED, NEVER)
        old = None
        self.states.enter(entry)  # count it before another thread can find it and uncount it
        try:
            old = self.entries.setdefault(key, entry)
        finally:
            if old is not entry:
                self.states.kill(entry)
        if old is not entry:  # a newer value replaces the old one, in its queue too
            return old
        try:
            self.make_room(self.maxsize)
        finally:  # comparing keys may raise, and without a queue the entry could never be evicted
            self.line_up(entry)
        return entry

    def fill(self, entry: Entry, value: Any) -> None:
        """Put a value into an entry, unless it is dead."""
        expires = NEVER
        fresh = 0
        if self.ttl:
            expires = self.ttl + (self.clock.now() if self.sharp else self.clock.coarse())
            if self.lingers:
                fresh = expires + self.early
        self.states.fill(entry, value, expires, fresh)

    # --- computing a missing value --------------------------------------------------------------

    def begin(self, entry: Entry) -> Entry:
        """Start a run with a new entry, unless its key already has an entry.

        Args:
            entry: An entry from `new_run`.

        Returns:
            The same entry, to pass to `settle` or `release`; or the key's existing entry.
        """
        old = self.entries.setdefault(entry.key, entry)
        if old is entry:
            self.states.enter(entry)
        return old

    def begin_again(self, entry: Entry, owner: int) -> bool:
        """Start a run for an existing entry without a value, or with an expired one.

        Args:
            entry: The entry that `begin` returned.
            owner: The identifier of the thread or greenlet that computes the value.

        Returns:
            Whether the run started, for this `owner`.
        """
        expires = entry.expires
        if entry.state == VALUE or entry.state == RESERVED:
            return not self.is_fresh(entry) and self.states.claim(entry, expires, owner)
        if entry.state == DEAD and gil.look_up(self.entries, entry.key) is entry:
            gone = self.entries.pop(entry.key, None)  # could not be taken out when it died
            if gone is not None:
                self.states.kill(gone)
        return False

    def settle(self, entry: Entry, value: Any) -> None:
        """Store the value of an entry that is under way, unless it died meanwhile."""
        if entry.state == UNDER_WAY:
            try:
                self.make_room(self.maxsize - 1)  # does not evict this entry: it is under way
            finally:  # afterwards, `release` has no keys to compare
                if not entry.queued:
                    self.line_up(entry)
        self.fill(entry, value)
        self.make_room(self.maxsize)  # several threads may have made room for the same entry

    def release(self, entry: Entry) -> None:
        """Let go of an entry that is under way and gets no value."""
        if entry.state == UNDER_WAY:
            if entry.queued:
                if self.late and self.serves(entry):
                    self.states.restore(entry)
                else:
                    self.states.stop(entry)
                self.make_room(self.maxsize)  # the bound did not count it while it was under way
            else:
                self.forget(entry)

    def abandon(self, entry: Entry, flight: Flight) -> None:
        """Let go of an entry whose run was lost, unless another run has begun."""
        if detach(entry, flight):
            self.release(entry)

    def strand(self) -> None:
        """Let go of all runs that are under way: in a child process, nobody will end them."""
        for entry in list(self.entries.values()):
            take_flight(entry)
            if self.early:
                self.postpone(entry, entry.fresh, entry.fresh - self.early)
            try:
                self.release(entry)
            except Exception:  # noqa: BLE001 - keys cannot be compared; the entry is reserved
                continue

    # --- values that linger ---------------------------------------------------------------------

    def look_closer(self, key: Any) -> Entry | None:
        """Return the entry of a value that `find` no longer finds, if it is fresh or may serve."""
        entry = gil.look_up(self.entries, key) if gil.FREE_THREADED else self.entries.get(key)
        if entry is None or not self.serves(entry):
            return None
        if entry.uses < _MOST_USES:
            entry.uses += 1
        return entry

    def is_fresh(self, entry: Entry) -> bool:
        """Return whether an entry is a fresh value, even if it is due to be renewed."""
        if not self.lingers:
            return self.counts(entry)
        return entry.state == VALUE and entry.fresh > self.clock.now()

    def serves(self, entry: Entry) -> bool:
        """Return whether an entry has a value that is fresh, or outdated but may serve."""
        if entry.state != VALUE and entry.state != UNDER_WAY:
            return False
        return entry.fresh != 0 and entry.fresh + self.late > self.clock.now()

    def value_of(self, entry: Entry) -> Any:
        """Return the value of an entry."""
        return value_of(entry)

    def new_run(self, key: Any, owner: int) -> Entry:
        """Make an entry for `begin`.

        Args:
            key: Its key.
            owner: The identifier of the thread or greenlet that computes the value.
        """
        return new_entry(key, hash(key), UNDER_WAY, owner)

    def follow(self, entry: Entry) -> Flight | None:
        """Return the flight to wait on until the run of an entry ends (see `entry.follow`)."""
        return follow(entry)

    def postpone(self, entry: Entry, expires: int, until: int) -> bool:
        """Change when hits on a value look closer (see `EntryStates.postpone`)."""
        return self.states.postpone(entry, expires, until)

    def begin_refresh(self, entry: Entry, owner: int) -> Flight | None:
        """Begin to renew a value in the thread or greenlet `owner`.

        Args:
            entry: A value whose hits look closer only once it is no longer fresh.
            owner: The identifier of the thread or greenlet.

        Returns:
            The flight for others to follow, to pass to `end_refresh`; None if the value has changed
            or died.
        """
        flight = Flight(owner)
        return flight if self.states.attach(entry, entry.fresh, flight) else None

    def end_refresh(
        self, entry: Entry, flight: Flight, value: Any, error: BaseException | None
    ) -> None:
        """Take the flight off the entry, and wake its followers."""
        if detach(entry, flight):
            flight.land(value, error)

    def land(self, entry: Entry, value: Any, error: BaseException | None) -> None:
        """Pass the outcome of a run to its followers (see `entry.land`)."""
        flight = take_flight(entry)
        if flight is not None:
            flight.land(value, error)

    # --- forgetting -----------------------------------------------------------------------------

    def drop(self, key: Any) -> bool:
        """Forget `key`; return whether there was a value."""
        dropped = filled = False
        missed = 0
        while missed < 2:  # a key may be stored twice, and a lookup may miss it once
            if gil.FREE_THREADED:  # lookups find it outside the dictionary too, so it dies first
                entry = gil.look_up(self.entries, key)
            else:
                entry = self.entries.pop(key, None)
            if entry is None:
                missed += 1
                continue
            missed = 0
            dropped = True
            # an entry in a queue was a value and is being renewed
            filled = filled or entry.state == VALUE or (entry.state == UNDER_WAY and entry.queued)
            self.states.kill(entry)
            if gil.FREE_THREADED:
                gone = self.entries.pop(key, None)
                if gone is not None:
                    self.states.kill(gone)
        if dropped:
            queued = self.small.length + self.main.length
            if queued <= _FEW or queued > 2 * len(self.entries):
                self.compact()
        return filled

    def clear(self) -> None:
        """Forget every value."""
        if gil.FREE_THREADED:  # lookups find values outside the dictionary too, so they die first:
            for entry in list(self.entries.values()):  # none may outlive another `clear`
                self.states.kill(entry)
        self.small.clear()
        self.main.clear()
        gone = []  # delays the finalizers of values until all are out, so none can prolong the loop
        try:
            while self.entries:  # after the queues: an entry without a queue is never evicted
                entry = self.entries.popitem()[1]
                self.states.kill(entry)
                gone.append(entry)
        except KeyError:  # another thread took the last one
            pass
        self.ghosts.clear()
        self.move_share(-_WHOLE)

    def make_room(self, most: int) -> None:
        """Evict until at most `most` entries are left, if the store is bounded."""
        while self.maxsize and self.states.held > most:
            if not self.evict():
                break

    def line_up(self, entry: Entry) -> None:
        """Put a new entry on probation, or into the main queue if probation lost it lately."""
        known = self.ghosts.recall(entry.mark)
        if known:
            self.line_up_again(entry, known)
        else:
            self.small.append(entry)
        if self.ttl and not self.maxsize:
            self.expire()

    def line_up_again(self, entry: Entry, known: int) -> None:
        """Do the same for an entry whose key was evicted lately, and adjust the share."""
        if known == SPENT:
            self.small.append(entry)
            self.move_share(-_LESS)
        else:
            self.main.append(entry)
            if known == JUST_LOST:
                self.move_share(_MORE)

    def move_share(self, steps: int) -> None:
        """Move the bound between the two queues.

        Args:
            steps: How many 400ths of the store probation gains, or loses if below 0.
        """
        self.share = min(max(self.share + steps, _LEAST_SHARE), _MOST_SHARE)
        self.probation = max(1, self.maxsize * self.share // _WHOLE)

    def evict(self) -> bool:
        """Evict one entry, from probation if that has its full share; return whether one was found.

        An entry that is being renewed stays, and the bound does not count it.
        """
        while self.small.length >= self.probation or not self.main.length:
            entry = self.small.take()
            if entry is None:  # another thread emptied the queue and evicts instead
                return False
            if entry.state == DEAD:
                continue
            if entry.state == UNDER_WAY or entry.uses > 1:
                entry.uses = 1
                self.main.append(entry)
            else:
                self.forget(entry)
                self.ghosts.remember(entry.mark, False)
                return True
        renewed = 0
        while True:
            entry = self.main.take()
            if entry is None:
                return False
            if entry.state == DEAD:
                continue
            if entry.state == UNDER_WAY:
                self.main.append(entry)
                renewed += 1
                if renewed > self.main.length:  # other threads hold the other entries
                    return False
            elif entry.uses > 0:
                entry.uses -= 1
                self.main.append(entry)
            else:
                self.forget(entry)
                self.ghosts.remember(entry.mark, True)
                return True

    def forget(self, entry: Entry) -> None:
        """Take `entry`, and any other entry of its key, out of the dictionary.

        After a race the key may have a newer entry. It goes too, because putting it back could undo
        an invalidation. If comparing keys raises, the entry stays and goes back into a queue.
        """
        self.states.kill(entry)
        tries = 0
        over = False
        try:
            while tries < _TRIES:
                gone = self.entries.pop(entry.key, None)
                if gone is entry:
                    break
                if gone is not None:
                    self.states.kill(gone)
                elif self.holds(entry):
                    tries += 1
                else:
                    break
            over = True
        finally:
            if not over:
                self.states.revive(entry)
                (self.main if self.maxsize else self.small).append(entry)

    def holds(self, entry: Entry) -> bool:
        """Return whether `entry` is in the dictionary, without comparing keys."""
        for other in list(self.entries.values()):  # noqa: SIM110 - a generator would be slower
            if other is entry:
                return True
        return False

    def expire(self) -> None:
        """Check the two entries of an unbounded store that have not been checked for longest.

        An expired one is taken out, so keys that are never requested again go too.
        """
        now = self.clock.coarse()
        for _ in range(2):
            entry = self.small.take()
            if entry is None:
                break
            if entry.state == DEAD:
                continue
            if entry.state == UNDER_WAY or entry.expires + self.early + self.late > now:
                self.small.append(entry)
            else:
                self.forget(entry)

    def compact(self) -> None:
        """Take dead entries out of the queues."""
        for queue in (self.small, self.main):
            for _ in range(queue.length):
                entry = queue.take()
                if entry is None:
                    break
                if entry.state != DEAD:
                    queue.append(entry)

    @property
    def flights(self) -> dict[Any, Any]:
        """The runs of a coroutine function that are under way, and those that maps have noted.

        For a coroutine function, they are keyed by event loop, then by key (see
        `runners.task_flight`); otherwise by key. The table is made at the first use.
        """
        if self._flights is None:
            with flights.joining:
                if self._flights is None:
                    self._flights = {}
        return self._flights

    @property
    def has_flights(self) -> bool:
        """Whether the table of flights has been made."""
        return self._flights is not None

    @property
    def under_way(self) -> int:
        """How many runs are under way."""
        return len(self.entries) - self.states.held

    def __len__(self) -> int:
        return self.states.held


class _InstanceRef(weakref.ref):  # type: ignore[type-arg]
    """A weak reference that remembers the identity of its object."""

    __slots__ = ("ident",)
    ident: int


def _burying(stores: dict[int, MemoryStore]) -> Any:
    """Return the callback that drops the store of an instance when the instance ends."""

    def bury(ref: Any) -> None:
        held = stores.get(ref.ident)  # nobody else takes this store out
        if held is not None and held.whose is ref:
            stores.pop(ref.ident, None)

    return bury


class InstanceStores:
    """A memory store for each living instance, by identity; it ends with its instance.

    Attributes:
        clock: Passed to every store.
        maxsize: The greatest number of entries of each store; 0 for no bound.
        ttl: How long a value is fresh, in nanoseconds; 0 for forever.
        early: How long before it expires a hit begins to renew it (see `MemoryStore`).
        late: How long after that it may serve.
        stores: The store of each instance, by identity.
        bury: Called with the weak reference to an instance after the instance has ended.
    """

    __slots__ = ("__weakref__", "bury", "clock", "early", "late", "maxsize", "stores", "ttl")

    def __init__(self, clock: Clock, maxsize: int, ttl: int, early: int = 0, late: int = 0) -> None:
        self.clock: Clock = clock
        self.maxsize: int = maxsize
        self.ttl: int = ttl
        self.early: int = early
        self.late: int = late
        self.stores: dict[int, MemoryStore] = {}
        self.bury: Any = _burying(self.stores)  # one callback for all instances, to keep them cheap

    def of(self, instance: Any) -> MemoryStore | None:
        """Return the store of `instance`, making it at the first call.

        Returns:
            None if the instance does not support weak references.
        """
        ident = id(instance)
        held = gil.look_up(self.stores, ident) if gil.FREE_THREADED else self.stores.get(ident)
        if held is not None and held.whose() is instance:
            return held
        return self.adopt(instance)

    def adopt(self, instance: Any) -> MemoryStore | None:
        """Make a store that ends with `instance`; None if that does not support weak references."""
        if not getattr(type(instance), "__weakrefoffset__", True):  # PyPy lacks this attribute
            return None
        stores = self.stores
        try:
            ref = _InstanceRef(instance, self.bury)
        except TypeError:
            return None
        ref.ident = id(instance)
        mine = MemoryStore(self.clock, self.maxsize, self.ttl, self.early, self.late)
        mine.whose = ref
        held = stores.setdefault(ref.ident, mine)
        if held.whose() is not instance:  # a dead instance had the same identity
            stores[ref.ident] = held = mine
        return held

    def all(self) -> list[MemoryStore]:
        """Return the stores of all living instances."""
        return list(self.stores.values())

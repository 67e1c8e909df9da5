"""The memory store: bounded, with expiry, and nothing moved on a hit.

Eviction is S3-FIFO: a small queue on probation, a main queue, and a memory of what was evicted
from probation ("ghosts"). A hit only counts up the entry's uses. Source: J. Yang, Y. Zhang, Z. Qiu,
Y. Yue, K. V. Rashmi, "FIFO queues are all you need for cache eviction", SOSP 2023. Departures:
ghosts are two bytes each, in a table with two places for each, where later ones replace earlier
ones, instead of a queue; an entry that was promoted has one more round in the main queue; entries
that were dropped stay in their queue, dead, until they reach its end or the queue is compacted; and
probation has no fixed share of the entries.

    a key comes back that probation has lost lately      it would be here if probation were longer
    a key comes back that the main queue has lost lately it would be here if that were longer

Each of them moves the bound between the queues a little. So where the keys in use move on, and must
be kept before they were used twice, probation grows up to nine tenths of the store, and falls back
to one where few keys are used all the time. Source: A. Cidon, A. Eisenman, M. Alizadeh, S. Katti,
"Cliffhanger: scaling performance cliffs in web memory caches", NSDI 2016, whose shadow queues are
short as well: long ones would take a loop over too many keys for keys that move on.

Only single operations of dicts, lists and queues touch shared state, and each of them is atomic,
with the interpreter's lock and without it; so threads, and finalizers that run in the middle of a
call, find the store consistent. What is compiled keeps to that:

    fields      none that others read gets another object, but for an entry's value and flight
                (see `entry`), and the table of flights, which gets its only one late
    look-ups    are made by `gil.look_up`, where there is no lock

A look-up is not quite atomic if comparing two keys runs Python code: other threads change the
dictionary meanwhile. It begins anew when it sees that, but it does not always see it:

    insertions      may put a key into the dictionary that is there already
    two rebuilds    may bring its table back to the same address: then the look-up goes on in what
                    it takes for the old one, and can miss a key that is there all the time
    `dict.clear`    in the midst of a `setdefault` makes CPython 3.11 and later store a key without
                    its hash, and read it from where a str has it

So nothing here takes one miss for the truth where more hangs on it than another run, and no
dictionary of keys that anybody else looks at is emptied by `clear`.

A store may linger: its values are renewed before their end, or serve after it. Then a hit looks at
one time all the same, the first at which there is something to decide, and `find` finds nothing
from then on. What follows is off the fast path (see `runners.lingering`).

    stored -- hits --> expires -- a hit begins a refresh --> fresh -- may serve --> gone
                       = ttl - early                         = ttl                  = ttl + late

A hit that begins a refresh moves `expires` to the end, so the hits that follow are plain again.
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
"""Between a tenth and nine tenths of a store are on probation, in steps of a 400th."""
_MORE = 2
"""By so many steps the share grows for a key that has come back from there ..."""
_LESS = 3
"""... and by so many it shrinks for one that has come back from the main queue."""
_TRIES = 20
"""After so many misses of an entry that is there, its key's hash must have changed."""
_FEW = 64
"""Up to so many queued entries, looking through them all costs next to nothing."""


class MemoryStore:
    """Values by key, for one function (of one instance, if it is a method).

    Attributes:
        clock: Tells the time.
        maxsize: The greatest number of entries; 0 for no bound.
        ttl: How long a value counts, in nanoseconds; 0 for ever. If it lingers, for how long a hit
            looks no closer.
        early: How long after that a value is fresh.
        late: How long after that it may serve if there is nothing better.
        lingers: Whether there is either.
        sharp: Whether the exact clock measures the `ttl`, since it is short.
        entries: The values, and the runs of an ordinary function that are under way.
        states: Changes what an entry is, and counts those that are not under way.
        small: The queue on probation.
        share: Which share of the entries that may hold, in 400ths.
        probation: How many entries that is: from then on it is evicted from.
        main: The main queue.
        ghosts: What is left of entries that were evicted from probation.
        whose: The weak reference to the instance whose values they are; None for a function.
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
            ttl: How long a value is fresh, in nanoseconds; 0 for ever.
            early: How long before the end of that a hit begins to renew it, in nanoseconds.
            late: How long after it the value may serve if there is nothing better.
        """
        self.clock: Clock = clock
        self.maxsize: int = maxsize
        self.ttl: int = ttl - early
        self.early: int = early
        self.late: int = late
        self.lingers: bool = early > 0 or late > 0
        # a life shorter than 1 s is measured by the exact clock
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
        """Return the entry of `key`, or None if there is none that still counts."""
        entry = gil.look_up(self.entries, key) if gil.FREE_THREADED else self.entries.get(key)
        if entry is None or not self.counts(entry):
            return None
        if entry.uses < _MOST_USES:
            entry.uses += 1
        return entry

    def counts(self, entry: Entry) -> bool:
        """Return whether an entry is a value that is not out of date."""
        if self.ttl and entry.expires <= (self.clock.now() if self.sharp else self.clock.coarse()):
            return False
        return entry.state == VALUE

    # --- a value that is there already ----------------------------------------------------------

    def put(self, key: Any, value: Any) -> None:
        """Store `value` under `key`, evicting others if the store is full."""
        self.fill(self.reserve(key), value)

    def reserve(self, key: Any) -> Entry:
        """Make room for a value of `key`, and return the entry that `fill` will find it in.

        Whoever invalidates the key between the two takes the entry out, so that `fill` fills what
        nobody finds: a value that was computed before an invalidation cannot be stored after it, if
        the one who stores it asks in between whether there was one.
        """
        entry = new_entry(key, hash(key), RESERVED, NEVER)
        old = None
        self.states.enter(entry)  # before another thread can find it, and count it out
        try:
            old = self.entries.setdefault(key, entry)
        finally:
            if old is not entry:
                self.states.kill(entry)
        if old is not entry:  # a newer value takes the place of the old one, also in its queue
            return old
        try:
            self.make_room(self.maxsize)
        finally:  # whatever a comparison of keys raises: without a queue it could never be evicted
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

    # --- a value that is computed only if it is missing -----------------------------------------

    def begin(self, entry: Entry) -> Entry:
        """Let a new entry be under way, unless its key has one already.

        Args:
            entry: What `new` has made.

        Returns:
            That one, to be given to `settle` or `release`; or the one there is.
        """
        old = self.entries.setdefault(entry.key, entry)
        if old is entry:
            self.states.enter(entry)
        return old

    def begin_again(self, entry: Entry, owner: int) -> bool:
        """Let an entry that holds no value, or one that is out of date, be under way again.

        Args:
            entry: What `begin` has returned.
            owner: The identifier of the thread or greenlet that computes the value.

        Returns:
            Whether it is, for this `owner`.
        """
        expires = entry.expires
        if entry.state == VALUE or entry.state == RESERVED:
            return not self.is_fresh(entry) and self.states.claim(entry, expires, owner)
        if entry.state == DEAD and gil.look_up(self.entries, entry.key) is entry:
            gone = self.entries.pop(entry.key, None)  # it could not be taken out when it died
            if gone is not None:
                self.states.kill(gone)
        return False

    def settle(self, entry: Entry, value: Any) -> None:
        """Store the value of an entry that is under way, unless it died meanwhile."""
        if entry.state == UNDER_WAY:
            try:
                self.make_room(self.maxsize - 1)  # it is under way still, and so not evicted itself
            finally:  # then `release` has no keys to compare
                if not entry.queued:
                    self.line_up(entry)
        self.fill(entry, value)
        self.make_room(self.maxsize)  # for those who have made room for the same one

    def release(self, entry: Entry) -> None:
        """Let go of an entry that is under way and gets no value."""
        if entry.state == UNDER_WAY:
            if entry.queued:
                if self.late and self.serves(entry):
                    self.states.restore(entry)
                else:
                    self.states.stop(entry)
                self.make_room(self.maxsize)  # the bound has not counted it meanwhile
            else:
                self.forget(entry)

    def abandon(self, entry: Entry, flight: Flight) -> None:
        """Let go of an entry whose run has come to nothing, unless another run has begun."""
        if detach(entry, flight):
            self.release(entry)

    def strand(self) -> None:
        """Let go of all that is under way: in a child process nobody will end it."""
        for entry in list(self.entries.values()):
            take_flight(entry)
            if self.early:
                self.postpone(entry, entry.fresh, entry.fresh - self.early)
            try:
                self.release(entry)
            except Exception:  # noqa: BLE001 - keys that cannot be compared; it is reserved
                continue

    # --- values that linger ---------------------------------------------------------------------

    def look_closer(self, key: Any) -> Entry | None:
        """Return the entry of a value that is fresh or may still serve, where `find` finds none."""
        entry = gil.look_up(self.entries, key) if gil.FREE_THREADED else self.entries.get(key)
        if entry is None or not self.serves(entry):
            return None
        if entry.uses < _MOST_USES:
            entry.uses += 1
        return entry

    def is_fresh(self, entry: Entry) -> bool:
        """Return whether an entry is a value that is not outdated, though it may be renewed."""
        if not self.lingers:
            return self.counts(entry)
        return entry.state == VALUE and entry.fresh > self.clock.now()

    def serves(self, entry: Entry) -> bool:
        """Return whether an entry has a value that is fresh, or may serve though it is outdated."""
        if entry.state != VALUE and entry.state != UNDER_WAY:
            return False
        return entry.fresh != 0 and entry.fresh + self.late > self.clock.now()

    def value_of(self, entry: Entry) -> Any:
        """Return what an entry holds."""
        return value_of(entry)

    def new_run(self, key: Any, owner: int) -> Entry:
        """Make an entry for `begin`.

        Args:
            key: Its key.
            owner: The identifier of the thread or greenlet that computes the value.
        """
        return new_entry(key, hash(key), UNDER_WAY, owner)

    def follow(self, entry: Entry) -> Flight | None:
        """Return what tells when the run of an entry is over (see `entry.follow`)."""
        return follow(entry)

    def postpone(self, entry: Entry, expires: int, until: int) -> bool:
        """Let hits on a value look closer at another time (see `EntryStates.postpone`)."""
        return self.states.postpone(entry, expires, until)

    def begin_refresh(self, entry: Entry, owner: int) -> Flight | None:
        """Let a value be renewed by the thread or greenlet `owner`.

        Args:
            entry: A value whose hits look closer at its end only.
            owner: The identifier of the thread or greenlet.

        Returns:
            What others follow, for `end_refresh`; None if the value has changed, or has died.
        """
        flight = Flight(owner)
        return flight if self.states.attach(entry, entry.fresh, flight) else None

    def end_refresh(
        self, entry: Entry, flight: Flight, value: Any, error: BaseException | None
    ) -> None:
        """Take the flight off again, and wake those who follow it."""
        if detach(entry, flight):
            flight.land(value, error)

    def land(self, entry: Entry, value: Any, error: BaseException | None) -> None:
        """Make the outcome of a run known to those who follow (see `entry.land`)."""
        flight = take_flight(entry)
        if flight is not None:
            flight.land(value, error)

    # --- forgetting -----------------------------------------------------------------------------

    def drop(self, key: Any) -> bool:
        """Forget `key`; return whether there was a value."""
        dropped = filled = False
        missed = 0
        while missed < 2:  # a key may be there twice, and may be missed once
            if gil.FREE_THREADED:  # where it is found beside the dictionary, too: it dies first
                entry = gil.look_up(self.entries, key)
            else:
                entry = self.entries.pop(key, None)
            if entry is None:
                missed += 1
                continue
            missed = 0
            dropped = True
            # in a queue: it was a value, and is renewed
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
        if gil.FREE_THREADED:  # where values are found beside the dictionary, too: they die first,
            for entry in list(self.entries.values()):  # so that none outlives another `clear`
                self.states.kill(entry)
        self.small.clear()
        self.main.clear()
        gone = []  # finalizers of values wait until all are out, so that none can prolong this
        try:
            while self.entries:  # last: an entry without a queue could never be evicted
                entry = self.entries.popitem()[1]
                self.states.kill(entry)
                gone.append(entry)
        except KeyError:  # another thread took the last one
            pass
        self.ghosts.clear()
        self.move_share(-_WHOLE)

    def make_room(self, most: int) -> None:
        """Evict until no more than `most` entries are left, if there is a bound."""
        while self.maxsize and self.states.held > most:
            if not self.evict():
                break

    def line_up(self, entry: Entry) -> None:
        """Put a new entry into a queue: on probation, unless it was lost there not long ago."""
        known = self.ghosts.recall(entry.mark)
        if known:
            self.line_up_again(entry, known)
        else:
            self.small.append(entry)
        if self.ttl and not self.maxsize:
            self.expire()

    def line_up_again(self, entry: Entry, known: int) -> None:
        """Do so with one whose key has been there, and let the queues learn from it."""
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
            steps: By how many 400ths of the store probation gets more, or, below 0, less.
        """
        self.share = min(max(self.share + steps, _LEAST_SHARE), _MOST_SHARE)
        self.probation = max(1, self.maxsize * self.share // _WHOLE)

    def evict(self) -> bool:
        """Take one entry out, from probation if that is over its share; return whether one was.

        One that is being renewed stays, and the bound does not count it.
        """
        while self.small.length >= self.probation or not self.main.length:
            entry = self.small.take()
            if entry is None:  # another thread emptied the queue: it evicts in our place
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
                if renewed > self.main.length:  # others are in the hands of other threads
                    return False
            elif entry.uses > 0:
                entry.uses -= 1
                self.main.append(entry)
            else:
                self.forget(entry)
                self.ghosts.remember(entry.mark, True)
                return True

    def forget(self, entry: Entry) -> None:
        """Take `entry` out of the dictionary, and whatever else its key has there.

        After a race the key may have a newer entry; putting it back could undo an invalidation. An
        entry that cannot be taken out, because keys cannot be compared, goes back into a queue.
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
        """Look at the two entries of an unbounded store that were longest not looked at.

        An outdated one is taken out, so that keys which are never asked for again go too.
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

        They are by event loop, then by key, for a coroutine function (see `runners.task_flight`),
        and else by key. There is no table before the first.
        """
        if self._flights is None:
            with flights.joining:
                if self._flights is None:
                    self._flights = {}
        return self._flights

    @property
    def has_flights(self) -> bool:
        """Whether there is a table of flights."""
        return self._flights is not None

    @property
    def under_way(self) -> int:
        """How many runs are under way."""
        return len(self.entries) - self.states.held

    def __len__(self) -> int:
        return self.states.held


class _InstanceRef(weakref.ref):  # type: ignore[type-arg]
    """A weak reference that remembers the identity of what it referred to."""

    __slots__ = ("ident",)
    ident: int


def _burying(stores: dict[int, MemoryStore]) -> Any:
    """Return what takes the store of an instance out that has ended."""

    def bury(ref: Any) -> None:
        held = stores.get(ref.ident)  # which nobody else takes out
        if held is not None and held.whose is ref:
            stores.pop(ref.ident, None)

    return bury


class InstanceStores:
    """A memory store for each living instance, by identity; an instance's end is its store's end.

    Attributes:
        clock: Handed to every store.
        maxsize: The greatest number of entries of each store; 0 for no bound.
        ttl: Nanoseconds for which a value is fresh; 0 for ever.
        early: How long before that a hit begins to renew it (see `MemoryStore`).
        late: How long after that it may serve.
        stores: The store of each instance, by identity.
        bury: Called with the weak reference to an instance when that has ended.
    """

    __slots__ = ("__weakref__", "bury", "clock", "early", "late", "maxsize", "stores", "ttl")

    def __init__(self, clock: Clock, maxsize: int, ttl: int, early: int = 0, late: int = 0) -> None:
        self.clock: Clock = clock
        self.maxsize: int = maxsize
        self.ttl: int = ttl
        self.early: int = early
        self.late: int = late
        self.stores: dict[int, MemoryStore] = {}
        self.bury: Any = _burying(self.stores)  # one for all: an instance should cost little

    def of(self, instance: Any) -> MemoryStore | None:
        """Return the store of `instance`, which is made at its first call.

        Returns:
            None if the instance cannot be referred to weakly.
        """
        ident = id(instance)
        held = gil.look_up(self.stores, ident) if gil.FREE_THREADED else self.stores.get(ident)
        if held is not None and held.whose() is instance:
            return held
        return self.adopt(instance)

    def adopt(self, instance: Any) -> MemoryStore | None:
        """Make a store that ends with `instance`; None if it cannot be referred to weakly."""
        if not getattr(type(instance), "__weakrefoffset__", True):  # which PyPy does not have
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
        if held.whose() is not instance:  # the identity of a dead instance, used again
            stores[ref.ident] = held = mine
        return held

    def all(self) -> list[MemoryStore]:
        """Return the stores of all living instances."""
        return list(self.stores.values())

"""The stored values of one decorated function: keys, signing, and operations of the store.

    recall -> key -> look -> hit
                      | miss
                      v
                    begin -> another process runs it: wait -> its value
                      | nobody does: the lease is ours
                      v
                    the attempts of the call -> finish: store the value, give the lease back

`look` and `run` yield effects (`runners/effects.py`) that say what to ask the store, how long to
wait and when to attempt the call. So threads and tasks share the code.
"""

from __future__ import annotations

import math
import random
import sys
import time
from contextlib import suppress
from secrets import token_hex
from typing import Any, NamedTuple

from opero import once_only
from opero.core.clock import NEVER, Clock
from opero.core.outcomes import too_late
from opero.exceptions import CacheKeyError, OperoError
from opero.locks import Lock
from opero.never_failures import is_never_failure
from opero.real_time import monotonic, monotonic_ns
from opero.runners.effects import ASK, RUN, SLEEP, Raised
from opero.thrown import Thrown, thrown_in, unwrapped

from . import leases
from .open_store import OpenStore
from .renewer import renewer
from .signing import Forged, NotEncodable, Signed, Signer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from opero.captures import Captures, Code
    from opero.core.canonical import Canonical, StoredKey
    from opero.core.events import Events
    from opero.core.state import State
    from opero.runners.effects import Steps

_REAL = Clock()
"""Real time, by which other processes renew their leases; tests do not move it."""

_READING = frozenset({"get", "get_many", "count", "holder"})
"""The operations that still work if the store is full or read-only."""

_SKEW = 60.0
"""How many seconds apart the clocks of machines that share a store may be."""


_NEAR = 10
"""An expensive value may be refreshed in the last of this many equal parts of its time to live."""

_MOST_RENEWALS = 1024
"""With more renewals than this, expired ones are removed."""
_MOST_REJECTED = 1024
"""With more rejected entries than this, those that still exist count again."""

ELSEWHERE = object()
"""What a refresh returns if another process does it, or the value has changed since."""


class Unavailable(Exception):
    """The store does not work: the call goes on without it."""


class TooLarge(Unavailable):
    """The store works, but this value is too large for it."""


class Miss(NamedTuple):
    """A call whose value is missing.

    Attributes:
        key: The value's key.
        args: The positional arguments.
        kwargs: The keyword arguments.
        found: An outdated entry, or one to refresh; None if there is none.
        reachable: Whether the store has answered.
        since: When the call began, in seconds of the machine's clock.
    """

    key: StoredKey
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    found: Signed | None
    reachable: bool
    since: float = 0.0


class Claim(NamedTuple):
    """What to do about a missing value.

    Attributes:
        known: The value, if it has appeared meanwhile: then nothing needs to run. Else None.
        held: Whether the lease is ours; else nothing is stored.
        stale: An outdated entry that may be served if the run fails; None if there is none.
    """

    known: Known | None
    held: bool
    stale: Signed | None


class Known(NamedTuple):
    """A value that a flight has found instead of making it.

    Attributes:
        value: The value.
        asked: When the store was asked for it, in seconds of the machine's clock; None if it is
            the outdated value that was already known.
    """

    value: Any
    asked: float | None

    def serves(self, miss: Miss) -> bool:
        """Return whether the value may serve a caller who has joined the flight.

        It may have been invalidated after the store was asked and before the caller came.
        """
        if self.asked is None:
            return miss.found is not None
        return self.asked >= miss.since


class Lease(NamedTuple):
    """The lease of a flight's run.

    Attributes:
        token: The lease's token.
        since: When the function was called, in seconds of the machine's clock.
    """

    token: str
    since: float


class StoredCache:
    """The stored values of one decorated function.

    Attributes:
        flights: The runs under way in this process: by full key, or by event loop and key.
        counts: The counts, by the names in `opero.stats.Stats`.
        relied_on: The leases of the runs under way, by flight.
        renewals: When the next refresh of an entry may begin here, in nanoseconds, by full key.
        prefix: The beginning of the names of all its entries.
    """

    def __init__(
        self, name: str, events: Events, canonical: Canonical, store: OpenStore, signer: Signer
    ) -> None:
        """Set where values are kept, and how they are signed.

        Args:
            name: The function's name, for messages.
            events: Logs events and calls listeners.
            canonical: Makes the keys.
            store: The store, shared by all functions of this process that use it.
            signer: Signs what is stored.
        """
        self.name = name
        self.events = events
        self.canonical = canonical
        self.store = store
        self.signer = signer
        self.flights: dict[Any, Any] = {}
        self.relied_on: dict[Any, Lease] = {}
        self.counts: dict[str, int] = {}
        self.namespace: str = ""
        self.version: str = ""
        self.prefix: str = ""
        self.owner: tuple[str, str] = ("", "")
        self.captures: Captures | None = None
        self.ttl: float | None = None
        self.allowance: float = 0.0
        self.early: float = 0.0
        self.renewals: dict[bytes, int] = {}
        self._warned: set[str] = set()
        self._rejected: dict[str, int] = {}  # by name: the hash of an entry that was rejected
        self._counting = Lock()

    def belong(
        self,
        namespace: str,
        owner: tuple[str, str],
        version: str,
        captures: Captures | None = None,
    ) -> None:
        """Set the function that owns the values.

        Args:
            namespace: The cache's namespace.
            owner: Module and qualified name of the function.
            version: The user's version of the values.
            captures: What the function has captured; None if that does not count.
        """
        self.captures = captures
        self.namespace, self.owner, self.version = namespace, owner, version
        self.prefix = self.canonical.prefix(namespace, *owner)
        with suppress(ImportError):  # the first call raises it
            # Imported here: if a process forks while a thread imports a module for its first call,
            # the children wait for that module forever.
            self.canonical.digest(b"")

    def last(self, ttl: float | None, allowance: float, early: float = 0.0) -> None:
        """Set how long values stay valid.

        Args:
            ttl: Seconds for which a value is fresh; None means forever.
            allowance: Seconds after that for which it may be served if a run fails.
            early: Seconds before its end from which a hit refreshes it in the background.
        """
        self.ttl, self.allowance, self.early = ttl, allowance, early

    def after_fork(self) -> None:
        """Forget, in a child process, the runs and the lock of the parent's threads."""
        self.ground(None)
        self.flights.clear()
        self.relied_on.clear()
        self.renewals.clear()
        self._counting = Lock()

    def recall(self, call: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Answer a call from the store, or run it."""
        raise NotImplementedError

    # --- keys -----------------------------------------------------------------------------------

    def key(self, call: State, args: tuple[Any, ...], kwargs: dict[str, Any]) -> StoredKey:
        """Return the stored key of a call.

        Raises:
            CacheKeyError: If an argument or a captured variable cannot be encoded faithfully; the
                message names it.
        """
        binding = call.binding
        if call.cache_key is not None:
            return self.key_of((call.asked_key(args, kwargs),), ("the result of cache_key",))
        assert binding is not None
        arguments = binding.arguments(args, kwargs)
        names: Sequence[str] = binding.names
        if not binding.plain:
            more = range(len(names), len(arguments))
            names = [*names, *(binding.extra(at) for at in more)]
        captures = self.captures
        return self.key_of(arguments, names, None if captures is None else captures.read())

    def key_of(
        self, arguments: Sequence[Any], names: Sequence[str] = (), code: Code | None = None
    ) -> StoredKey:
        """Return the stored key of some values, and of the function's code and captures."""
        try:
            return self.canonical.stored_key(
                self.namespace, self.owner, self.version, arguments, names, code
            )
        except CacheKeyError as error:
            raise CacheKeyError(f"{self.name}(): {error}") from error

    # --- entries --------------------------------------------------------------------------------

    def wall(self, clock: Clock) -> float:
        """Return the time of day in seconds, moved as tests have moved `clock`."""
        return time.time() + float(clock.now() - monotonic_ns()) / 1e9

    def open_signed(self, key: StoredKey, data: bytes | None) -> Signed | None:
        """Open an entry; return None if there is none, or its signature is not valid."""
        if data is None:
            return None
        try:
            signed = self.signer.open(key.full, data)
            if self._rejected:
                self._rejected.pop(key.name, None)
            return signed
        except Forged as error:
            self._reject(key.name, hash(data))
            self._warn(
                "a stored entry is ignored (forged, damaged, of another call, or signed with "
                "another secret); such calls run the function",
                str(error),
            )
            return None

    def _reject(self, name: str, mark: int) -> None:
        """Count a rejected entry once, however often it is found.

        Args:
            name: Its name in the store.
            mark: The hash of its bytes.
        """
        with self._counting:
            if self._rejected.get(name) == mark:
                return
            if len(self._rejected) >= _MOST_REJECTED:
                self._rejected.clear()
            self._rejected[name] = mark
        self._count("rejected")

    def signed(self, key: StoredKey, value: Any, clock: Clock, took: float) -> bytes | None:
        """Sign a value; return None if it cannot be stored, and warn once."""
        now = self.wall(clock)
        until = math.inf if self.ttl is None else now + self.ttl
        try:
            return self.signer.close(key.full, value, now, until, took)
        except NotEncodable as error:
            self._warn("a value is not stored; such calls run the function again", str(error))
            return None

    def _count(self, counter: str) -> None:
        """Add 1 to a counter; other threads do so at the same time."""
        with self._counting:
            self.counts[counter] = self.counts.get(counter, 0) + 1

    def _warn(self, what: str, why: str) -> None:
        """Log a warning once: a service that runs for years needs it only once in its log."""
        if what not in self._warned:
            self._warned.add(what)
            self.events.warn(self.name, f"{what}: {why}")

    def lifetime(self) -> float | None:
        """Return for how many seconds the store keeps an entry."""
        return None if self.ttl is None else self.ttl + self.allowance

    def end(self, found: Signed) -> float:
        """Return when an entry stops being fresh, in Unix time: after the current ttl at most."""
        if self.ttl is None:
            return found.fresh_until
        return min(found.fresh_until, found.made_at + self.ttl)

    def is_fresh(self, found: Signed, clock: Clock) -> bool:
        """Return whether an entry is still fresh.

        An entry from the future was made before the clock was set back: its age is unknown.
        """
        now = self.wall(clock)
        return found.made_at - _SKEW <= now < self.end(found)

    def hits(self, call: State, found: Signed | None) -> bool:
        """Return whether an entry answers a call that need not refresh it; count a hit or miss."""
        if found is None or not self.is_fresh(found, call.clock) or self.is_due(found, call.clock):
            call.add("misses", 1)
            if call.events.heeded:
                call.events.miss(call)
            return False
        call.add("hits", 1)
        if call.events.heeded:
            call.events.hit(call)
        return True

    def is_usable(self, found: Signed, clock: Clock) -> bool:
        """Return whether an entry may be served, fresh or within `cache_stale`."""
        now = self.wall(clock)
        return found.made_at - _SKEW <= now < self.end(found) + self.allowance

    def is_due(self, found: Signed, clock: Clock) -> bool:
        """Return whether this caller refreshes an entry before it is outdated.

        The nearer its end and the more expensive the value, the likelier. This applies only with
        `cache_stale`, and not with `cache_refresh`, where nobody waits for a refresh. Each caller
        draws at random; to keep many callers from refreshing too early, they do so only near the
        end.
        Source: Vattani, Chierichetti, Lowenstein, Optimal Probabilistic Cache Stampede Prevention,
        VLDB 2015.
        """
        if not self.allowance or self.early or self.ttl is None:
            return False
        left = self.end(found) - self.wall(clock)
        if left > self.ttl / _NEAR:
            return False
        return bool(-found.made_in * math.log(1.0 - random.random()) >= left)

    # --- refreshes ------------------------------------------------------------------------------

    def is_early(self, found: Signed, clock: Clock) -> bool:
        """Return whether a hit on a fresh entry begins a refresh."""
        return bool(self.early and self.wall(clock) >= self.end(found) - self.early)

    def claim(self, full: bytes, clock: Clock) -> bool:
        """Claim the refresh of a value in this process; return whether nobody else had."""
        now = clock.now()
        with self._counting:
            if now < self.renewals.get(full, 0):
                return False
            if len(self.renewals) >= _MOST_RENEWALS:
                for each, until in list(self.renewals.items()):
                    if until <= now:
                        del self.renewals[each]
            self.renewals[full] = NEVER
        return True

    def give_back(self, full: bytes) -> None:
        """Let the next hit refresh a value."""
        self.renewals.pop(full, None)

    def cool_down(self, full: bytes, until: int) -> None:
        """Let no hit refresh a value before `until`, in nanoseconds."""
        self.renewals[full] = until

    def renew(
        self, call: State, miss: Miss, deadline: int, flight: Any, is_listed: Callable[[], bool]
    ) -> Steps:
        """Run a call whose value is to be renewed and store it, unless another process does.

        The arguments are those of `run`.

        Returns:
            The value, `Raised`, or `ELSEWHERE`.
        """
        key = miss.key
        token = token_hex(8)
        try:
            try:
                claim = yield from self.begin(call, key, miss.found, deadline, token)
                if not claim.held:
                    return ELSEWHERE
                found = yield from self.look(key)  # another process may just have done it
            except Unavailable:
                return ELSEWHERE
            if found is None or not self.is_early(found, call.clock):
                return ELSEWHERE  # or it was invalidated since the hit
            call.add("refreshes", 1)
            begun = monotonic()
            self.relied_on[flight] = Lease(token, begun)
            outcome = yield RUN, call, (miss.args, miss.kwargs, deadline, flight, True)
            if type(outcome) is Raised:
                return outcome
            once_only.check(call.name, outcome)
            if is_listed():
                yield from self.finish(call, key, token, outcome, monotonic() - begun)
            return outcome
        finally:
            self.relied_on.pop(flight, None)
            flight = None  # it refers to the error, whose traceback refers to this frame
            renewer.abandon(token)

    # --- steps ----------------------------------------------------------------------------------

    def look(self, key: StoredKey) -> Steps:
        """Look for an entry; return it, or None."""
        data = yield ASK, self, "get", (key.name,)
        return self.open_signed(key, data)

    def run(
        self, call: State, miss: Miss, deadline: int, flight: Any, is_listed: Callable[[], bool]
    ) -> Steps:
        """Run a call whose value is missing and store it, unless another process does.

        Args:
            call: The decorated function.
            miss: The call.
            deadline: When the call must be over, in nanoseconds.
            flight: The flight for which it runs; for tasks, it gives the deadline instead.
            is_listed: Returns whether the key has not been invalidated meanwhile.

        Returns:
            The value, `Known` or `Raised`.
        """
        key = miss.key
        token = token_hex(8)
        claim = Claim(None, False, miss.found)
        try:
            begun = monotonic()
            if miss.reachable:
                try:
                    claim = yield from self.begin(call, key, miss.found, deadline, token)
                    if claim.known is not None:
                        return claim.known
                    begun = monotonic()
                    self.relied_on[flight] = Lease(token, begun)
                except Unavailable:
                    pass
            spare = claim.stale is not None
            outcome = yield RUN, call, (miss.args, miss.kwargs, deadline, flight, spare)
            if type(outcome) is Raised:
                stale = yield from self.serve_stale(call, key, claim.stale, outcome.error)
                return outcome if stale is None else stale.value
            once_only.check(call.name, outcome)
            if claim.held and is_listed():
                yield from self.finish(call, key, token, outcome, monotonic() - begun)
            return outcome
        finally:
            self.relied_on.pop(flight, None)
            flight = None  # it refers to the error, whose traceback refers to this frame
            renewer.abandon(token)

    def may_join(self, key: StoredKey, flight: Any, since: float) -> Steps:
        """Return whether a caller who has found no value may join a run under way.

        Another process may have invalidated the value since the run began: then the run has lost
        its lease, and later callers must not get its value.

        Args:
            key: The key of the missing value.
            flight: The flight of the run.
            since: When the call began, in seconds of the machine's clock.
        """
        lease = self.relied_on.get(flight)
        if lease is None or lease.since >= since:  # it waits, or the store was out of reach
            return True
        try:
            mark = yield ASK, self, "holder", (key.name,)
        except Unavailable:
            return True
        return mark is not None and leases.is_held(lease.token, mark)

    def begin(
        self, call: State, key: StoredKey, found: Signed | None, deadline: int, token: str
    ) -> Steps:
        """Take the lease to run the call, or wait for the process that has it.

        If that process fails, all who have waited run the call immediately, and one of them stores
        the value.

        Args:
            call: The decorated function.
            key: The key of the missing value.
            found: An outdated entry, or one to refresh; None if there is none.
            deadline: When the call must be over, in nanoseconds.
            token: The token of our lease. The renewer renews the lease as soon as we have it, so
                the caller must give it back with `abandon`, whatever happens.

        Returns:
            A `Claim`.
        """
        stale = found if found is not None and self.is_usable(found, call.clock) else None
        watch: leases.LeaseWatch | None = None
        lease = key.name, token, leases.SECONDS
        asking = True
        try:
            while True:
                if stale is None:
                    asked = monotonic()
                    data, mark = yield ASK, self, "get_and_take", lease
                    entry = self.open_signed(key, data)
                    if entry is not None and self.is_fresh(entry, call.clock):
                        asking = False
                        return Claim(Known(entry.value, asked), False, None)
                    if data is not None:  # it exists but must not be used
                        mark = yield ASK, self, "take", lease
                else:
                    mark = yield ASK, self, "take", lease
                asking = mark is None
                if mark is None:
                    break
                if stale is not None:
                    age = self.wall(call.clock) - self.end(stale)
                    if age >= 0:
                        self._count("stale")
                        call.events.stale(call, age, None)
                    return Claim(Known(stale.value, None), False, None)
                if watch is None:
                    watch = leases.LeaseWatch(mark)
                watch.look(mark)
                if watch.has_failed:
                    return Claim(None, False, None)
                if watch.is_dead:
                    asking = True
                    if (yield ASK, self, "seize", (*lease, mark)):
                        break
                if deadline != NEVER and call.clock.now() >= deadline:
                    raise too_late(call, None, "another process's run of it was still under way")
                try:
                    yield SLEEP, _REAL, int(watch.pause * 1e9)
                except Exception as error:  # noqa: BLE001 - the caller gets any error
                    raise Thrown(error) from None
                asking = True
            renewer.hold(self.store.operations, key.name, token)
            asking = False
        finally:
            if asking:  # interrupted while the answer was on its way: the lease may be ours
                renewer.give_back(self.store.operations, key.name, token)
        return Claim(None, True, stale)

    def finish(self, call: State, key: StoredKey, token: str, value: Any, took: float) -> Steps:
        """Store what a run has returned, if the store works, and give its lease back.

        Args:
            call: The decorated function.
            key: The value's key.
            token: The token of our lease.
            value: What the function returned.
            took: How long the run took, in seconds.
        """
        try:
            data = self.signed(key, value, call.clock, took)
            if data is None:
                return
            mark = renewer.let_go(token)
            yield ASK, self, "settle", (key.name, token, data, self.lifetime(), mark)
        except TooLarge:
            renewer.give_back(self.store.operations, key.name, token)
        except Unavailable:
            pass  # the caller gets the value all the same
        except (Thrown, KeyboardInterrupt, SystemExit):  # a cancelled write may still be stored
            renewer.give_back(self.store.operations, key.name, token)
            raise

    def serve_stale(
        self, call: State, key: StoredKey, held: Signed | None, error: BaseException
    ) -> Steps:
        """Return the outdated entry to serve for a failed run, and report it; else None.

        The store is asked again, as any process may have cleared the value since the run began. If
        the store cannot answer, the entry from then is served, as in any outage.

        Args:
            call: The decorated function.
            key: The key of the missing value.
            held: The entry in the store when the run began; None if there was none.
            error: What the run raised.
        """
        if held is None or not self.stands_in(call, held, error):
            return None
        try:
            stale = yield from self.look(key)
        except Unavailable:
            stale = held
        if stale is None or not self.stands_in(call, stale, error):
            return None
        self.served_stale(call, stale, error)
        return stale

    def stands_in(self, call: State, stale: Signed, error: BaseException) -> bool:
        """Return whether an outdated value may be served for a failed run."""
        if not isinstance(error, Exception) or is_never_failure(error):
            return False
        return self.is_usable(stale, call.clock)

    def served_stale(self, call: State, stale: Signed, error: BaseException | None) -> None:
        """Count an outdated value that is served, and report it."""
        self._count("stale")
        call.events.stale(call, max(0.0, self.wall(call.clock) - self.end(stale)), error)

    # --- operations, in a thread ----------------------------------------------------------------

    def admit(self, operation: str) -> int:
        """Let an operation begin, unless the store does not work.

        Returns:
            The ticket for `worked` and `failed`.

        Raises:
            Unavailable: If the store does not work.
        """
        ticket = self.store.outage.enter(operation not in _READING)
        if not ticket:
            self._count("store_failures")
            raise Unavailable
        return ticket

    def worked(self, operation: str, ticket: int) -> None:
        """Note that an operation of the store succeeded."""
        self.store.outage.leave(ticket, operation not in _READING)

    def failed(
        self, operation: str, ticket: int, error: Exception, outer: BaseException | None
    ) -> Unavailable | Thrown:
        """Note that an operation of the store failed, and return the exception to raise.

        A `ValueError` means only that the value is too large: the store works. So it does if the
        stack was too deep to use it, or if the error was thrown in from outside.

        Args:
            operation: The operation.
            ticket: What `admit` returned.
            error: What the operation has raised.
            outer: The exception being handled before.
        """
        thrown = thrown_in(error, outer)
        if thrown is not None:
            return Thrown(thrown)
        self._count("store_failures")
        if isinstance(error, RecursionError):
            return Unavailable()
        if isinstance(error, ValueError):
            self._warn("a value is not stored; such calls run the function again", str(error))
            return TooLarge()
        self.store.outage.leave(ticket, operation not in _READING, error)
        return Unavailable()

    def ask(self, operation: str, *arguments: Any) -> Any:
        """Run an operation of the store, in this thread.

        Raises:
            Unavailable: If the store does not work.
            Thrown: With what a signal handler or the like has raised meanwhile.
        """
        ticket = self.admit(operation)
        outer = sys.exc_info()[1]
        try:
            answer = getattr(self.store.operations, operation)(*arguments)
        except Exception as error:  # noqa: BLE001 - the store's library may raise anything
            raise self.failed(operation, ticket, error, outer) from None
        finally:
            outer = None  # its traceback may hold this frame
        self.worked(operation, ticket)
        return answer

    @unwrapped
    def find_many(self, keys: list[StoredKey], held: Sequence[Signed] = ()) -> list[Signed | None]:
        """Look for many entries in one operation; None for each that does not exist.

        Args:
            keys: Their keys.
            held: What to return for each if the store cannot be reached; None for each by default.
        """
        try:
            found = self.ask("get_many", [key.name for key in keys])
        except Unavailable:
            return list(held) or [None] * len(keys)
        return [self.open_signed(key, data) for key, data in zip(keys, found, strict=True)]

    @unwrapped
    def put_many(self, pairs: list[tuple[StoredKey, Any]], clock: Clock) -> None:
        """Store many values in one operation, as far as they can be stored.

        Args:
            pairs: Keys and values.
            clock: Gives the time.
        """
        entries = [(key.name, self.signed(key, value, clock, 0.0)) for key, value in pairs]
        whole = [(name, data) for name, data in entries if data is not None]
        if not whole:
            return
        try:
            self.ask("put_many", whole, self.lifetime())
        except TooLarge:
            for name, data in whole:
                try:
                    self.ask("put", name, data, self.lifetime())
                except Unavailable:
                    continue
        except Unavailable:
            pass

    # --- counting and clearing ------------------------------------------------------------------

    @unwrapped
    def count(self) -> int:
        """Return the number of entries; 0 if the store cannot be reached."""
        try:
            return int(self.ask("count", self.prefix))
        except Unavailable:
            return 0

    def clear(self) -> None:
        """Clear every value; runs now under way, in any process, will not be stored either.

        Raises:
            OperoError: If the store cannot be reached.
        """
        self.ground(None)
        self._insist("clear", self.prefix)
        self.ground(None)  # one that has begun meanwhile may have found an old value

    def invalidate(self, call: State, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Clear the value of one call; return whether there was one.

        Raises:
            OperoError: If the store cannot be reached.
        """
        return self.forget(self.key(call, args, kwargs))

    def forget(self, key: StoredKey) -> bool:
        """Clear the value of a key; return whether there was one.

        Raises:
            OperoError: If the store cannot be reached.
        """
        self.ground(key.full)
        dropped = bool(self._insist("delete", key.name))
        self.ground(key.full)  # one that has begun meanwhile may have found the old value
        return dropped

    def clear_namespace(self) -> None:
        """Clear what all functions have stored in the namespace, those of other programs too.

        Raises:
            OperoError: If the store cannot be reached.
        """
        self._insist("clear", self.canonical.prefix(self.namespace))

    @unwrapped
    def _insist(self, operation: str, name: str) -> Any:
        """Run an operation that must happen, even in an outage."""
        outer = sys.exc_info()[1]
        try:
            answer = getattr(self.store.operations, operation)(name)
        except Exception as error:
            failure = self.failed(operation, 0, error, outer)
            if isinstance(failure, Thrown):
                raise failure from None
            raise OperoError(
                f"{self.name}: {self.store.what} cannot be reached ({type(error).__name__}), so "
                f"nothing was cleared"
            ) from error
        finally:
            outer = None
        self.worked(operation, 0)
        return answer

    def ground(self, full: bytes | None) -> None:
        """Keep the run of one key, or of all keys (None), from being joined or stored."""
        raise NotImplementedError

"""The progress of a map: a tqdm bar, lines in the log, or a user's function.

The driver may report progress as often as it likes. This module throttles what it shows, and the
final figures are exact however the map ends.
"""

from __future__ import annotations

import sys
import threading
import warnings
from collections.abc import Callable
from importlib import import_module
from typing import Any, NamedTuple, Self

from opero.locks import Lock
from opero.logs import inform, make_room, take_room
from opero.real_time import monotonic

from .interrupts import ctrl_c_later

INTERVAL = 0.1
"""The least time between two updates, in seconds."""
LOG_INTERVAL = 30.0
"""Seconds between two lines of the log."""


class Progress(NamedTuple):
    """The progress of a map, as a function passed as `progress=` gets it.

    Attributes:
        done: How many items have their final result, including failed ones.
        failed: How many of them failed for good.
        retried: How many attempts followed a failed one.
        total: How many items there are; None if the input has no length.
        elapsed: Seconds since the map began.
    """

    done: int
    failed: int
    retried: int
    total: int | None
    elapsed: float


class Bar:
    """The base class, which shows nothing.

    Attributes:
        total: How many items there are; None if unknown.
        whole: Whether the input was read to its end and every item ran.
    """

    def __init__(self, total: int | None) -> None:
        """Begin.

        Args:
            total: How many items there are; None if that is unknown.
        """
        self.total = total
        self._began = monotonic()
        self._next = self._began + INTERVAL
        self._figures = (0, 0, 0)
        self._shown: tuple[int, int, int] | None = None
        self._open = True
        self.whole: bool = False

    def update(self, done: int, failed: int, retried: int) -> None:
        """Record the progress, and show it if enough time has passed.

        Args:
            done: How many items have their final result.
            failed: How many of them are failures.
            retried: How many attempts followed a failed one.
        """
        self._figures = (done, failed, retried)
        now = monotonic()
        if now >= self._next:
            self._next = now + INTERVAL
            self._tell()

    def close(self) -> None:
        """Show the final progress, and leave a clean line; a second call does nothing."""
        if self._open:
            self._open = False
            try:
                if self._shown != self._figures:
                    self._show(self._figures)
            finally:
                self._leave()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _tell(self) -> None:
        if not self._open:
            return
        try:
            self._show(self._figures)
        except BaseException:
            self._open = False  # after an error, do not report the end either
            self._leave()
            raise
        self._shown = self._figures

    def _show(self, figures: tuple[int, int, int]) -> None:
        """Show the progress."""

    def _leave(self) -> None:
        """Leave a clean line."""


class Silent(Bar):
    """No progress, at no cost."""

    def update(self, done: int, failed: int, retried: int) -> None:
        """Do nothing."""


class Told(Bar):
    """Progress that a user's function gets."""

    def __init__(self, total: int | None, tell: Callable[[Progress], object]) -> None:
        """Keep the function; do not call it yet.

        Args:
            total: How many items there are; None if that is unknown.
            tell: The function; the map raises what it raises.
        """
        super().__init__(total)
        self._function = tell

    def _show(self, figures: tuple[int, int, int]) -> None:
        self._function(Progress(*figures, self.total, monotonic() - self._began))


class Logged(Bar):
    """Lines in the log: one every 30 seconds, even while no item ends, and one at the end."""

    def __init__(self, total: int | None, name: str) -> None:
        """Write nothing yet.

        Args:
            total: How many items there are; None if that is unknown.
            name: The name of the map.
        """
        super().__init__(total)
        self._name = name
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._write, name="opero-map-progress", daemon=True)

    def __enter__(self) -> Self:
        try:
            with ctrl_c_later():
                self._thread.start()
        except BaseException:
            self._over.set()
            raise
        return self

    def update(self, done: int, failed: int, retried: int) -> None:
        """Record the progress."""
        self._figures = (done, failed, retried)

    def _write(self) -> None:
        """Write a line now and then; the thread runs this."""
        while not self._over.wait(LOG_INTERVAL):
            done, *_ = self._figures
            elapsed = monotonic() - self._began
            left = ""
            if self.total and 0 < done <= self.total:
                rest = elapsed / done * (self.total - done)
                left = f"; about {_duration(rest)} left"
            inform("%s: %s after %s%s", self._name, self._state(), _duration(elapsed), left)

    def _state(self) -> str:
        done, failed, retried = self._figures
        known = f" of {self.total}" if self.total is not None and self.total >= done else ""
        share = f" ({100 * done // self.total}%)" if known and self.total else ""
        return f"{done}{known} items done{share}, {failed} of them failed, {_retries(retried)}"

    def _end(self) -> str:
        done, failed, retried = self._figures
        total = done
        early = ""
        if self.total is not None and self.total > done:
            if self.whole:
                early = f"; the input ended early: {done} items, but total={self.total}"
            else:
                total = self.total
        good = f"{done - failed} of {total} items succeeded"
        return f"{good}, {failed} failed, {_retries(retried)}{early}"

    def _leave(self) -> None:
        self._over.set()
        if self._thread.ident is not None:
            self._thread.join()
        elapsed = _duration(monotonic() - self._began)
        what = "finished in" if self.whole else "stopped early after"
        inform("%s: %s %s: %s", self._name, what, elapsed, self._end())


def _retries(count: int) -> str:
    return f"{count} {'retry' if count == 1 else 'retries'}"


def _duration(seconds: float) -> str:
    """Return a duration for people."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 120:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min"


class Drawn(Bar):
    """A tqdm bar that makes room for lines of opero's log."""

    def __init__(self, total: int | None, name: str) -> None:
        """Draw it.

        Args:
            total: How many items there are; None if that is unknown.
            name: The name of the bar.
        """
        super().__init__(total)
        self._bar = _tqdm()(
            total=total, desc=name, mininterval=0, miniters=0, dynamic_ncols=True, delay=1e-9
        )
        self._bar.delay = 0  # it only kept tqdm from drawing before there was room
        self._turn = Lock()  # reentrant: a signal handler may write to the log
        self._hidden = 0
        make_room(self)
        with self._turn:
            if not self._hidden:
                self._bar.refresh()

    def hide(self) -> None:
        """Clear the line."""
        with self._turn:
            self._hidden += 1
            if self._hidden == 1 and not self._bar.disable:
                self._bar.clear()

    def show(self) -> None:
        """Draw it again below the written line."""
        with self._turn:
            self._hidden -= 1
            if not (self._hidden or self._bar.disable):
                self._bar.refresh()

    def _show(self, figures: tuple[int, int, int]) -> None:
        done, failed, retried = figures
        with self._turn:
            self._bar.set_postfix_str(f"failed={failed}, retried={retried}", refresh=False)
            if self._hidden:
                self._bar.n = done
            else:
                self._bar.update(done - self._bar.n)

    def _leave(self) -> None:
        with self._turn:
            self._bar.close()
        take_room(self)


def _tqdm() -> Any:
    """Return tqdm's bar for a terminal or a notebook, without its side effects.

    Those are a monitor thread; a lock of `multiprocessing`, which fixes the start method; and, in a
    notebook without widgets, where the bar is text, the advice to install them.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="IProgress not found")
        place = "tqdm.auto" if "IPython" in sys.modules else "tqdm.std"
        tqdm: Any = import_module(place).tqdm
    lock = getattr(tqdm, "_lock", None) or threading.RLock()
    return type("Tqdm", (tqdm,), {"monitor_interval": 0, "_lock": lock})


def is_shown() -> bool:
    """Return whether a bar would be visible: in a terminal or a notebook."""
    try:
        if sys.stderr.isatty():
            return True
    except (AttributeError, ValueError):  # stderr is missing or closed
        pass
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return getattr(shell, "kernel", None) is not None


def open(  # noqa: A001 - read as `progress.open`
    progress: bool | str | Callable[[Progress], object], total: int | None, name: str
) -> Bar:
    """Begin to show the progress of a map.

    Args:
        progress: True for a bar, where it is visible; "log" for lines in the log; or a function to
            call with a `Progress` at most ten times a second, and once at the end.
        total: How many items there are; None if unknown.
        name: The name of the bar.

    Returns:
        A context manager that the driver reports progress to.
    """
    if callable(progress):
        return Told(total, progress)
    if progress == "log":
        return Logged(total, name)
    if progress and is_shown():
        return Drawn(total, name)
    return Silent(total)

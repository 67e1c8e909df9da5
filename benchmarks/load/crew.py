"""Processes that call, that are killed and replaced, and that say what has happened."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import threading
import time
from array import array
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from .calls import READY

_ROOT = Path(__file__).parents[2]


@dataclass
class Heard:
    """What all processes have said.

    Attributes:
        hits: Microseconds of each call that another run has answered, waiting for it included.
        misses: Microseconds of each call that ran the function.
        wrong: Calls whose value was another than it should be.
        errors: What calls have raised.
        longest: Seconds that the longest call took, or has taken so far.
        rejected: Entries that were not taken, of the processes that lived to say so.
        outages: Times the store could not be used, of the same.
        killed: Processes that were killed.
        died: What those have printed that ended by themselves.
        hung: Processes that did not end when they were told to.
    """

    hits: array[int] = field(default_factory=lambda: array("q"))
    misses: array[int] = field(default_factory=lambda: array("q"))
    wrong: int = 0
    errors: list[str] = field(default_factory=list)
    longest: float = 0.0
    rejected: int = 0
    outages: int = 0
    killed: int = 0
    died: list[str] = field(default_factory=list)
    hung: int = 0


class _Member:
    """One process, and the thread that hears it."""

    def __init__(self, options: str, heard: Heard, lock: threading.Lock) -> None:
        self.process: subprocess.Popen[str] = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.load.calls", options],
            cwd=_ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._heard = heard
        self._lock = lock
        self._counts = {"rejected": 0, "outages": 0}
        self._threads = [
            threading.Thread(target=self._hear, daemon=True),
            threading.Thread(target=self._keep, daemon=True),
        ]
        self.said = ""
        self.ready = threading.Event()
        for thread in self._threads:
            thread.start()

    def begin(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("begin\n")
        self.process.stdin.flush()

    def end(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()

    def gone(self) -> None:
        """Hear the rest of what it has said."""
        self.process.wait()
        for thread in self._threads:
            thread.join()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            assert pipe is not None
            pipe.close()

    def _keep(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.said = (self.said + line)[-4000:]

    def _hear(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.strip() == READY:
                self.ready.set()
                continue
            try:
                told: dict[str, Any] = json.loads(line)
            except ValueError:  # it was killed while it wrote the line
                return
            heard = self._heard
            with self._lock:
                heard.hits.extend(told["hits"])
                heard.misses.extend(told["misses"])
                heard.wrong += told["wrong"]
                heard.errors += told["errors"]
                longest = max([*told["hits"], *told["misses"], 0]) / 1e6
                heard.longest = max(heard.longest, longest, told["oldest"])
                for name, before in self._counts.items():
                    setattr(heard, name, getattr(heard, name) + told[name] - before)
                    self._counts[name] = told[name]


class Crew:
    """As many processes as were asked for, whatever becomes of them.

    A context manager: at its end none is left.

    Attributes:
        heard: What they have said.
    """

    def __init__(self, count: int, options: dict[str, Any]) -> None:
        """Start them; they wait for `begin`.

        Args:
            count: How many.
            options: What `calls` takes.
        """
        self.heard = Heard()
        self._lock = threading.Lock()
        self._options = json.dumps(options)
        self._members = [self._new() for _ in range(count)]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for member in self._members:
            member.process.kill()
            member.gone()

    def begin(self) -> None:
        """Have all begin to call, when all are ready."""
        for member in self._members:
            while not member.ready.wait(0.1) and member.process.poll() is None:
                pass
        for member in self._members:
            member.begin()

    def kill_one(self) -> None:
        """Kill one, as the kernel does when memory is short, and start another in its place."""
        place = random.randrange(len(self._members))
        self._members[place].process.kill()
        self._bury(place, killed=True)

    def replace_dead(self) -> None:
        """Start others in the place of those that have ended by themselves."""
        for place, member in enumerate(self._members):
            if member.process.poll() is not None:
                self._bury(place, killed=False)

    def end(self, patience: float) -> None:
        """Have all end; one that takes longer than that hangs."""
        for member in self._members:
            member.end()
        end = time.monotonic() + patience
        for member in self._members:
            try:
                code = member.process.wait(max(0.0, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                self.heard.hung += 1
                continue
            if code:
                self.heard.died.append(member.said)

    def _bury(self, place: int, *, killed: bool) -> None:
        member = self._members[place]
        member.gone()
        if killed:
            self.heard.killed += 1
        else:
            self.heard.died.append(member.said or "nothing")
        self._members[place] = self._new()
        self._members[place].begin()

    def _new(self) -> _Member:
        return _Member(self._options, self.heard, self._lock)

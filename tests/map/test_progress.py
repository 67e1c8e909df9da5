"""Progress: a bar in a real pseudo-terminal, silence elsewhere, and functions that are told."""

from __future__ import annotations

import io
import itertools
import os
import re
import subprocess
import sys
import textwrap
import threading
import time
from types import SimpleNamespace

import pytest
from crowd import PATIENCE

from opero import opmap
from opero.map import progress
from opero.map.progress import Progress

pytestmark = pytest.mark.once

BEGIN = "import sys, time\nfrom opero.map import progress\n"


def in_terminal(code: str, columns: int = 120) -> tuple[str, int]:
    """Run a program whose stderr is a pseudo-terminal; return its output and exit code."""
    pty = pytest.importorskip("pty", reason="this system has no pseudo-terminals")
    import fcntl
    import struct
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    program = subprocess.Popen(
        [sys.executable, "-c", BEGIN + textwrap.dedent(code)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=theirs,
    )
    os.close(theirs)
    written = b""
    try:
        while chunk := os.read(ours, 65536):
            written += chunk
    except OSError:  # the other end is closed
        pass
    finally:
        os.close(ours)
        code_of_exit = program.wait(PATIENCE)
    return written.decode(), code_of_exit


def lines_of(written: str) -> list[str]:
    """Return what stays visible on each line of a terminal, after carriage returns."""
    lines = []
    for line in written.replace("\r\n", "\n").split("\n"):
        shown = ""
        for part in re.sub(r"\x1b\[\w", "", line).split("\r"):
            shown = part + shown[len(part) :]
        lines.append(shown.rstrip())
    return lines


# --- the bar ------------------------------------------------------------------------------------------


def test_a_terminal_shows_a_bar_that_ends_exact():
    """That holds if updates were skipped, and if items fail."""
    written, code = in_terminal(
        """
        with progress.open(True, 5000, "work") as bar:
            for done in range(1, 5001):
                bar.update(done, done // 100, done // 50)
                if done % 1000 == 0:
                    time.sleep(0.11)
        """
    )
    assert code == 0, written
    *_, last, after = lines_of(written)
    assert "work: 100%" in last
    assert "5000/5000" in last
    assert "failed=50, retried=100" in last
    assert after == ""
    assert 3 <= written.count("\r") <= 20


def test_an_unknown_length_is_counted():
    """The bar shows no percentage, and its final number is exact."""
    written, code = in_terminal(
        """
        with progress.open(True, None, "work") as bar:
            for done in range(1, 1235):
                bar.update(done, 0, 7)
        """
    )
    assert code == 0, written
    *_, last, after = lines_of(written)
    assert last.startswith("work: 1234it")
    assert "failed=0, retried=7" in last
    assert "%" not in last
    assert after == ""


@pytest.mark.parametrize("error", ["KeyboardInterrupt", "ValueError"])
def test_an_interrupted_map_leaves_a_clean_line(error):
    """The traceback begins on its own line, below the bar."""
    written, code = in_terminal(
        f"""
        with progress.open(True, 100, "work") as bar:
            bar.update(42, 1, 2)
            raise {error}("stop")
        """
    )
    assert code != 0
    lines = lines_of(written)
    (bar,) = [line for line in lines if "work" in line and "%|" in line]
    assert "42/100" in bar
    assert lines[lines.index(bar) + 1] == "Traceback (most recent call last):"


def test_a_signal_in_the_middle_leaves_a_clean_line():
    """SIGINT may come while tqdm draws."""
    written, code = in_terminal(
        """
        import os, signal, threading
        progress.INTERVAL = 0
        done = 0
        with progress.open(True, 10**9, "work") as bar:
            threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
            while True:
                done += 1
                bar.update(done, 0, 0)
        """
    )
    assert code != 0
    lines = lines_of(written)
    begins = [place for place, line in enumerate(lines) if "Traceback" in line]
    assert begins
    assert all(lines[place].startswith("Traceback") for place in begins)
    assert "KeyboardInterrupt" in lines[-2]


def test_a_bar_leaves_no_thread_and_fixes_no_start_method():
    """The library tqdm would start a monitor thread, and make a lock of `multiprocessing`."""
    written, code = in_terminal(
        """
        import threading, multiprocessing
        with progress.open(True, 10, "work") as bar:
            bar.update(10, 0, 0)
        assert threading.active_count() == 1, threading.enumerate()
        assert multiprocessing.get_start_method(allow_none=True) is None
        """
    )
    assert code == 0, written


def test_two_bars_one_after_the_other_stand_on_lines_of_their_own():
    """A closed bar gives its place back."""
    written, code = in_terminal(
        """
        for name in ["one", "two"]:
            with progress.open(True, 10, name) as bar:
                bar.update(10, 0, 0)
        """
    )
    assert code == 0, written
    one, two, after = lines_of(written)
    assert one.startswith("one: 100%")
    assert two.startswith("two: 100%")
    assert after == ""


# --- whole maps -----------------------------------------------------------------------------------------

MAP = """
import asyncio, os, signal, threading
from opero import opmap
OPTIONS = {"workers": 2, "retries": 2, "min_delay": 0.001, "max_delay": 0.001}
def work(x, boss=None):
    if x == "die": os._exit(5)
    if x == "interrupt": os.kill(boss, signal.SIGINT)
    if x == "wait": time.sleep(0.5)
    if x in range(3, 1000, 10): raise ValueError(x)
    return x
async def awork(x, boss=None):
    if x == "wait": await asyncio.sleep(60)
    return work(x, boss)
"""


@pytest.mark.parametrize(
    ("mode", "form"),
    [
        ("thread", "mapped(range(50))"),
        ("process", "mapped(iter(range(50)))"),
        ("async", "list(mapped.stream(range(50)))"),
        ("async", "asyncio.run(mapped.amap(x for x in range(50)))"),
        ("async_process", "mapped(range(50))"),
    ],
)
def test_the_bar_of_a_map_is_exact_though_items_fail(mode, form):
    """That holds in every mode and form, for known and unknown lengths."""
    function = "awork" if "async" in mode else "work"
    written, code = in_terminal(
        f"{MAP}\nmapped = opmap(mode={mode!r}, **OPTIONS)({function})\n{form}"
    )
    assert code == 0, written
    *_, last, after = lines_of(written)
    assert "failed=5, retried=5" in last
    assert ("50/50" in last) == (
        "range(50))" in form and "iter" not in form and " for " not in form
    )
    assert "50/50" in last or "50it" in last
    assert after == ""


def test_the_bar_of_a_map_counts_dead_workers_and_cached_items():
    """A death is a failed attempt, and a cache hit is done."""
    written, code = in_terminal(
        MAP
        + "mapped = opmap(mode='process', cache=True, **OPTIONS)(work)\n"
        + "mapped([*range(0, 100, 10), 'die', *range(1, 100, 10), 0, 10, 20])\n"
        + "mapped(range(0, 100, 10))\n"
    )
    assert code == 0, written
    *_, first, second, after = lines_of(written)
    assert "24/24" in first
    assert "23/23" in first or "failed=1, retried=1" in first
    assert "10/10" in second
    assert "failed=0, retried=0" in second
    assert after == ""


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["thread", "process", "async", "async_process"])
def test_an_interrupted_map_says_how_far_it_came_and_leaves_a_clean_line(mode):
    """By a signal, while an item runs; it is one that the first ones did not have to wait for."""
    function = "awork" if "async" in mode else "work"
    written, code = in_terminal(
        MAP
        + "items = [*range(4, 10), 'interrupt', *range(14, 20), *['wait'] * 4]\n"
        + f"opmap(mode={mode!r}, chunk_size=1, **OPTIONS)({function})(items, boss=os.getpid())\n"
    )
    assert code != 0, written
    lines = lines_of(written)
    (bar,) = [line for line in lines if line.startswith(function)]
    done = re.search(r"(\d+)/17", bar)
    assert done is not None
    assert int(done[1]) >= 4
    assert "failed=0, retried=0" in bar
    assert lines[lines.index(bar) + 1] == "Traceback (most recent call last):"
    assert "KeyboardInterrupt" in lines[-2]


# --- lines of the log beside the bar ----------------------------------------------------------------

LOGGED = """
import logging
from opero import configure_logging, get_logger
configure_logging(format="%(levelname)s %(message)s")
"""


def whole_lines(written: str, begins: str) -> list[str]:
    """Return the lines of the log, and check that each is on its own line."""
    lines = lines_of(written)
    found = [line for line in lines if begins in line]
    assert all(line.startswith(begins) for line in found), written
    assert not any("|" in line for line in found), written
    return found


@pytest.mark.parametrize("handler", ["opero's", "the root's", "both of them"])
def test_lines_of_the_log_stand_above_the_bar(handler):
    """That holds for any handler; the bar is drawn again below."""
    prelude = "" if handler == "the root's" else LOGGED
    if handler != "opero's":
        prelude += "import logging\nlogging.basicConfig(format='%(levelname)s %(message)s')\n"
    written, code = in_terminal(
        prelude
        + textwrap.dedent(
            """
            from opero import get_logger
            from opero.logs import warn
            with progress.open(True, 1000, "work") as bar:
                for done in range(1, 1001):
                    bar.update(done, 0, 0)
                    if done % 100 == 0:
                        warn("line %d of the log", done)
                        time.sleep(0.03)
            """
        )
    )
    assert code == 0, written
    numbers = [f"WARNING line {number} of the log" for number in range(100, 1001, 100)]
    twice = handler == "both of them"
    assert whole_lines(written, "WARNING") == sorted(numbers * (1 + twice), key=numbers.index)
    *_, last, after = lines_of(written)
    assert "work: 100%" in last
    assert "1000/1000" in last
    assert after == ""


@pytest.mark.parametrize("mode", ["thread", "process", "async"])
def test_retries_of_a_map_do_not_break_its_bar(mode):
    """Each is logged on a line of its own."""
    function = "awork" if "async" in mode else "work"
    written, code = in_terminal(
        f"{LOGGED}{MAP}\nprogress.INTERVAL = 0\n"
        f"mapped = opmap(mode={mode!r}, **OPTIONS)({function})\nmapped(range(50))"
    )
    assert code == 0, written
    assert len(whole_lines(written, "WARNING")) == 10
    *_, last, after = lines_of(written)
    assert "failed=5, retried=5" in last
    assert after == ""


def test_lines_that_workers_and_other_threads_log_do_not_break_the_bar():
    """A worker's lines go through the parent; threads draw and log at the same time."""
    written, code = in_terminal(
        LOGGED
        + """
import threading
from opero import opmap
from opero.logs import warn
progress.INTERVAL = 0
def work(x):
    get_logger("far").warning("item %d", x)
    return x
def chatter():
    for number in range(40):
        warn("thread %d", number)
        time.sleep(0.002)
threads = [threading.Thread(target=chatter) for _ in range(2)]
for thread in threads: thread.start()
opmap(mode="process", workers=2)(work)(range(20))
for thread in threads: thread.join()
"""
    )
    assert code == 0, written
    lines = whole_lines(written, "WARNING")
    assert sorted(lines) == sorted(
        [f"WARNING item {x}" for x in range(20)] + 2 * [f"WARNING thread {x}" for x in range(40)]
    )


def test_a_signal_that_logs_while_a_bar_is_drawn_ends_nothing():
    """Its handler may interrupt anything."""
    written, code = in_terminal(
        LOGGED
        + """
import signal
from opero.logs import warn
progress.INTERVAL = 0
signal.signal(signal.SIGALRM, lambda *_: warn("a signal"))
signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
with progress.open(True, 3000, "work") as bar:
    for done in range(3000):
        bar.update(done, 0, 0)
signal.setitimer(signal.ITIMER_REAL, 0)
"""
    )
    assert code == 0, written
    assert "WARNING a signal" in written


def test_a_forked_child_draws_no_bar_of_its_parent():
    """It only logs."""
    written, code = in_terminal(
        LOGGED
        + """
import os
from opero.logs import warn
with progress.open(True, 10, "work") as bar:
    bar.update(5, 0, 0)
    child = os.fork()
    if not child:
        before = sys.stderr.write
        sys.stderr.write = lambda text: before(text.replace("\\r", "DRAWN"))
        warn("in the child")
        os._exit(0)
    os.waitpid(child, 0)
"""
    )
    assert code == 0, written
    assert "WARNING in the child" in written
    assert "DRAWN" not in written


# --- lines of the log in place of the bar -----------------------------------------------------------


def lines_logged(caplog):
    """Return the logged lines about progress."""
    return [record.getMessage() for record in caplog.records if " items " in record.getMessage()]


def test_progress_is_logged_now_and_then_and_at_the_end(monkeypatch, caplog):
    """It is logged even while no item ends, to show that the map runs."""
    monkeypatch.setattr(progress, "LOG_INTERVAL", 0.05)
    caplog.set_level("INFO", "opero")
    with progress.open("log", 10, "work") as bar:
        deadline = time.monotonic() + PATIENCE
        while len(lines_logged(caplog)) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        bar.update(4, 1, 2)
        while "4 of 10" not in lines_logged(caplog)[-1] and time.monotonic() < deadline:
            time.sleep(0.01)
        bar.update(10, 1, 3)
        bar.whole = True
    first, *_, between, last = lines_logged(caplog)
    assert re.fullmatch(
        r"work: 0 of 10 items done \(0%\), 0 of them failed, 0 retries after [\d.]+ s", first
    )
    assert re.fullmatch(
        r"work: 4 of 10 items done \(40%\), 1 of them failed, 2 retries after [\d.]+ s; "
        r"about [\d.]+ s left",
        between,
    )
    assert re.fullmatch(
        r"work: finished in [\d.]+ s: 9 of 10 items succeeded, 1 failed, 3 retries",
        last,
    )
    assert {record.levelname for record in caplog.records} == {"INFO"}
    assert caplog.records[-1].opero_kind is None
    assert not [each for each in threading.enumerate() if "progress" in each.name]


@pytest.mark.parametrize("mode", ["thread", "async", "process"])
def test_a_map_logs_its_end(mode, caplog):
    """The length may be unknown, or the user may give the total."""
    caplog.set_level("INFO", "opero")
    function = awork if mode == "async" else work
    opmap(mode=mode, progress="log", retries=1)(function)(iter(range(7)))
    opmap(mode=mode, progress="log", retries=1, total=7)(function)(iter(range(7)))
    opmap(mode=mode, progress="log", retries=1, total=5)(function)(iter(range(7)))
    opmap(mode=mode, progress="log", retries=1, total=5)(function)(range(7))
    opmap(mode=mode, progress="log", retries=2, min_delay=0, total=10)(function)(iter(range(7)))
    opmap(mode=mode, progress="log", retries=1, total=10)(function)(iter(()))
    state = "6 of 7 items succeeded, 1 failed,"
    early = "; the input ended early: 7 items, but total=10"
    none = (
        "0 of 0 items succeeded, 0 failed, 0 retries; the input ended early: 0 items, but total=10"
    )
    wanted = [f"{state} 0 retries"] * 4 + [f"{state} 1 retry{early}", none]
    for line, end in zip(lines_logged(caplog), wanted, strict=True):
        assert re.fullmatch(rf"a?work: finished in [\d.]+ s: {re.escape(end)}", line)


def broken():
    yield from range(3)
    raise OSError("torn")


@pytest.mark.parametrize("mode", ["thread", "async"])
def test_a_map_that_is_not_whole_says_so(mode, caplog):
    """The input, a failure, the limit of failures, or the consumer may end it."""
    caplog.set_level("INFO", "opero")
    logged = {"mode": mode, "progress": "log", "retries": 1, "workers": 1, "chunk_size": 1}
    function = awork if mode == "async" else work
    with pytest.raises(OSError, match="torn"):
        opmap(**logged)(function)(broken())
    with pytest.raises(ValueError, match="3"):
        opmap(**logged, on_error="raise")(function)(range(10))
    opmap(**logged, max_errors=1)(function)(range(2, 30))
    stream = opmap(**logged)(function).stream(range(1000))
    next(stream)
    stream.close()
    ends = [line for line in lines_logged(caplog) if "succeeded" in line]
    totals = [int(re.search(r"of (\d+) items", line)[1]) for line in ends]
    assert totals == [3, 10, 28, 1000]
    for line in ends:
        assert re.search(r"work: stopped early after [\d.]+ s: \d+ of ", line)
    assert "3 of 3 items succeeded, 0 failed, 0 retries" in ends[0]


def test_a_map_that_is_dropped_leaves_no_thread_that_logs():
    """Nor one whose progress nobody wants to read."""
    stream = opmap(mode="thread", progress="log")(work).stream(itertools.count())
    next(stream)
    assert [each for each in threading.enumerate() if each.name == "opero-map-progress"]
    stream.close()
    assert not [each for each in threading.enumerate() if each.name == "opero-map-progress"]


def work(x):
    if x == 3:
        raise ValueError(x)
    return x


async def awork(x):
    return work(x)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"),
        (9.94, "9.9 s"),
        (59.6, "60 s"),
        (119, "119 s"),
        (150, "2 min"),
        (7300, "2 h 2 min"),
    ],
)
def test_times_are_told_as_people_tell_them(seconds, text):
    """Short times have a tenth, and long ones are in hours."""
    assert progress._duration(seconds) == text


# --- the total --------------------------------------------------------------------------------------


def test_an_input_without_a_length_has_the_total_that_is_given():
    """An input with a length keeps its own."""
    told = []
    mapped = opmap(mode="thread", progress=told.append, total=9, retries=1)(work)
    mapped(iter(range(9)))
    assert told[-1].total == 9
    mapped(range(4))
    assert told[-1].total == 4
    assert mapped(iter(range(20))).complete  # it was wrong


def test_a_bar_shows_the_total():
    """It looks as if the input had a length."""
    written, code = in_terminal(
        f"{MAP}\nopmap(mode='thread', total=50, **OPTIONS)(work)(iter(range(50)))"
    )
    assert code == 0, written
    assert "50/50" in lines_of(written)[-2]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"total": -1}, "0 or more"),
        ({"total": 1.5}, "a whole number"),
        ({"total": 5, "progress": False}, "no effect with progress=False"),
        ({"progress": "logs"}, "True, False, 'log' or an ordinary function"),
        ({"progress": None}, "True, False, 'log' or an ordinary function"),
    ],
)
def test_a_wrong_total_or_progress_is_refused(given, words):
    """Decoration fails, and the error says what is allowed."""
    with pytest.raises((TypeError, ValueError), match=words):
        opmap(mode="thread", **given)(work)


# --- silence ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prelude", ["", "sys.stderr.close()", "sys.stderr = None"])
def test_without_a_terminal_nothing_is_printed_and_tqdm_stays_away(prelude):
    """A log file gets no bar."""
    code = (
        f"{prelude}\n"
        "with progress.open(True, 10, 'work') as bar: bar.update(10, 0, 0)\n"
        "assert 'tqdm' not in sys.modules\n"
        "print('done')\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", BEGIN + code],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (run.returncode, run.stdout, run.stderr) == (0, "done\n", "")


def test_no_bar_is_shown_in_a_terminal_when_none_is_asked_for():
    """The map does not import tqdm either."""
    written, code = in_terminal(
        """
        with progress.open(False, 10, "work") as bar:
            bar.update(10, 0, 0)
        assert "tqdm" not in sys.modules
        """
    )
    assert (written, code) == ("", 0)


# --- notebooks ----------------------------------------------------------------------------------------


def test_what_looks_like_a_notebook_shows_a_bar_without_a_terminal(monkeypatch):
    """The test has a shell with a kernel; `map/test_notebook.py` has the real thing."""
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    shell = SimpleNamespace(kernel=object())
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    with progress.open(True, 10, "work") as bar:
        bar.update(10, 1, 2)
    assert "10/10" in stream.getvalue()
    assert "failed=1, retried=2" in stream.getvalue()


def test_an_interactive_shell_without_a_kernel_is_no_notebook(monkeypatch):
    """IPython in a terminal follows the terminal."""
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    shell = SimpleNamespace()
    for found in [lambda: shell, lambda: None]:
        monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=found))
        assert type(progress.open(True, 10, "work")) is progress.Silent


# --- functions that are told --------------------------------------------------------------------------


def test_a_function_is_told_at_most_ten_times_a_second_and_the_end_exactly():
    """A million updates cost almost nothing."""
    told: list[Progress] = []
    begun = time.monotonic()
    with progress.open(told.append, 10**6, "work") as bar:
        for done in range(1, 10**6 + 1):
            bar.update(done, 3, 4)
    took = time.monotonic() - begun
    assert len(told) <= took / progress.INTERVAL + 1
    assert told[-1][:4] == (10**6, 3, 4, 10**6)
    assert 0 < told[-1].elapsed <= took
    assert [each.done for each in told] == sorted({each.done for each in told})


def test_a_function_is_told_once_about_a_map_of_nothing():
    """Code that waits for the end sees it."""
    told: list[Progress] = []
    with progress.open(told.append, 0, "work"):
        pass
    assert [each[:4] for each in told] == [(0, 0, 0, 0)]


def test_a_function_is_told_the_end_once(monkeypatch):
    """That holds if the last update was reported already, or close is called again."""
    monkeypatch.setattr(progress, "INTERVAL", 0)
    told: list[Progress] = []
    bar = progress.open(told.append, None, "work")
    bar.update(1, 0, 0)
    bar.update(2, 0, 0)
    bar.close()
    bar.close()
    bar.update(3, 0, 0)
    assert [(each.done, each.total) for each in told] == [(1, None), (2, None)]


def test_what_a_function_raises_comes_out_and_it_is_not_called_again(monkeypatch):
    """A user can stop a map this way."""
    monkeypatch.setattr(progress, "INTERVAL", 0)
    calls = []

    def tell(state: Progress) -> None:
        calls.append(state.done)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), progress.open(tell, 10, "work") as bar:
        bar.update(5, 0, 0)
    assert calls == [5]


def test_a_function_is_told_how_far_an_interrupted_map_came():
    """The map's error is raised unchanged."""
    told: list[Progress] = []

    def interrupted() -> None:
        with progress.open(told.append, 10, "work") as bar:
            bar.update(7, 0, 0)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [each.done for each in told] == [7]

"""Maps in a real notebook: cells that a kernel of its own runs, its messages, its interrupt."""

from __future__ import annotations

import os
import signal
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from crowd import until
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager

import opero

pytestmark = [
    pytest.mark.once,
    pytest.mark.filterwarnings("default"),  # jupyter's own are not ours to mend
    pytest.mark.skipif(sys.platform == "win32", reason="interrupts are other ones there"),
]

START = 60.0
"""Seconds that a kernel has to start, or to run a cell."""


class Notebook:
    """A kernel, and its output."""

    def __init__(self, manager: KernelManager, client: BlockingKernelClient) -> None:
        self.manager = manager
        self.client = client
        self.messages: list[dict[str, Any]] = []

    def begin(self, cell: str) -> str:
        """Send a cell; return its name."""
        self.messages.clear()
        return str(self.client.execute(textwrap.dedent(cell), allow_stdin=False))

    def end(self, name: str) -> dict[str, Any]:
        """Wait for the end of a cell; return its outcome."""
        end = time.monotonic() + START
        while True:
            message = self.client.get_iopub_msg(timeout=max(0.0, end - time.monotonic()))
            if message["parent_header"].get("msg_id") != name:
                continue
            self.messages.append(message)
            if message["content"].get("execution_state") == "idle":
                break
        while True:
            reply = self.client.get_shell_msg(timeout=max(0.0, end - time.monotonic()))
            if reply["parent_header"].get("msg_id") == name:
                content: dict[str, Any] = reply["content"]
                return content

    def run(self, cell: str) -> str:
        """Run a cell that does not fail; return what it printed."""
        reply = self.end(self.begin(cell))
        assert reply["status"] == "ok", "\n".join(reply["traceback"])
        return self.shown("stdout")

    def shown(self, stream: str) -> str:
        """Return what was written to a stream."""
        contents = [each["content"] for each in self.messages if each["msg_type"] == "stream"]
        return "".join(content["text"] for content in contents if content["name"] == stream)


@contextmanager
def new_kernel() -> Iterator[Notebook]:
    """Start a kernel of this Python, and end it after the tests."""
    root = str(Path(opero.__file__).parents[1])
    path = os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])
    manager = KernelManager()
    assert manager.kernel_spec is not None
    manager.kernel_spec.argv = [
        sys.executable,
        "-m",
        "ipykernel_launcher",
        "-f",
        "{connection_file}",
    ]
    # a compiled file knows of no second edit of the same length within a second
    written = {"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
    manager.start_kernel(env={**os.environ, **written})
    client = manager.client()
    try:
        client.start_channels()
        client.wait_for_ready(timeout=START)
        yield Notebook(manager, client)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
        client.context.destroy()


@pytest.fixture(scope="module")
def kernel() -> Iterator[Notebook]:
    with new_kernel() as notebook:
        yield notebook


@pytest.fixture
def notebook(kernel: Notebook) -> Notebook:
    kernel.run("%reset -f\nimport asyncio, os, time\nfrom opero import opmap\n")
    return kernel


@pytest.fixture(autouse=True)
def nothing_left_over(core: Any) -> None:
    """Allow the kernel to outlive a test; tests look inside it themselves."""


def is_alive(pid: int) -> bool:
    """Return whether a process exists and is not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def pids_in(folder: Path) -> set[int]:
    """Return the processes that have left a file."""
    return {int(path.name) for path in folder.iterdir()}


# --- functions of the notebook ------------------------------------------------------------------------


def test_a_function_of_a_cell_runs_in_processes_as_it_is_now(notebook):
    """A function that a later cell redefines runs in its new version, and so do its callees."""
    notebook.run(
        """
        scale = 10
        def helper(x): return x * scale
        @opmap(mode="process", workers=2, progress=False)
        def work(x, plus=0): return helper(x) + plus, os.getpid()
        first = work(range(50), plus=1)
        assert [value for value, _ in first] == [10 * x + 1 for x in range(50)]
        assert os.getpid() not in {pid for _, pid in first}
        """
    )
    notebook.run(
        """
        def helper(x): return -x * scale
        assert [value for value, _ in work(range(50))] == [-10 * x for x in range(50)]
        scale = 3
        assert [value for value, _ in work(range(50))] == [-3 * x for x in range(50)]
        """
    )
    notebook.run(
        """
        @opmap(mode="process", workers=2, progress=False)
        def work(x): return "new", x
        assert work(range(50)) == [("new", x) for x in range(50)]
        """
    )


AUTORELOADED = """\
from opero import opmap, opero

RATE = 1


class Price:
    def total(self, item):
        return item * RATE, "old"


def helper(item):
    return item, "old"


def plain(item):
    return helper(item), Price().total(item)


@opmap(mode="process", workers=1, progress=False)
def decorated(item):
    return "old", helper(item)


@opero(retries=2)
def retried(item):
    return "old", item
"""


@pytest.mark.slow
@pytest.mark.parametrize("level", ["1", "2", "2 --full", "3"])
def test_autoreload_reaches_the_workers(notebook, tmp_path, level):
    """It may reload the module, or put new code into functions, decorated ones too."""
    path = tmp_path / f"auto_{level[0]}{len(level)}.py"
    path.write_text(AUTORELOADED)
    notebook.run(
        f"""
        import sys
        sys.path.insert(0, {str(tmp_path)!r})
        %load_ext autoreload
        %autoreload {level}
        %aimport {path.stem}
        import {path.stem} as auto
        from opero import opmap
        options = dict(mode="process", workers=1, progress=False)

        def uses(item):
            return auto.plain(item), auto.retried(item)
        """
    )
    look = """
        print(opmap(**options)(auto.plain)([3])[0], opmap(**options)(uses)([3])[0])
        print(auto.decorated([3])[0], [auto.plain(3)][0], auto.retried(3))
        """
    seen = [notebook.run(look)]
    for old, new in (("old", "new"), ("RATE = 1", "RATE = 22"), ("def plain", "\n\ndef plain")):
        text = path.read_text().replace(old, new)
        path.write_text(text)
        seen.append(notebook.run(look))
    notebook.run("%autoreload off")

    def shown(kind: str, rate: int) -> str:
        plain = (3, kind), (3 * rate, kind)
        return f"{plain} {(plain, (kind, 3))}\n{(kind, (3, kind))} {plain} {(kind, 3)}\n"

    assert seen == [shown("old", 1), shown("new", 1), shown("new", 22), shown("new", 22)]


REACHED = """\
RATE = 1


def price(item):
    return item * RATE


class Price:
    kind = "old"

    def total(self):
        return "old", self.kind, RATE
"""

REACHING = """\
from {low} import price


def total(item):
    return price(item)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("RATE = 1", "RATE = 22"),
        ("return item * RATE", "return item * RATE + 500"),
        ('kind = "old"', 'kind = "new"'),
        ('return "old", self', 'return "new", self'),
    ],
)
@pytest.mark.parametrize("level", ["1", "2", "3"])
def test_autoreload_reaches_warm_workers_by_way_of_a_cell(notebook, tmp_path, level, old, new):
    """That holds even if IPython has imported its own modules since."""
    name = f"low_{level}_{old.encode().hex()}"
    low = tmp_path / f"{name}.py"
    low.write_text(REACHED)
    (tmp_path / f"up_{name}.py").write_text(REACHING.format(low=name))
    (tmp_path / f"other_{name}.py").write_text("")
    notebook.run(
        f"""
        import sys
        sys.path.insert(0, {str(tmp_path)!r})
        %load_ext autoreload
        %autoreload {level}
        %aimport {name}
        import {name} as low, up_{name} as up
        from {name} import price
        one = dict(mode="process", workers=1, progress=False)

        def begin():
            global at_first
            at_first = low.price(1), low.Price().total()

        def uses(item):
            return low.price(item), up.total(item), price(item), item, low.Price().total()

        def initial(item):
            return at_first

        def totals(item):
            return item.total()
        """
    )
    look = """
        warm = opmap(**one)(uses)([3])[0], opmap(worker_init=begin, **one)(initial)([3])[0]
        classes = opmap(**one)(totals)([low.Price()])[0]
        begin()
        assert (warm, classes) == ((uses(3), at_first), totals(low.Price())), (warm, classes)
        print(warm, classes)
        """
    first = notebook.run(look)
    low.write_text(REACHED.replace(old, new))
    second = notebook.run(f"import other_{name}\n" + textwrap.dedent(look))
    notebook.run("%autoreload off")
    assert first != second


def test_lambdas_closures_classes_and_exceptions_of_a_cell_travel(notebook):
    """They travel both ways, although nothing can be imported."""
    notebook.run(
        """
        class Thing:
            def __init__(self, n): self.n = n
        class Boom(Exception): pass
        def factory(plus):
            def inner(thing):
                if thing.n == 3: raise Boom(thing.n)
                return Thing(thing.n + plus)
            return inner
        decorate = opmap(mode="process", workers=2, progress=False, retries=1)
        got = decorate(factory(5))([Thing(n) for n in range(6)])
        assert [each.n if type(each) is Thing else each.args for each in got] == [5, 6, 7, (3,), 9, 10]
        assert type(got[3]) is Boom
        assert decorate(lambda x: x ** 2)(range(10)) == [x ** 2 for x in range(10)]
        """
    )


# --- the loop that is running ---------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["async", "async_process"])
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_coroutines_of_a_cell_run_beside_the_loop_of_the_kernel(notebook, mode, loop):
    """Plain calls and streams do so; an awaited map runs in the kernel's loop."""
    notebook.run(
        f"""
        @opmap(mode="{mode}", workers=4, progress=False, loop="{loop}")
        async def work(x):
            await asyncio.sleep(0.001)
            return x + 1, type(asyncio.get_running_loop()).__module__.split(".")[0], os.getpid()
        expected = [x + 1 for x in range(40)]
        got = work(range(40))
        assert [value for value, _, _ in got] == expected
        assert {{module for _, module, _ in got}} == {{"{loop}"}}
        assert [value for value, _, _ in work.stream(range(40))] == expected
        before = asyncio.all_tasks()
        got = await work.amap(range(40))
        assert [value for value, _, _ in got] == expected
        assert {{pid == os.getpid() for _, _, pid in got}} == {{"{mode}" == "async"}}
        assert [value async for value, _, _ in work.astream(range(40))] == expected
        assert asyncio.all_tasks() <= before
        """
    )


def test_an_asynchronous_map_leaves_the_kernel_its_turn(notebook):
    """A task of the notebook continues while it awaits a map."""
    notebook.run(
        """
        ticks = 0
        async def tick():
            global ticks
            while True:
                ticks += 1
                await asyncio.sleep(0)
        @opmap(mode="process", workers=2, progress=False)
        def work(x):
            time.sleep(0.02)
            return x
        ticker = asyncio.ensure_future(tick())
        assert await work.amap(range(20)) == list(range(20))
        ticker.cancel()
        assert ticks > 10
        """
    )


# --- the bar --------------------------------------------------------------------------------------------


def shown_of(notebook: Notebook) -> str:
    """Return all that a notebook has shown, in text and in widgets."""
    return "".join(repr(each["content"]) for each in notebook.messages).replace("\\u2007", " ")


@pytest.mark.parametrize("mode", ["thread", "process"])
def test_a_map_shows_a_bar_that_ends_exact(notebook, mode):
    """It is a widget if ipywidgets is installed, otherwise text, without warnings."""
    notebook.run(
        f"""
        @opmap(mode="{mode}", workers=2, retries=2, min_delay=0.001, max_delay=0.001)
        def work(x):
            if x % 100 == 7: raise ValueError(x)
            return x
        got = work(range(500))
        """
    )
    shown = shown_of(notebook)
    assert "500/500" in shown
    assert "failed=5, retried=5" in shown
    assert "Warning" not in shown


def test_a_bar_counts_what_has_no_length_and_is_awaited(notebook):
    """The input is a generator, and a coroutine runs the map."""
    notebook.run(
        """
        @opmap(mode="async", workers=4)
        async def work(x): return x
        got = await work.amap(x for x in range(321))
        assert got == list(range(321))
        """
    )
    shown = shown_of(notebook)
    assert "321it" in shown or "321/?" in shown


# --- the interrupt --------------------------------------------------------------------------------------


CELLS = {
    "process": """
        @opmap(mode="process", workers=2)
        def work(x):
            open(os.path.join(FOLDER, str(os.getpid())), "w").close()
            time.sleep(600)
        work(range(100))
        """,
    "async_process": """
        @opmap(mode="async_process", workers=2)
        async def work(x):
            open(os.path.join(FOLDER, str(os.getpid())), "w").close()
            await asyncio.sleep(600)
        work(range(100))
        """,
    "async": """
        @opmap(mode="async", workers=2)
        async def work(x):
            open(os.path.join(FOLDER, str(os.getpid())), "w").close()
            await asyncio.sleep(600)
        work(range(100))
        """,
    "amap": """
        @opmap(mode="process", workers=2)
        def work(x):
            open(os.path.join(FOLDER, str(os.getpid())), "w").close()
            time.sleep(600)
        async def tick():
            while True: await asyncio.sleep(0.05)
        ticker = asyncio.ensure_future(tick())  # an idle kernel heeds no interrupt of an `await`
        try: await work.amap(range(100))
        finally: ticker.cancel()
        """,
}


@pytest.mark.slow
@pytest.mark.parametrize("way", CELLS)
def test_an_interrupted_cell_leaves_nothing(notebook, tmp_path, way):
    """No process or thread remains, and the next cell runs normally."""
    notebook.run(
        f"import threading; FOLDER = {str(tmp_path)!r}; threads = set(threading.enumerate())"
    )
    name = notebook.begin(CELLS[way])
    expected = 1 if way == "async" else 2
    until(lambda: len(pids_in(tmp_path)) == expected)
    notebook.manager.interrupt_kernel()
    reply = notebook.end(name)
    assert reply["status"] == "error"
    assert reply["ename"] in {"KeyboardInterrupt", "CancelledError"}
    kernel = int(notebook.run("print(os.getpid())"))
    until(lambda: not any(is_alive(pid) for pid in pids_in(tmp_path) - {kernel}))
    notebook.run(
        """
        @opmap(mode="process", workers=2, progress=False)
        def again(x): return x + 1
        assert again(range(20)) == list(range(1, 21))
        left = {each for each in set(threading.enumerate()) - threads if "opero" in each.name}
        assert not left, left
        """
    )


@pytest.mark.slow
def test_a_kernel_that_is_killed_leaves_no_worker(tmp_path):
    """Workers notice its end, even in the middle of an attempt."""
    with new_kernel() as notebook:
        notebook.run(f"import os, time; FOLDER = {str(tmp_path)!r}\nfrom opero import opmap")
        own = int(notebook.run("print(os.getpid())"))
        notebook.begin(CELLS["process"])
        until(lambda: len(pids_in(tmp_path)) == 2)
        os.kill(own, signal.SIGKILL)
        until(lambda: not any(is_alive(pid) for pid in pids_in(tmp_path)))

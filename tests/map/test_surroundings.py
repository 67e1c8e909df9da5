"""Settings of the interpreter that workers have in common with the program, warm ones too."""

from __future__ import annotations

import decimal
import faulthandler
import locale
import logging
import os
import socket
import subprocess
import sys
import warnings
from typing import Any

import pytest

from opero import opmap
from opero.map.engines.processes import pool, start, surroundings

pytestmark = [
    pytest.mark.once,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="these tests fork"),
]

QUIET: dict[str, Any] = {"retries": 1, "progress": False, "workers": 1}


@pytest.fixture(scope="module", autouse=True)
def no_process_left():
    yield
    pool.shut()


@pytest.fixture
def restored():
    """Restore the settings of this process."""
    before = surroundings.surroundings()
    yield
    surroundings.take_on(before)


def own(_: Any) -> Any:
    """Return the settings of the process that runs this."""
    return surroundings.surroundings()


def spoils(_: Any) -> None:
    """Change settings in a worker."""
    sys.setrecursionlimit(5555)
    decimal.getcontext().prec = 3
    socket.setdefaulttimeout(1)
    os.umask(0o077)
    os.environ["OPERO_SPOILT"] = "1"
    warnings.resetwarnings()
    logging.getLogger("spoilt").setLevel(7)
    logging.disable(50)


SAME = (
    "path", "folder", "environ", "recursion", "digits", "bytecode", "faults", "timeout", "locale",
    "umask", "decimal", "levels", "captured",
)  # fmt: skip


def change_everything(folder: str) -> None:
    sys.path.append("/nowhere/at/all")
    os.chdir(folder)
    os.environ["OPERO_ANY"] = "1"
    sys.setrecursionlimit(4321)
    sys.set_int_max_str_digits(5432)
    sys.setswitchinterval(0.05)
    sys.dont_write_bytecode = not sys.dont_write_bytecode
    if faulthandler.is_enabled():
        faulthandler.disable()
    socket.setdefaulttimeout(2.5)
    locale.setlocale(locale.LC_ALL, "C.UTF-8")
    os.umask(0o027)
    decimal.setcontext(decimal.Context(prec=50, rounding="ROUND_UP", traps=[decimal.Inexact]))
    logging.getLogger("any").setLevel(15)


@pytest.mark.parametrize("method", start.METHODS)
@pytest.mark.parametrize("warm", [False, True])
def test_a_worker_has_the_settings_of_the_program(method, warm, tmp_path, restored):
    """It has those of the moment at which each map is called."""
    mapped = opmap(start_method=method, **QUIET)(own)
    if warm:
        opmap(start_method=method, **QUIET)(spoils)([1])
    else:
        pool.shut()
    change_everything(str(tmp_path))
    (there,) = mapped([1])
    here = surroundings.surroundings()
    assert {name: there[name] for name in SAME} == {name: here[name] for name in SAME}
    assert there["switch"] == pytest.approx(0.05, abs=1e-4)


def test_coroutines_in_workers_have_the_decimal_context_of_the_program(restored):
    """Each has its own context."""

    async def precision(_: Any) -> int:
        return decimal.getcontext().prec

    mapped = opmap(mode="async_process", **QUIET)(precision)
    decimal.getcontext().prec = 17
    assert mapped(range(3)) == [17] * 3
    decimal.getcontext().prec = 9
    assert mapped(range(3)) == [9] * 3


def test_what_a_system_does_not_have_is_left_as_it_is(restored, tmp_path):
    """The folder may be gone, the locale missing, or the limit below what is in use."""
    gone = {"folder": str(tmp_path / "gone"), "locale": "xx_YY.nothing", "recursion": 1}
    before = surroundings.surroundings()
    surroundings.take_on({**before, **gone})
    assert surroundings.surroundings() == before


TIMEOUT = """
import os, socket, sys, time
from opero import opmap

def slow(value):
    time.sleep(0.05)
    return os.getpid(), socket.getdefaulttimeout()

def slowly():
    for value in range(4):
        time.sleep(0.05)
        yield value

socket.setdefaulttimeout(0.001)
mapped = opmap(retries=1, progress=False, workers=1, start_method=sys.argv[1])(slow)
found = [each for _ in range(2) for each in mapped.stream(slowly())]
assert {each[1] for each in found} == {0.001}, found
assert len({each[0] for each in found}) == 1, found
"""


@pytest.mark.parametrize("method", start.METHODS)
def test_the_default_timeout_of_sockets_is_not_for_ours(method, tmp_path):
    """It ends neither a worker's start nor its wait for the next job."""
    script = tmp_path / "program.py"
    script.write_text(TIMEOUT)
    done = subprocess.run(
        [sys.executable, str(script), method],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


# --- warnings -------------------------------------------------------------------------------------


def warned(value: Any) -> list[str]:
    """Return the outcomes of two warnings."""
    found = []
    for category in (Own, Inner):
        with warnings.catch_warnings(record=True) as seen:
            try:
                warnings.warn(f"number {value}", category, stacklevel=1)
                found.append(f"{len(seen)} seen")
            except category:
                found.append("raised")
    return found


class Own(UserWarning):
    pass


class Inner(Own):
    pass


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ([("ignore", "", Warning)], ["0 seen", "0 seen"]),
        ([("always", "", Own)], ["1 seen", "1 seen"]),
        ([("always", "", Own), ("error", "", Inner)], ["1 seen", "raised"]),
        ([("always", "", Own), ("ignore", "number [0-4]", Inner)], ["1 seen", "0 seen"]),
        ([("always", "", Own), ("ignore", "number [5-9]", Inner)], ["1 seen", "1 seen"]),
    ],
)
def test_filters_of_warnings_are_those_of_the_program(filters, expected):
    """That includes messages and categories, even those of a script."""
    mapped = opmap(**QUIET)(warned)
    for _ in range(2):
        with warnings.catch_warnings():
            for action, message, category in filters:
                warnings.filterwarnings(action, message, category)
            assert warned(1) == expected
            assert mapped([1]) == [expected]


def test_what_warns_when_it_is_imported_is_imported_under_strict_filters_too(tmp_path, monkeypatch):
    """The program has imported it before; the filters apply to what the function does."""
    module = tmp_path / "warns_at_import.py"
    module.write_text(
        "import warnings\n"
        "warnings.warn('old', DeprecationWarning)\n"
        "warnings.filterwarnings('ignore', 'of its own')\n"
        "def warns(value):\n"
        "    warnings.warn('of its own', UserWarning)\n"
        "    warnings.warn(f'number {value}', UserWarning)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        import warns_at_import
    pool.shut()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "of its own")
        (error,) = opmap(**QUIET)(warns_at_import.warns)([7])
    assert isinstance(error, UserWarning)
    assert str(error) == "number 7"


ACTIONS = {
    "warnings.simplefilter('ignore')": 0,
    "warnings.simplefilter('ignore', Mine)": 2,
    "warnings.simplefilter('ignore', late.Late)": 2,
    "warnings.filterwarnings('ignore', module='__main__')": 0,
    "warnings.simplefilter('always')": 4,
}

SCRIPT = """
import sys, warnings
from opero import opmap

class Mine(UserWarning): pass

def noise(value):
    warnings.warn(f"noise {value}", Mine)
    import late
    warnings.warn(f"late {value}", late.Late)
    return value

sys.path.insert(0, sys.argv[2])
mapped = opmap(retries=1, progress=False, workers=1, start_method=sys.argv[1])(noise)
for action in sys.argv[3:]:
    print("###", file=sys.stderr, flush=True)
    with warnings.catch_warnings():
        import late
        exec(action)
        if sys.argv[1] != "fork":
            del sys.modules["late"]
        assert mapped([1, 2]) == [1, 2]
"""


@pytest.mark.parametrize("method", start.METHODS)
def test_a_script_silences_warnings_of_its_workers(method, tmp_path):
    """The category may be one that no worker has imported yet."""
    (tmp_path / "late.py").write_text("class Late(UserWarning): pass\n")
    script = tmp_path / "program.py"
    script.write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, str(script), method, str(tmp_path), *ACTIONS],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    counts = [part.count("Mine: ") + part.count("Late: ") for part in done.stderr.split("###")[1:]]
    assert counts == list(ACTIONS.values()), done.stderr

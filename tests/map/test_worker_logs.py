"""What workers log reaches the handlers of the program, at its levels."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import textwrap
import time
import warnings
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).with_name("isolated_map")
sys.path.insert(0, str(FOLDER))

import logs  # noqa: E402

from opero import WorkerCrashedError, opmap  # noqa: E402
from opero.map.engines.processes import pool, start  # noqa: E402

pytestmark = [
    pytest.mark.once,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="these tests fork"),
]

QUIET: dict[str, Any] = {"retries": 1, "progress": False, "workers": 1}


@pytest.fixture(scope="module", autouse=True)
def no_process_left():
    yield
    pool.shut()


class Kept(logging.Handler):
    """A handler that keeps its records."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    @property
    def texts(self) -> list[str]:
        return [f"{each.levelname} {each.getMessage()}" for each in self.records]


@pytest.fixture
def kept():
    """Add a handler above the functions' loggers, and restore levels afterwards."""
    handler = Kept()
    jobs = logging.getLogger("jobs")
    inner = logging.getLogger("jobs.inner")
    jobs.addHandler(handler)
    jobs.propagate = False
    yield handler
    jobs.removeHandler(handler)
    jobs.propagate = True
    for logger in (jobs, inner):
        logger.setLevel(logging.NOTSET)
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("method", start.METHODS)
def test_records_of_workers_reach_the_handlers_of_the_program(method, kept):
    """They have their arguments, and identify their process."""
    logging.getLogger("jobs").setLevel(logging.INFO)
    assert opmap(start_method=method, **QUIET)(logs.says)([1, 2]) == [1, 2]
    assert sorted(kept.texts) == [
        "INFO info item of 1", "INFO info item of 2", "WARNING warning 1", "WARNING warning 2",
    ]  # fmt: skip
    first, second = kept.records[:2]
    assert (first.msg, first.args) == ("info %s of %d", ("item", 1))
    assert second.args == {"value": 1}
    assert first.funcName == "says"
    assert first.process != os.getpid()
    assert first.processName.startswith("opero-worker-")
    here = logging.makeLogRecord({})
    assert 0 < first.created <= here.created
    elsewhere = first.created - first.relativeCreated / 1000
    assert elsewhere == pytest.approx(here.created - here.relativeCreated / 1000, abs=0.01)


def test_coroutines_in_workers_log_too(kept):
    """They log as they would in the program's loop."""
    mapped = opmap(mode="async_process", **QUIET)(logs.says_later)
    assert mapped(range(5)) == list(range(5))
    assert sorted(kept.texts) == [f"WARNING warning {number}" for number in range(5)]


def test_levels_are_those_of_the_program_when_the_map_is_called(kept):
    """That includes warm workers, which create no records below the levels."""
    mapped = opmap(**QUIET)(logs.enabled)
    jobs, inner = logging.getLogger("jobs"), logging.getLogger("jobs.inner")
    assert mapped([1]) == [[30, 40]]
    jobs.setLevel(logging.DEBUG)
    assert mapped([1]) == [[10, 20, 30, 40]]
    inner.setLevel(logging.ERROR)
    assert mapped([1]) == [[40]]
    inner.setLevel(logging.NOTSET)
    logging.disable(logging.INFO)
    assert mapped([1]) == [[30, 40]]
    logging.disable(logging.NOTSET)
    jobs.setLevel(logging.NOTSET)
    assert mapped([1]) == [[30, 40]]


def test_a_level_that_is_raised_during_a_map_holds_for_records_on_their_way(kept):
    """The program's logger checks the level again."""
    results = opmap(chunk_size=1, **QUIET)(logs.says).stream(range(20))
    next(results)
    before = len(kept.records)
    logging.getLogger("jobs").setLevel(logging.CRITICAL)
    assert len(list(results)) == 19
    assert len(kept.records) == before


def test_what_cannot_be_pickled_is_formatted_where_it_was_logged(kept):
    """Arguments, tracebacks and `extra` fields that can be pickled arrive as they are."""
    logging.getLogger("jobs").setLevel(logging.INFO)
    opmap(**QUIET)(logs.says_odd_things)([1])
    failed, info = (each for each in kept.records if each.getMessage() != "pickled")
    assert failed.getMessage() == "failed <loud>"
    assert failed.exc_info is None
    assert failed.exc_text.endswith("LookupError: inside")
    assert "says_odd_things" in failed.exc_text
    assert (failed.plain, failed.loud, failed.many) == (3, "<loud>", [1, 2])
    assert "LookupError: inside" in logging.Formatter().format(failed)
    assert info.getMessage() == "<loud>"


def test_what_is_logged_while_a_result_is_packed_arrives_before_it(kept):
    """Nothing waits for itself."""
    lost, fine = opmap(chunk_size=2, **QUIET)(logs.returns_loud)([1, 0])
    assert isinstance(lost, TypeError)
    assert fine == 0
    assert kept.texts[:2] == ["WARNING before"] * 2
    assert "WARNING pickled" in kept.texts


def test_the_last_words_of_a_worker_that_crashes_arrive(kept):
    """Each attempt's records arrive."""
    (crash,) = opmap(**{**QUIET, "retries": 3, "min_delay": 0})(logs.says_and_dies)([7])
    assert [type(error) for error in crash.errors] == [WorkerCrashedError] * 3
    assert kept.texts == ["ERROR the last words of 7"] * 3


def test_a_worker_that_logs_much_waits_for_nobody_who_does_not_read(kept):
    """It continues while a stream's consumer is busy, and all records arrive in order."""
    results = opmap(chunk_size=1, **QUIET)(logs.says_much).stream([1, 6000, 2])
    assert next(results) == 1
    time.sleep(0.3)
    assert list(results) == [6000, 2]
    numbers = [each.args[0] for each in kept.records]
    assert numbers == [0, *range(6000), 0, 1]


def test_what_a_handler_or_a_filter_of_the_program_does_is_its_own_affair(kept, capsys):
    """It may log or fail, and the map continues."""
    logger = logging.getLogger("jobs.inner")

    def breaks(record: logging.LogRecord) -> bool:
        if record.process != os.getpid():
            logger.warning("seen by the filter")
            raise ValueError("a broken filter")
        return True

    logger.addFilter(breaks)
    try:
        assert opmap(**QUIET)(logs.says)([1, 2]) == [1, 2]
    finally:
        logger.removeFilter(breaks)
    assert kept.texts == ["WARNING seen by the filter"] * 2
    assert capsys.readouterr().err.count("ValueError: a broken filter") == 2


def test_a_worker_with_a_handler_of_its_own_keeps_its_records(kept, tmp_path):
    """A handler that the program has too is not called a second time."""
    logging.getLogger("jobs").propagate = True
    logging.getLogger("jobs").setLevel(logging.INFO)
    path = str(tmp_path / "worker.log")
    assert opmap(start_method="spawn", **QUIET)(logs.configures)([path]) == [path]
    assert Path(path).read_text() == "here to my own file\n"
    assert kept.texts == []
    pool.shut()


@pytest.mark.parametrize("method", start.METHODS)
def test_a_handler_that_both_have_writes_once(method, tmp_path):
    """A fork may have copied it, or the worker may have made it again."""
    script = tmp_path / "program.py"
    script.write_text(
        textwrap.dedent(f"""
            import logging, sys
            sys.path.insert(0, {str(FOLDER)!r})
            import logs
            from opero import opmap
            logging.basicConfig(format="program %(message)s", level="INFO")
            logging.getLogger("jobs.stream").addHandler(logging.StreamHandler())
            logging.getLogger("quiet").addHandler(logging.NullHandler())
            def quiet(value):
                logging.getLogger("quiet").info("from behind a null handler")
                return value
            options = dict(retries=1, progress=False, workers=1, start_method={method!r})
            assert opmap(**options)(logs.has_own_stream)([5]) == [5]
            assert opmap(**options)(quiet)([6]) == [6]
            """)
    )
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=60, check=True
    )
    assert sorted(done.stderr.splitlines()) == [
        "once 5", "program from behind a null handler", "program once 5",
    ]  # fmt: skip


def test_where_nobody_has_configured_anything_warnings_go_to_standard_error(tmp_path):
    """They appear once, as if the program had logged them."""
    script = tmp_path / "program.py"
    script.write_text(
        textwrap.dedent("""
            import logging
            from opero import opmap
            def says(value):
                logging.getLogger("any").info("not seen")
                logging.getLogger("any").warning("seen %d", value)
                return value
            assert opmap(retries=1, progress=False, workers=1)(says)([5]) == [5]
            """)
    )
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stderr == "seen 5\n"


def test_a_child_that_the_function_forks_does_not_write_to_the_channel(kept, capfd):
    """Its warnings go where they would without opero."""
    assert opmap(start_method="fork", **QUIET)(logs.forks)([1, 2]) == [1, 2]
    assert kept.texts == ["WARNING from its parent"] * 2
    assert capfd.readouterr().err.count("from a child") == 2


def test_warnings_that_the_program_logs_are_logged_from_workers_too(kept):
    """`logging.captureWarnings` applies while it is on."""
    warner = logging.getLogger("py.warnings")
    warner.addHandler(kept)
    mapped = opmap(**QUIET)(logs.warns)
    logging.captureWarnings(True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            mapped([1])
    finally:
        logging.captureWarnings(False)
        warner.removeHandler(kept)
    (record,) = kept.records
    assert "UserWarning: noise 1" in record.getMessage()

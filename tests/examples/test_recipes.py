"""Each recipe runs as a user runs it, keeps its promise, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import re
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from crowd import until_group_ends
from documents import DOCS, ROOT, Block, blocks

import opero
from opero import hotpath

pytestmark = [
    pytest.mark.checkout,
    pytest.mark.once,
    pytest.mark.skipif(sys.platform == "win32", reason="they end by signals"),
]

EXAMPLES = ROOT / "examples"
HALVES = tuple(dict.fromkeys((hotpath.core.name, "plain")))
RECIPES = {
    "llm_batch": "httpx",
    "scraper": "httpx",
    "dataframe_etl": "pandas",
    "fastapi_client": "uvicorn",
    "celery_tasks": "celery",
    "cron_batch": "diskcache",
    "worker_model": None,
    "request_cache": None,
}
"""Each program, and a library that it needs."""


def run(
    folder: Path, *words: str, half: str = hotpath.core.name, warnings: str = "error", **given: str
) -> subprocess.CompletedProcess[str]:
    """Run a program in an empty folder, which is its home too, and is empty afterwards."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"OPERO_PURE_PYTHON": "1" if half == "plain" else "0", **given}
    environment |= {"OPERO_CACHE_SECRET": "the-secret-of-a-recipe"}  # not in a file of the home
    environment |= {"HOME": str(folder), "TMPDIR": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    environment |= {"OPERO_REQUIRE_COMPILED": "1" if half == "compiled" else "0"}
    started = subprocess.Popen(
        [sys.executable, "-W", warnings, *words],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with started:
        try:
            out, err = started.communicate(timeout=100)
        except BaseException:
            started.kill()
            raise
    until_group_ends(started.pid)
    return subprocess.CompletedProcess(words, started.returncode, out, err)


def kept(done: subprocess.CompletedProcess[str]) -> str:
    """Return what a program printed that has kept its promise, and complained about nothing."""
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    return done.stdout


def left_in(folder: Path) -> list[str]:
    """Name what is in a folder."""
    return sorted(path.name for path in folder.iterdir())


def path_of(name: str) -> str:
    return str(EXAMPLES / f"{name}.py")


# ----------------------------------------------------------------------------------- as users do


def test_an_llm_batch_stays_within_its_budget_and_pays_once(tmp_path: Path) -> None:
    out = kept(run(tmp_path, path_of("llm_batch")))
    assert re.search(r"^[6-9]\d of 100 answered, \$0\.9\d of \$1\.00 spent$", out, re.MULTILINE)
    assert "100 of 100 answered, $0.00 of $1.00 spent" in out
    assert left_in(tmp_path) == []


@pytest.mark.slow
def test_the_answers_of_an_llm_batch_are_there_for_the_next_process(tmp_path: Path) -> None:
    home, answers = tmp_path / "home", tmp_path / "answers"
    home.mkdir()
    answers.mkdir(mode=0o700)
    kept(run(home, path_of("llm_batch"), LLM_ANSWERS=str(answers)))
    out = kept(run(home, path_of("llm_batch"), LLM_ANSWERS=str(answers)))
    assert out.splitlines()[-1] == "the provider sold $0.00, and said 429 0 times"
    assert left_in(home) == []


def test_a_scraper_is_polite_and_lists_its_failures(tmp_path: Path) -> None:
    out = kept(run(tmp_path, path_of("scraper")))
    assert out.count("/missing: Client error '404 Not Found'") == 4
    assert out.count("/private/diary: robots.txt forbids it") == 4
    assert out.count("44 succeeded, 4 failed") == 2
    assert left_in(tmp_path) == []


def test_an_etl_loses_no_row(tmp_path: Path) -> None:
    out = kept(run(tmp_path, path_of("dataframe_etl")))
    assert out.splitlines()[-1] == "2000 rows: 1972 good, 28 failed"
    assert left_in(tmp_path) == []


def test_an_etl_does_the_same_with_polars() -> None:
    polars = pytest.importorskip("polars")
    recipe = runpy.run_path(path_of("dataframe_etl"))
    orders = recipe["some_orders"](500)
    rows = polars.DataFrame(orders.to_dict("list"), strict=False)
    good, failed = recipe["etl"](orders)
    good_rows, failed_rows = recipe["etl_polars"](rows)
    assert good_rows.to_dicts() == good.to_dict("records")
    assert failed_rows["order"].to_list() == failed["order"].to_list()
    assert [error.partition("(")[0] for error in failed_rows["error"]] == [
        error.partition("(")[0] for error in failed["error"]
    ]


def test_an_app_answers_503_while_its_service_is_down(tmp_path: Path) -> None:
    out = kept(run(tmp_path, path_of("fastapi_client"), warnings="default"))
    assert re.findall(r"^(\w+): (\d+)", out, re.MULTILINE)[2:] == [
        ("nothing", "404"),
        *((name, "503") for name in ("coffee", "cocoa", "mate", "water")),
        ("tea", "200"),
        ("water", "200"),
    ]
    assert out.endswith("breaker: closed\n")
    assert left_in(tmp_path) == []


def test_a_celery_task_runs_under_opero(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here without a worker: a lost connection is over within the first run of the task."""
    monkeypatch.setenv("CELERY_FOLDER", str(tmp_path))
    (tmp_path / "results").mkdir()
    fetch = runpy.run_path(path_of("celery_tasks"))["fetch"]
    assert fetch.apply(args=("blip", 2)).get() == 3
    assert fetch.apply(args=("outage", 4)).get() == 5
    assert (tmp_path / "blip").read_text() == "..."


@pytest.mark.slow
def test_celery_tasks_are_retried_inside_and_outside(tmp_path: Path) -> None:
    done = run(tmp_path, path_of("celery_tasks"), warnings="default")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (
        "a blip: 3 attempts; an outage: 5, by two tasks; slow: SoftTimeLimitExceeded" in done.stdout
    )
    assert left_in(tmp_path) == []


@pytest.mark.parametrize("half", HALVES)
def test_a_model_is_loaded_once_in_each_worker(tmp_path: Path, half: str) -> None:
    out = kept(run(tmp_path, path_of("worker_model"), half=half))
    assert "3000 texts in " in out
    assert "the parent has loaded no model" in out
    assert left_in(tmp_path) == []


@pytest.mark.parametrize("half", HALVES)
def test_a_request_forgets_what_it_has_looked_up(tmp_path: Path, half: str) -> None:
    out = kept(run(tmp_path, path_of("request_cache"), half=half))
    assert "with 4 queries for 40 greetings" in out
    assert out.splitlines()[-1] == "values that are still cached: 0"


def test_a_batch_ends_cleanly_at_sigterm_and_goes_on(tmp_path: Path) -> None:
    """Every line that it writes is a line of the log."""
    out = kept(run(tmp_path, path_of("cron_batch"), "--check"))
    assert all(
        re.match(r"\d{4}-\d\d-\d\d [\d:,]+ (INFO|WARNING) ", line) for line in out.splitlines()
    )
    assert "stopped early" in out
    assert "WARNING ended by SIGTERM; what is done is stored" in out
    assert left_in(tmp_path) == [".cache"]  # where caches are if nothing else is said


def test_the_dockerfile_starts_the_program_itself() -> None:
    """By a list, so that it gets SIGTERM; the paths that it copies are there."""
    lines = (EXAMPLES / "cron_batch.Dockerfile").read_text().splitlines()
    assert 'ENTRYPOINT ["python", "/app/cron_batch.py"]' in lines
    copied = [line.split()[1] for line in lines if line.startswith("COPY ") and "--" not in line]
    assert copied == [".", "examples/cron_batch.py"]


def cells() -> list[str]:
    """The code of the notebook."""
    notebook = json.loads((EXAMPLES / "notebook.ipynb").read_text())
    assert not any(cell.get("outputs") for cell in notebook["cells"])
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]


def test_the_cells_of_the_notebook_run_as_a_script(tmp_path: Path) -> None:
    """One after the other, in one namespace, as a kernel runs them; the last one awaits."""
    out = kept(run(tmp_path, "-c", SCRIPT, json.dumps(cells())))
    assert out.count("is not for us") == 4
    assert out.splitlines()[-2:] == ["[2, 2, 2, 2]", "209 primes"]


SCRIPT = """
import ast, asyncio, inspect, json, sys

for cell in json.loads(sys.argv[1]):
    code = compile(cell, "<cell>", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    result = eval(code, globals())
    if inspect.iscoroutine(result):
        asyncio.run(result)
"""


@pytest.mark.slow
def test_the_cells_of_the_notebook_run_in_a_kernel(tmp_path: Path) -> None:
    """A bar is shown in the cell that maps, and no other."""
    program = tmp_path / "kernel.py"
    program.write_text(KERNEL)
    out = kept(run(tmp_path, str(program), json.dumps(cells()), warnings="ignore"))
    shown = [json.loads(line) for line in out.splitlines()]
    assert "2,000 items" in shown[1]["result"] or "2000 items" in shown[1]["result"]
    assert "4 failed" in shown[1]["result"]
    assert "2000/2000" in shown[1]["stderr"]
    assert shown[2]["stdout"].count("is not for us") == 4
    assert shown[3]["stdout"] == "[2, 2, 2, 2]\n"
    assert shown[4]["stdout"].endswith(" primes\n")


KERNEL = """
import json, subprocess, sys
from jupyter_client.manager import KernelManager

manager = KernelManager()
manager.kernel_spec.argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
manager.start_kernel(stderr=subprocess.DEVNULL)  # its own warnings
client = manager.client()
try:
    client.start_channels()
    client.wait_for_ready(timeout=60)
    for cell in json.loads(sys.argv[1]):
        shown = {"stdout": "", "stderr": "", "result": ""}

        def show(message):
            content = message["content"]
            if message["msg_type"] == "stream":
                shown[content["name"]] += content["text"]
            if message["msg_type"] == "execute_result":
                shown["result"] = content["data"]["text/plain"]

        reply = client.execute_interactive(cell, timeout=60, output_hook=show, allow_stdin=False)
        if reply["content"]["status"] != "ok":
            sys.exit("\\n".join(reply["content"]["traceback"]))
        print(json.dumps(shown))
finally:
    client.stop_channels()
    manager.shutdown_kernel()
    client.context.destroy()
"""


# ------------------------------------------------------------------------- what is wrong is noticed


@pytest.mark.parametrize("name", [name for name, library in RECIPES.items() if library])
def test_a_recipe_says_which_library_it_lacks(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one line, in place of a traceback."""
    library = RECIPES[name]
    monkeypatch.setitem(sys.modules, str(library), None)
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(path_of(name))
    assert str(ended.value.code).startswith(f"This recipe needs {library}: pip install ")


def without(decorate: Callable[..., Any], *names: str, **changes: Any) -> Callable[..., Any]:
    """Return a decorator that takes no notice of some options."""

    def changed(**options: Any) -> Any:
        left = {name: value for name, value in options.items() if name not in names}
        return decorate(**{**left, **changes})

    return changed


fast = opero.RateLimiter(1000.0)
for_all = opero.get_cache_decorator(cache_key=lambda _, user: user)


@pytest.mark.parametrize(
    ("name", "replaced", "by"),
    [
        ("request_cache", "get_cache_decorator", lambda: for_all),
        ("worker_model", "opmap", without(opero.opmap, "max_items_per_worker")),
        ("dataframe_etl", "opmap", without(opero.opmap, max_errors=5)),
        ("scraper", "RateLimiter", lambda _: fast),
    ],
    ids=["one-cache-for-all", "no-renewal", "gives-up", "impolite"],
)
def test_a_recipe_fails_if_its_promise_is_not_kept(
    name: str, replaced: str, by: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the option that it is about."""
    monkeypatch.setattr(opero, replaced, by)
    assert runpy.run_path(path_of(name))["main"]() == 1


def quotations() -> list[Block]:
    """The blocks of the recipes' pages that are parts of programs."""
    found = [block for path in (DOCS / "recipes").glob("*.md") for block in blocks(path)]
    return [block for block in found if block.mark.startswith("from: ")]


def test_pages_show_what_the_programs_say() -> None:
    """Letter by letter, and something of each of them."""
    shown = set()
    for block in quotations():
        path = ROOT / block.mark.removeprefix("from: ")
        sources = cells() if path.suffix == ".ipynb" else [path.read_text(encoding="utf-8")]
        assert any(block.text.rstrip("\n") in source for source in sources), (
            f"{block.path}:{block.line} is not in {path.name}"
        )
        shown.add(path.name)
    assert shown == {*(f"{name}.py" for name in RECIPES), "cron_batch.Dockerfile", "notebook.ipynb"}


def test_every_recipe_is_run_here() -> None:
    """A new program needs a test."""
    programs = {path.stem for path in EXAMPLES.glob("*.py")} - {"toy_server"}
    assert programs == set(RECIPES)

"""What may import what: the layers of the package, and no circle, however an import is hidden.

Every import counts: at the top of a module, in a function, for type checkers only, and those of the
modules written for Cython. A module in a function's import is loaded later, but it is needed all
the same: to read or test the one, you must know the other.

- Each room (a module or a package directly in `opero`) stands in one layer, and imports only rooms
  of lower layers.
- No module imports itself by way of others.
- Nor does a package within a room: its modules taken together are in no circle either.

`opero` itself holds the public names: it is above everything but what runs as a program.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import opero
from opero import hotpath

pytestmark = pytest.mark.once

ROOT = Path(opero.__file__).parent

LAYERS = (
    (
        "_pyinstaller",
        "bits",
        "build_record",
        "captures",
        "event",
        "exceptions",
        "forks",
        "gil",
        "http_errors",
        "identity",
        "locks",
        "marks",
        "never_failures",
        "off_switch",
        "once_only",
        "real_time",
        "thrown",
    ),
    (
        "copies",
        "frames",
        "logs",
        "private_places",
        "signatures",
        "standard_values",
        "stats",
        "switches",
        "tracebacks",
    ),
    ("library_values", "roster"),
    ("callables", "events", "forwarding"),
    ("core", "_compiled"),
    ("hotpath",),
    ("options", "testing"),
    ("runners",),
    ("clients",),
    ("stores",),
    ("limits",),
    ("map",),
    ("functions",),
    ("contexts",),
    ("assembly",),
    ("blocks", "decorators"),
    ("opero",),
    ("integrations",),
    ("self_test",),
    ("doctor",),
    ("__main__",),
)
"""From the lowest to the highest; rooms of one layer know nothing of each other."""

DYNAMIC = {
    "opero._compiled": [],  # its own modules
    "opero": [f"opero.{module}" for module in set(opero._LATER.values())],
    "opero.hotpath": [f"opero.core.{module}" for module in hotpath.MODULES]
    + [f"opero._compiled.{module}" for module in hotpath.MODULES],
    "opero.doctor": ["opero._compiled"],
    "opero.map.progress": [],
    "opero.map.serialization.arrivals": [],
    "opero.map.serialization.names": [],
}
"""The modules that import by a name at run time, and which of ours they import so."""


@cache
def modules() -> dict[str, Path]:
    """Return every module of the package, by its name."""
    found = {}
    for path in sorted([*ROOT.rglob("*.py"), *ROOT.rglob("*.pyx")]):
        parts = path.relative_to(ROOT.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def ours(name: str) -> str | None:
    """Return the module of ours that a dotted name leads to."""
    while name and name not in modules():
        name = name.rpartition(".")[0]
    return name or None


def imports(module: str, path: Path) -> Iterator[str]:
    """Name what a module imports of the package, wherever in it."""
    package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".pyx":
        text = "\n".join(
            re.sub(r"\bcimport\b", "import", line).strip()
            for line in text.splitlines()
            if re.match(r"\s*(from\s+\S+\s+c?import|c?import)\s+[\w., ]+$", line)
        )
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) + 1 - node.level]) if node.level else ""
            base = ".".join(filter(None, [base, node.module]))
            names = [f"{base}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            found = ours(name)
            if found is not None and found != module:
                yield found


@cache
def graph() -> dict[str, frozenset[str]]:
    """Return what each module imports."""
    found = {module: set(imports(module, path)) for module, path in modules().items()}
    for module, more in DYNAMIC.items():
        found[module].update(each for each in more if each in found)
    return {module: frozenset(others) for module, others in found.items()}


def circles(edges: dict[str, frozenset[str]]) -> list[list[str]]:
    """Return the circles of a graph, one for each way back that is found."""
    found: list[list[str]] = []
    done: set[str] = set()

    def visit(node: str, way: list[str]) -> None:
        if node in way:
            found.append([*way[way.index(node) :], node])
            return
        if node in done:
            return
        for other in sorted(edges.get(node, ())):
            visit(other, [*way, node])
        done.add(node)

    for node in sorted(edges):
        visit(node, [])
    return found


def together(package: str) -> dict[str, frozenset[str]]:
    """Return the graph with a package for each of its modules."""

    def name(module: str) -> str:
        return package if module == package or module.startswith(f"{package}.") else module

    edges: dict[str, set[str]] = {}
    for module, others in graph().items():
        edges.setdefault(name(module), set()).update(map(name, others))
    for node, others in edges.items():
        others.discard(node)
    return {node: frozenset(others) for node, others in edges.items()}


def room(module: str) -> str:
    """Return the room that a module stands in."""
    return module.split(".")[1] if "." in module else module


def packages() -> list[str]:
    """Name the packages within `opero`."""
    return [name for name, path in modules().items() if path.name == "__init__.py" and "." in name]


def test_every_room_stands_in_one_layer():
    """A new module has a place before it has a line."""
    rooms = [each for layer in LAYERS for each in layer]
    assert sorted({room(module) for module in modules()}) == sorted(rooms)


def test_a_room_imports_only_rooms_of_lower_layers():
    """Whatever the import is for, and wherever it is written."""
    height = {each: level for level, layer in enumerate(LAYERS) for each in layer}
    assert [
        f"{module} imports {other}"
        for module, others in graph().items()
        for other in sorted(others)
        if room(module) != room(other) and height[room(module)] <= height[room(other)]
    ] == []


def test_no_module_imports_itself_by_way_of_others():
    """Not even in a function, or for type checkers only."""
    assert [" -> ".join(each) for each in circles(graph())] == []


@pytest.mark.parametrize("package", packages())
def test_no_package_is_in_a_circle(package):
    """Its modules taken together: what they import does not import one of them."""
    found = circles(together(package))
    assert [" -> ".join(each) for each in found if package in each] == []


def test_who_imports_by_name_at_run_time_is_known():
    """Such an import is seen by nobody who reads the tree; each says here what it leads to."""
    found = [
        module
        for module, path in modules().items()
        if re.search(r"\b(import_module|__import__)\(", path.read_text(encoding="utf-8"))
    ]
    assert sorted(found) == sorted(DYNAMIC)


def test_a_circle_is_found():
    """The test of the test: directly, around a corner, and within a package."""
    assert circles({"a": frozenset("b"), "b": frozenset("a")}) == [["a", "b", "a"]]
    assert circles(
        {"a": frozenset("b"), "b": frozenset("c"), "c": frozenset("b"), "d": frozenset("a")}
    ) == [["b", "c", "b"]]
    assert circles({"a": frozenset("bc"), "b": frozenset("c")}) == []


def test_cloudpickle_is_imported_in_one_place():
    """On PyPy it is imported with care; see `opero.map.serialization.cloud`."""
    found = [
        module
        for module, path in modules().items()
        if re.search(r"^\s*(from|import) cloudpickle", path.read_text("utf-8"), re.MULTILINE)
    ]
    assert found == ["opero.map.serialization.cloud"]

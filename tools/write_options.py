"""Writes what repeats the table of options: signatures, docstrings, typed dicts, tables of pages.

    python -m tools.write_options           # writes
    python -m tools.write_options --check   # says what it would write; fails if it is anything

The rows are in `src/opero/options/`. What stands in the files besides the options stays as it is:
the types of `mode`, `on_error` and the like, by which overloads differ, every line of a docstring
outside "Args:", every line of a page outside the marks `<!-- options: ... -->`.
"""

from __future__ import annotations

import ast
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

from opero.options import POSITIONAL, read_by
from opero.options.cache_rows import STORED
from opero.options.option import Option

ROOT = Path(__file__).parent.parent
SOURCES = ("decorators.py", "contexts.py", "functions.py", "blocks/policy.py")
PAGES = ("docs/opero.md", "docs/opmap.md")
TYPED_DICTS = {
    "StoreOptions": "opero",
    "_MoreForMap": "opmap",
    "_MoreForCache": "get_cache_decorator",
    "_MoreForRetry": "get_retry_decorator",
    "_MoreForRateLimit": "get_rate_limit_decorator",
    "_MoreForFallback": "get_fallback_decorator",
    "_MoreForContext": "get_cache_context",
}
"""The typed dicts, and whose options they have that are no parameters."""
EXPLICIT = ("opero", "opmap", "attempts")
"""The functions whose keyword-only options are parameters."""
REQUIRED = {"get_rate_limit_decorator": "rate_limit", "get_fallback_decorator": "arg_fallback"}
"""Options without a default."""
TYPES = {
    ("get_retry_decorator", "retries"): "int | RetryConfig",
    ("attempts", "rate_limit"): "RateLimiter | None",
    ("attempts", "breaker"): "Breaker | None",
}
DEFAULTS = {("opmap", "rate_limit_scope"): "_WORKER"}
"""The default of who does not say `"worker"`, told apart from `"worker"`."""
DISTINGUISHED = {"opero": ("retries",), "opmap": ("mode", "on_error", "unpack", "with_items")}
"""The parameters by whose types the overloads of a function differ."""


def is_stored(option: Option) -> bool:
    """Return whether an option is one of the backends that keep values outside the process."""
    return bool(option.backends) and not {*option.backends} - {*STORED}


def default_of(option: Option, function: str) -> str:
    """Return the default of an option as a signature writes it."""
    if option.written:
        return option.written
    return repr(option.default_of(function)).replace("'", '"')


# --- Python ---------------------------------------------------------------------------------------


def parameters(function: ast.FunctionDef, source: str) -> list[str]:
    """Return the parameters of a function, a line for each.

    Args:
        function: What stands there now.
        source: The text of the file.
    """
    name = function.name
    kept = {}
    all_arguments = function.args
    named = [*all_arguments.args, *all_arguments.kwonlyargs]
    defaults = [*all_arguments.defaults, *all_arguments.kw_defaults]
    defaults = [None] * (len(named) - len(defaults)) + defaults
    for argument, default in zip(named, defaults, strict=True):
        if argument.arg in DISTINGUISHED.get(name, ()):
            text = ast.get_source_segment(source, argument)
            value = "" if default is None else f" = {ast.get_source_segment(source, default)}"
            kept[argument.arg] = f"{text}{value},"
    lines = []
    more = all_arguments.kwarg
    assert more is not None
    explicit = name in EXPLICIT and "_MoreForMap" not in ast.unparse(more)
    for option in read_by(name):
        keyword = option.name not in POSITIONAL[name]
        if keyword and "*," not in lines and (explicit or option.name in kept):
            lines.append("*,")
        if option.name in kept:
            lines.append(kept[option.name])
        elif not keyword or (explicit and not is_stored(option)):
            default = DEFAULTS.get((name, option.name)) or default_of(option, name)
            default = "" if REQUIRED.get(name) == option.name else f" = {default}"
            kind = TYPES.get((name, option.name), option.type)
            lines.append(f"{option.name}: {kind}{default},")
    return [*lines, f"**{ast.get_source_segment(source, more)},"]


def arguments(name: str, more: str) -> list[str]:
    """Return the lines of "Args:" in the docstring of a function.

    Args:
        name: The function.
        more: The name of the parameter that takes the other options.
    """
    entries, others = [], []
    for option in read_by(name):
        text = option.doc_of(name)
        if option.name in POSITIONAL[name] or (name in EXPLICIT and not is_stored(option)):
            entries.append(f"{option.name}: {text}")
        else:
            backends = f" ({', '.join(option.backends)})" if option.backends else ""
            others.append(f"`{option.name}`{backends}: {text}")
    which = "Options of the stored backends; an error if the chosen backend does not read them."
    if name in EXPLICIT:
        others = [which, *others] if others else ["None; an error says how to spell an option."]
    entries.append(f"**{more}: {' '.join(others)}")
    lines = []
    for entry in entries:
        lines += textwrap.wrap(
            entry, 92, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False
        )
    return lines


def with_options(source: str) -> str:
    """Return the text of a module with the options of the table."""
    lines = source.split("\n")
    edits: list[tuple[int, int, list[str]]] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ClassDef) and node.name in TYPED_DICTS:
            edits.append(fields(node))
        elif isinstance(node, ast.FunctionDef) and node.name in POSITIONAL:
            if node.args.kwarg is None:
                continue  # an overload for what is decorated without options
            first = node.lineno  # the line after `def name(`
            last = next(n for n in range(first, len(lines)) if lines[n].startswith(")"))
            edits.append((first, last, [f"    {line}" for line in parameters(node, source)]))
            if ast.get_docstring(node):
                first = next(n for n in range(last, len(lines)) if lines[n] == "    Args:") + 1
                last = next(n for n in range(first, len(lines)) if not lines[n])
                told = arguments(node.name, node.args.kwarg.arg)
                edits.append((first, last, [f"        {line}" for line in told]))
    for first, last, new in sorted(edits, reverse=True):
        lines[first:last] = new
    return "\n".join(lines)


def fields(node: ast.ClassDef) -> tuple[int, int, list[str]]:
    """Return which lines the fields of a typed dict have, and what they are by the table."""
    function = TYPED_DICTS[node.name]
    stored = node.name == "StoreOptions"
    options = [
        option
        for option in read_by(function)
        if option.name not in POSITIONAL[function]
        and option.name not in DISTINGUISHED.get(function, ())
        and is_stored(option) == stored
    ]
    own = [each for each in node.body if isinstance(each, ast.AnnAssign)]
    indent = " " * own[0].col_offset
    end = own[-1].end_lineno
    assert end is not None
    new = [f"{indent}{option.name}: {option.type}" for option in options]
    return own[0].lineno - 1, end, new


# --- Markdown -------------------------------------------------------------------------------------


def marked_up(text: str) -> str:
    """Return a row's text with code where a docstring has words, such as None."""
    parts = re.split(r"(`[^`]*`)", text)
    parts[::2] = [re.sub(r'"\w+"|\b(None|True|False)\b', r"`\g<0>`", part) for part in parts[::2]]
    return "".join(parts)


def cell(option: Option, text: str) -> str:
    """Return what an option means, as a cell of a table."""
    return marked_up(f"{text} {option.more}".strip())


def value(option: Option, function: str) -> str:
    """Return the default of an option as a table shows it."""
    text = default_of(option, function)
    return text if " GiB" in text else f"`{text}`"


def anchored(option: Option) -> str:
    """Return the name of an option as a cell that others can link to."""
    return f'<a id="{option.name}" href="#{option.name}">`{option.name}`</a>'


def of_call() -> Iterator[str]:
    """The options that `@opero` has as parameters."""
    yield "| option | default | meaning |"
    yield "|---|---|---|"
    for option in read_by("opero"):
        if not is_stored(option):
            meaning = cell(option, option.doc)
            yield f"| {anchored(option)} | {value(option, 'opero')} | {meaning} |"


def of_backends() -> Iterator[str]:
    """The options of the stored backends."""
    yield "| option of a backend | read by | default | meaning |"
    yield "|---|---|---|---|"
    for option in read_by("opero"):
        if is_stored(option):
            readers, meaning = ", ".join(option.backends), cell(option, option.doc)
            yield f"| {anchored(option)} | {readers} | {value(option, 'opero')} | {meaning} |"


def of_mechanisms() -> Iterator[str]:
    """The options of the decorators of one mechanism each."""
    yield "| decorator | its options |"
    yield "|---|---|"
    for function in POSITIONAL:
        if function.startswith("get_") and function.endswith("_decorator"):
            options = read_by(function)
            names = [f"`{each.name}`" for each in options if not is_stored(each)]
            if any(map(is_stored, options)):
                names.append("and those of the backends")
            told = ", ".join(names).replace("`cache`,", "`cache` (here `True` by default),")
            yield f"| `{function}` | {told} |"


def of_map() -> Iterator[str]:
    """The options that only a map has, and those that mean something else there."""
    yield "| option | default | meaning |"
    yield "|---|---|---|"
    calls = {option.name for option in read_by("opero")}
    for option in read_by("opmap"):
        if option.name not in calls or option.each:
            meaning = cell(option, option.each or option.doc)
            yield f"| {anchored(option)} | {value(option, 'opmap')} | {meaning} |"


TABLES = {
    "of a call": of_call,
    "of backends": of_backends,
    "of one mechanism": of_mechanisms,
    "of a map": of_map,
}


def with_tables(page: str) -> str:
    """Return the text of a page with the tables of options."""

    def filled(found: re.Match[str]) -> str:
        return "\n".join((found[1], *TABLES[found[2]](), found[3]))

    begin = r"(<!-- options: ([\w ]+) -->)\n"
    return re.sub(rf"{begin}.*?(<!-- options end -->)", filled, page, flags=re.DOTALL)


# --- all of it ------------------------------------------------------------------------------------


def due() -> dict[Path, str]:
    """Return the files that differ from what the table says, with what they should be."""
    files = {ROOT / "src/opero" / name: with_options for name in SOURCES}
    files |= {ROOT / page: with_tables for page in PAGES}
    wanted = {}
    for path, change in files.items():
        text = path.read_text(encoding="utf-8")
        if (new := change(text)) != text:
            wanted[path] = new
    return wanted


def main(arguments: list[str]) -> int:
    """Write the files, or say which are due."""
    wanted = due()
    for path, text in wanted.items():
        print(path.relative_to(ROOT))
        if arguments != ["--check"]:
            path.write_text(text, encoding="utf-8")
    return 1 if wanted and arguments == ["--check"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

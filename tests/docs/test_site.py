"""The site has every page and every public name, and its builder sees what is wrong with it.

`python -m tools.site` builds it, and checks the links, the search and what a browser loads.
"""

from __future__ import annotations

import inspect
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from documents import DOCS, INCLUDED, ROOT, file_of, name_of, text_of

import opero as package
from opero import testing

sys.path.insert(0, str(ROOT))

from tools.site import checks, llms, pages

pytestmark = [pytest.mark.once, pytest.mark.checkout]


def settings() -> dict[str, Any]:
    """The settings of the site."""
    project: dict[str, Any] = tomllib.loads(text_of("zensical.toml"))["project"]
    return project


def listed() -> list[str]:
    """The names on the pages of the reference."""
    return [
        name
        for path in sorted((DOCS / "reference").glob("*.md"))
        for name in re.findall(r"^::: (\S+)$", text_of(name_of(path)), re.MULTILINE)
    ]


def test_the_reference_has_every_public_name_once() -> None:
    """Of `opero.__all__` and of `opero.testing.__all__`."""
    names = listed()
    public = {f"opero.{name}" for name in package.__all__}
    public |= {f"opero.testing.{name}" for name in testing.__all__}

    assert sorted(names) == sorted(set(names))
    assert public - set(names) == set()
    assert {name.rpartition(".")[0] for name in names} == {
        *("opero", "opero.testing"),
        *("opero.functions", "opero.stats"),  # for annotations
        *(f"opero.integrations.{name}" for name in ("opentelemetry", "prometheus", "structlog")),
    }


@pytest.mark.parametrize("name", package.__all__)
def test_every_public_name_has_a_docstring_to_show(name: str) -> None:
    """A function and a class their own; a value one in the line below it."""
    value = getattr(package, name)
    if inspect.isfunction(value) or inspect.isclass(value):
        assert value.__doc__
    else:
        sources = [path.read_text(encoding="utf-8") for path in (ROOT / "src").rglob("*.py")]
        documented = re.compile(rf'^{name}\b[^\n]* = [^\n]*\n"""\w', re.MULTILINE)
        assert any(documented.search(source) for source in sources)


def test_the_navigation_has_every_page_once() -> None:
    """And no page that is not there."""
    nav = settings()["nav"]
    listed = [page for _, entries in llms.sections(nav) for _, page in entries]
    assert len(listed) == len(set(listed))
    assert checks.of_navigation(nav, DOCS) == []


def test_a_page_that_the_navigation_lacks_is_seen(tmp_path: Path) -> None:
    """And one that it lists although it does not exist."""
    (tmp_path / "a.md").touch()
    assert checks.of_navigation([{"B": [{"b": "b.md"}]}], tmp_path) == [
        "the navigation lacks a.md",
        "the navigation lists b.md, which does not exist",
    ]


def test_the_files_that_are_pages_are_known_to_the_tests() -> None:
    """So their examples are run, too, though they do not stand under `docs/`."""
    found = [file_of(text_of(name_of(path))) for path in DOCS.rglob("*.md")]
    assert sorted(filter(None, found)) == sorted(INCLUDED)
    assert all((ROOT / name).is_file() for name in INCLUDED)


def test_the_builder_takes_the_same_pages_for_files_as_the_tests_do() -> None:
    """Nothing but a link upwards is one; a link in a sentence is none."""
    for text in ("[A](../A.md)\n", "[B](../b/B.md)", "See [A](../A.md).\n", "[A](A.md)\n", "# A\n"):
        assert pages.file_of(text) == file_of(text)


def test_a_source_distribution_has_what_the_site_is_built_from() -> None:
    """The pages, what they stand for, and the settings are copied for a build, and picked from it."""
    copied = re.findall(r'^    "([^"]+)",$', text_of("build_backend/_tree.py"), re.MULTILINE)
    picked = [name for line in text_of("MANIFEST.in").splitlines() for name in line.split()[1:]]
    for name in ("zensical.toml", "tools", *DOCS.relative_to(ROOT).parts, *INCLUDED):
        part = Path(name).parts[0]
        assert part in copied
        assert part in picked


@pytest.mark.parametrize(
    ("origin", "page", "link", "on_the_site"),
    [
        ("SECURITY.md", "security-policy.md", "[x](docs/keys.md#a)", "[x](keys.md#a)"),
        ("SECURITY.md", "security-policy.md", "[x](CHANGELOG.md)", "[x](changelog.md)"),
        ("SECURITY.md", "security-policy.md", "[x](README.md#a)", "[x](index.md)"),
        ("SECURITY.md", "security-policy.md", "[x](src/opero/logs.py)", "x"),
        ("SECURITY.md", "security-policy.md", "[x](#a)", "[x](#a)"),
        ("SECURITY.md", "security-policy.md", "[x](https://a.example)", "[x](https://a.example)"),
        ("benchmarks/README.md", "measuring.md", "[x](../docs/keys.md)", "[x](keys.md)"),
        ("docs/migration/a.md", "migration/a.md", "[x](../keys.md#a)", "[x](../keys.md#a)"),
        (
            "docs/migration/a.md",
            "migration/a.md",
            "[x](../../CHANGELOG.md)",
            "[x](../changelog.md)",
        ),
        ("docs/a.md", "a.md", "```sh\n[x](../src)\n```", "```sh\n[x](../src)\n```"),
    ],
)
def test_links_of_the_repository_are_links_of_the_site(
    origin: str, page: str, link: str, on_the_site: str
) -> None:
    """Whatever leaves `docs/` leads to its page, or is plain text."""
    assert pages.relinked(link, origin, page, {"CHANGELOG.md": "changelog.md"}) == on_the_site


@pytest.mark.parametrize(
    ("file", "text", "fetches"),
    [
        ("a.html", '<script src="https://a.example/x.js"></script>', ["https://a.example/x.js"]),
        ("a.html", '<link rel="stylesheet" href="//a.example/x.css">', ["//a.example/x.css"]),
        ("a.html", '<img src="http://a.example/x.png">', ["http://a.example/x.png"]),
        ("a.html", '<pre class="mermaid">graph</pre>', ["Mermaid"]),
        ("a.html", '<a href="https://a.example">x</a><img src="figures/map.svg">', []),
        ("a.css", '@import "https://a.example/x.css";', ["https://a.example/x.css"]),
        ("a.css", "a { background: url(https://a.example/x.png) }", ["https://a.example/x.png"]),
        ("a.css", "a { background: url(x.png) }", []),
        ("a.js", '"https://a.example"', []),
    ],
)
def test_what_a_browser_would_fetch_from_another_host_is_seen(
    tmp_path: Path, file: str, text: str, fetches: list[str]
) -> None:
    """A page that would do so ends the build; a link that a reader may follow does not."""
    path = tmp_path / file
    path.write_text(text, encoding="utf-8")
    assert checks.loaded_from_elsewhere(path) == fetches


@pytest.mark.parametrize(
    ("link", "complaint"),
    [
        ('<a href="b.html">x</a>', "a.html: b.html leads nowhere"),
        ('<a href="c.html#d">x</a>', "a.html: c.html#d leads to an anchor that does not exist"),
        ('<a href="#d">x</a>', "a.html: #d leads to an anchor that does not exist"),
        ('<img src="d.svg">', "a.html: d.svg leads nowhere"),
        ('<a href="../LICENSE">x</a>', "a.html: ../LICENSE leads nowhere"),
        ('<a href="/">x</a>', "a.html: / leads nowhere"),
        ('<a href="folder/">x</a>', "a.html: folder/ leads nowhere"),
        ('<i id="e"></i><i id="e"></i>', "a.html: the anchor #e is there more than once"),
        ('<a href="c.html#c">x</a><a href="https://a.example">x</a><a href="#">x</a>', None),
    ],
)
def test_a_link_that_leads_nowhere_is_seen(
    tmp_path: Path, link: str, complaint: str | None
) -> None:
    """So is an image that is not there, and an anchor that is there twice."""
    (tmp_path / "LICENSE").touch()  # in the checkout, but not in the site
    site = tmp_path / "site"
    (site / "folder").mkdir(parents=True)
    (site / "a.html").write_text(link, encoding="utf-8")
    (site / "c.html").write_text('<i id="c"></i>', encoding="utf-8")
    assert list(checks.of_links(site)) == ([complaint] if complaint else [])


def test_language_models_get_a_list_of_all_pages_and_their_text(tmp_path: Path) -> None:
    """As https://llmstxt.org describes it: a title, a summary, sections of links."""
    staged, site = tmp_path / "staged", tmp_path / "site"
    pages.stage(ROOT, staged)
    for folder in {path.parent.relative_to(staged) for path in staged.rglob("*.md")}:
        (site / folder).mkdir(parents=True, exist_ok=True)
    project = settings()
    llms.write(project, staged, site)

    lines = (site / "llms.txt").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "# opero"
    assert lines[2] == f"> {project['site_description']}"
    links = [match for line in lines if (match := re.match(r"- \[.+\]\(([^)]+)\)", line))]
    assert len(links) == sum(len(entries) for _, entries in llms.sections(project["nav"]))
    assert all((site / link[1]).exists() or link[1].endswith(".html") for link in links)
    assert {line for line in lines if line.startswith("#")} == {
        "# opero",
        *(f"## {title}" for title, _ in llms.sections(project["nav"]) if title),
    }
    full = (site / "llms-full.txt").read_text(encoding="utf-8")
    assert llms.heading(text_of("docs/keys.md")) in full
    assert "<!--" not in re.sub(r"```.*?```", "", full, flags=re.DOTALL)


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("# A\n\n<!-- x -->\n```python\na\n```\n\nSee [b](b.md)\nnow. Then c.\n", "See b now."),
        ("# A\n\n`f` does it:\n\n- x\n", "`f` does it."),
        ("# A\n\n| x |\n|---|\n", ""),
    ],
)
def test_a_page_is_described_by_its_first_sentence(text: str, first: str) -> None:
    """Without links; a page of tables has none."""
    assert llms.summary(text) == first

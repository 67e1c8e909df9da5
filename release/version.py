"""Checks that a tag names the version that the package has, and that the changelog tells of it.

python -m release.version v1.2.3
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def faults(tag: str, source: str, changelog: str) -> list[str]:
    """Say what does not fit a tag; an empty list if everything does.

    Args:
        tag: As in `v1.2.3`.
        source: The text of `opero/__init__.py`.
        changelog: The text of `CHANGELOG.md`.
    """
    found = re.search(r'(?m)^__version__\b.*= "([^"]+)"', source)
    version = found[1] if found else None
    faults = []
    if tag != f"v{version}":
        faults.append(f"the tag is {tag}, and opero.__version__ is {version}")
    if not re.search(rf"(?m)^## \[{re.escape(tag[1:])}\] - \d{{4}}-\d\d-\d\d$", changelog):
        faults.append(f"CHANGELOG.md has no dated heading for {tag[1:]}")
    return faults


def main() -> int:
    """Compare the tag on the command line with the checkout."""
    parser = argparse.ArgumentParser(prog="python -m release.version", description=__doc__)
    parser.add_argument("tag")
    source = (ROOT / "src" / "opero" / "__init__.py").read_text(encoding="utf-8")
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    found = faults(parser.parse_args().tag, source, changelog)
    for fault in found:
        print(f"FAULT {fault}")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())

"""Build the documentation into `site/`, strictly."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

from tools.site import checks, llms, pages

ROOT = Path(__file__).parents[2]


def main() -> int:
    """Build the site; return 1 if anything is wrong with it."""
    project = tomllib.loads((ROOT / "zensical.toml").read_text(encoding="utf-8"))["project"]
    staged, site = ROOT / project["docs_dir"], ROOT / project["site_dir"]
    if lost := checks.of_navigation(project["nav"], ROOT / "docs"):
        print(*lost, sep="\n", file=sys.stderr)
        return 1
    pages.stage(ROOT, staged)
    shutil.rmtree(site, ignore_errors=True)
    command = [sys.executable, "-m", "zensical", "build", "--strict", "--clean"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OPERO_PURE_PYTHON": "1"}
    if built := subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode:
        return built
    llms.write(project, staged, site)
    complaints = checks.of_site(site)
    for complaint in complaints:
        print(complaint, file=sys.stderr)
    print(f"{sum(1 for _ in site.rglob('*.html'))} pages in {site.relative_to(ROOT)}/")
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())

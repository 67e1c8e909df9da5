"""Freezes programs that use opero by PyInstaller, and runs them.

    python -m release.frozen WHEEL [--python PYTHON]

The wheel is compiled. Its program has to map in processes, however they are started, and by the
compiled half. A program that forgot `multiprocessing.freeze_support()` has to end, with an error
that says so, and without starting itself again and again.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

PATIENCE = 120
"""Seconds after which a program hangs."""

METHODS = ("forkserver", "spawn", "fork")

PROGRAM = """\
import os, sys
{support}
with open(os.environ["BEGUN"], "a") as file:
    file.write("begun\\n")
if os.path.getsize(os.environ["BEGUN"]) > 120:
    os._exit(9)  # twenty of them

from opero import COMPILED, opmap


class Shop:
    def __init__(self, factor):
        self.factor = factor

    @opmap(workers=2, retries=1, progress=False, start_method=os.environ["METHOD"])
    def price(self, item):
        return self.factor * item


if __name__ == "__main__":
    print("compiled" if COMPILED else "plain", *Shop(2).price(range(4)), flush=True)
"""
SUPPORT = "import multiprocessing; multiprocessing.freeze_support()"


class Fault(Exception):
    """A frozen program does not do what it should."""


def freeze(folder: Path, python: str, name: str, text: str) -> Path:
    """Freeze a program; return what to run."""
    script = folder / f"{name}.py"
    script.write_text(text, encoding="utf-8")
    places = (
        "--distpath",
        str(folder),
        "--workpath",
        str(folder / "work"),
        "--specpath",
        str(folder),
    )
    command = [python, "-m", "PyInstaller", "--noconfirm", "--log-level", "ERROR", *places]
    subprocess.run([*command, str(script)], cwd=folder, check=True)
    return folder / name / name


def run(program: Path, method: str, folder: Path) -> tuple[str, int]:
    """Run a frozen program; return what it wrote, and how often it began.

    Raises:
        Fault: If it hangs.
    """
    begun = folder / "begun"
    begun.unlink(missing_ok=True)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("OPERO_")}
    process = subprocess.Popen(
        [str(program)],
        env={**kept, "METHOD": method, "BEGUN": str(begun)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output = process.communicate(timeout=PATIENCE)[0]
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise Fault(f"{program.name}, {method}: it hangs; {process.communicate()[0]}") from None
    return output, begun.read_text(encoding="utf-8").count("begun")


def freeze_and_run(wheel: Path, python: str) -> None:
    """Freeze programs with a wheel, and run them with each start method.

    Args:
        wheel: The wheel.
        python: The interpreter to make the environment with.

    Raises:
        CalledProcessError: If a step fails.
        Fault: If a program does not do what it should.
    """
    with tempfile.TemporaryDirectory(prefix="opero-frozen-") as place:
        folder = Path(place)
        subprocess.run([python, "-m", "venv", str(folder / "environment")], check=True)
        interpreter = str(folder / "environment" / "bin" / "python")
        install = [
            interpreter,
            "-m",
            "pip",
            "install",
            "--quiet",
            str(wheel),
            "pyinstaller>=6.10,<7",
        ]
        subprocess.run(install, cwd=folder, check=True)
        good = freeze(folder, interpreter, "supported", PROGRAM.format(support=SUPPORT))
        bad = freeze(folder, interpreter, "forgetful", PROGRAM.format(support=""))
        for method in METHODS:
            output, begun = run(good, method, folder)
            if output != "compiled 0 2 4 6\n" or begun != 1:
                raise Fault(f"{good.name}, {method}: it began {begun} times; {output}")
            output, begun = run(bad, method, folder)
            if "must call multiprocessing.freeze_support() first" not in output or begun > 15:
                raise Fault(f"{bad.name}, {method}: it began {begun} times; {output}")
            print(f"{method}: it maps; without freeze_support it says so, after {begun} begun")


def main() -> int:
    """Freeze and run the programs with the wheel that is named on the command line."""
    parser = argparse.ArgumentParser(prog="python -m release.frozen", description=__doc__)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--python", default=sys.executable, help="default: the one that runs this")
    arguments = parser.parse_args()
    try:
        freeze_and_run(arguments.wheel.absolute(), arguments.python)
    except (subprocess.CalledProcessError, Fault) as error:
        print(f"FAULT {arguments.wheel.name}: {error}")
        return 1
    print(f"{arguments.wheel.name}: frozen, and run")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Functions of one item that start programs and processes: what is to end with an attempt.

An item is a triple: how a process is started, what happens then, and the folder where its id is
noted, in a file named after how.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import time
from pathlib import Path
from typing import Any

LONG = "300"
"""Seconds that a program sleeps which nothing ends."""


def _note(folder: str, name: str, pid: int) -> None:
    with Path(folder, name).open("a", encoding="utf-8") as file:
        file.write(f"{pid}\n")


def begin(how: str, folder: str) -> None:
    """Start a process that goes on for long."""
    sleep = ["sleep", LONG]
    if how in {"program", "daemon"}:
        _note(folder, how, subprocess.Popen(sleep).pid)
    elif how == "session":
        _note(folder, how, subprocess.Popen(sleep, start_new_session=True).pid)
    elif how in {"background", "daemon in the background"}:
        file = str(Path(folder, how))
        os.system(f"sleep {LONG} & echo $! >> '{file}'")
    elif how == "shell":
        file = str(Path(folder, how))
        subprocess.Popen(f"sleep {LONG} & echo $! >> '{file}'; sleep {LONG}", shell=True)
    elif how == "fork":
        pid = os.fork()
        if not pid:
            time.sleep(float(LONG))
            os._exit(0)
        _note(folder, how, pid)
    elif how == "process":
        context = multiprocessing.get_context("fork")
        child = context.Process(target=time.sleep, args=(float(LONG),))
        child.start()
        assert child.pid is not None
        _note(folder, how, child.pid)


def starts(item: Any) -> str:
    """Start a process, and end as the item says."""
    how, then, folder = item
    begin(how, folder)
    while not Path(folder, how).exists():
        time.sleep(0.01)  # a shell takes its time
    if then == "crash":
        os._exit(3)
    if then == "hang":
        time.sleep(float(LONG))
    return how


def noted(folder: Any) -> dict[str, list[int]]:
    """Return the ids of what was started, by how."""
    return {file.name: list(map(int, file.read_text().split())) for file in Path(folder).iterdir()}


def runs(pid: int) -> bool:
    """Return whether such a program runs."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"

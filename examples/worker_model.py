"""A model for each worker: loaded once in each process, which is renewed before it grows too large.

    pip install .                        # in a checkout of opero
    python examples/worker_model.py

It classifies 3,000 texts with a toy model that takes a while to load. Exits with 1 if a process
loaded it twice, or went on after its 1,000th text.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections import Counter

from opero import opmap

log = logging.getLogger("recipe")
model: dict[str, str] | None = None


def load_model(name: str = "toy") -> None:
    """Load the model, once in each worker; in yours, `torch.load` or the like."""
    global model  # noqa: PLW0603 - each worker process has its own
    time.sleep(0.2)
    model = {"good": "praise", "bad": "complaint"}
    log.info("process %d has loaded the model %r", os.getpid(), name)


@opmap(
    mode="process",
    workers=2,
    worker_init=load_model,
    max_items_per_worker=1000,
    max_memory_per_worker=2 * 2**30,
    retries=2,
    on_error="raise",
    progress=False,
)
def classify(text: str) -> tuple[str, int]:
    """Classify a text; say in which process, for the check in `main`."""
    assert model is not None
    return next((model[word] for word in text.split() if word in model), "other"), os.getpid()


class Loads(logging.Handler):
    """Counts how often each process said that it has loaded the model."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[int] = Counter()

    def emit(self, record: logging.LogRecord) -> None:
        """Count one line."""
        self.counts[record.process or 0] += 1
        print(record.getMessage())


def main() -> int:
    """Classify texts; return the exit code."""
    loads = Loads()
    log.addHandler(loads)
    log.setLevel(logging.INFO)
    texts = ["a good day", "bad service", "rain"] * 1000
    labels: Counter[str] = Counter()
    work: Counter[int] = Counter()
    for label, process in classify(texts):
        labels[label] += 1
        work[process] += 1
    print(f"{labels.total()} texts in {len(work)} processes: {dict(labels)}")
    print(f"the parent has loaded {'no model' if model is None else 'a model'}")
    once = all(loads.counts[process] == 1 for process in work)
    renewed = max(work.values()) <= 1000
    right = labels == {"praise": 1000, "complaint": 1000, "other": 1000}
    return 0 if once and renewed and right and model is None else 1


if __name__ == "__main__":
    sys.exit(main())

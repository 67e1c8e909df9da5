"""The page about metrics: its table is the code's, and its queries find what a program exposes."""

from __future__ import annotations

import re
from collections import defaultdict
from typing import Any

import pytest
from documents import ROOT, blocks, table
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from opero import Breaker, Event, RateLimiter, hotpath, opero, opmap
from opero.clients.outages import Outage
from opero.core.gate import REJECTED
from opero.integrations import prometheus
from opero.integrations.measures import METRICS
from opero.testing import skip_waits

PAGE = "docs/telemetry.md"
WORDS = frozenset(
    {"by", "histogram_quantile", "increase", "le", "max", "min", "rate", "sum", "topk"}
    | {"closed", "open", "half_open", "failed", "succeeded"}
)
"""What stands in a query and is neither a metric nor a label."""


def test_the_table_is_that_of_the_code() -> None:
    """Names, units, labels and what they mean."""
    rows = [[cell.replace("`", "") for cell in row] for row in table(PAGE, "\n## The metrics\n")]
    expected = [
        [metric.name, metric.unit, ", ".join(metric.labels), metric.text] for metric in METRICS
    ]
    assert rows == expected


@pytest.fixture
def exposed(core: hotpath.Core) -> dict[str, set[str]]:
    """Let everything happen that the page asks for; return the labels of each sample's name."""
    registry = CollectorRegistry()
    end = prometheus.instrument(registry, durations=True)
    errors: list[Any] = [TimeoutError()]

    @opero(cache=True, rate_limit=1)
    def price(item: str) -> str:
        if errors:
            raise errors.pop()
        return item

    @opmap(mode="thread", workers=1, retries=1)
    def parse(item: int) -> int:
        return 1 // item

    collector: Any = next(iter(registry._collector_to_names))
    count = collector._measures._count
    with skip_waits():
        for item in ("tea", "tea", "milk"):
            price(item)
        stream = parse.stream([0, 1, 2])
        next(stream)
        Outage("the disk cache").leave(0, error=OSError())
        count(Event("worker_crash", 0.0, "parse", __name__))
        count(Event("refresh", 0.0, "price", __name__, error=OSError()))
        price.__opero__.add("stale", 1)
        price.__opero__.add("store_failures", 1)
        Breaker("prices").trip()
        RateLimiter(5, adaptive=True)._queue.report(REJECTED, hotpath.core.clock.now())
        text = generate_latest(registry).decode()
        stream.close()
    end()
    found = defaultdict(set)
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found[sample.name] |= sample.labels.keys()
    return found


LABELS = {label.replace(".", "_") for metric in METRICS for label in metric.labels} - {
    "opero_breaker_state"  # the metric has the name of its label
}
QUERIES = [block.text for block in blocks(ROOT / PAGE) if block.language == "promql"]


@pytest.mark.parametrize("query", QUERIES)
def test_a_query_finds_what_is_exposed(exposed: dict[str, set[str]], query: str) -> None:
    """Each metric is there, and has the labels that the query names."""
    words = set(re.findall(r"[a-z_]+", re.sub(r"\[\w+\]", "", query)))
    names = {word for word in words if word.startswith("opero_")} - LABELS
    assert names
    assert names <= exposed.keys()
    labels = words - names - WORDS
    for name in names:
        assert labels <= exposed[name], name


def test_there_are_queries() -> None:
    """They have been found."""
    assert len(QUERIES) > 15

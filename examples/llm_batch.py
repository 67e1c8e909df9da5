"""An LLM batch with 429s, a fallback model, a budget, and answers that you pay for once.

    pip install '.[disk]' httpx          # in a checkout of opero
    python examples/llm_batch.py

It starts a toy provider that allows 100 requests a second, is out of order for some prompts, and
counts tokens. The batch runs three times: the first run stops when its money is spent, the second
one pays for the rest, the third one costs nothing. Exits with 1 if one of these is not true.

Answers are kept in a temporary directory, or in the one that LLM_ANSWERS names: then another run
of this program costs nothing.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator

from toy_server import serving

from opero import RateLimiter, opmap, retry_after, transient_error

try:
    import diskcache  # noqa: F401 - only to say so if it is missing
    import httpx
except ImportError as error:
    sys.exit(f"This recipe needs {error.name}: pip install '.[disk]' httpx")

PRICES = {"large": 0.002, "small": 0.0005}  # dollars for a token
MOST_TOKENS = 20  # the longest answer we ask for
SCRATCH = tempfile.TemporaryDirectory()


class OverBudgetError(Exception):
    """The next request could cost more than what is left."""


class Budget:
    """Reserves the most that a request can cost, and gives back what it did not."""

    def __init__(self, dollars: float) -> None:
        self.dollars = dollars
        self.spent = 0.0
        self.is_over = False

    def reserve(self, dollars: float) -> None:
        """Set money aside, before a request."""
        if self.spent + dollars > self.dollars:
            self.is_over = True
            raise OverBudgetError
        self.spent += dollars


def is_down(error: BaseException) -> bool:
    """Return whether a model is out of order; a 429 only means that it is busy."""
    return isinstance(error, httpx.HTTPStatusError) and error.response.status_code >= 500


@opmap(
    mode="async",
    workers=8,
    retries=6,
    retry_on=transient_error,
    retry_after=retry_after,
    arg_fallback={"model": ["small"]},
    fallback_on=is_down,
    rate_limit=RateLimiter(400.0, burst=4, adaptive=True),
    timeout=60,
    max_errors=0.2,
    cache=True,
    cache_backend="disk",
    cache_dir=os.environ.get("LLM_ANSWERS", SCRATCH.name),
    cache_key=lambda prompt, **_: prompt,
    cache_version="1",
    progress=False,
)
async def complete(
    prompt: str, *, client: httpx.AsyncClient, budget: Budget, model: str = "large"
) -> str:
    """Ask a model."""
    most = PRICES[model] * MOST_TOKENS
    budget.reserve(most)
    tokens = 0
    try:
        asked = {"model": model, "prompt": prompt, "max_tokens": MOST_TOKENS}
        response = await client.post("/complete", json=asked)
        response.raise_for_status()
        answer = response.json()
        tokens = answer["tokens"]
    finally:
        budget.spent += PRICES[model] * tokens - most
    return str(answer["text"])


def affordable(prompts: list[str], budget: Budget) -> Iterator[str]:
    """Hand out prompts until the money is spent."""
    for prompt in prompts:
        if budget.is_over:
            return
        yield prompt


async def run(prompts: list[str], url: str, dollars: float) -> tuple[int, float]:
    """Run the batch; return how many prompts have answers, and what it cost."""
    budget = Budget(dollars)
    async with httpx.AsyncClient(base_url=url) as client:
        results = await complete.amap(affordable(prompts, budget), client=client, budget=budget)
    answers = [result for result in results if isinstance(result, str)]
    print(f"{len(answers)} of {len(prompts)} answered, ${budget.spent:.2f} of ${dollars:.2f} spent")
    return len(answers), budget.spent


class Provider:
    """A toy: it counts what it sells, and refuses more than 100 requests a second."""

    def __init__(self) -> None:
        self.sold = 0.0
        self.requests = self.refused = 0
        self._free, self._when = 10.0, time.monotonic()
        self._lock = threading.Lock()

    def answer(self, _path: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        """Answer one request."""
        asked = json.loads(body)
        with self._lock:
            self.requests += 1
            now = time.monotonic()
            self._free = min(10.0, self._free + (now - self._when) * 100)
            self._when = now
            if self._free < 1:
                self.refused += 1
                return 429, {"Retry-After": "1"}, b""
            self._free -= 1
            if asked["model"] == "large" and asked["prompt"].endswith("7"):
                return 503, {}, b""
            tokens = 5 + len(asked["prompt"]) % 10
            self.sold += PRICES[asked["model"]] * tokens
        return 200, {}, json.dumps({"text": asked["prompt"].upper(), "tokens": tokens}).encode()


def main() -> int:
    """Run the batch three times; return the exit code."""
    prompts = [f"summarize chapter {number}" for number in range(100)]
    provider = Provider()
    with serving(provider.answer) as url:
        runs = [asyncio.run(run(prompts, url, dollars=1.0)) for _ in range(2)]
        before = provider.requests
        answered, cost = asyncio.run(run(prompts, url, dollars=1.0))
    SCRATCH.cleanup()
    print(f"the provider sold ${provider.sold:.2f}, and said 429 {provider.refused} times")
    spent = sum(cost for _, cost in runs)
    within = all(cost <= 1.0 for _, cost in runs)
    kept = answered == len(prompts) and cost == 0 and provider.requests == before
    return 0 if within and kept and abs(spent - provider.sold) < 1e-6 else 1


if __name__ == "__main__":
    sys.exit(main())

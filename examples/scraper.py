"""A polite scraper: robots.txt, a rate for each host, pages kept on disk, failures listed.

    pip install '.[disk]' httpx          # in a checkout of opero
    python examples/scraper.py

It starts two toy sites with pages that fail, stall, are missing or off limits, and crawls them
twice. Exits with 1 if a site was asked faster than its robots.txt allows, or for a page that it
forbids, or if the second crawl asked for a page that the first one had.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass
from urllib.parse import urlsplit
from urllib.robotparser import RobotFileParser

from toy_server import serving

from opero import RateLimiter, opero, opmap, retry_after, transient_error

try:
    import diskcache  # noqa: F401 - only to say so if it is missing
    import httpx
except ImportError as error:
    sys.exit(f"This recipe needs {error.name}: pip install '.[disk]' httpx")

AGENT = "recipe-bot"
USUAL_RATE = 1.0  # requests per second, where robots.txt does not say
SCRATCH = tempfile.TemporaryDirectory()


class DisallowedError(Exception):
    """The site's robots.txt forbids the page."""


@dataclass(frozen=True)
class Rules:
    """What a host allows."""

    robots: RobotFileParser
    limit: RateLimiter


@opero(cache=True, cache_ttl=3600, cache_key=lambda host, _: host, retry_on=transient_error)
async def rules_of(host: str, client: httpx.AsyncClient) -> Rules:
    """Read the robots.txt of a host; callers at the same moment share one request."""
    response = await client.get(f"{host}/robots.txt")
    if response.status_code != 404:
        response.raise_for_status()
    robots = RobotFileParser()
    robots.parse(response.text.splitlines() if response.is_success else [])
    delay, rate = robots.crawl_delay(AGENT), robots.request_rate(AGENT)
    per_second = rate.requests / rate.seconds if rate else USUAL_RATE
    return Rules(robots, RateLimiter(1 / float(delay) if delay else per_second))


@opmap(
    mode="async",
    workers=100,
    retries=3,
    retry_on=transient_error,
    retry_after=retry_after,
    cache=True,
    cache_backend="disk",
    cache_dir=os.environ.get("SCRAPER_PAGES", SCRATCH.name),
    cache_ttl=24 * 3600,
    cache_key=lambda url, **_: url,
    progress=False,
)
async def fetch(url: str, *, client: httpx.AsyncClient) -> str:
    """Fetch a page, as fast as its host allows."""
    parts = urlsplit(url)
    rules = await rules_of(f"{parts.scheme}://{parts.netloc}", client)
    if not rules.robots.can_fetch(AGENT, url):
        raise DisallowedError("robots.txt forbids it")
    await rules.limit.acquire()
    response = await client.get(url)
    response.raise_for_status()
    return response.text


async def crawl(urls: list[str]) -> list[str]:
    """Fetch all pages; return the URLs of those that failed."""
    async with httpx.AsyncClient(headers={"User-Agent": AGENT}, timeout=0.5) as client:
        pages = await fetch.amap(urls, client=client)
    print(pages.summary())
    for failure in pages.failures:
        print(f"  {failure.item}: {str(failure.error).splitlines()[0]}")
    return [failure.item for failure in pages.failures]


class Site:
    """A toy site; it remembers when it was asked for what."""

    def __init__(self) -> None:
        self.asked: list[tuple[float, str]] = []
        self.intruded = False
        self._lock = threading.Lock()

    def answer(self, path: str, _: bytes) -> tuple[int, dict[str, str], bytes]:
        """Answer one request."""
        if path == "/robots.txt":
            return 200, {}, b"User-agent: *\nDisallow: /private\nRequest-rate: 20/1\n"
        with self._lock:
            is_first = path not in {each for _, each in self.asked}
            self.asked.append((time.monotonic(), path))
            self.intruded |= path.startswith("/private")
        if path == "/stalls" and is_first:
            time.sleep(0.7)
        if path == "/fails" and is_first:
            return 503, {}, b""
        return (404 if path == "/missing" else 200), {}, f"<h1>{path}</h1>".encode()

    @property
    def rate(self) -> float:
        """Requests per second, from the first to the last one."""
        times = [when for when, _ in self.asked]
        return (len(times) - 1) / max(times[-1] - times[0], 1e-9)


def main() -> int:
    """Crawl twice; return the exit code."""
    paths = [f"/page/{number}" for number in range(20)]
    paths += ["/fails", "/stalls", "/missing", "/private/diary"]
    sites = [Site(), Site()]
    with ExitStack() as stack:
        hosts = [stack.enter_context(serving(site.answer)) for site in sites]
        urls = [host + path for path in paths for host in hosts]
        failed = asyncio.run(crawl(urls))
        rates = [site.rate for site in sites]
        for site in sites:
            site.asked.clear()
        asyncio.run(crawl(urls))
    SCRATCH.cleanup()
    print(f"requests per second: {', '.join(f'{rate:.1f}' for rate in rates)}, 20 are allowed")
    listed = {urlsplit(url).path for url in failed} == {"/missing", "/private/diary"}
    asked_again = {path for site in sites for _, path in site.asked}
    polite = all(rate < 22 for rate in rates) and not any(site.intruded for site in sites)
    return 0 if polite and listed and asked_again == {"/missing"} else 1


if __name__ == "__main__":
    sys.exit(main())

"""A service client in FastAPI: cache, retries, breaker, deadline; 503 while the service is down.

    pip install . fastapi uvicorn httpx  # in a checkout of opero
    python examples/fastapi_client.py

It starts a toy service and the app, each on its own port, takes the service down and up again,
and asks the app. Exits with 1 if the app waited for a service that is down, or did not recover.
To serve the app alone: PRICES_URL=https://... uvicorn --app-dir examples fastapi_client:app
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from math import ceil

from toy_server import serving

from opero import (
    AllFailedError,
    Breaker,
    BreakerOpenError,
    DeadlineExceeded,
    opero,
    transient_error,
)

try:
    import httpx
    import uvicorn
    from fastapi import FastAPI, HTTPException, Request
    from fastapi.responses import JSONResponse
except ImportError as error:
    sys.exit(f"This recipe needs {error.name}: pip install fastapi uvicorn httpx")

OPEN_FOR = 2.0  # seconds; longer than a call's `timeout`, so that no request waits for a probe
prices = Breaker("prices", minimum=4, open_for=OPEN_FOR)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Open the client's connections with the app, and close them with it."""
    url = os.environ["PRICES_URL"]
    async with httpx.AsyncClient(base_url=url, timeout=None) as app.state.client:
        yield


app = FastAPI(lifespan=lifespan)


@opero(
    timeout=1.5,
    cache=True,
    cache_ttl=60,
    cache_key=lambda item, _: item,
    retries=3,
    min_delay=0.02,
    retry_on=transient_error,
    breaker=prices,
    attempt_timeout=0.5,
)
async def price_of(item: str, client: httpx.AsyncClient) -> float:
    """Ask the service for a price."""
    response = await client.get(f"/prices/{item}")
    response.raise_for_status()
    return float(response.text)


@app.exception_handler(BreakerOpenError)
@app.exception_handler(AllFailedError)
@app.exception_handler(DeadlineExceeded)
async def unavailable(_: Request, error: Exception) -> JSONResponse:
    """Answer 503, and say when to ask again."""
    wait = max(1, ceil(getattr(error, "retry_after", None) or 1))
    return JSONResponse({"detail": "prices are unavailable"}, 503, {"Retry-After": str(wait)})


@app.get("/items/{item}")
async def item(item: str, request: Request) -> dict[str, float]:
    """Answer with the price of an item."""
    try:
        return {"price": await price_of(item, request.app.state.client)}
    except httpx.HTTPStatusError as error:  # what retry_on does not match, such as a 404
        raise HTTPException(error.response.status_code) from error


class Service:
    """A toy service that can be taken down, and counts its requests."""

    is_up = True
    requests = 0

    def answer(self, path: str, _: bytes) -> tuple[int, dict[str, str], bytes]:
        """Answer one request."""
        self.requests += 1
        if not self.is_up:
            return 502, {}, b""
        return (404, {}, b"") if path.endswith("/nothing") else (200, {}, b"4.5")


@contextmanager
def running(url: str) -> Iterator[str]:
    """Run the app in a thread; yield its URL."""
    os.environ["PRICES_URL"] = url
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", lifespan="on"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started and thread.is_alive():
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


def main() -> int:
    """Take the service down and up again; return the exit code."""
    service = Service()
    with serving(service.answer) as prices_url, running(prices_url) as url:

        def ask(name: str) -> httpx.Response:
            answer = httpx.get(f"{url}/items/{name}")
            hint = answer.headers.get("Retry-After")
            print(f"{name}: {answer.status_code}" + (f", Retry-After: {hint}" if hint else ""))
            return answer

        up = [ask("tea").status_code, ask("tea").status_code, ask("nothing").status_code]
        asked = [service.requests]
        service.is_up = False
        down = [ask(name) for name in ("coffee", "cocoa", "mate")]
        asked.append(service.requests)
        meanwhile = [ask("water").status_code, ask("tea").status_code]
        asked.append(service.requests)
        service.is_up = True
        time.sleep(OPEN_FOR)
        back = ask("water").status_code
    print(f"requests that the service saw: {asked}, breaker: {prices.state}")
    fast = all(answer.elapsed.total_seconds() < 1.5 + 1 for answer in down)
    hinted = all(answer.headers.get("Retry-After") for answer in down)
    refused = meanwhile == [503, 200] and asked[2] == asked[1]
    return 0 if up == [200, 200, 404] and fast and hinted and refused and back == 200 else 1


if __name__ == "__main__":
    sys.exit(main())

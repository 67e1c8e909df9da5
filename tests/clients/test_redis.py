"""Connections to Redis: bounded in time, never reused out of step, and closed when nobody needs them."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import random
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fresh_interpreter import printed_by
from redis.exceptions import AuthenticationError, RedisError
from redis_server import RedisServer

from opero.clients import redis as redis_clients
from opero.clients.redis import Script, async_client, client
from opero.stores.operations import AsyncOperations, Operations
from opero.stores.redis import AsyncRedisBackend, RedisBackend

pytestmark = [pytest.mark.once, pytest.mark.redis]

TWO = Script("return {KEYS[1], ARGV[1], ARGV[2]}")
SECRET = "s3cr3t/p@ss:word"
QUOTED = "s3cr3t%2Fp%40ss%3Aword"


@pytest.fixture
def url(redis_server):
    """The URL of an empty server; no client of it is left open."""
    redis_server.command("FLUSHALL")
    yield redis_server.url
    for each in redis_clients._clients.values():
        each.close()
    assert not redis_clients._loops


def open_files():
    """Return how many files this process has open."""
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - the listing itself is one


# --- commands -----------------------------------------------------------------------------------


def test_commands_batches_and_scripts(url, redis_server):
    one = client(url)
    assert client(url) is one
    assert one.run("SET", "a", b"\x00\xff") == b"OK"
    assert one.batch([("GET", "a"), ("GET", "b"), ("INCR", "c")]) == [b"\x00\xff", None, 1]
    for _ in range(2):
        assert one.script(TWO, ["k"], [1, b"x"]) == [b"k", b"1", b"x"]
        redis_server.command("SCRIPT", "FLUSH")

    async def main():
        one = async_client(url)
        assert async_client(url) is one
        assert await one.run("GET", "a") == b"\x00\xff"
        assert await one.batch([("GET", "a"), ("INCR", "c")]) == [b"\x00\xff", 2]
        for _ in range(2):
            assert await one.script(TWO, ["k"], [1, b"x"]) == [b"k", b"1", b"x"]
            redis_server.command("SCRIPT", "FLUSH")

    asyncio.run(main())


def test_an_error_reply_leaves_the_connection_in_step(url):
    one = client(url)
    one.run("SET", "text", "text")
    commands = [("GET", "text"), ("INCR", "text"), ("LPUSH", "text", 1), ("SET", "after", "2")]
    for _ in range(3):
        with pytest.raises(RedisError, match="not an integer"):
            one.batch(commands)
        assert one.run("GET", "after") == b"2"
    assert len(one._idle) == 1

    async def main():
        one = async_client(url)
        for _ in range(3):
            with pytest.raises(RedisError, match="not an integer"):
                await one.batch(commands)
            assert await one.run("GET", "after") == b"2"
        assert len(one._open) == 1

    asyncio.run(main())


def test_an_argument_of_a_wrong_type_sends_nothing(url):
    one = client(url)
    with pytest.raises(RedisError):
        one.batch([("SET", "a", "1"), ("SET", "b", None)])
    assert one.run("EXISTS", "a") == 0


def test_threads_get_their_own_answers(url):
    one = client(url)
    one.batch([("SET", f"key{number}", f"value{number}") for number in range(50)])

    def ask(number):
        return one.run("GET", f"key{number % 50}") == b"value%d" % (number % 50)

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(ask, range(2000)))
    assert len(one._idle) <= 16


# --- order --------------------------------------------------------------------------------------


class SlowProxy:
    """Passes bytes to a server and back, each piece after a random moment."""

    def __init__(self, port):
        self._port = port
        self._rest = random.Random(1)
        self._tasks = set()

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.url = f"redis://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/1"
        return self

    async def __aexit__(self, *_):
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader, writer):
        task = asyncio.current_task()
        self._tasks.add(task)
        there = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            await asyncio.gather(self._pass(reader, there[1]), self._pass(there[0], writer))
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            writer.transport.abort()
            there[1].transport.abort()
            self._tasks.discard(task)

    async def _pass(self, reader, writer):
        while data := await reader.read(self._rest.choice([7, 65536])):
            await asyncio.sleep(self._rest.random() * 0.002)
            writer.write(data)
        writer.close()


def test_a_connection_whose_command_was_cancelled_is_never_used_again(url, redis_server):
    redis_server.command("SELECT", "1")
    times = random.Random(2)

    async def main():
        async with SlowProxy(redis_server.port) as proxy:
            one = async_client(proxy.url + "?max_connections=2")
            await one.batch([("SET", f"key{n}", f"value{n}") for n in range(200)])

            async def ask(number):
                if number % 2:
                    return await one.run("GET", f"key{number}")
                return await one.batch([("GET", f"key{number}"), ("ECHO", "x" * 100)] * 3)

            cut = 0
            for number in range(200):
                task = asyncio.create_task(ask(number))
                other = asyncio.create_task(ask((number + 100) % 200))
                await asyncio.sleep(times.random() * 0.012)
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
                cut += task.cancelled()
                wanted = b"value%d" % ((number + 100) % 200)
                answer = await other
                assert answer == (wanted if number % 2 else [wanted, b"x" * 100] * 3)
                assert len(one._open) <= 2
            assert cut > 20
            assert await one.run("GET", "key7") == b"value7"
            assert one._places._value == 2

    asyncio.run(main())


def test_ctrl_c_in_the_middle_of_a_command_does_not_shift_the_answers(url):
    """An exception out of nowhere, as a signal handler raises it."""

    class Interrupt(BaseException):
        pass

    def handler(*_):
        raise Interrupt

    one = client(url)
    one.batch([("SET", f"key{n}", f"value{n}") for n in range(100)])
    before = signal.signal(signal.SIGUSR1, handler)
    main = threading.main_thread().ident
    times = random.Random(3)
    interrupted = 0
    try:
        for number in range(100):
            timer = threading.Timer(
                times.random() * 0.002, signal.pthread_kill, (main, signal.SIGUSR1)
            )
            try:
                timer.start()
                while True:
                    assert one.run("GET", f"key{number}") == b"value%d" % number
                    assert one.batch([("GET", f"key{number}"), ("ECHO", "x")])[1] == b"x"
            except Interrupt:
                interrupted += 1
            timer.join()
            assert one.run("GET", f"key{number}") == b"value%d" % number
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert interrupted == 100


# --- time ---------------------------------------------------------------------------------------


@contextlib.contextmanager
def dripping():
    """A server that sends a long reply a byte at a time, ten a second."""
    over = threading.Event()
    listener = socket.create_server(("127.0.0.1", 0))

    def serve(sock):
        with sock, contextlib.suppress(OSError):
            sock.recv(1000)
            sock.sendall(b"$100\r\n")
            while not over.wait(0.1):
                sock.sendall(b"x")

    def accept():
        threads = []
        with contextlib.suppress(OSError):
            while True:
                threads.append(threading.Thread(target=serve, args=listener.accept()[:1]))
                threads[-1].start()
        for thread in threads:
            thread.join()

    acceptor = threading.Thread(target=accept)
    acceptor.start()
    try:
        yield f"redis://127.0.0.1:{listener.getsockname()[1]}?socket_timeout=0.2"
    finally:
        over.set()
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        acceptor.join()


def test_a_reply_that_comes_drop_by_drop_has_a_limit_too():
    with dripping() as url:
        start = time.monotonic()
        with pytest.raises(RedisError):
            client(url).run("GET", "a")
        assert time.monotonic() - start < 5

        async def main():
            await asyncio.gather(*(async_client(url).run("GET", "a") for _ in range(3)))

        with pytest.raises(RedisError, match="did not answer within"):
            asyncio.run(main())
        assert time.monotonic() - start < 8  # the reply alone would take ten


def test_a_frozen_server_costs_each_of_many_tasks_a_bounded_time(url, redis_server):
    async def main():
        one = async_client(url + "?max_connections=3&socket_timeout=0.1")
        await one.run("SET", "a", "1")
        redis_server.freeze()
        start = time.monotonic()
        try:
            ends = await asyncio.gather(
                *(one.run("GET", "a") for _ in range(200)), return_exceptions=True
            )
        finally:
            redis_server.thaw()
        assert {type(end).__name__ for end in ends} == {"TimeoutError"}
        assert time.monotonic() - start < 10  # one after the other: more than 13
        assert await one.run("GET", "a") == b"1"
        assert one._places._value == 3

    asyncio.run(main())


def test_a_busy_loop_does_not_take_itself_for_a_slow_server(url):
    async def main():
        one = async_client(url + "?socket_timeout=0.05")
        await one.run("SET", "a", "1")
        for _ in range(3):
            task = asyncio.create_task(one.run("GET", "a"))
            await asyncio.sleep(0)
            time.sleep(0.3)
            assert await task == b"1"

    asyncio.run(main())


def test_who_is_cancelled_in_the_line_leaves_it(url):
    async def main():
        one = async_client(url + "?max_connections=1")
        await one.run("SET", "a", "1")
        for _ in range(20):
            tasks = [asyncio.create_task(one.run("GET", "a")) for _ in range(10)]
            await asyncio.sleep(0)
            for task in tasks[::2]:
                task.cancel()
            ends = await asyncio.gather(*tasks, return_exceptions=True)
            assert ends[1::2] == [b"1"] * 5
            assert one._places._value == 1

    asyncio.run(main())


# --- life ---------------------------------------------------------------------------------------


def test_idle_connections_of_a_server_that_was_restarted_are_replaced(url, redis_server):
    one = client(url)
    for _ in range(3):
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda _: one.run("PING"), range(40)))
        redis_server.restart()
        assert one.run("PING") == b"PONG"

    async def main():
        one = async_client(url)
        for _ in range(3):
            await asyncio.gather(*(one.run("PING") for _ in range(4)))
            redis_server.restart()
            assert await one.run("PING") == b"PONG"

    asyncio.run(main())


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts files by /proc")
def test_the_connections_of_a_loop_end_with_it(url):
    backend = AsyncOperations(AsyncRedisBackend(url))

    async def main():
        await asyncio.gather(*(backend.put(f"{n:032x}", b"1", None) for n in range(5)))
        return await backend.count("")

    asyncio.run(main())
    gc.collect()
    before = open_files()
    for _ in range(50):
        assert asyncio.run(main()) == 5
        assert not redis_clients._loops
    gc.collect()
    assert open_files() <= before


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts files by /proc")
def test_the_connections_of_a_loop_that_was_only_closed_are_closed_by_the_next(url):
    backend = AsyncOperations(AsyncRedisBackend(url))

    def once():
        loop = asyncio.new_event_loop()
        try:
            loop.run_until_complete(backend.put("a", b"1", None))
        finally:
            loop.close()

    once()
    before = open_files()
    for _ in range(10):
        once()
    assert open_files() <= before
    assert len(redis_clients._loops) == 1
    asyncio.run(backend.get("a"))
    gc.collect()


def test_another_kind_of_loop_will_do(url):
    uvloop = pytest.importorskip("uvloop")
    backend = AsyncOperations(AsyncRedisBackend(url))

    async def main():
        await asyncio.gather(*(backend.put(f"{n:032x}", b"1", None) for n in range(5)))
        return await backend.get_many([f"{n:032x}" for n in range(5)])

    for _ in range(5):
        loop = uvloop.new_event_loop()
        try:
            assert loop.run_until_complete(main()) == [b"1"] * 5
            loop.run_until_complete(loop.shutdown_asyncgens())
            assert not redis_clients._loops
        finally:
            loop.close()
    asyncio.run(main())
    gc.collect()


def test_loops_in_several_threads_have_clients_of_their_own(url):
    backend = AsyncOperations(AsyncRedisBackend(url))

    async def work(number):
        name = f"{number:032x}"
        for turn in range(20):
            await backend.put(name, b"%d" % turn, None)
            assert await backend.get(name) == b"%d" % turn
        return True

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(lambda number: asyncio.run(work(number)), range(24)))


FORK = """
import asyncio, os, sys, threading
from opero.clients.redis import async_client, client
url = sys.argv[1]
one = client(url)
one.batch([("SET", f"key{n}", f"value{n}") for n in range(100)])

def check(times):
    return all(one.run("GET", f"key{n % 100}") == b"value%d" % (n % 100) for n in range(times))

async def check_async(times):
    for n in range(times):
        if await async_client(url).run("GET", f"key{n % 100}") != b"value%d" % (n % 100):
            return False
    return True

async def main():
    assert await check_async(10)
    child = os.fork()
    if not child:
        # The loop that runs here is the parent's; the child starts another one, in a thread.
        found = [check(300)]
        thread = threading.Thread(target=lambda: found.append(asyncio.run(check_async(100))))
        thread.start()
        thread.join()
        os._exit(0 if found == [True, True] else 1)
    assert await check_async(300)
    assert check(300)
    assert os.waitpid(child, 0)[1] == 0

asyncio.run(main())
child = os.fork()
if not child:
    ok = check(300) and asyncio.run(check_async(100))
    sys.exit(0 if ok else 1)
assert check(300)
assert os.waitpid(child, 0)[1] == 0
assert check(10)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_leaves_the_connections_of_its_parent_alone(url):
    assert printed_by(FORK, url) == ""


def test_a_program_that_ends_with_open_connections_says_nothing(url):
    script = """
import asyncio, sys
from opero.stores.redis import AsyncRedisBackend, RedisBackend
from opero.stores.operations import AsyncOperations, Operations
Operations(RedisBackend(sys.argv[1])).put("a", b"1", None)
asyncio.run(AsyncOperations(AsyncRedisBackend(sys.argv[1])).get("a"))
"""
    assert printed_by(script, url) == ""


# --- URLs ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def locked_server():
    """A server with a password, and with a user who has another."""
    with RedisServer(password=SECRET) as server:
        server.command("ACL", "SETUSER", "bob", "on", f">{SECRET}", "~*", "+@all")
        yield server


def test_password_user_and_database_of_the_url_count(locked_server):
    where = f"127.0.0.1:{locked_server.port}"
    Operations(RedisBackend(f"redis://:{QUOTED}@{where}/3")).put("a", b"3", None)
    for url in (
        f"redis://:{QUOTED}@{where}/3",
        f"redis://bob:{QUOTED}@{where}/3",
        f"redis://bob:{QUOTED}@{where}?db=3",
        f"redis://bob:{QUOTED}@{where}/3?protocol=3",
        f"redis://{where}/3?password={QUOTED}&socket_timeout=2&client_name=opero",
        f"unix://bob:{QUOTED}@{locked_server.socket}?db=3",
    ):
        assert Operations(RedisBackend(url)).get("a") == b"3"
        assert asyncio.run(AsyncOperations(AsyncRedisBackend(url)).get("a")) == b"3"
    assert Operations(RedisBackend(f"redis://:{QUOTED}@{where}/4")).get("a") is None
    for each in redis_clients._clients.values():
        each.close()


def test_no_message_shows_the_password(locked_server):
    where = f"127.0.0.1:{locked_server.port}"
    urls = [
        f"redis://bob:wrong-{QUOTED}@{where}/3",
        f"redis://bob:{QUOTED}@127.0.0.1:1/3",
        f"unix://bob:{QUOTED}@/nowhere/s",
        f"rediss://bob:{QUOTED}@{where}/3",
    ]
    messages = []
    for url in urls:
        backend = RedisBackend(url)
        with pytest.raises(RedisError) as caught:
            Operations(backend).get("a")
        error = caught.value
        while error is not None:
            messages += [str(error), repr(error)]
            error = error.__cause__ or error.__context__
        with pytest.raises((RedisError, OSError)) as caught:
            asyncio.run(AsyncOperations(AsyncRedisBackend(url)).get("a"))
        messages += [str(caught.value), repr(caught.value), backend.where, repr(backend)]
    assert not [message for message in messages if "s3cr3t" in message or "p@ss" in message]
    with pytest.raises(AuthenticationError):
        Operations(RedisBackend(urls[0])).get("a")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "http://bob:s3cr3t@127.0.0.1",
        "127.0.0.1:6379",
        "redis://bob:s3cr3t/p@127.0.0.1:6379/0",
        "redis://bob:s3cr3t@127.0.0.1:port",
        "redis://bob:s3cr3t@127.0.0.1:99999",
        "redis://bob:s3cr3t@[::1",
        "redis://bob:s3cr3t@127.0.0.1?socket_timeout=s3cr3t",
        "redis://bob:s3cr3t@127.0.0.1?socket_timeout=0",
        "redis://bob:s3cr3t@127.0.0.1?max_connections=-1",
        "redis://bob:s3cr3t@127.0.0.1?no_such_thing=s3cr3t",
        "redis://bob:s3cr3t@127.0.0.1?protocol=17",
        None,
        b"redis://127.0.0.1",
    ],
)
def test_a_bad_url_is_refused_at_once_and_not_shown(url):
    for backend in (RedisBackend, AsyncRedisBackend):
        with pytest.raises(ValueError, match="Redis URL") as caught:
            backend(url)
        assert "s3cr3t" not in str(caught.value)
        assert caught.value.__context__ is None

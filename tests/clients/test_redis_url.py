"""URLs of Redis: what is accepted means what it says, and what is refused is not shown in pieces."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from opero import Breaker, CacheConfig, RateLimiter, opero
from opero.clients import redis_url
from opero.clients.redis import client
from opero.stores.redis import AsyncRedisBackend, RedisBackend

pytestmark = pytest.mark.once

SPECIAL = "/?#@:%[]&=+ ,;\\\n\t\u2028\u212b"
PASSWORDS = st.text(
    st.sampled_from(SPECIAL) | st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1
)


def named(name: str) -> str:
    """Stand for what is decorated."""
    return name


EVERYWHERE = [
    RedisBackend,
    AsyncRedisBackend,
    lambda url: opero(cache=True, cache_backend="redis", cache_url=url)(named),
    lambda url: opero(cache=CacheConfig(ttl=1, backend="redis", backend_options={"url": url}))(
        named
    ),
    lambda url: RateLimiter(1, scope="redis", name="x", url=url),
    lambda url: Breaker("x", scope="redis", url=url),
]
"""What takes a URL."""


def whole_text(error: BaseException | None) -> str:
    """Return all that a traceback would show of an error's messages, and more."""
    texts = []
    while error is not None:
        texts += [str(error), repr(error), *getattr(error, "__notes__", ())]
        error = error.__cause__ or error.__context__
    return "\n".join(texts)


@pytest.mark.parametrize(
    "form", ["redis://user:{}@host:6380/2", "rediss://:{}@host", "unix://u:{}@/s"]
)
@given(password=PASSWORDS)
def test_a_password_that_is_encoded_arrives_as_it_is(form: str, password: str) -> None:
    settings = redis_url.read(form.format(quote(password, safe="")))
    assert settings["password"] == password
    assert settings.get("path", settings.get("host")) in {"host", "/s"}


@pytest.mark.parametrize(
    "form", ["redis://user:{}@host:6380/2", "valkey://:{}@host", "unix://u:{}@/s"]
)
@given(password=PASSWORDS)
@example("12/3")
@example("12?3")
@example("12?db=3")
@example("12#3")
@example("/")
@example("12\n3")
@example("50%")
@example("a@b")
@example("[")
def test_a_password_that_is_not_is_taken_as_it_is_or_refused(form: str, password: str) -> None:
    """It never becomes a host, a port, a database or a path."""
    url = form.format(password)
    try:
        settings = redis_url.read(url)
    except ValueError as error:
        said, chained = str(error), error.__context__
    else:
        rest = {name: settings.get(name) for name in ("host", "port", "db", "path")}
        assert rest in (
            {"host": "host", "port": 6380, "db": 2, "path": None},
            {"host": "host", "port": None, "db": None, "path": None},
            {"host": None, "port": None, "db": None, "path": "/s"},
        )
        assert settings["password"] == password or "%" in password
        return
    assert said in {redis_url._USAGE, redis_url._ENCODE, redis_url.CLUSTER}
    assert chained is None


@pytest.mark.parametrize("take", EVERYWHERE)
@pytest.mark.parametrize(
    "url",
    [
        "redis://bob:s3cr3t/p4ss@127.0.0.1:6379/0",
        "redis://bob:123/p4ss@127.0.0.1:6379/0",
        "redis://bob:123#p4ss@127.0.0.1:6379/0",
        "redis://bob:123?p4ss@127.0.0.1:6379/0",
        "redis://bob:123?p4ss=1@127.0.0.1:6379/0",
        "redis://bob:s3cr3t%p4ss@127.0.0.1:6379/0",
        "redis://bob:s3cr3t[p4ss@127.0.0.1:6379/0",
        "redis://bob:s3cr3t\np4ss@127.0.0.1:6379/0",
        "redis://bob:s3cr3t\u2100p4ss@127.0.0.1:6379/0",
        "redis://bob:s3cr3t@127.0.0.1:p4ss",
        "redis://bob:s3cr3t@127.0.0.1/p4ss",
        "redis://bob:s3cr3t@127.0.0.1?p4ss=1@2",
        "redis://bob:s3cr3t@127.0.0.1?socket_timeout=p4ss",
        "redis://bob:s3cr3t@127.0.0.1?protocol=p4ss",
        "redis://127.0.0.1/0?password=s3cr3t&p4ss=1",
        "unix:///path?db=1&password=s3cr3t&p4ss=1",
        "unix://bob:s3cr3t/p4ss@/path",
        "unix://bob:s3cr3t@p4ss/path",
        "http://bob:s3cr3t@p4ss",
        "bob:s3cr3t@p4ss",
        b"redis://bob:s3cr3t/p4ss@host",
        ["redis://bob:s3cr3t/p4ss@host"],
    ],
)
def test_no_message_shows_a_piece_of_it(take, url) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises((ValueError, TypeError)) as caught:
        take(url)
    text = whole_text(caught.value)
    assert not [piece for piece in ("s3cr3t", "p4ss", "bob", "123") if piece in text], text


@pytest.mark.parametrize(
    ("url", "answer"),
    [
        ("redis+cluster://host", "Redis Cluster"),
        ("rediss+cluster://:s3cr3t@host:7000/0", "Redis Cluster"),
        ("redis-cluster://host", "Redis Cluster"),
        ("valkey+cluster://host", "Redis Cluster"),
        ("redis://one:7000,two:7000,three:7000", "Redis Cluster"),
        ("redis+sentinel://one:26379,two:26379/mymaster/0", "Sentinel"),
        ("sentinel://:s3cr3t@host:26379/mymaster", "Sentinel"),
        ("rediss+sentinel://host", "Sentinel"),
    ],
)
@pytest.mark.parametrize("take", EVERYWHERE)
def test_several_servers_get_a_clear_answer(take, url: str, answer: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=answer) as caught:
        take(url)
    assert "give the Redis URL of " in str(caught.value)
    assert "s3cr3t" not in whole_text(caught.value)


@pytest.mark.parametrize(
    ("url", "where"),
    [
        ("valkey://host:1234/1", "host:1234"),
        ("valkeys://host", "host:6379"),
        ("VALKEY://host", "host:6379"),
        (" redis://host/\n", "host:6379"),
        ("redis://:@host", "host:6379"),
        ("redis://", "localhost:6379"),
        ("redis://host?password=p@ss&db=1", "host:6379"),
        ("redis://bob:p@ss@host:1?client_name=a@b", "host:1"),
        ("unix:///run/@redis.sock?db=2", "/run/@redis.sock"),
    ],
)
def test_what_is_clear_is_taken(url: str, where: str) -> None:
    assert client(url).where == where


def test_the_name_of_a_setting_that_nobody_knows_is_told() -> None:
    with pytest.raises(ValueError, match="does not take: socket_timout"):
        client("redis://host?socket_timout=3")

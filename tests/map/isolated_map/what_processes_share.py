"""A program that hands connections, sockets and shared state of multiprocessing to workers."""

import functools
import multiprocessing
import os
import socket
import sys
from multiprocessing import shared_memory

from opero import opmap

spawn = multiprocessing.get_context("spawn")
LOCK, VALUE, ARRAY = spawn.Lock(), spawn.Value("i", 0), spawn.Array("d", 2)
QUEUE, EVENT, RAW = spawn.Queue(), spawn.Event(), spawn.RawValue("i", 3)
OURS, THEIRS = multiprocessing.Pipe()
FORKED = multiprocessing.get_context("fork").Value("i")
options = {
    "workers": 2,
    "progress": False,
    "retries": 1,
    "chunk_size": 1,
    "start_method": sys.argv[1],
}


@opmap(**options)
def by_globals(number):
    with VALUE.get_lock():
        VALUE.value += number
    with LOCK:
        ARRAY[0] += 1
    QUEUE.put(number)
    EVENT.set()
    RAW.value = 9
    THEIRS.send(number)
    return os.getpid()


@opmap(**options)
def by_arguments(number, value, queue):
    with value.get_lock():
        value.value += number
    queue.put(number)


@opmap(**options)
def say(connection, what):
    connection.send((what, connection.recv()))
    connection.close()


@opmap(**options)
def answer(other):
    with other:
        other.sendall(other.recv(9).upper())
        return other.family.name, other.getsockname()


@opmap(**options)
def open_pipe(number):
    here, there = multiprocessing.Pipe()
    here.send(number + 1)
    open_pipe.kept = here
    return there


@opmap(**options)
def plain(_, **more):
    return len(more)


def begin(queue):
    queue.put("begun")


def drained(queue, count):
    return sorted(queue.get(timeout=60) for _ in range(count))


for _ in range(2):
    by_globals([1, 2, 3, 4])
    received = sorted(OURS.recv() for _ in range(4))
    print("globals", received, drained(QUEUE, 4), VALUE.value, ARRAY[0], RAW.value, EVENT.is_set())
value, queue = spawn.Value("i", 0), spawn.Queue()
by_arguments([1, 2, 3, 4], value=value, queue=queue)
print("arguments", value.value, drained(queue, 4))

pipes = [multiprocessing.Pipe() for _ in range(4)]
for number, (ours, _) in enumerate(pipes):
    ours.send(number)
say([theirs for _, theirs in pipes], what="it")
print("connections", [ours.recv() for ours, _ in pipes])

one, other = socket.socketpair()
one.sendall(b"hello")
listener = socket.create_server(("127.0.0.1", 0))
client = socket.create_connection(listener.getsockname())
accepted, _ = listener.accept()
client.sendall(b"there")
results = answer([other, accepted])
print("sockets", results == [("AF_UNIX", other.getsockname()), ("AF_INET", accepted.getsockname())])
print("sockets", one.recv(9), client.recv(9))
print("a result", [connection.recv() for connection in open_pipe([1])])

memory = shared_memory.SharedMemory(create=True, size=10)
opmap(**options)(lambda block: block.buf.__setitem__(0, 7))([memory])
print("shared memory", memory.buf[0])
memory.close()
memory.unlink()

opmap(worker_init=functools.partial(begin, queue), **options)(lambda number: number)([1, 2])
print("worker_init", queue.get(timeout=60))
for item in plain([QUEUE, LOCK, VALUE, FORKED]):
    print("refused", item)
for call in (
    lambda: plain([1], forked=FORKED),
    lambda: opmap(**options)(lambda _: FORKED.value)([1]),
    lambda: opmap(**options)(lambda _: {"inner": [FORKED]})([1]),
):
    try:
        call()
    except TypeError as error:
        print("refused", error)
for each in (one, other, listener, client, accepted):
    each.close()

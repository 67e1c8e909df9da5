"""The messages on the socket between a process and its worker.

A message consists of a short tuple of plain values (its control) and of parts: a pickle, followed
by the large buffers that it refers to. Buffers go from their place in memory straight to their new
place, without another copy.
"""

from __future__ import annotations

import marshal
import socket
import struct
from collections import deque
from collections.abc import Iterator
from typing import Any

from opero.map.serialization.pickles import LARGE

_HEAD = struct.Struct("=QQ")
_VECTOR = 64  # how many pieces one system call gets


class Channel:
    """One end of the socket between a process and its worker.

    Attributes:
        socket: The socket; messages come in parts if it does not block.
    """

    def __init__(self, end: socket.socket) -> None:
        self.socket = end
        self._out: deque[memoryview] = deque()
        self._plan = _plan()
        self._todo: Any = next(self._plan)

    def fileno(self) -> int:
        """Return the socket's descriptor, for selectors."""
        return self.socket.fileno()

    def send(self, control: tuple[Any, ...], parts: list[Any]) -> bool:
        """Send a message, or as much of it as the socket takes.

        Returns:
            Whether all of it was sent; `flush` sends the rest.

        Raises:
            OSError: If the other end is closed.
        """
        views = [memoryview(part).cast("B") for part in parts]
        inline = views.pop(0) if views and views[0].nbytes < LARGE else b""
        told = marshal.dumps((control, [view.nbytes for view in views]))
        head = _HEAD.pack(len(told), len(inline))
        self._out.append(memoryview(b"".join([head, told, inline])))
        self._out.extend(view for view in views if view.nbytes)
        return self.flush()

    def flush(self) -> bool:
        """Send the rest of the messages; return whether all of it was sent."""
        out = self._out
        try:
            while out:
                sent = self._write([out[place] for place in range(min(len(out), _VECTOR))])
                while sent:
                    if sent < out[0].nbytes:
                        out[0] = out[0][sent:]
                        break
                    sent -= out.popleft().nbytes
        except BlockingIOError:
            return False
        return True

    def _write(self, pieces: list[memoryview]) -> int:
        if hasattr(self.socket, "sendmsg"):
            return self.socket.sendmsg(pieces)
        return self.socket.send(pieces[0])

    def receive(self) -> tuple[tuple[Any, ...], list[bytearray]] | None:
        """Return the next message; None if it is not complete yet.

        Raises:
            EOFError: If the other end is closed.
        """
        while True:
            while self._todo.nbytes:
                try:
                    count = self.socket.recv_into(self._todo)
                except BlockingIOError:
                    return None
                except ConnectionError:
                    count = 0
                if not count:
                    raise EOFError
                self._todo = self._todo[count:]
            upcoming = next(self._plan)
            if isinstance(upcoming, tuple):
                self._todo = next(self._plan)
                return upcoming
            self._todo = upcoming

    def close(self) -> None:
        """Close this end."""
        self.socket.close()


def _plan() -> Iterator[Any]:
    """Yield each piece of memory to fill, and after the last one of a message, the message."""
    head = memoryview(bytearray(_HEAD.size))
    while True:
        yield head
        told, inline = _HEAD.unpack(head)
        body = bytearray(told + inline)
        yield memoryview(body)
        control, sizes = marshal.loads(memoryview(body)[:told])
        parts = [body[told:]] if inline else []
        for size in sizes:
            parts.append(bytearray(size))
            yield memoryview(parts[-1])
        yield control, parts

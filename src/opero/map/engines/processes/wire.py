"""What goes over the socket between a process and its worker, and how it is put into bytes.

A message is a short tuple of plain values (its control), and parts: a pickle, followed by the large
buffers that it refers to. These move from the memory where they lie to the memory where they stay.

Plain pickle is tried first. Whatever refers to `__main__` goes by cloudpickle, as a worker has no
part in the script that started it; so does what pickle refuses.
"""

from __future__ import annotations

import marshal
import pickle
import socket
import struct
import traceback
from collections import deque
from collections.abc import Iterator
from functools import partial
from typing import Any

from opero.exceptions import ErrorStandIn, _extras, _pack_one, _unpack, describe
from opero.headers import retry_after
from opero.map.tracebacks import without_top

_HEAD = struct.Struct("=QQ")
_LARGE = 1 << 15  # bytes; a smaller buffer is cheaper inside the pickle
_VECTOR = 64  # how many pieces one system call gets


class RemoteTraceback(Exception):
    """Shows, as the cause of an exception, where in the worker it was raised."""

    def __str__(self) -> str:
        return f'\n"""\n{self.args[0]}"""'


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
        """Return the number that a selector knows the socket by."""
        return self.socket.fileno()

    def send(self, control: tuple[Any, ...], parts: list[Any]) -> bool:
        """Send a message, or as much of it as there is room for.

        Returns:
            Whether all of it has gone; the rest is for `flush`.

        Raises:
            OSError: If nobody is at the other end.
        """
        views = [memoryview(part).cast("B") for part in parts]
        inline = views.pop(0) if views and views[0].nbytes < _LARGE else b""
        told = marshal.dumps((control, [view.nbytes for view in views]))
        head = _HEAD.pack(len(told), len(inline))
        self._out.append(memoryview(b"".join([head, told, inline])))
        self._out.extend(view for view in views if view.nbytes)
        return self.flush()

    def flush(self) -> bool:
        """Send what is left of the messages; tell whether nothing is."""
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
        """Return the next message; None if it has not all come yet.

        Raises:
            EOFError: If nobody is at the other end any more.
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
    """Yield the memory that is to be filled next, and after the last of a message, the message."""
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


# --- values -------------------------------------------------------------------------------------


def dumps(thing: Any, aside: list[Any] | None = None) -> bytes:
    """Pickle anything; what only this program's main module knows travels by its source.

    Args:
        thing: The value.
        aside: Gets the large buffers, which are then not in the pickle.

    Raises:
        Exception: Whatever cloudpickle raises for what cannot be pickled.
    """
    keep = None if aside is None else partial(_put_aside, aside)
    try:
        body = pickle.dumps(thing, 5, buffer_callback=keep)
        if b"__main__" not in body:
            return body
    except Exception:  # noqa: BLE001 - cloudpickle may know more, or say why it cannot be
        pass
    from opero.map.serialization import by_value

    if aside is not None:
        aside.clear()
    return bytes(by_value.dumps(thing, 5, buffer_callback=keep))


def _put_aside(aside: list[Any], buffer: pickle.PickleBuffer) -> bool:
    """Put a buffer aside if it is large; tell whether it stays in the pickle."""
    raw = buffer.raw()
    if raw.nbytes < _LARGE:
        return True
    aside.append(raw)
    return False


def pack(thing: Any) -> list[Any]:
    """Put a value into a pickle and the large buffers that it refers to.

    Raises:
        Exception: Whatever cloudpickle raises for what cannot be pickled.
    """
    buffers: list[Any] = []
    return [dumps(thing, buffers), *buffers]


def unpack(parts: list[Any]) -> Any:
    """Return the value that `pack` has put into these parts."""
    return pickle.loads(parts[0], buffers=parts[1:])


def pack_each(values: list[Any], what: str) -> tuple[list[Any], list[tuple[int, BaseException]]]:
    """Pack values one by one.

    Args:
        values: The values.
        what: What each is called in an error message.

    Returns:
        The parts of each, None where it cannot be pickled; and the errors of those, by place.
    """
    packed: list[Any] = []
    failures: list[tuple[int, BaseException]] = []
    for place, value in enumerate(values):
        try:
            packed.append([bytes(part) for part in pack(value)])
        except Exception as error:  # noqa: BLE001 - a user's __reduce__ may raise anything
            packed.append(None)
            failures.append((place, unpicklable(what, value, error)))
    return packed, failures


def unpicklable(what: str, value: Any, error: Exception) -> TypeError:
    """Return the error that says what cannot be pickled, and why."""
    kind = type(value)
    name = f"{kind.__module__}.{kind.__qualname__}"
    return TypeError(f"{what} of type {name} cannot be pickled: {describe(error)}")


# --- exceptions -----------------------------------------------------------------------------------


def pack_error(error: BaseException) -> bytes:
    """Put an exception into bytes from which `unpack_error` makes one again, whatever it is.

    What a server asked for goes along: the headers that say so may not travel.
    """
    text = ""
    asked = retry_after(error)
    try:
        if error.__traceback__ is not None:
            frames = without_top(error).__traceback__
            text = "".join(traceback.format_exception(type(error), error, frames))
    except Exception:  # noqa: BLE001 - a broken __str__ must not hide the failure
        pass
    packed = _pack_one(error)
    if packed[0] != "lost":
        try:
            body = pickle.dumps((packed, text, asked), 5)
            if b"__main__" not in body:
                return body
        except Exception:  # noqa: BLE001 - it may work when done as below
            pass
    return _pack_by_value(error, text, asked)


def _pack_by_value(error: BaseException, text: str, asked: float | None) -> bytes:
    """Pack an exception whose class cannot be imported."""
    from opero.map.serialization import by_value

    for kind in ("whole", "parts"):
        try:
            payload = error if kind == "whole" else (type(error), error.args, _extras(error))
            body: bytes = by_value.dumps(((kind, payload), text, asked), 5)
            (copy,) = _unpack([pickle.loads(body)[0]])
            if type(copy) is type(error) and copy.args == error.args:
                return body
        except Exception:  # noqa: BLE001 - whatever it is, it does not travel so
            continue
    lost = "lost", f"{type(error).__module__}: {describe(error)}"
    return pickle.dumps((lost, text, asked), 5)


def unpack_error(body: bytes) -> BaseException:
    """Return the exception again; what stands in for it, if it cannot be made here."""
    text, asked = "", None
    try:
        packed, text, asked = pickle.loads(body)
        (error,) = _unpack([packed])
    except Exception as fault:  # noqa: BLE001 - a user's __setstate__ may raise anything
        error = ErrorStandIn(f"an exception that cannot be rebuilt here: {describe(fault)}")
    if text:
        error.__cause__ = RemoteTraceback(text)
    if asked is not None and retry_after(error) is None:
        try:
            error.retry_after = asked  # type: ignore[attr-defined]
        except Exception:  # noqa: BLE001 - its class may not let us
            pass
    return error

"""What each worker receives once per map: the function, the shared arguments, a method's instance.

Each consists of a pickle and its large buffers, which are not copied.
"""

from __future__ import annotations

from typing import Any

from .culprits import unpicklable, unpicklable_function
from .handles import inherited
from .pickles import pack, put_aside


def pack_function(function: Any, apart: frozenset[str]) -> list[Any]:
    """Pickle a function by value, with the large buffers that it refers to kept apart.

    Args:
        function: The function.
        apart: The modules that no worker can import as this process has them.

    Raises:
        TypeError: If it uses something that cannot travel; the message names it.
    """
    from . import by_value

    buffers: list[Any] = []
    try:
        with inherited():
            body = by_value.dumps(
                function, buffer_callback=put_aside(buffers), fresh=True, apart=apart
            )
    except Exception as error:
        raise unpicklable_function(function, error) from error
    return [body, *buffers]


def pack_shared(
    shared: dict[str, Any], receiver: tuple[Any, ...], apart: frozenset[str]
) -> list[Any]:
    """Pickle the shared arguments and the instance of a method.

    Args:
        shared: The arguments.
        receiver: The instance, if there is one.
        apart: See `pack_function`.

    Raises:
        TypeError: If one of them cannot travel; the message names it.
    """
    try:
        with inherited():
            return pack((shared, receiver), apart=apart)
    except Exception:
        for each in receiver:
            check_receiver(each, apart)
        check_shared(shared, apart)
        raise


def check_shared(shared: dict[str, Any], apart: frozenset[str] = frozenset()) -> None:
    """Raise an error that names the first shared argument that cannot travel, if any.

    Args:
        shared: The arguments.
        apart: See `pack_function`.

    Raises:
        TypeError: If it cannot be pickled.
    """
    for name, value in shared.items():
        try:
            with inherited():
                pack(value, apart=apart)
        except Exception as error:
            raise unpicklable(f"the shared argument {name!r}", value, error, True) from error


def check_receiver(receiver: Any, apart: frozenset[str] = frozenset()) -> None:
    """Raise an error that names what keeps an instance from travelling, if anything does.

    Args:
        receiver: The instance whose method is mapped, or the class.
        apart: See `pack_function`.

    Raises:
        TypeError: If it cannot be pickled.
    """
    try:
        with inherited():
            pack(receiver, apart=apart)
    except Exception as error:
        what = unpicklable("the instance, whose method is mapped,", receiver, error, True)
        raise TypeError(f"{what}; leave it out in __getstate__, or map in threads") from error

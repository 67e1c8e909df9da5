"""What a decorated function looks like to type checkers and readers.

At run time it is a `Function` or `AsyncFunction` of the active half, or a `MappedFunction`. These
classes only describe it: the function's own parameters and return type, and the attributes that
opero adds. opero itself never imports this module at run time. Use it for annotations:
`Decorated[[int], str]`, or `Mapped[int, [], str]` for a map over ints.
"""

from __future__ import annotations

from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    Callable,
    Coroutine,
    Generator,
    Iterable,
    Mapping,
    Sequence,
)
from os import PathLike
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    Generic,
    Literal,
    ParamSpec,
    Protocol,
    TypedDict,
    TypeVar,
    overload,
)

from .map.result import MapResult
from .stats import CacheInfo, Stats

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
S = TypeVar("S")
S_contra = TypeVar("S_contra", contravariant=True)
T = TypeVar("T")
T_contra = TypeVar("T_contra", contravariant=True)
T_co = TypeVar("T_co", covariant=True)
U = TypeVar("U")


class StoreOptions(TypedDict, total=False):
    """The options of the backends that store values outside the process."""

    cache_secret: str | bytes | Sequence[str | bytes] | None
    cache_version: str
    cache_pickle: bool
    cache_dir: str | PathLike[str] | None
    cache_size_limit: int | None
    cache_url: str


_Sync = Literal["thread", "process"]
_Return = Literal["return"]
_Raise = Literal["raise"]
_No = Literal[False]
_Yes = Literal[True]
ParallelMode = Literal["thread", "process", "async", "async_process"]
"""Where a map runs its attempts: the type of `mode=`."""


if TYPE_CHECKING:  # `typing` has type variables with defaults only from Python 3.13 on
    from typing_extensions import TypeVar as Var

    ModeT = Var("ModeT", _Sync, ParallelMode, default=_Sync)
    OnErrorT = Var("OnErrorT", _Return, _Raise, default=_Return)
    UnpackT = Var("UnpackT", _No, _Yes, default=_No)
    WithItemsT = Var("WithItemsT", _No, _Yes, default=_No)
    Mode_co = Var("Mode_co", bound=ParallelMode, covariant=True, default=_Sync)
    OnError_co = Var("OnError_co", bound=str, covariant=True, default=_Return)
    Unpack_co = Var("Unpack_co", bound=bool, covariant=True, default=_No)
    WithItems_co = Var("WithItems_co", bound=bool, covariant=True, default=_No)
else:
    Mode_co = TypeVar("Mode_co", covariant=True)
    OnError_co = TypeVar("OnError_co", covariant=True)
    Unpack_co = TypeVar("Unpack_co", covariant=True)
    WithItems_co = TypeVar("WithItems_co", covariant=True)


class _Figures(Protocol):
    __name__: str
    __qualname__: str
    __module__: str

    def cache_info(self) -> CacheInfo:
        """Return hits and misses since the last `cache_clear`, and the size of the cache."""
        ...

    def cache_clear(self) -> None:
        """Forget every value, including those of calls that are still running."""
        ...

    def stats(self) -> Stats:
        """Return the counters, which started when the function was decorated."""
        ...


class Decorated(_Figures, Protocol, Generic[P, R_co]):
    """A function decorated by opero.

    In a class, `__get__` cannot see whether the function is also a `@staticmethod` or a
    `@classmethod`, so it looks at the type of the first parameter: the class means a class method,
    the instance a method, and anything else a static method. If the first parameter of a static
    method accepts the instance too, as `object` does, checkers mistake it for a method: they reject
    a call on an instance, and accept one on the class.

    The overloads with `_AnyIfNever` are for mypy, which infers `Never` where the function has type
    variables of its own, or is typed `Self`. Then `BoundTo` keeps the type variables. All other
    methods become a `Bound`, which does not show the instance: so a decorated method may override
    another, whose instance has another type.
    """

    @property
    def __wrapped__(self) -> Callable[P, R_co]:
        """The function itself, without opero."""
        ...

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Call the function, with everything that opero adds."""
        ...

    def cache_invalidate(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Forget the value for these arguments; return whether there was one."""
        ...

    @overload
    def __get__(
        self: _TakesFirst[type[T]], instance: None, owner: type[T], /
    ) -> BoundTo[P, R_co]: ...
    @overload
    def __get__(
        self: _TakesFirst[type[S]], instance: None, owner: type[T], /
    ) -> _BoundOrStatic[P, R_co, T]: ...
    @overload
    def __get__(self, instance: None, owner: type, /) -> Decorated[P, R_co]: ...
    @overload
    def __get__(
        self: _Takes[type[T], Q, R], instance: _AnyIfNever[R], owner: type[T], /
    ) -> BoundTo[P, R_co]: ...
    @overload
    def __get__(self: _Takes[type[T], Q, R], instance: T, owner: type[T], /) -> Bound[Q, R]: ...
    @overload
    def __get__(
        self: _TakesSecond[S, U], instance: _AnyIfNever[U], owner: type[S], /
    ) -> BoundTo[P, R_co]: ...
    @overload
    def __get__(
        self: _Takes[S, Q, R], instance: _AnyIfNever[R], owner: type[S], /
    ) -> BoundTo[P, R_co]: ...
    @overload
    def __get__(self: _Takes[S, Q, R], instance: S, owner: type | None = ..., /) -> Bound[Q, R]: ...
    @overload
    def __get__(
        self: _TakesFirst[type[S]], instance: _AnyIfNever[S], owner: type[T], /
    ) -> _BoundOrStatic[P, R_co, T]: ...
    @overload
    def __get__(
        self: _TakesFirst[S], instance: _AnyIfNever[S], owner: type[T], /
    ) -> _BoundOrStatic[P, R_co, T]: ...
    @overload
    def __get__(self, instance: object, owner: type | None = ..., /) -> Decorated[P, R_co]: ...


class Bound(_Figures, Protocol, Generic[P, R_co]):
    """A decorated method together with its instance, or a class method with its class."""

    @property
    def __self__(self) -> Any:
        """The instance, or the class."""
        ...

    @property
    def __func__(self) -> Decorated[..., R_co]:
        """The decorated function without it."""
        ...

    @property
    def __wrapped__(self) -> Callable[..., R_co]:
        """The function itself, without opero and without the instance."""
        ...

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Call the method, with all that opero adds."""
        ...

    def cache_invalidate(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Forget the value of one call on this instance; return whether there was one."""
        ...


class _TakesFirst(Protocol, Generic[S_contra]):
    """A function by its first parameter."""

    def __call__(self, first: S_contra, /, *args: Any, **kwargs: Any) -> Any: ...


class _Takes(Protocol, Generic[S_contra, Q, R_co]):
    """A function by its first parameter, the rest of them, and its result."""

    def __call__(self, first: S_contra, /, *args: Q.args, **kwargs: Q.kwargs) -> R_co: ...


class _TakesSecond(Protocol, Generic[S_contra, T_contra]):
    """A function by its first two parameters."""

    def __call__(self, first: S_contra, second: T_contra, /, *args: Any, **kwargs: Any) -> Any: ...


class _AnyIfNever(Protocol, Generic[S_contra]):
    """Matches any object if `S_contra` is `Never`; else none: no type is both `str` and index."""

    def __format__(self, value: S_contra, /) -> str: ...  # type: ignore[override]
    def __reduce_ex__(self, value: S_contra, /) -> Any: ...  # type: ignore[override]


class BoundTo(_Figures, Protocol, Generic[P, R_co]):
    """What checkers show for a method looked up on its instance; it also works as a `Bound`.

    `P` still includes the first parameter, and each call drops it. This way, a generic method
    keeps its type variables.
    """

    @property
    def __self__(self) -> Any:
        """The instance, or the class."""
        ...

    @property
    def __func__(self) -> Decorated[P, R_co]:
        """The decorated function without it."""
        ...

    @property
    def __wrapped__(self) -> Callable[P, R_co]:
        """The function itself, without opero and without the instance."""
        ...

    def __call__(self: BoundTo[Concatenate[Any, Q], R], *args: Q.args, **kwargs: Q.kwargs) -> R:
        """Call the method, with all that opero adds."""
        ...

    def cache_invalidate(
        self: BoundTo[Concatenate[Any, Q], R], *args: Q.args, **kwargs: Q.kwargs
    ) -> bool:
        """Forget the value of one call on this instance; return whether there was one."""
        ...


class _BoundOrStatic(_Figures, Protocol, Generic[P, R_co, T_co]):
    """A method that returns its instance, or a generic static method: mypy cannot tell which."""

    @property
    def __self__(self) -> Any: ...
    @property
    def __func__(self) -> Decorated[P, R_co]: ...
    @property
    def __wrapped__(self) -> Callable[P, R_co]: ...

    @overload
    def __call__(
        self: _BoundOrStatic[Concatenate[Any, Q], Any, T], *args: Q.args, **kwargs: Q.kwargs
    ) -> T: ...
    @overload
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...

    @overload
    def cache_invalidate(
        self: _BoundOrStatic[Concatenate[Any, Q], Any, Any], *args: Q.args, **kwargs: Q.kwargs
    ) -> bool: ...
    @overload
    def cache_invalidate(self, *args: P.args, **kwargs: P.kwargs) -> bool: ...


class Decorator(Protocol):
    """A decorator with its options set."""

    @overload
    def __call__(  # type: ignore[overload-overlap] # a static method can be called too
        self, function: staticmethod[P, R], /
    ) -> staticmethod[P, R]: ...
    @overload
    def __call__(self, function: classmethod[T, P, R], /) -> classmethod[T, P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> Decorated[P, R]: ...


class Mapped(_Figures, Protocol, Generic[S_contra, P, R]):
    """A function of one item that `opmap` maps over many.

    In `Mapped[Item, [further parameters], Result]`, `Result` is the type of each result. With
    `on_error="return"` it is a union of what the function returns and `BaseException`; not
    `Exception`, because an item may also end in `SystemExit` or `CancelledError`.

    Pass the further parameters by keyword only. Checkers cannot enforce that, but they do check
    names and types.
    """

    @property
    def __wrapped__(self) -> Callable[Concatenate[S_contra, P], Any]:
        """The function of one item itself, without opero."""
        ...

    def __call__(
        self, items: Iterable[S_contra], /, *args: P.args, **kwargs: P.kwargs
    ) -> MapResult[R]:
        """Map over `items`."""
        ...

    def stream(
        self, items: Iterable[S_contra], /, *args: P.args, **kwargs: P.kwargs
    ) -> Generator[R, None, None]:
        """Map over `items` lazily; closing the iterator ends the map."""
        ...

    def amap(
        self,
        items: Iterable[S_contra] | AsyncIterable[S_contra],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> Coroutine[Any, Any, MapResult[R]]:
        """Map over `items` from a coroutine."""
        ...

    def astream(
        self,
        items: Iterable[S_contra] | AsyncIterable[S_contra],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> AsyncGenerator[R, None]:
        """Map over `items` lazily from a coroutine, by `async for`."""
        ...

    def cache_invalidate(self, item: S_contra, /, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Forget the value of one item; return whether there was one."""
        ...

    @overload
    def __get__(
        self: _TakesItem[type[T], U, Q, R], instance: T | None, owner: type[T], /
    ) -> BoundMap[U, Q, R]: ...
    @overload
    def __get__(
        self: _TakesItem[S, U, Q, R], instance: None, owner: type[S], /
    ) -> UnboundMap[S, U, Q, R]: ...
    @overload
    def __get__(self, instance: None, owner: type, /) -> Mapped[S_contra, P, R]: ...
    @overload
    def __get__(
        self: _TakesItem[S, U, Q, R], instance: S, owner: type | None = ..., /
    ) -> BoundMap[U, Q, R]: ...
    @overload
    def __get__(self, instance: object, owner: type | None = ..., /) -> Mapped[S_contra, P, R]: ...


class _TakesItem(Protocol, Generic[S_contra, T_contra, Q, R_co]):
    """A mapped method, split into its first two parameters and the rest."""

    @property
    def __wrapped__(self) -> Callable[Concatenate[S_contra, T_contra, Q], Any]: ...

    def stream(self, items: Any, /, *args: Any, **kwargs: Any) -> Generator[R_co, None, None]: ...


class BoundMap(_Figures, Protocol, Generic[S_contra, P, R]):
    """A mapped method together with its instance, or a class method with its class.

    `BoundMap[Item, [further parameters], Result]`, like `Mapped`.
    """

    @property
    def __self__(self) -> Any:
        """The instance, or the class."""
        ...

    @property
    def __func__(self) -> UnboundMap[Any, S_contra, P, R]:
        """The mapped function without it."""
        ...

    @property
    def __wrapped__(self) -> Callable[..., Any]:
        """The method itself, without opero and without the instance."""
        ...

    def __call__(
        self, items: Iterable[S_contra], /, *args: P.args, **kwargs: P.kwargs
    ) -> MapResult[R]:
        """Map over `items`."""
        ...

    def stream(
        self, items: Iterable[S_contra], /, *args: P.args, **kwargs: P.kwargs
    ) -> Generator[R, None, None]:
        """Map over `items` lazily; closing the iterator ends the map."""
        ...

    def amap(
        self,
        items: Iterable[S_contra] | AsyncIterable[S_contra],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> Coroutine[Any, Any, MapResult[R]]:
        """Map over `items` from a coroutine."""
        ...

    def astream(
        self,
        items: Iterable[S_contra] | AsyncIterable[S_contra],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> AsyncGenerator[R, None]:
        """Map over `items` lazily from a coroutine, by `async for`."""
        ...

    def cache_invalidate(self, item: S_contra, /, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Forget this instance's value of one item; return whether there was one."""
        ...


class UnboundMap(_Figures, Protocol, Generic[T_contra, S_contra, P, R]):
    """A mapped method looked up on its class: it takes the instance before the items.

    `UnboundMap[Owner, Item, [further parameters], Result]`.
    """

    @property
    def __wrapped__(self) -> Callable[Concatenate[T_contra, S_contra, P], Any]:
        """The method itself, without opero."""
        ...

    def __call__(
        self, instance: T_contra, items: Iterable[S_contra], /, *args: P.args, **kwargs: P.kwargs
    ) -> MapResult[R]:
        """Map over `items`."""
        ...

    def stream(
        self, instance: T_contra, items: Iterable[S_contra], /, *args: P.args, **kwargs: P.kwargs
    ) -> Generator[R, None, None]:
        """Map over `items` lazily; closing the iterator ends the map."""
        ...

    def amap(
        self,
        instance: T_contra,
        items: Iterable[S_contra] | AsyncIterable[S_contra],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> Coroutine[Any, Any, MapResult[R]]:
        """Map over `items` from a coroutine."""
        ...

    def astream(
        self,
        instance: T_contra,
        items: Iterable[S_contra] | AsyncIterable[S_contra],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> AsyncGenerator[R, None]:
        """Map over `items` lazily from a coroutine, by `async for`."""
        ...

    def cache_invalidate(
        self, instance: T_contra, item: S_contra, /, *args: P.args, **kwargs: P.kwargs
    ) -> bool:
        """Forget an instance's value of one item; return whether there was one."""
        ...


Arguments = Sequence[Any] | Mapping[str, Any]
"""An item that holds the arguments of its call."""


class MapDecorator(Protocol, Generic[Mode_co, OnError_co, Unpack_co, WithItems_co]):
    """The decorator that `opmap` returns when you pass options.

    Its type parameters are the options that change the results: `mode` (modes for coroutine
    functions await them), `on_error` ("return": failures are among the results), `unpack` (an
    item holds the arguments of its call) and `with_items` (each result comes with its item).
    """

    # The second form of each pair is for mypy: the first does not match a function whose item
    # parameter can be passed by name and is followed by `**kwargs`.

    @overload
    def __call__(  # type: ignore[overload-overlap] # a mode may be known at run time only
        self: MapDecorator[_Sync, _Return, _No, _No],
        function: Callable[Concatenate[T, P], R],
        /,
    ) -> Mapped[T, P, R | BaseException]: ...
    @overload
    def __call__(
        self: MapDecorator[_Sync, _Return, _No, _No],
        function: Callable[Concatenate[T, ...], R],
        /,
    ) -> Mapped[T, ..., R | BaseException]: ...
    @overload
    def __call__(  # type: ignore[overload-overlap] # a mode may be known at run time only
        self: MapDecorator[_Sync, _Raise, _No, _No],
        function: Callable[Concatenate[T, P], R],
        /,
    ) -> Mapped[T, P, R]: ...
    @overload
    def __call__(
        self: MapDecorator[_Sync, _Raise, _No, _No],
        function: Callable[Concatenate[T, ...], R],
        /,
    ) -> Mapped[T, ..., R]: ...
    @overload
    def __call__(  # type: ignore[overload-overlap] # a coroutine is awaited, nothing else
        self: MapDecorator[ParallelMode, _Return, _No, _No],
        function: Callable[Concatenate[T, P], Coroutine[Any, Any, R]],
        /,
    ) -> Mapped[T, P, R | BaseException]: ...
    @overload
    def __call__(
        self: MapDecorator[ParallelMode, _Return, _No, _No],
        function: Callable[Concatenate[T, ...], Coroutine[Any, Any, R]],
        /,
    ) -> Mapped[T, ..., R | BaseException]: ...
    @overload
    def __call__(
        self: MapDecorator[ParallelMode, _Return, _No, _No],
        function: Callable[Concatenate[T, P], R],
        /,
    ) -> Mapped[T, P, R | BaseException]: ...
    @overload
    def __call__(
        self: MapDecorator[ParallelMode, _Return, _No, _No],
        function: Callable[Concatenate[T, ...], R],
        /,
    ) -> Mapped[T, ..., R | BaseException]: ...
    @overload
    def __call__(  # type: ignore[overload-overlap] # a coroutine is awaited, nothing else
        self: MapDecorator[ParallelMode, _Raise, _No, _No],
        function: Callable[Concatenate[T, P], Coroutine[Any, Any, R]],
        /,
    ) -> Mapped[T, P, R]: ...
    @overload
    def __call__(
        self: MapDecorator[ParallelMode, _Raise, _No, _No],
        function: Callable[Concatenate[T, ...], Coroutine[Any, Any, R]],
        /,
    ) -> Mapped[T, ..., R]: ...
    @overload
    def __call__(
        self: MapDecorator[ParallelMode, _Raise, _No, _No],
        function: Callable[Concatenate[T, P], R],
        /,
    ) -> Mapped[T, P, R]: ...
    @overload
    def __call__(
        self: MapDecorator[ParallelMode, _Raise, _No, _No],
        function: Callable[Concatenate[T, ...], R],
        /,
    ) -> Mapped[T, ..., R]: ...
    @overload
    def __call__(  # type: ignore[overload-overlap] # a coroutine is awaited, nothing else
        self: MapDecorator[Any, _Return, _No, _Yes],
        function: Callable[Concatenate[T, P], Coroutine[Any, Any, R]],
        /,
    ) -> Mapped[T, P, tuple[T, R | BaseException]]: ...
    @overload
    def __call__(
        self: MapDecorator[Any, _Return, _No, _Yes],
        function: Callable[Concatenate[T, ...], Coroutine[Any, Any, R]],
        /,
    ) -> Mapped[T, ..., tuple[T, R | BaseException]]: ...
    @overload
    def __call__(
        self: MapDecorator[Any, _Return, _No, _Yes],
        function: Callable[Concatenate[T, P], R],
        /,
    ) -> Mapped[T, P, tuple[T, R | BaseException]]: ...
    @overload
    def __call__(
        self: MapDecorator[Any, _Return, _No, _Yes],
        function: Callable[Concatenate[T, ...], R],
        /,
    ) -> Mapped[T, ..., tuple[T, R | BaseException]]: ...
    @overload
    def __call__(  # type: ignore[overload-overlap] # a coroutine is awaited, nothing else
        self: MapDecorator[Any, _Raise, _No, _Yes],
        function: Callable[Concatenate[T, P], Coroutine[Any, Any, R]],
        /,
    ) -> Mapped[T, P, tuple[T, R]]: ...
    @overload
    def __call__(
        self: MapDecorator[Any, _Raise, _No, _Yes],
        function: Callable[Concatenate[T, ...], Coroutine[Any, Any, R]],
        /,
    ) -> Mapped[T, ..., tuple[T, R]]: ...
    @overload
    def __call__(
        self: MapDecorator[Any, _Raise, _No, _Yes],
        function: Callable[Concatenate[T, P], R],
        /,
    ) -> Mapped[T, P, tuple[T, R]]: ...
    @overload
    def __call__(
        self: MapDecorator[Any, _Raise, _No, _Yes],
        function: Callable[Concatenate[T, ...], R],
        /,
    ) -> Mapped[T, ..., tuple[T, R]]: ...
    @overload
    def __call__(
        self: MapDecorator[Any, _Return, _Yes, _No],
        function: Callable[..., Coroutine[Any, Any, R]],
        /,
    ) -> Mapped[Arguments, ..., R | BaseException]: ...
    @overload
    def __call__(
        self: MapDecorator[Any, _Return, _Yes, _No],
        function: Callable[..., R],
        /,
    ) -> Mapped[Arguments, ..., R | BaseException]: ...
    @overload
    def __call__(
        self: MapDecorator[Any, _Raise, _Yes, _No],
        function: Callable[..., Coroutine[Any, Any, R]],
        /,
    ) -> Mapped[Arguments, ..., R]: ...
    @overload
    def __call__(
        self: MapDecorator[Any, _Raise, _Yes, _No],
        function: Callable[..., R],
        /,
    ) -> Mapped[Arguments, ..., R]: ...
    @overload
    def __call__(
        self: MapDecorator[Any, Any, _Yes, _Yes],
        function: Callable[..., Coroutine[Any, Any, R]],
        /,
    ) -> Mapped[Arguments, ..., tuple[Arguments, R | BaseException]]: ...
    @overload
    def __call__(
        self: MapDecorator[Any, Any, _Yes, _Yes],
        function: Callable[..., R],
        /,
    ) -> Mapped[Arguments, ..., tuple[Arguments, R | BaseException]]: ...

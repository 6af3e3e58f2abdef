"""A `concurrent.futures.Executor` whose calls are jobs of a Trine server."""

from __future__ import annotations

import copy
import itertools
import ssl
import time
import weakref
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Iterable, Iterator, Mapping
from concurrent import futures
from typing import TYPE_CHECKING, Any, Callable, Literal, Optional, TypeVar, Union, get_args, overload

from ._chunks import in_chunks
from ._connections import Connections
from ._engine import Engine
from ._future import JobFuture
from ._part import Part
from ._server import Server, checked
from .model import Bound, Choice, Routing
from .options import CallOptions

if TYPE_CHECKING:
    from typing_extensions import ParamSpec, Unpack

    P = ParamSpec("P")

T = TypeVar("T")
Reports = Union[Iterator[Any], AsyncIterator[Any]]  # what a generator function gives where it is called; there, it is progress

How = Literal["auto", "pickle", "source"]

MOST_IN_FLIGHT = 4096  # calls
CHOICES = {name: get_args(kind) for name, kind in {"how": How, "bound": Bound, "executor": Choice, "routing": Routing}.items()}


class Settings(CallOptions, total=False):
    """What can be set of an executor, beside its server and `max_workers`: the options of all its calls, and more."""

    interpreter: Optional[str]  # the name of one of the server's Pythons
    network: bool  # whether the calls may use the network, if the server grants that
    how: How  # functions travel: by `pickle`, by `source`, or `auto`: by pickle if the server takes and can read it, or by source
    timeout: float  # seconds that the server may be silent; 30 unless it is given
    patience: float  # seconds that it may be out of reach before the executor gives up and is broken; 30 unless it is given
    key: Optional[str]  # an API key; that of the variable TRINE_KEY unless it is given
    headers: Mapping[str, str]  # of every request
    tls: ssl.SSLContext  # for https, instead of the usual one


def engine_for(url: Optional[str], max_workers: Optional[int], settings: Settings) -> Engine:
    """The engine of an executor."""
    _check(settings, Settings, "setting")
    if max_workers is not None and max_workers <= 0:
        raise ValueError("max_workers must be greater than 0")
    timeout, patience = checked(settings.get("timeout", 30.0), settings.get("patience", 30.0))
    how = settings.get("how") or "auto"
    server = Server.at(url, settings.get("headers"), settings.get("key"))
    told: Mapping[str, Any] = {"bound": "cpu", **settings}
    return Engine(
        Connections(server, timeout, settings.get("tls")),
        {name: told[name] for name in CallOptions.__annotations__ if name in told},
        {name: told[name] for name in ("interpreter", "network") if told.get(name)},
        how,
        max_workers or MOST_IN_FLIGHT,
        patience,
    )


def part_of(engine: Union[Engine, Part], options: CallOptions) -> Part:
    """Calls of an executor's engine that have these options."""
    _check(options, CallOptions, "option")
    return Part(engine, options)


def _check(given: Mapping[str, Any], known: type, what: str) -> None:
    unknown = given.keys() - known.__annotations__.keys()
    if unknown:
        raise TypeError(f"there is no {what} {min(unknown)!r}")
    for name, values in CHOICES.items():
        value = given.get(name)
        if value is not None and value not in values:
            raise ValueError(f"{name} must be {', '.join(values[:-1])} or {values[-1]}, not {value!r}")


class Executor(futures.Executor):
    """Makes calls on a Trine server, as `ThreadPoolExecutor` and `ProcessPoolExecutor` make them here.

    `max_workers` is the most calls that are handed to the server at once, 4096 if it is not given; how many of them run at once
    is up to the server. `Settings` has the rest.

    What a call prints is in the log of its job. What the server sends is unpickled here: use a server that you trust.
    """

    def __init__(
        self,
        url: Optional[str] = None,
        max_workers: Optional[int] = None,
        **settings: Unpack[Settings],
    ) -> None:
        engine = engine_for(url, max_workers, settings)
        self._engine: Union[Engine, Part] = engine
        self._whole: Optional[Executor] = None  # the one that this one shares its connections with
        # Like the threads of a pool, those of an executor that nobody has any more end with its last call.
        weakref.finalize(self, engine.abandon).atexit = False

    def with_options(self, **options: Unpack[CallOptions]) -> Executor:
        """This executor with other options for its calls; tags are added to those that there are.

        It shares the connections of this one, and ends with it. It can also be shut down before, which ends nothing else.
        """
        other = copy.copy(self)
        other._engine, other._whole = part_of(self._engine, options), self
        return other

    @overload
    def submit(self, fn: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> JobFuture[T]: ...

    @overload
    def submit(self, fn: Callable[P, Reports], /, *args: P.args, **kwargs: P.kwargs) -> JobFuture[Any]: ...

    @overload
    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> JobFuture[T]: ...

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> JobFuture[Any]:
        """A future of `fn(*args, **kwargs)`."""
        return self._engine.submit(fn, args, kwargs)

    @overload
    def map(
        self,
        fn: Callable[..., Awaitable[T]],
        *iterables: Iterable[Any],
        timeout: Optional[float] = None,
        chunksize: int = 1,
        buffersize: Optional[int] = None,
    ) -> Iterator[T]: ...

    @overload
    def map(
        self,
        fn: Callable[..., Reports],
        *iterables: Iterable[Any],
        timeout: Optional[float] = None,
        chunksize: int = 1,
        buffersize: Optional[int] = None,
    ) -> Iterator[Any]: ...

    @overload
    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: Optional[float] = None,
        chunksize: int = 1,
        buffersize: Optional[int] = None,
    ) -> Iterator[T]: ...

    def map(
        self,
        fn: Callable[..., Any],
        *iterables: Iterable[Any],
        timeout: Optional[float] = None,
        chunksize: int = 1,
        buffersize: Optional[int] = None,
    ) -> Iterator[Any]:
        """The values of `fn` in the order of the arguments, as `map` gives them; the calls are made at once.

        `timeout` is for all values together, in seconds. With a `chunksize`, so many calls are one job, which is quicker for
        short ones. With a `buffersize`, no more than so many jobs are ahead of the values that were taken.
        """
        until = None if timeout is None else timeout + time.monotonic()
        if chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        if buffersize is not None and not isinstance(buffersize, int):
            raise TypeError("buffersize must be an integer or None")
        if buffersize is not None and buffersize < 1:
            raise ValueError("buffersize must be None or > 0")
        engine, calls = self._engine, zip(*iterables)
        each = in_chunks(fn) if chunksize > 1 else None
        if each is None:
            submitted = (engine.submit(fn, args, {}) for args in calls)
        else:
            chunks = iter(lambda: tuple(itertools.islice(calls, chunksize)), ())
            submitted = (engine.submit(each, (chunk,), {}) for chunk in chunks)
        waiting = deque(itertools.islice(submitted, buffersize))
        return _values(engine, waiting, submitted, until, each is not None)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Takes no more calls. `wait` waits for those that there are; `cancel_futures` cancels those that do not run yet."""
        self._engine.close()
        if cancel_futures:
            self._engine.cancel_pending()
        if wait:
            self._engine.join()


def _values(
    engine: Union[Engine, Part],
    waiting: deque[JobFuture[Any]],
    submitted: Iterator[JobFuture[Any]],
    until: Optional[float],
    chunked: bool,
) -> Iterator[Any]:
    """The values of futures in order. What nobody will ask for any more is cancelled, without waiting for the server."""
    let_go = engine.let_go
    try:
        while waiting:
            # No reference to a future or a value is kept while the value is used.
            if chunked:
                values = _taken(waiting, until)
                values.reverse()
                while values:
                    yield values.pop()
            else:
                yield _taken(waiting, until)
            waiting.extend(itertools.islice(submitted, 1))
    except GeneratorExit:  # perhaps of the collector, in a thread that holds whatever locks
        let_go = engine.let_go_later
        raise
    finally:
        calls = [future._call for future in waiting]
        waiting.clear()  # one of them may hold an exception whose traceback holds this
        let_go(calls)


def _taken(waiting: deque[JobFuture[Any]], until: Optional[float]) -> Any:
    """The value of the first one, which stays one of those that are waited for until it is there."""
    value = waiting[0].result(None if until is None else until - time.monotonic())
    waiting.popleft()
    return value

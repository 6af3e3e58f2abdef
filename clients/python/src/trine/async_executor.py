"""The executor for asyncio."""

from __future__ import annotations

import asyncio
import copy
import functools
import weakref
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Iterable
from concurrent.futures import CancelledError
from types import TracebackType
from typing import TYPE_CHECKING, Any, Callable, Optional, TypeVar, Union, overload

from ._engine import Engine
from ._future import JobFuture, OfJob
from ._part import Part
from .executor import Reports, Settings, engine_for, part_of
from .options import CallOptions

if TYPE_CHECKING:
    from typing_extensions import ParamSpec, Unpack

    P = ParamSpec("P")

T = TypeVar("T")
F = TypeVar("F", bound="asyncio.Future[Any]")


class AsyncJobFuture(OfJob, asyncio.Future[T]):
    """A future whose call is a job. If it or the task that awaits it is cancelled, so is the job, also while it runs."""


class AsyncExecutor:
    """Makes calls on a Trine server from the tasks of an event loop. The settings are those of `Executor`."""

    def __init__(
        self,
        url: Optional[str] = None,
        max_workers: Optional[int] = None,
        **settings: Unpack[Settings],
    ) -> None:
        engine = engine_for(url, max_workers, settings)
        self._engine: Union[Engine, Part] = engine
        self._whole: Optional[AsyncExecutor] = None  # the one that this one shares its connections with
        # As of an `Executor`: what nobody has any more ends with its last call.
        weakref.finalize(self, engine.abandon).atexit = False

    def with_options(self, **options: Unpack[CallOptions]) -> AsyncExecutor:
        """This executor with other options for its calls, as `Executor.with_options`."""
        other = copy.copy(self)
        other._engine, other._whole = part_of(self._engine, options), self
        return other

    @overload
    def submit(self, fn: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> AsyncJobFuture[T]: ...

    @overload
    def submit(self, fn: Callable[P, Reports], /, *args: P.args, **kwargs: P.kwargs) -> AsyncJobFuture[Any]: ...

    @overload
    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> AsyncJobFuture[T]: ...

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> AsyncJobFuture[Any]:
        """A future of `fn(*args, **kwargs)`, to be awaited. If it or the task that awaits it is cancelled, so is the job."""
        loop = asyncio.get_running_loop()
        there = self._engine.submit(fn, args, kwargs)
        here: AsyncJobFuture[Any] = AsyncJobFuture(loop=loop)
        here._call = there._call
        there.add_done_callback(functools.partial(_notify, loop, here))
        here.add_done_callback(functools.partial(_stop_if_cancelled, there))
        return here

    @overload
    def map(self, fn: Callable[..., Awaitable[T]], *iterables: Iterable[Any], buffersize: int = 4096) -> AsyncIterator[T]: ...

    @overload
    def map(self, fn: Callable[..., Reports], *iterables: Iterable[Any], buffersize: int = 4096) -> AsyncIterator[Any]: ...

    @overload
    def map(self, fn: Callable[..., T], *iterables: Iterable[Any], buffersize: int = 4096) -> AsyncIterator[T]: ...

    async def map(self, fn: Callable[..., Any], *iterables: Iterable[Any], buffersize: int = 4096) -> AsyncIterator[Any]:
        """The values of `fn` in the order of the arguments; at most `buffersize` jobs are ahead of the values that were taken."""
        if buffersize < 1:
            raise ValueError("buffersize must be > 0")
        waiting: deque[asyncio.Future[Any]] = deque()
        calls = zip(*iterables)
        try:
            while True:
                while len(waiting) < buffersize and (args := next(calls, None)) is not None:
                    waiting.append(self.submit(fn, *args))
                if not waiting:
                    return
                yield await waiting.popleft()
        finally:
            for future in waiting:
                future.cancel()

    async def as_completed(self, futures: Iterable[F]) -> AsyncIterator[F]:
        """These futures, each as soon as it is done."""
        pending = set(futures)
        done: asyncio.Queue[Any] = asyncio.Queue()
        for future in pending:
            future.add_done_callback(done.put_nowait)
        try:
            for _ in range(len(pending)):
                yield await done.get()
        finally:
            for future in pending:
                future.remove_done_callback(done.put_nowait)

    async def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Takes no more calls. `wait` waits for those that there are; `cancel_futures` cancels those that do not run yet."""
        self._engine.close()
        if cancel_futures:
            await asyncio.to_thread(self._engine.cancel_pending)
        if wait:
            await asyncio.to_thread(self._engine.join)

    async def __aenter__(self) -> AsyncExecutor:
        return self

    async def __aexit__(self, kind: Optional[type], error: Optional[BaseException], traceback: Optional[TracebackType]) -> None:
        await self.shutdown()


def _notify(loop: asyncio.AbstractEventLoop, here: AsyncJobFuture[Any], there: JobFuture[Any]) -> None:
    """Takes an outcome to the event loop."""
    if not loop.is_closed():
        loop.call_soon_threadsafe(_settle, here, there)


def _settle(here: AsyncJobFuture[Any], there: JobFuture[Any]) -> None:
    if here.done():
        return
    here._told = there._told
    if there.cancelled():
        here.cancel()
        return
    error = there.exception()
    if isinstance(error, CancelledError):
        here.cancel()
    elif isinstance(error, StopIteration):
        # Futures of asyncio refuse it. Since Python 3.12 they do this by themselves.
        instead = RuntimeError("StopIteration interacts badly with generators and cannot be raised into a Future")
        instead.__cause__ = instead.__context__ = error
        here.set_exception(instead)
    elif error is not None:
        here.set_exception(error)
    else:
        here.set_result(there.result())


def _stop_if_cancelled(there: JobFuture[Any], here: asyncio.Future[Any]) -> None:
    if here.cancelled() and not there.done():
        there._engine.stop(there._call)

"""Calls of an executor that have options of their own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent import futures
from typing import TYPE_CHECKING, Any, Callable, Union

from ._future import Call, JobFuture
from ._jobs import Beginning

if TYPE_CHECKING:
    from ._engine import Engine


class Part:
    """A part of an engine, or of another part, with its options and more. It is closed by itself."""

    def __init__(self, of: Union[Engine, Part], options: Mapping[str, Any]) -> None:
        submission = of.before.submission
        tags = {**(submission.get("tags") or {}), **(options.get("tags") or {})}
        self.before: Beginning = Beginning({**submission, **options, "tags": tags})
        self._engine: Engine = of._engine if isinstance(of, Part) else of
        self._futures: set[JobFuture[Any]] = set()  # those that are not done
        self._closed = False
        self._engine.parts.add(self)

    def submit(self, function: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> JobFuture[Any]:
        if self._closed:
            raise RuntimeError("cannot schedule new futures after shutdown")
        future = self._engine.submit(function, args, kwargs, self.before)
        self._futures.add(future)
        future.add_done_callback(self._futures.discard)
        return future

    def close(self) -> None:
        self._closed = True

    def cancel_pending(self) -> None:
        self._engine.cancel_all([future._call for future in self._futures.copy()])

    def let_go(self, calls: Iterable[Call]) -> None:
        self._engine.let_go(calls)

    def let_go_later(self, calls: Iterable[Call]) -> None:
        self._engine.let_go_later(calls)

    def join(self) -> None:
        waiting = self._futures.copy()
        if waiting:
            self._engine.check_waits()
        futures.wait(waiting)

    def forked(self) -> None:
        """In a new process, where these futures never end."""
        self._futures.clear()

"""A call on its way, and the future of it."""

from __future__ import annotations

import uuid
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Callable, NoReturn, Optional, TypeVar

from ._travel import Way
from .model import Timing, parsed

if TYPE_CHECKING:
    from ._engine import Engine
    from ._jobs import Beginning

T = TypeVar("T")

# Where a call is, and what its future says of it.
QUEUED, SENDING, ACCEPTED = "queued", "sending", "accepted"
PENDING, RUNNING, ENDED, CANCELLED = "pending", "running", "ended", "cancelled"


class OfJob:
    """What a future knows of its job."""

    _call: Call
    _told: Optional[dict[str, Any]] = None

    @property
    def job_id(self) -> Optional[str]:
        """The job's id, once the server has accepted it."""
        return self._call.id

    @property
    def timing(self) -> Optional[Timing]:
        """What was measured, once the job has ended; None if it was not run to its end."""
        told = (self._told or {}).get("timing")
        return None if told is None else parsed(Timing, told)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a future stays here: hand over its result(), or name it in `with_options(after=…)`")


class JobFuture(OfJob, Future[T]):
    """A future whose call is a job. `cancel` asks the server, and waits for its answer, if the job may still be waiting there."""

    def __init__(self, engine: Engine) -> None:
        super().__init__()
        self._engine = engine

    def running(self) -> bool:
        """Whether the call is being made now. Asks the server, which does not tell by itself when a call begins."""
        return super().running() or self._engine.has_begun(self._call)

    def cancel(self) -> bool:
        return self._engine.cancel(self._call)

    if TYPE_CHECKING:

        def add_done_callback(self, fn: Callable[[JobFuture[T]], object]) -> None: ...

    def _cancelled(self) -> None:
        try:
            super().cancel()
        finally:  # it was interrupted, perhaps before it began, or a callback has raised what ends a thread
            super().cancel()
            self.set_running_or_notify_cancel()


class Call:
    """A call on its way."""

    __slots__ = (
        "arguments",
        "batch",
        "before",
        "cancelling",
        "future",
        "id",
        "phase",
        "place",
        "stop",
        "unwanted",
        "way",
        "workload",
    )

    way: Way

    def __init__(self, future: JobFuture[Any], before: Beginning) -> None:
        self.future: Optional[JobFuture[Any]] = future
        self.before: Optional[Beginning] = before  # its submission up to the workload, as long as it is not sent
        self.workload = b""
        self.arguments: Any = None  # function, args, kwargs, as long as it may have to travel another way
        self.batch: Optional[Batch] = None  # the one that it was in, if the server refused that for now and it is in doubt
        self.place = QUEUED
        self.phase = PENDING
        self.cancelling = False  # the server is being asked to
        self.unwanted = False  # it was to be cancelled while it waited to be sent
        self.stop = False  # it is to be cancelled as soon as it has an id
        self.id: Optional[str] = None

    def sent(self) -> None:
        """Lets go of what was only needed to send it, such as the calls that it comes after."""
        self.before, self.workload, self.arguments, self.batch = None, b"", None, None

    def is_ready(self) -> bool:
        """Whether it can be sent, or never will be."""
        return self.before is None or self.before.is_ready()

    def beginning(self) -> bytes:
        """Its submission up to the workload, once it `is_ready`. Raises what says that there will be none."""
        return b"" if self.before is None else self.before.written()

    def end(self, phase: str) -> JobFuture[Any]:
        """Enters its last phase, and lets go of its future, so that nothing but its user holds that any more."""
        self.sent()
        assert self.future is not None, "a call ends once"
        future, self.future, self.phase = self.future, None, phase
        return future


class Batch:
    """Calls that are sent together, under a key: they are accepted once, however often they are sent."""

    def __init__(self, calls: list[Call]) -> None:
        self.calls = calls
        self.key = str(uuid.uuid4())
        self.in_doubt = False  # whether the server may have accepted it, although no answer has said so
        self.was_slow = False  # whether it has already taken longer on its way than the server waits

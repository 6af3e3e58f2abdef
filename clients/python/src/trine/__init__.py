"""Client of Trine, which runs jobs on an event loop, on threads or in processes.

`Client` and `AsyncClient` speak to the server; `Executor` and `AsyncExecutor` make Python calls there.
"""

from ._engine import JobFuture
from ._worker import Stopped, artifacts, attempt, job_id, progress, stopped
from .aio import AsyncClient
from .async_executor import AsyncExecutor, AsyncJobFuture
from .client import Client
from .errors import (
    CannotTravel,
    Fault,
    JobError,
    JobLost,
    JobTimeout,
    Malformed,
    ProblemError,
    RemoteError,
    RemoteTraceback,
    ServerGone,
    ServerUnreachable,
    TrineError,
)
from .executor import Executor
from .model import (
    Accepted,
    Artifact,
    Comparison,
    Delivery,
    DeliveryAttempt,
    Event,
    Failure,
    Frame,
    Function,
    Job,
    Limit,
    LogLine,
    PythonError,
    Result,
    Route,
    Schedule,
    ScheduleRun,
    SummaryItem,
    Timing,
    Verdict,
)
from .options import CallOptions, Options, SubmitOptions

__all__ = [
    "Accepted",
    "Artifact",
    "AsyncClient",
    "AsyncExecutor",
    "AsyncJobFuture",
    "CallOptions",
    "CannotTravel",
    "Client",
    "Comparison",
    "Delivery",
    "DeliveryAttempt",
    "Event",
    "Executor",
    "Failure",
    "Fault",
    "Frame",
    "Function",
    "Job",
    "JobError",
    "JobFuture",
    "JobLost",
    "JobTimeout",
    "Limit",
    "LogLine",
    "Malformed",
    "Options",
    "ProblemError",
    "PythonError",
    "RemoteError",
    "RemoteTraceback",
    "Result",
    "Route",
    "Schedule",
    "ScheduleRun",
    "ServerGone",
    "ServerUnreachable",
    "Stopped",
    "SubmitOptions",
    "SummaryItem",
    "Timing",
    "TrineError",
    "Verdict",
    "artifacts",
    "attempt",
    "job_id",
    "progress",
    "stopped",
]

"""What the server tells, as immutable objects. Jobs, results, events, functions, schedules and comparisons have a `raw`, in which
is all that was told of them, also what this version does not know.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, Optional, TypeVar, Union, get_args, get_origin, get_type_hints

Advice = Literal["any", "computes", "waits", "held_loop"]
Bound = Literal["io", "cpu"]
Chart = Literal["speedup", "latency", "bystander"]
Choice = Literal["auto", "async", "threads", "processes"]
ExecutorName = Literal["async", "threads", "processes"]
CatchUp = Literal["skip", "once", "all"]
ComparisonState = Literal["queued", "running", "finished", "failed", "cancelled"]
DeliveryState = Literal["pending", "delivered", "failed", "gone"]
FailureKind = Literal["error", "timeout", "panic", "cancelled", "lost", "expired", "dependency"]
FindingKind = Literal["computes", "waits", "held_loop", "too_short", "memory", "elsewhere"]
KeyState = Literal["live", "expired", "revoked"]
Observed = Literal["io", "cpu", "mixed"]
OnFailure = Literal["cancel", "fail", "run"]
Overlap = Literal["allow", "skip", "queue"]
Routing = Literal["declared", "advise", "measured"]
Scope = Literal["submit", "read", "cancel", "functions", "admin"]
State = Literal["scheduled", "blocked", "queued", "running", "succeeded", "failed", "cancelled", "lost"]

ENDINGS = frozenset(("succeeded", "failed", "cancelled", "lost"))

T = TypeVar("T")


@dataclass(frozen=True)
class Evidence:
    """What was measured of earlier runs, as measured routing went by it."""

    runs: int
    observed: Optional[Observed]  # None if they are too few to tell, or do not agree
    cpu_percent: int  # their share of a core while they could run
    wall_us: int  # as long as they usually take
    executor: ExecutorName  # that measured routing chooses
    held_us: Optional[int] = None  # the longest that one of them held the event loop, if they are known for it
    failing: bool = False  # most of the latest runs there have failed, so that the tag decides


@dataclass(frozen=True)
class Route:
    """The executor that was chosen for a job, and why."""

    executor: str
    rule: str
    reason: str
    evidence: Optional[Evidence] = None  # where that chose the executor, would have chosen another, or was asked in vain


@dataclass(frozen=True)
class Timing:
    """What was measured of one attempt. Durations are in microseconds; a figure is of this attempt alone, or it is None."""

    queue_us: int = 0
    dispatch_us: int = 0
    wall_us: int = 0
    cpu_user_us: Optional[int] = None
    cpu_system_us: Optional[int] = None
    cpu_share: Optional[float] = None
    polls: Optional[int] = None
    longest_poll_us: Optional[int] = None
    max_rss_bytes: Optional[int] = None
    ctx_voluntary: Optional[int] = None
    ctx_involuntary: Optional[int] = None
    gil: Optional[bool] = None  # whether a global lock kept the runtime's threads from computing at once
    core_wait_us: Optional[int] = None  # it could have run but had no core
    loop_wait_us: Optional[int] = None  # it could have gone on but others held the event loop
    gil_wait_us: Optional[int] = None  # it may have waited for the global lock, by estimate
    held_jobs: Optional[int] = None  # others that were on the event loop during its longest poll, if that was long
    observed: Optional[str] = None
    advice: Optional[str] = None


@dataclass(frozen=True)
class Frame:
    """A line of a traceback."""

    file: str
    line: int
    function: str
    code: Optional[str] = None


@dataclass(frozen=True)
class PythonError:
    """A Python exception where it was raised."""

    type: str
    message: str
    traceback: str = ""
    frames: tuple[Frame, ...] = ()
    cause: Optional[PythonError] = None
    args: tuple[Any, ...] = ()  # of one of Python's own, unless that is its message alone, or JSON can't bring them
    attributes: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # of one of Python's own: what JSON could bring
    notes: tuple[str, ...] = ()
    exceptions: tuple[PythonError, ...] = ()  # of a group
    pickle: Optional[str] = None  # the exception itself, in base64


@dataclass(frozen=True)
class Failure:
    """Why a job has no output."""

    kind: str
    message: str
    python: Optional[PythonError] = None


@dataclass(frozen=True)
class Attempt:
    """One attempt of a job."""

    attempt: int  # its number, from 1
    state: Literal["running", "succeeded", "failed", "cancelled", "lost"]
    started_at: datetime
    finished_at: Optional[datetime] = None
    error: Optional[Failure] = None
    timing: Optional[Timing] = None


@dataclass(frozen=True)
class Parent:
    """A job that another one comes after."""

    id: str
    on_failure: OnFailure  # what becomes of the other one if this one does not succeed
    name: Optional[str] = None  # what it was called in its batch
    state: Optional[State] = None  # None if it is not kept any more


@dataclass(frozen=True)
class Child:
    """A job that comes after another one."""

    id: str
    state: Optional[State] = None  # None if it is not kept any more


@dataclass(frozen=True)
class Graph:
    """The jobs that a job comes after, and those that come after it: of each the first hundred."""

    parent_count: int
    waits_for: int  # so many of them have not ended
    parents: tuple[Parent, ...]  # those that it waits for before the others
    child_count: int
    children: tuple[Child, ...]


@dataclass(frozen=True)
class Job:
    """A job, as it was when the server was asked."""

    id: str
    state: State
    bound: Bound
    workload: Mapping[str, Any]
    route: Route
    attempt: int = 0
    losses: int = 0  # so often it was run again because whatever ran it had died
    stopping: bool = False  # it was cancelled, and its attempt is being stopped
    output: Any = None
    error: Optional[Failure] = None
    timing: Optional[Timing] = None
    attempts: tuple[Attempt, ...] = ()  # so far, the latest thousand; only where one job is looked at
    tags: Mapping[str, str] = dataclasses.field(default_factory=dict)
    priority: int = 0
    deadline_ms: Optional[int] = None
    retry: Optional[Mapping[str, Any]] = None
    executor: Optional[Choice] = None  # the one that was asked for
    routing: Optional[Routing] = None  # likewise; None for the server's setting
    run_at: Optional[datetime] = None
    expires_at: Optional[datetime] = None
    unique: Optional[Mapping[str, Any]] = None
    concurrency: Optional[Mapping[str, Any]] = None
    rate: Optional[Mapping[str, Any]] = None
    requires: Mapping[str, str] = dataclasses.field(default_factory=dict)
    webhook: Optional[Mapping[str, Any]] = None
    existing: bool = False  # it was there before a submission like it, and is the answer to that
    graph: Optional[Graph] = None  # only where one job is looked at that has parents or children
    waiting: Optional[Mapping[str, Any]] = None  # what it waits for, by `reason`; only where one job is looked at that waits
    accepted_at: Optional[datetime] = None
    due_at: Optional[datetime] = None
    started_at: Optional[datetime] = None
    finished_at: Optional[datetime] = None
    owner: Optional[str] = None  # the id of the key that it was submitted with, or of the one that was rotated into that
    raw: Mapping[str, Any] = dataclasses.field(default_factory=dict, repr=False, compare=False)

    @property
    def finished(self) -> bool:
        return self.state in ENDINGS


@dataclass(frozen=True)
class Result(Job):
    """A finished job's outcome and timing."""


@dataclass(frozen=True)
class Accepted:
    """A job of a batch, right after it was accepted."""

    id: str
    state: State
    route: Route
    existing: bool = False  # it was there before a submission like it


@dataclass(frozen=True)
class Cancelled:
    """What came of cancelling many jobs, in numbers of jobs."""

    cancelled: int  # waited, and have ended
    stopping: int  # run, and are being stopped


@dataclass(frozen=True)
class Retried:
    """What came of running many jobs again."""

    retried: int  # jobs that wait again
    more: bool  # whether there may be more, for which the quota of the key has no room now


@dataclass(frozen=True)
class Event:
    """Something that happened to a job."""

    id: int  # later events have greater ones
    kind: str  # accepted, running, progress, log, retrying, requeued or finished
    job: str
    at: datetime
    attempt: Optional[int] = None
    executor: Optional[str] = None  # of running
    value: Any = None  # of progress
    stream: Optional[str] = None  # of log: stdout or stderr
    line: Optional[str] = None  # of log
    due_at: Optional[datetime] = None  # of retrying
    state: Optional[State] = None  # of finished
    output: Any = None  # of finished
    error: Optional[Failure] = None  # of retrying and finished
    timing: Optional[Timing] = None  # of finished
    raw: Mapping[str, Any] = dataclasses.field(default_factory=dict, repr=False, compare=False)


@dataclass(frozen=True)
class LogLine:
    """A line that a job printed."""

    stream: str
    line: str
    attempt: Optional[int] = None
    at: Optional[datetime] = None


@dataclass(frozen=True)
class Artifact:
    """A file that a job left behind."""

    name: str
    bytes: int
    kept_at: Optional[datetime] = None
    href: Optional[str] = None  # the path that gives it


@dataclass(frozen=True)
class Function:
    """A version of a function that the server keeps."""

    name: str
    version: str
    kind: Optional[str] = None  # source or zip
    bytes: Optional[int] = None  # of its code
    entrypoint: Optional[str] = None
    form: Optional[str] = None  # async or blocking: how that is written
    bound: Optional[str] = None
    executor: Optional[str] = None
    interpreter: Optional[str] = None
    deadline_ms: Optional[int] = None
    memory_bytes: Optional[int] = None  # that a call may use, as the next two
    cpu_ms: Optional[int] = None
    output_bytes: Optional[int] = None
    latest: bool = False  # jobs that name no version get this one
    created_at: Optional[datetime] = None
    deployed_at: Optional[datetime] = None  # the last time
    raw: Mapping[str, Any] = dataclasses.field(default_factory=dict, repr=False, compare=False)


@dataclass(frozen=True)
class ScheduleRun:
    """A time at which a schedule was due, or was run by hand."""

    due_at: datetime
    outcome: str  # submitted, waiting, skipped or failed
    decided_at: Optional[datetime] = None
    by_hand: bool = False
    job: Optional[str] = None  # the id of the one that was submitted
    reason: Optional[str] = None  # why none was
    state: Optional[State] = None  # where that job is; None if it is not kept any more


@dataclass(frozen=True)
class Schedule:
    """When which job is submitted."""

    name: str
    cron: str
    timezone: str
    job: Mapping[str, Any]  # the submission
    catch_up: CatchUp = "skip"
    overlap: Overlap = "allow"
    paused: bool = False
    next_runs: tuple[datetime, ...] = ()
    last_runs: tuple[ScheduleRun, ...] = ()  # the latest first; in a list, the latest alone
    created_at: Optional[datetime] = None
    changed_at: Optional[datetime] = None
    raw: Mapping[str, Any] = dataclasses.field(default_factory=dict, repr=False, compare=False)


@dataclass(frozen=True)
class DeliveryAttempt:
    """A try to deliver a message."""

    at: datetime
    took_us: int
    status: Optional[int] = None  # of the answer
    error: Optional[str] = None  # why there was none


@dataclass(frozen=True)
class Delivery:
    """A webhook's message that a job has ended."""

    id: str
    job: str
    type: str  # as `job.succeeded`
    url: str
    state: DeliveryState
    due_at: Optional[datetime] = None  # when it is tried next
    finished_at: Optional[datetime] = None  # when the job ended
    attempts: tuple[DeliveryAttempt, ...] = ()  # the earliest first


@dataclass(frozen=True)
class Limit:
    """What jobs with the same key share: how many run at once, or how many start within a period."""

    kind: Literal["concurrency", "rate"]
    key: str
    limit: int
    waiting: int
    running: Optional[int] = None  # of concurrency
    started: Optional[int] = None  # of rate: within the last period
    per_ms: Optional[int] = None  # of rate
    opens_at: Optional[datetime] = None  # of rate: when the next one may start, if it may not now


@dataclass(frozen=True)
class Verdict:
    """What follows from a comparison."""

    executor: str  # the one to use; or `inline`, `too_short` or `inconclusive`
    because: str
    confidence: str
    concurrency: Optional[int] = None
    speedup: Optional[float] = None  # how many times as fast as one after the other
    interpreter: Optional[str] = None


@dataclass(frozen=True)
class Comparison:
    """A workload that is run on all executors; the rest of its report is in `raw`."""

    id: str
    state: ComparisonState
    bound: Bound
    workload: Mapping[str, Any]
    error: Optional[str] = None
    progress: Optional[Mapping[str, Any]] = None
    verdict: Optional[Verdict] = None
    matrix: Sequence[Mapping[str, Any]] = ()  # a row for each executor and concurrency
    requested_at: Optional[datetime] = None
    started_at: Optional[datetime] = None
    finished_at: Optional[datetime] = None
    raw: Mapping[str, Any] = dataclasses.field(default_factory=dict, repr=False, compare=False)

    @property
    def finished(self) -> bool:
        return self.state not in ("queued", "running")


@dataclass(frozen=True)
class Quantiles:
    """Half, nine of ten and 99 of 100 are at most this; the name of the field says in what."""

    p50: int
    p90: int
    p99: int


@dataclass(frozen=True)
class SummaryItem:
    """A group of results and its figures; None where nothing was measured, or where it was not counted by."""

    count: int
    queue_us: Optional[Quantiles] = None
    wall_us: Optional[Quantiles] = None
    cpu_us: Optional[Quantiles] = None
    workload: Optional[str] = None
    bound: Optional[str] = None
    executor: Optional[str] = None
    state: Optional[str] = None


@dataclass(frozen=True)
class Finding:
    """What speaks against how a workload is tagged or run, seen often enough to be no accident."""

    kind: FindingKind
    key: str  # of the profile of these runs
    workload: str
    executor: ExecutorName
    jobs: int  # so many showed it
    of: int  # so many
    since: datetime
    last_seen: datetime
    evidence: str  # a sentence
    advice: str  # a sentence


@dataclass(frozen=True)
class Learned:
    """What measured routing goes by: averages over the runs, of which the latest count most."""

    runs: int  # those that say something: they succeeded and were not too short
    demand: float  # cores that a run uses while others do not keep it from running
    wall_us: int
    holds_loop: bool  # they are known to hold the event loop
    observed: Optional[Observed] = None  # None while they are too few, or do not agree


@dataclass(frozen=True)
class ProfileSummary:
    """The runs on one executor; quantiles are None where nothing was measured."""

    executor: ExecutorName
    runs: int
    failures: Mapping[str, int]  # those without output, by kind
    tagged: Mapping[str, int]  # by tag
    observed: Mapping[str, int]  # by what they turned out to be
    since: datetime
    until: datetime
    wall_us: Optional[Quantiles] = None
    dispatch_us: Optional[Quantiles] = None
    cpu_percent: Optional[Quantiles] = None
    longest_poll_us: Optional[Quantiles] = None  # of `async` only
    max_rss_bytes: Optional[Quantiles] = None  # of `processes` only


@dataclass(frozen=True)
class Profile:
    """What was learned of runs that are alike."""

    key: str  # the workload's type, with the size of what it is given or whose code it is
    workload: str
    runs: int
    learned: Learned
    executors: tuple[ProfileSummary, ...] = ()
    findings: tuple[Finding, ...] = ()
    last_seen: Optional[datetime] = None
    runtime: Optional[str] = None  # None if that is not known since the server was started
    form: Optional[str] = None  # async or blocking; None likewise


@dataclass(frozen=True)
class WhatIfItem:
    """Runs that are alike, tagged alike and run alike. What is in microseconds is a sum of all of them, but for the longest."""

    key: str  # of their profile
    bound: Bound
    executor: ExecutorName
    runs: int
    wall_us: int
    cpu_us: int
    held_runs: int  # those that held the event loop for 50 ms or more
    held_us: int
    longest_us: int  # that one of them held it
    held_jobs: int  # other jobs that were on the loop at those times
    would: ExecutorName  # the one that measured routing would choose
    rule: str  # by which it would
    gain_loop_us: int  # for so long the event loop would not have been held
    gain_slot_us: int  # for so long slots for computing would not have been taken up by waiting
    gain_wall_us: Optional[int] = None  # so much less time they would have taken; None without enough runs there
    observed: Optional[Observed] = None


@dataclass(frozen=True)
class WhatIf:
    """What measured routing would have changed."""

    since: datetime
    until: datetime
    held_runs: int  # those that held the event loop for 50 ms or more
    held_us: int  # together
    items: tuple[WhatIfItem, ...] = ()  # those that would gain most come first


@dataclass(frozen=True)
class Key:
    """An API key without its secret."""

    id: str
    name: str
    scopes: tuple[Scope, ...]
    owner: str  # the id of the first of the keys that took each other's place
    state: KeyState
    quota: Mapping[str, int] = dataclasses.field(default_factory=dict)  # what is not in it is as the server's settings have it
    created_at: Optional[datetime] = None
    expires_at: Optional[datetime] = None
    revoked_at: Optional[datetime] = None
    last_used_at: Optional[datetime] = None  # give or take a minute


@dataclass(frozen=True)
class CreatedKey(Key):
    """A key right after it was made, the only time that its text is told."""

    key: str = dataclasses.field(default="", repr=False)  # goes along as `Authorization: Bearer …`


@dataclass(frozen=True)
class QuotaPart:
    """One part of a quota."""

    used: int
    most: Optional[int] = None  # None for any number


@dataclass(frozen=True)
class Quotas:
    """How much the server may be given to do, and what it was given."""

    queued: QuotaPart  # jobs and comparisons that wait
    running: QuotaPart  # jobs that run
    per_minute: QuotaPart  # jobs and comparisons that were submitted in the last minute, counted where there is a most
    bytes: QuotaPart  # of the workloads of what waits


@dataclass(frozen=True)
class Act:
    """Something that an administrator did."""

    at: datetime
    operation: str  # as the API's document calls it
    target: str  # the path
    key: Optional[str] = None  # the id of the one that it was done with; None where none was asked for
    status: Optional[int] = None  # of the answer; None if the server ended before there was one


def parsed(kind: type[T], told: Mapping[str, Any]) -> T:
    """An object of one of these classes from what the server said. What is null there has the default here."""
    readers = _READERS.get(kind)
    if readers is None:
        hints = get_type_hints(kind)
        fields = dataclasses.fields(kind)  # type: ignore[arg-type]
        readers = _READERS[kind] = {each.name: _reader(hints[each.name]) for each in fields}
    values = {name: reader(told[name]) for name, reader in readers.items() if told.get(name) is not None}
    if "raw" in readers:
        values["raw"] = told
    return kind(**values)


_READERS: dict[type, dict[str, Any]] = {}


def _reader(hint: Any) -> Any:
    """What makes a field's value of its JSON."""
    if get_origin(hint) is Union:
        hint = next(each for each in get_args(hint) if each is not type(None))
    if hint is datetime:
        return time_of
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return lambda told: parsed(hint, told)
    if get_origin(hint) is tuple:
        item = _reader(get_args(hint)[0])
        return lambda told: tuple(map(item, told))
    return _as_it_is


def _as_it_is(told: Any) -> Any:
    return told


def time_of(text: str) -> datetime:
    """A time as the API writes it."""
    return datetime.fromisoformat(text[:-1] + "+00:00" if text.endswith("Z") else text)


def event_of(number: int, kind: str, told: Mapping[str, Any]) -> Event:
    """An event from its data."""
    return parsed(Event, {**told, "id": number, "kind": kind})

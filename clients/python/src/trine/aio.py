"""The client for asyncio. The blocking one is made of it, by `scripts/blocking-client.py` of the repository."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Callable, Literal, Optional, TypeVar, Union

from . import _calls
from ._aio_connections import Connections
from ._calls import Operation
from ._following import Follower
from ._patience import FIRST_WAIT, Patience
from ._server import Server, checked
from .errors import TrineError
from .model import (
    Accepted,
    Act,
    Artifact,
    Bound,
    Cancelled,
    CatchUp,
    Chart,
    Choice,
    Comparison,
    CreatedKey,
    Delivery,
    DeliveryState,
    Event,
    ExecutorName,
    Finding,
    FindingKind,
    Function,
    Job,
    Key,
    Limit,
    LogLine,
    Observed,
    Overlap,
    Profile,
    Quotas,
    Result,
    Retried,
    Schedule,
    Scope,
    SummaryItem,
    WhatIf,
    event_of,
)
from .options import Filters, JobFilters, ListFilters, Options, Quota, SubmitOptions, SummaryFilters

if TYPE_CHECKING:
    from typing_extensions import Unpack

T = TypeVar("T")
E = TypeVar("E", Job, Comparison)


class AsyncClient:
    """A Trine server, for the tasks of event loops.

    `url` and `key`, an API key, are those of the variables TRINE_SERVER and TRINE_KEY unless they are given, and TRINE_CA_CERT
    names a file with a certificate by which the server is known: as the command `trine` has it. Without any, it is the one here.
    `timeout` is how long the server may be silent before a request fails, `patience` how long `wait` and streams of events put up
    with one that is out of reach, both in seconds. `headers` go with every request.
    """

    def __init__(
        self,
        url: Optional[str] = None,
        *,
        key: Optional[str] = None,
        timeout: float = 30.0,
        patience: float = 30.0,
        headers: Optional[Mapping[str, str]] = None,
        tls: Optional[ssl.SSLContext] = None,
    ) -> None:
        timeout, self._patience = checked(timeout, patience)
        self._connections = Connections(Server.at(url, headers, key), timeout, tls)

    async def close(self) -> None:
        """Closes the connections that are kept open. The client can still be used."""
        self._connections.close()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, kind: Optional[type], error: Optional[BaseException], traceback: Optional[TracebackType]) -> None:
        await self.close()

    async def _send(self, operation: Operation[T]) -> T:
        return operation.result(await self._connections.request(operation.request))

    # ---- Jobs ----

    async def submit(
        self,
        workload: Mapping[str, Any],
        *,
        bound: Optional[Bound],
        wait: Optional[float] = None,
        idempotency_key: Optional[str] = None,
        **options: Unpack[SubmitOptions],
    ) -> Job:
        """Submits one job; with `wait`, gives it that many seconds to end (60 at most).

        `bound` may be None only where a function has declared it. However often this is called with the same `idempotency_key`,
        one job is accepted, and each call has that.
        """
        job = _calls.submission(workload, {"bound": bound, **options})
        return await self._send(_calls.submit(job, wait, idempotency_key))

    async def submit_many(self, jobs: Iterable[Mapping[str, Any]], *, idempotency_key: Optional[str] = None) -> list[Accepted]:
        """Submits up to 10,000 submissions at once: all are accepted, in this order, or none."""
        return await self._send(_calls.submit_many(jobs, idempotency_key))

    async def get(self, job: str, *, wait: Optional[float] = None) -> Job:
        """A job; with `wait`, once it has ended or that many seconds have passed (60 at most)."""
        return await self._send(_calls.get(job, wait))

    async def wait(self, job: str, timeout: Optional[float] = None) -> Job:
        """A job once it has ended. Raises a TimeoutError if that takes longer than so many seconds.

        A server that is out of reach, since it is started anew for example, is asked again until `patience` is over.
        """
        return await self._ended(f"the job {job}", lambda left: _calls.get(job, left), timeout)

    async def _ended(self, name: str, ask: Callable[[float], Operation[E]], timeout: Optional[float]) -> E:
        until = None if timeout is None else time.monotonic() + timeout
        patience = Patience(self._patience)
        while True:
            left = _calls.LONGEST_WAIT if until is None else max(until - time.monotonic(), 0)
            try:
                found = await self._send(ask(left))
            except TrineError as error:
                pause = patience.failed(error)
                left = pause if until is None else until - time.monotonic()
                if left <= 0:
                    raise TimeoutError(f"{name} can't be asked for: {error}") from error
                await asyncio.sleep(min(pause, left))
                continue
            patience.worked()
            if found.finished:
                return found
            if until is not None and time.monotonic() >= until:
                raise TimeoutError(f"{name} is still {found.state}")

    def jobs(self, *, page_size: int = 100, **filters: Unpack[ListFilters]) -> AsyncIterator[Job]:
        """All jobs that pass the filters, the newest first (or `order="oldest"`), read page by page as they are asked for."""
        return self._all("/jobs", Job, _calls.filters(**filters), page_size)

    async def cancel(self, job: str, *, state: Union[str, Sequence[str]] = ()) -> Job:
        """Cancels a job: one that waits is cancelled now, one that runs is being stopped. If `state` says in which state,
        or states, it is left alone elsewhere: that is a `ProblemError`."""
        return await self._send(_calls.cancel(job, state))

    async def retry(self, job: str) -> Job:
        """Runs a job that has ended again."""
        return await self._send(_calls.retry(job))

    async def cancel_many(self, *, all: bool = False, **filters: Unpack[JobFilters]) -> Cancelled:
        """Cancels what has not ended of the jobs that pass the filters; without any filter, `all` has to be said."""
        return await self._send(_calls.cancel_many(all, _calls.filters(**filters)))

    async def retry_many(self, *, all: bool = False, **filters: Unpack[JobFilters]) -> Retried:
        """Runs again what failed or was lost, or ended in this `state`, of the jobs that pass the filters."""
        return await self._send(_calls.retry_many(all, _calls.filters(**filters)))

    async def route(self, job: str) -> dict[str, Any]:
        """Why a job runs where it runs."""
        return await self._send(_calls.route(job))

    # ---- Results ----

    async def result(self, job: str) -> Result:
        """The result of a job that has ended."""
        return await self._send(_calls.result(job))

    def results(self, *, page_size: int = 100, **filters: Unpack[ListFilters]) -> AsyncIterator[Result]:
        """All results that pass the filters, as `jobs`."""
        return self._all("/results", Result, _calls.filters(**filters), page_size)

    async def delete_result(self, job: str) -> None:
        """Removes a job that has ended, with its output, artifacts, events and messages to webhooks."""
        await self._send(_calls.delete_result(job))

    async def summary(
        self, by: Union[str, Sequence[str]] = ("workload", "bound", "executor"), **filters: Unpack[SummaryFilters]
    ) -> list[SummaryItem]:
        """Counts and quantiles of results, by any of `workload`, `bound`, `executor` and `state`."""
        return await self._send(_calls.summary(by, _calls.filters(**filters)))

    # ---- The server ----

    async def workloads(self) -> list[dict[str, Any]]:
        """What can be run."""
        return await self._send(_calls.items("/workloads"))

    async def executors(self) -> dict[str, Any]:
        """Where it can be run and how it is going, as `items`; the Pythons, as `python`; the `sandbox`; what is `quarantined`."""
        return await self._send(_calls.look("/executors"))

    async def trouble(self) -> Optional[TrineError]:
        """Why the server can take no work, or can't be asked; None if it can."""
        return await self._failure("/readyz")

    async def healthy(self) -> bool:
        """Whether the server lives and can take work."""
        return await self.trouble() is None

    async def alive(self) -> bool:
        """Whether it lives, though it may take no work: because it is drained, say."""
        return await self._failure("/healthz") is None

    async def _failure(self, what: str) -> Optional[TrineError]:
        try:
            await self._send(_calls.look(what))
        except TrineError as error:
            return error.with_traceback(None)  # which holds the frames that it came through
        return None

    def limits(self, *, page_size: int = 100) -> AsyncIterator[Limit]:
        """The limits that jobs share, as far as jobs with their keys run, wait or have started lately."""
        return self._all("/limits", Limit, {}, page_size)

    async def cluster(self) -> dict[str, Any]:
        """The servers that share a database, as `items`, and what that has to clean up."""
        return await self._send(_calls.look("/cluster"))

    async def drain_node(self, name: str) -> dict[str, Any]:
        """Has a node claim no more jobs until it is resumed or started anew; what runs there goes on. Returns the cluster."""
        return await self._send(_calls.switch_node(name, "drain"))

    async def resume_node(self, name: str) -> dict[str, Any]:
        """Has it claim jobs again."""
        return await self._send(_calls.switch_node(name, "resume"))

    # ---- What was learned of workloads ----

    def profiles(
        self,
        *,
        workload: Optional[str] = None,
        executor: Optional[ExecutorName] = None,
        observed: Optional[Observed] = None,
        page_size: int = 100,
    ) -> AsyncIterator[Profile]:
        """What was learned of workloads by running them, by key: all, or those of a type, on an executor, that turned out so."""
        query = {"workload": workload, "executor": executor, "observed": observed}
        return self._all("/profiles", Profile, query, page_size)

    async def profile(self, key: str) -> Profile:
        """One of them, by its key."""
        return await self._send(_calls.profile(key))

    async def findings(
        self, *, kind: Optional[FindingKind] = None, workload: Optional[str] = None, executor: Optional[ExecutorName] = None
    ) -> list[Finding]:
        """What speaks against how workloads are tagged or run, what was seen last first."""
        return await self._send(_calls.findings({"kind": kind, "workload": workload, "executor": executor}))

    async def what_if(
        self, *, since: Optional[datetime] = None, until: Optional[datetime] = None, workload: Optional[str] = None
    ) -> WhatIf:
        """What measured routing would have changed, in whole days (UTC) from a week ago until now unless they are given."""
        return await self._send(_calls.what_if(since, until, workload))

    # ---- Comparisons ----

    async def compare(
        self,
        workload: Mapping[str, Any],
        *,
        bound: Bound,
        executors: Optional[Sequence[ExecutorName]] = None,
        concurrency: Optional[Sequence[int]] = None,
        interpreters: Optional[Sequence[str]] = None,
        tasks: Optional[int] = None,
        budget_ms: Optional[int] = None,
    ) -> Comparison:
        """Has a workload run on each executor at each concurrency, all of them unless some are given, to see which suits it."""
        asked = {"bound": bound, "executors": executors, "concurrency": concurrency, "interpreters": interpreters}
        return await self._send(_calls.compare(workload, {**asked, "tasks": tasks, "budget_ms": budget_ms}))

    async def comparison(self, comparison: str, *, wait: Optional[float] = None) -> Comparison:
        """A comparison; with `wait`, once it has ended or that many seconds have passed (60 at most)."""
        return await self._send(_calls.comparison(comparison, wait))

    async def wait_for_comparison(self, comparison: str, timeout: Optional[float] = None) -> Comparison:
        """A comparison once it has ended, as `wait`."""
        return await self._ended(f"the comparison {comparison}", lambda left: _calls.comparison(comparison, left), timeout)

    def comparisons(self, *, page_size: int = 100) -> AsyncIterator[Comparison]:
        """All comparisons, the newest first, with their verdicts but without the rest of their reports."""
        return self._all("/comparisons", Comparison, {}, page_size)

    async def cancel_comparison(self, comparison: str) -> Optional[Comparison]:
        """Cancels one that waits, has one that runs stop without a report, or removes one that has ended and returns None."""
        return await self._send(_calls.cancel_comparison(comparison))

    async def comparison_chart(
        self, comparison: str, *, of: Optional[Chart] = None, format: Literal["svg", "png"] = "svg"
    ) -> bytes:
        """Bars for each executor at each concurrency, as the content of a file. Refused before the comparison has finished."""
        return await self._send(_calls.comparison_chart(comparison, of, format))

    async def comparison_report(self, comparison: str) -> str:
        """The verdict, the charts and the table as one page of HTML that stands alone, as `comparison_chart`."""
        return await self._send(_calls.comparison_report(comparison))

    # ---- Functions ----

    async def put_function(
        self,
        name: str,
        code: Union[str, bytes],
        *,
        entrypoint: Optional[str] = None,
        bound: Optional[Bound] = None,
        executor: Optional[Choice] = None,
        interpreter: Optional[str] = None,
        deadline_ms: Optional[int] = None,
        memory_bytes: Optional[int] = None,
        cpu_ms: Optional[int] = None,
        output_bytes: Optional[int] = None,
    ) -> Function:
        """Registers Python source, or a zip of modules, under a name: a new version, unless it is the same as before.

        The last three are what one call may use at the most; no job can raise that.
        """
        own = {"entrypoint": entrypoint, "bound": bound, "executor": executor, "interpreter": interpreter}
        limits = {"memory_bytes": memory_bytes, "cpu_ms": cpu_ms, "output_bytes": output_bytes}
        return await self._send(_calls.put_function(name, code, {**own, "deadline_ms": deadline_ms, **limits}))

    async def functions(self) -> list[Function]:
        """The functions that there are."""
        return await self._send(_calls.functions())

    async def function(self, name: str, version: Optional[str] = None) -> Function:
        """One function, in its latest version or in that one, of whose name the first 8 digits are enough."""
        if version is not None:
            return await self._send(_calls.function_version(name, version))
        return (await self.function_versions(name))[0]

    async def function_versions(self, name: str) -> list[Function]:
        """All versions of a function, the latest first."""
        return await self._send(_calls.function_versions(name))

    async def function_code(self, name: str, version: str) -> Union[str, bytes]:
        """What a version was registered with: Python source, or a zip."""
        return await self._send(_calls.function_code(name, version))

    async def redeploy_function(self, name: str, version: str) -> Function:
        """Makes a version the latest again."""
        return await self._send(_calls.redeploy_function(name, version))

    async def run_function(
        self,
        name: str,
        *args: Any,
        version: Optional[str] = None,
        kwargs: Optional[Mapping[str, Any]] = None,
        bound: Optional[Bound] = None,
        wait: Optional[float] = None,
        idempotency_key: Optional[str] = None,
        **options: Unpack[SubmitOptions],
    ) -> Job:
        """Submits a call of a function; `options` are those of `submit`. What is not given is as it was declared with."""
        workload = _calls.function_workload(name, version, args, kwargs or {})
        return await self.submit(workload, bound=bound, wait=wait, idempotency_key=idempotency_key, **options)

    async def delete_function(self, name: str) -> None:
        """Removes a function with all its versions."""
        await self._send(_calls.delete_function(name))

    # ---- Schedules ----

    async def put_schedule(
        self,
        name: str,
        cron: str,
        workload: Mapping[str, Any],
        *,
        bound: Optional[Bound],
        timezone: Optional[str] = None,
        catch_up: Optional[CatchUp] = None,
        overlap: Optional[Overlap] = None,
        replace: bool = True,
        **options: Unpack[Options],
    ) -> Schedule:
        """Has a job submitted whenever the cron expression says so, in this time zone (UTC if it is not given).

        `catch_up` is what becomes of times that were missed while no server ran, `overlap` of those at which a job of the
        schedule has not ended yet. A schedule of this name is replaced; without `replace` it is a ProblemError that there is one.
        """
        job = _calls.submission(workload, {"bound": bound, **options})
        rules = {"timezone": timezone, "catch_up": catch_up, "overlap": overlap}
        return await self._send(_calls.put_schedule(name, cron, job, rules, replace))

    def schedules(self, *, page_size: int = 100) -> AsyncIterator[Schedule]:
        """The schedules that there are, by name."""
        return self._all("/schedules", Schedule, {}, page_size)

    async def schedule(self, name: str) -> Schedule:
        """One schedule, with what came of its latest times."""
        return await self._send(_calls.schedule(name))

    async def pause_schedule(self, name: str) -> Schedule:
        """Has nothing of it start until it is resumed."""
        return await self._send(_calls.switch_schedule(name, "pause"))

    async def resume_schedule(self, name: str) -> Schedule:
        """Ends its pause."""
        return await self._send(_calls.switch_schedule(name, "resume"))

    async def run_schedule(self, name: str) -> Job:
        """Submits its job now, also if it is paused or another job of it has not ended."""
        return await self._send(_calls.run_schedule(name))

    async def delete_schedule(self, name: str) -> None:
        """Removes a schedule; its jobs go on."""
        await self._send(_calls.delete_schedule(name))

    # ---- Events ----

    def events(
        self,
        job: Optional[str] = None,
        *,
        kinds: Optional[Sequence[str]] = None,
        after: Optional[int] = None,
        **filters: Unpack[Filters],
    ) -> AsyncIterator[Event]:
        """What happens to a job, from its beginning to its end; or to all jobs that pass the filters, from now on and for ever.

        Each event is given once: a connection that breaks is opened again. `after` is the id of an event to begin after.
        """
        return self._follow(Follower(job, _calls.filters(**filters), kinds, after))

    async def _follow(self, follower: Follower) -> AsyncIterator[Event]:
        patience = Patience(self._patience)
        while True:
            try:
                async with await self._connections.stream(follower.request(), _calls.SILENCE) as stream:
                    follower.opened(stream.response)
                    # Until the server ends it: a job that was run again has ended several times.
                    while data := await stream.read():
                        patience.worked()
                        for message in follower.decode(data):
                            yield event_of(message.id, message.kind, json.loads(message.data))
                if follower.ended:
                    return
                await asyncio.sleep(FIRST_WAIT)
            except TrineError as error:
                await asyncio.sleep(patience.failed(error))

    def logs(self, job: str) -> AsyncIterator[LogLine]:
        """The lines that a job has printed so far."""
        return self._pages(lambda cursor: _calls.log_page(job, cursor))

    async def artifacts(self, job: str, attempt: Optional[int] = None) -> list[Artifact]:
        """The files that an attempt at a job left behind: the latest one, or that of this number."""
        return await self._send(_calls.artifacts(job, attempt))

    async def artifact(self, job: str, name: str, attempt: Optional[int] = None) -> bytes:
        """What is in one of them."""
        return await self._send(_calls.artifact(job, name, attempt))

    # ---- Webhooks ----

    def deliveries(
        self, job: Optional[str] = None, *, state: Optional[DeliveryState] = None, page_size: int = 100
    ) -> AsyncIterator[Delivery]:
        """The messages to webhooks about a job, or about all."""
        return self._all(_calls.deliveries(job), Delivery, {"state": state}, page_size)

    async def redeliver(self, delivery: str) -> Delivery:
        """Sends a message again."""
        return await self._send(_calls.redeliver(delivery))

    # ---- Keys ----

    async def keys(self) -> list[Key]:
        """All keys that there ever were, the oldest first. They are for administrators, as all calls here but `quota`."""
        return await self._send(_calls.keys())

    async def key(self, key: str) -> Key:
        """One of them, by its id."""
        return await self._send(_calls.key(key))

    async def create_key(
        self, name: str, scopes: Sequence[Scope], *, expires_at: Optional[datetime] = None, quota: Optional[Quota] = None
    ) -> CreatedKey:
        """Makes a key, whose text is told this once. After the first one, an administrator's, every request needs a key."""
        return await self._send(_calls.create_key({"name": name, "scopes": scopes, "expires_at": expires_at, "quota": quota}))

    async def rotate_key(self, key: str, *, grace_seconds: Optional[int] = None) -> CreatedKey:
        """Makes a key like this one, which is still good for so many seconds (a day, unless they are given)."""
        return await self._send(_calls.rotate_key(key, grace_seconds))

    async def revoke_key(self, key: str) -> Key:
        """Makes a key good for nothing."""
        return await self._send(_calls.revoke_key(key))

    async def put_key_quota(self, key: str, **quota: Unpack[Quota]) -> Key:
        """Gives a key, and those that took or take its place, this quota in place of the one before."""
        return await self._send(_calls.put_key_quota(key, quota))

    async def quota(self, key: Optional[str] = None) -> Quotas:
        """How much is used of one's own quota, or of that of a key. A ProblemError if one has none, as an administrator."""
        return await self._send(_calls.quota(key))

    def audit(self, *, page_size: int = 100) -> AsyncIterator[Act]:
        """All changes of keys, functions and nodes, the latest first."""
        return self._all("/audit", Act, {}, page_size)

    # ---- Lists ----

    def _all(self, what: str, kind: type[T], query: Mapping[str, Any], limit: int) -> AsyncIterator[T]:
        return self._pages(lambda cursor: _calls.page(what, kind, query, limit, cursor))

    async def _pages(self, ask: Any) -> AsyncIterator[Any]:
        cursor = None
        while True:
            page = await self._send(ask(cursor))
            for item in page.items:
                yield item
            cursor = page.next_cursor
            if cursor is None:
                return

"""What can be said of a job beside its workload, which jobs a call is about, and how much a key may have the server do.

The names and forms are those of the API.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Optional, TypedDict, Union

from .model import Advice, Bound, Choice, FailureKind, Routing, State

if TYPE_CHECKING:
    from ._future import OfJob


class Options(TypedDict, total=False):
    """Options of any job. One that is None is as if it were not given."""

    executor: Optional[Choice]  # how it is run; `auto` lets the server choose
    isolated: Optional[bool]  # it must run where its crash hurts nobody else
    priority: Optional[int]  # -100 to 100, higher first
    deadline_ms: Optional[int]  # the longest that one attempt may run
    retry: Optional[Mapping[str, Any]]  # {"attempts": 3, "backoff_ms": 500, …}: when a failed attempt is followed by another
    tags: Optional[Mapping[str, str]]  # free labels, to filter by
    delay_ms: Optional[int]  # not to be started for so long
    concurrency: Optional[Mapping[str, Any]]  # {"key": "customer-7", "limit": 3}: at most so many with this key run at once
    rate: Optional[Mapping[str, Any]]  # {"key": "example.com", "limit": 10, "per_ms": 1000}: so many start within a period
    requires: Optional[Mapping[str, str]]  # {"gpu": "a100"}: the labels of a node that may run it
    routing: Optional[Routing]  # what the choice of its executor goes by
    webhook: Optional[Mapping[str, Any]]  # {"url": "https://…", "events": ["failed"]}: whom to tell when it has ended


class OnceOptions(Options, total=False):
    """Options of a job that is submitted once, and not by a schedule."""

    run_at: Union[datetime, str, None]  # not to be started before; not together with `delay_ms`
    expires_at: Union[datetime, str, None]  # not to be started from then on


class SubmitOptions(OnceOptions, total=False):
    """Options of a job that is submitted by itself."""

    after: Optional[Sequence[Mapping[str, Any]]]  # [{"job": id, "on_failure": "cancel"}]: not before these jobs have ended
    unique: Optional[Mapping[str, Any]]  # {} or {"within_ms": 60_000}: another job like it that is there is taken for it


class CallOptions(OnceOptions, total=False):
    """Options of the calls of an executor."""

    after: Optional[Sequence[Union[OfJob, Mapping[str, Any]]]]  # [future], or as above: there, "job" may be a future, too
    bound: Bound  # what they mostly do: wait (`io`) or compute (`cpu`, unless it is given)


class SummaryFilters(TypedDict, total=False):
    """Which results figures are of: those that pass every filter. One that is None is as if it were not given."""

    state: Union[State, Sequence[State], None]  # where they are or how they ended: any of several
    bound: Optional[Bound]
    executor: Optional[str]  # the one that they run on
    workload: Optional[str]  # its `type`


class Filters(SummaryFilters, total=False):
    """Which jobs events are about."""

    tags: Optional[Mapping[str, str]]  # labels, all of which they have


class JobFilters(Filters, total=False):
    """Which jobs are cancelled, or run again."""

    error: Optional[FailureKind]  # with which they ended
    since: Optional[datetime]  # accepted at this time or later
    until: Optional[datetime]  # accepted before this time


class ListFilters(JobFilters, total=False):
    """Which jobs or results are listed, and in which order."""

    advice: Optional[Advice]  # what their figures speak against, as far as they have ended
    owner: Optional[str]  # whose they are: the id of a key; for administrators
    order: Optional[str]  # of acceptance: `newest` first, or `oldest`


class Quota(TypedDict, total=False):
    """How much a key may have the server do. What is None or not given is as the server's settings have it."""

    queued: Optional[int]  # jobs and comparisons that wait at once
    running: Optional[int]  # jobs that run at once; others wait
    per_minute: Optional[int]  # jobs and comparisons that are submitted in a minute
    bytes: Optional[int]  # of the workloads of all that waits

"""The operations of the API: how each is asked, and what its answer becomes. The clients only send them."""

from __future__ import annotations

import io
import json
import math
import re
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Callable, Generic, Optional, TypeVar, Union
from urllib.parse import quote

from ._http1 import Request, Response
from .errors import Malformed
from .model import (
    Accepted,
    Artifact,
    Cancelled,
    Comparison,
    CreatedKey,
    Delivery,
    Finding,
    Function,
    Job,
    Key,
    LogLine,
    Profile,
    Quotas,
    Result,
    Retried,
    Schedule,
    SummaryItem,
    WhatIf,
    parsed,
)

T = TypeVar("T")

LONGEST_WAIT = 60  # seconds that one request may wait for a job
SILENCE = 45.0  # seconds without a byte after which a stream of events is taken for dead; the server sends something every 15


@dataclass(frozen=True)
class Operation(Generic[T]):
    """A request, and what reads its answer."""

    request: Request
    read: Callable[[Any], T]

    def result(self, response: Response) -> T:
        """What an answer becomes. Raises what the server has to complain, or that this is no answer to such a request."""
        told = response.result()
        try:
            return self.read(told)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            what, kind = self.request, response.headers.get("content-type", "of no type")
            raise Malformed(
                f"the answer to {what.method} {what.path} ({kind}) is not what the API says: is it a Trine server that is asked?"
            ) from error


@dataclass(frozen=True)
class Page(Generic[T]):
    """A part of a list."""

    items: list[T]
    next_cursor: Optional[str]


def to_json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_more_json).encode()


def _more_json(value: Any) -> Any:
    if isinstance(value, datetime):
        return _moment(value)
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"JSON has no form for a value of type {type(value).__qualname__}")


def _moment(value: datetime) -> str:
    if not isinstance(value, datetime):
        raise TypeError(f"a moment is a datetime, not {value!r}")
    if value.utcoffset() is None:
        raise ValueError(f"{value!r} has no time zone, so it can't be told which moment it is")
    return value.isoformat()


def _names(value: Union[str, Sequence[str]]) -> str:
    """One name, or several, for a query."""
    return value if isinstance(value, str) else ",".join(value)


def path(*parts: str) -> str:
    return "/" + "/".join(quote(part, safe="") for part in parts)


def _one(kind: type[T]) -> Callable[[Any], T]:
    return lambda told: parsed(kind, told)


def _list(kind: type[T]) -> Callable[[Any], list[T]]:
    return lambda told: [parsed(kind, item) for item in told["items"]]


def _as_it_is(told: Any) -> Any:
    return told


def _nothing(told: Any) -> None:
    return None


def submission(workload: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """A submission, without the options that were not given."""
    return {"workload": workload, **given(options)}


def given(options: Mapping[str, Any]) -> dict[str, Any]:
    """Those that were."""
    return {name: value for name, value in options.items() if value is not None}


def submit(job: Mapping[str, Any], wait: Optional[float], key: Optional[str]) -> Operation[Job]:
    headers = _idempotent(key)
    if wait is not None:
        headers["Prefer"] = f"wait={math.ceil(_seconds(wait))}"  # which HTTP has in whole seconds
    patience = 0 if wait is None else _seconds(wait)
    return Operation(Request("POST", "/jobs", body=to_json(job), headers=headers, patience=patience), _one(Job))


def submit_many(jobs: Iterable[Mapping[str, Any]], key: Optional[str]) -> Operation[list[Accepted]]:
    return Operation(Request("POST", "/jobs/batch", body=to_json(list(jobs)), headers=_idempotent(key)), _list(Accepted))


def _idempotent(key: Optional[str]) -> dict[str, str]:
    """The header that makes the second of two requests with the same key have the answer of the first."""
    if key is None:
        return {}
    if not re.fullmatch("[!-~]{1,255}", key):
        raise ValueError(f"an idempotency key has 1 to 255 visible characters of ASCII, unlike {key!r}")
    return {"Idempotency-Key": key}


def get(job: str, wait: Optional[float]) -> Operation[Job]:
    return Operation(_waiting(path("jobs", job), wait), _one(Job))


def _waiting(what: str, wait: Optional[float]) -> Request:
    """Looks at what may end within so many seconds."""
    if wait is None:
        return Request("GET", what)
    return Request("GET", what, {"wait": round(_seconds(wait), 3)}, patience=_seconds(wait))


def _seconds(wait: float) -> float:
    """As long as one request may wait, and the server be silent for."""
    return max(0, min(wait, LONGEST_WAIT))


def cancel(job: str, state: Union[str, Sequence[str]]) -> Operation[Job]:
    return Operation(Request("DELETE", path("jobs", job), {"state": _names(state) or None}), _one(Job))


def retry(job: str) -> Operation[Job]:
    return Operation(Request("POST", path("jobs", job, "retry")), _one(Job))


def cancel_many(all: bool, query: Mapping[str, Any]) -> Operation[Cancelled]:
    return Operation(Request("POST", "/jobs/cancel", body=to_json({"all": all, **given(query)})), _one(Cancelled))


def retry_many(all: bool, query: Mapping[str, Any]) -> Operation[Retried]:
    return Operation(Request("POST", "/jobs/retry", body=to_json({"all": all, **given(query)})), _one(Retried))


def route(job: str) -> Operation[dict[str, Any]]:
    return Operation(Request("GET", path("jobs", job, "route")), dict)


def result(job: str) -> Operation[Result]:
    return Operation(Request("GET", path("results", job)), _one(Result))


def delete_result(job: str) -> Operation[None]:
    return Operation(Request("DELETE", path("results", job)), _nothing)


def filters(
    state: Union[str, Sequence[str], None] = None,
    bound: Optional[str] = None,
    executor: Optional[str] = None,
    workload: Optional[str] = None,
    tags: Optional[Mapping[str, str]] = None,
    error: Optional[str] = None,
    since: Optional[datetime] = None,
    until: Optional[datetime] = None,
    advice: Optional[str] = None,
    owner: Optional[str] = None,
    order: Optional[str] = None,
) -> dict[str, Any]:
    """The filters of a list as a query, or as a body."""
    if state is not None and not state:
        raise ValueError("no state is named: None is for jobs in any")
    labels = [f"{name}:{value}" for name, value in (tags or {}).items()]
    return {
        "state": state if state is None else _names(state),
        "bound": bound,
        "executor": executor,
        "workload": workload,
        "tag": labels or None,
        "error": error,
        "since": since and _moment(since),
        "until": until and _moment(until),
        "advice": advice,
        "owner": owner,
        "order": order,
    }


def page(what: str, kind: type[T], query: Mapping[str, Any], limit: int, cursor: Optional[str]) -> Operation[Page[T]]:
    def read(told: Any) -> Page[T]:
        return Page(_list(kind)(told), told.get("next_cursor"))

    return Operation(Request("GET", what, {**query, "limit": limit, "cursor": cursor}), read)


def summary(by: Union[str, Sequence[str]], query: Mapping[str, Any]) -> Operation[list[SummaryItem]]:
    return Operation(Request("GET", "/results/summary", {"by": _names(by), **query}), _list(SummaryItem))


def items(what: str) -> Operation[list[dict[str, Any]]]:
    """A list that comes whole."""
    return Operation(Request("GET", what), lambda told: list(told["items"]))


def look(what: str) -> Operation[dict[str, Any]]:
    return Operation(Request("GET", what), dict)


def switch_node(name: str, what: str) -> Operation[dict[str, Any]]:
    """Drains or resumes it."""
    return Operation(Request("POST", path("cluster", "nodes", name, what)), dict)


def log_page(job: str, cursor: Optional[str]) -> Operation[Page[LogLine]]:
    return page(path("jobs", job, "logs"), LogLine, {}, 1000, cursor)


def artifacts(job: str, attempt: Optional[int]) -> Operation[list[Artifact]]:
    return Operation(Request("GET", path("jobs", job, "artifacts"), {"attempt": attempt}), _list(Artifact))


def artifact(job: str, name: str, attempt: Optional[int]) -> Operation[bytes]:
    return Operation(Request("GET", path("jobs", job, "artifacts", name), {"attempt": attempt}), bytes)


def put_function(name: str, code: Union[str, bytes], options: Mapping[str, Any]) -> Operation[Function]:
    if not isinstance(code, (str, bytes)):
        raise TypeError(f"the code of a function is a text or a zip's bytes, not of the type {type(code).__qualname__}")
    if isinstance(code, bytes) and not zipfile.is_zipfile(io.BytesIO(code)):
        raise ValueError("these bytes are no zip, and Python source is given as a text")
    kind = "text/x-python" if isinstance(code, str) else "application/zip"
    body = code.encode() if isinstance(code, str) else code
    return Operation(Request("PUT", path("functions", name), options, body, {"Content-Type": kind}), _one(Function))


def function_versions(name: str) -> Operation[list[Function]]:
    return Operation(Request("GET", path("functions", name)), _list(Function))


def function_version(name: str, version: str) -> Operation[Function]:
    return Operation(Request("GET", path("functions", name, "versions", version)), _one(Function))


def function_code(name: str, version: str) -> Operation[Union[str, bytes]]:
    headers = {"Accept": "text/x-python, application/zip"}
    return Operation(Request("GET", path("functions", name, "versions", version), headers=headers), _as_it_is)


def redeploy_function(name: str, version: str) -> Operation[Function]:
    return Operation(Request("POST", path("functions", name, "versions", version, "latest")), _one(Function))


def delete_function(name: str) -> Operation[None]:
    return Operation(Request("DELETE", path("functions", name)), _nothing)


def functions() -> Operation[list[Function]]:
    return Operation(Request("GET", "/functions"), _list(Function))


def function_workload(name: str, version: Optional[str], args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    workload: dict[str, Any] = {"type": "function", "name": name, "args": list(args), "kwargs": dict(kwargs)}
    return workload if version is None else {**workload, "version": version}


def put_schedule(name: str, cron: str, job: Mapping[str, Any], rules: Mapping[str, Any], replace: bool) -> Operation[Schedule]:
    told = {"cron": cron, "job": job, **given(rules)}
    if replace:
        return Operation(Request("PUT", path("schedules", name), body=to_json(told)), _one(Schedule))
    return Operation(Request("POST", "/schedules", body=to_json({"name": name, **told})), _one(Schedule))


def schedule(name: str) -> Operation[Schedule]:
    return Operation(Request("GET", path("schedules", name)), _one(Schedule))


def switch_schedule(name: str, what: str) -> Operation[Schedule]:
    """Pauses or resumes it."""
    return Operation(Request("POST", path("schedules", name, what)), _one(Schedule))


def run_schedule(name: str) -> Operation[Job]:
    return Operation(Request("POST", path("schedules", name, "run")), _one(Job))


def delete_schedule(name: str) -> Operation[None]:
    return Operation(Request("DELETE", path("schedules", name)), _nothing)


def deliveries(job: Optional[str]) -> str:
    return "/webhooks/deliveries" if job is None else path("jobs", job, "deliveries")


def redeliver(delivery: str) -> Operation[Delivery]:
    return Operation(Request("POST", path("webhooks", "deliveries", delivery, "redeliver")), _one(Delivery))


def compare(workload: Mapping[str, Any], options: Mapping[str, Any]) -> Operation[Comparison]:
    return Operation(Request("POST", "/comparisons", body=to_json(submission(workload, options))), _one(Comparison))


def comparison(comparison: str, wait: Optional[float]) -> Operation[Comparison]:
    return Operation(_waiting(path("comparisons", comparison), wait), _one(Comparison))


def cancel_comparison(comparison: str) -> Operation[Optional[Comparison]]:
    """What it has become; None if it had ended, and is removed."""
    return Operation(Request("DELETE", path("comparisons", comparison)), lambda told: told and parsed(Comparison, told))


def comparison_chart(comparison: str, of: Optional[str], format: str) -> Operation[bytes]:
    return Operation(Request("GET", path("comparisons", comparison, f"chart.{format}"), {"of": of}), bytes)


def comparison_report(comparison: str) -> Operation[str]:
    return Operation(Request("GET", path("comparisons", comparison, "report.html")), str)


def profile(key: str) -> Operation[Profile]:
    return Operation(Request("GET", path("profiles", key)), _one(Profile))


def findings(query: Mapping[str, Any]) -> Operation[list[Finding]]:
    return Operation(Request("GET", "/findings", query), _list(Finding))


def what_if(since: Optional[datetime], until: Optional[datetime], workload: Optional[str]) -> Operation[WhatIf]:
    query = filters(workload=workload, since=since, until=until)
    return Operation(Request("GET", "/profiles/what-if", query), _one(WhatIf))


def keys() -> Operation[list[Key]]:
    return Operation(Request("GET", "/keys"), _list(Key))


def key(key: str) -> Operation[Key]:
    return Operation(Request("GET", path("keys", key)), _one(Key))


def create_key(options: Mapping[str, Any]) -> Operation[CreatedKey]:
    return Operation(Request("POST", "/keys", body=to_json(given(options))), _one(CreatedKey))


def rotate_key(key: str, grace_seconds: Optional[int]) -> Operation[CreatedKey]:
    body = to_json(given({"grace_seconds": grace_seconds}))
    return Operation(Request("POST", path("keys", key, "rotate"), body=body), _one(CreatedKey))


def revoke_key(key: str) -> Operation[Key]:
    return Operation(Request("DELETE", path("keys", key)), _one(Key))


def put_key_quota(key: str, quota: Mapping[str, Any]) -> Operation[Key]:
    return Operation(Request("PUT", path("keys", key, "quota"), body=to_json(given(quota))), _one(Key))


def quota(key: Optional[str]) -> Operation[Quotas]:
    """That of this key, or of the one with which it is asked."""
    return Operation(Request("GET", "/quota" if key is None else path("keys", key, "quota")), _one(Quotas))


def events(job: Optional[str], query: Mapping[str, Any], kinds: Optional[Sequence[str]], after: Optional[int]) -> Request:
    """The stream of one job, or of all."""
    what = "/events" if job is None else path("jobs", job, "events")
    headers = {"Accept": "text/event-stream"}
    if after is not None:
        headers["Last-Event-ID"] = str(after)
    return Request("GET", what, {**query, "kinds": ",".join(kinds) if kinds else None}, headers=headers)

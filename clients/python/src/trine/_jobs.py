"""The jobs of an executor, as the server has them: what it is asked of them, and told to do with them.

Each has a tag by which they are found, also if no answer has said what they are called. Whatever goes wrong is raised.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import CancelledError
from typing import Any, Optional

from . import _calls
from ._connections import Connections
from ._following import Follower
from ._future import Batch, Call, OfJob
from ._http1 import Request
from .errors import JobError, JobLost, Malformed, ProblemError, TrineError

TAG = "trine-executor"
TAGGED = b'{"tags":{"trine-executor":"'  # how each submission begins, before the executor's name
MOST_ON_PAGE = 50  # jobs, which come with their workloads

WAITING = ("scheduled", "blocked", "queued")  # in the order in which a job goes through them


class Beginning:
    """A submission up to the workload, but for its beginning, which tags it as one of an executor.

    It may say that the job comes after those of futures: then it can't be written before all of these have ids.
    """

    def __init__(self, submission: Mapping[str, Any]) -> None:
        told = submission.get("after") or ()
        if isinstance(told, (OfJob, Mapping, str)):
            raise TypeError(f'"after" takes a list of what a call comes after, as [future], not {told!r}')
        after = [_parent(each) for each in told]
        self.submission = _calls.given({**submission, "after": after or None})
        self._calls = [parent["job"] for parent in after if isinstance(parent["job"], Call)]
        self._written = None if self._calls else self._write()

    def is_ready(self) -> bool:
        """Whether it can be written, or never will be."""
        return self._written is not None or all(call.id is not None or call.future is None for call in self._calls)

    def written(self) -> bytes:
        """It, once it `is_ready`. Raises how it ends if it is not to run after a call that never became a job."""
        if self._written is None:
            never = [each for each in self.submission["after"] if isinstance(each["job"], Call) and each["job"].id is None]
            rules = {each.get("on_failure") or "cancel" for each in never}
            if "fail" in rules:
                raise JobError("dependency", "a call that it was to come after has ended without ever having been a job")
            if rules - {"run"}:
                raise CancelledError("a call that it was to come after has ended without ever having been a job")
            self._written = self._write()
        return self._written

    def _write(self) -> bytes:
        tags = {name: value for name, value in self.submission.get("tags", {}).items() if name != TAG}
        told = {"tags": {TAG: "", **tags}, **{name: value for name, value in self.submission.items() if name != "tags"}}
        if self._calls:
            parents = [
                {**each, "job": each["job"].id} if isinstance(each["job"], Call) else each for each in self.submission["after"]
            ]
            told["after"] = [each for each in parents if each["job"] is not None]
        return _calls.to_json(told)[len(TAGGED) : -1] + b',"workload":'


def _parent(told: Any) -> Mapping[str, Any]:
    """A job that others come after, as the API names it, or a future of it. Of a future only the call is kept."""
    parent = told if isinstance(told, Mapping) else {"job": told}
    job = parent.get("job")
    if isinstance(job, OfJob):
        return {**parent, "job": job._call}
    if isinstance(job, Call) or (parent is told and isinstance(job, str)):
        return parent
    raise TypeError(
        f'"after" takes futures, {{"job": future}} and {{"job": id}}, not {told!r}. '
        "What was just submitted has no job_id yet: then it is the future that is to be given"
    )


class Jobs:
    """Those with the name of an executor as their tag."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self.rename()

    def rename(self) -> None:
        """Gives them another name: those from here on are others."""
        self.name = str(uuid.uuid4())

    def _get(self, what: str, query: Optional[Mapping[str, Any]] = None) -> Any:
        return self._connections.request(Request("GET", what, query or {})).result()

    def interpreters(self) -> Any:
        """The Pythons on which they can run."""
        return self._get("/executors")["python"]["interpreters"]

    def submit(self, batch: Batch) -> list[str]:
        """Has the server accept calls; the ids of their jobs."""
        tagged = TAGGED + self.name.encode()
        parts = [part for call in batch.calls for part in (b"},", tagged, call.beginning(), call.workload)]
        body = b"".join([b"[", *parts[1:], b"}]"])
        request = Request("POST", "/jobs/batch", body=body, headers={"Idempotency-Key": batch.key})
        operation = _calls.Operation(request, lambda told: [str(item["id"]) for item in told["items"]])
        return operation.result(self._connections.request(request))

    def page(self, cursor: Optional[str], state: Optional[str] = None) -> Any:
        """A page of them, the newest first."""
        return self._get("/jobs", {"tag": f"{TAG}:{self.name}", "state": state, "limit": MOST_ON_PAGE, "cursor": cursor})

    def ids(self, *states: str) -> set[str]:
        """The ids of all that are in these states."""
        found: set[str] = set()
        for state in states:
            cursor = None
            while True:
                page = self.page(cursor, state)
                found.update(item["id"] for item in page["items"])
                cursor = page["next_cursor"]
                if cursor is None:
                    break
        return found

    def ends(self) -> Follower:
        """What follows them: each event is one's end."""
        return Follower(None, {"tag": f"{TAG}:{self.name}"}, ("finished",))

    def look_at(self, job: str) -> Any:
        """What is told of a job; or what says why that can't be read."""
        try:
            return self._get(_calls.path("jobs", job))
        except Malformed as error:
            return error
        except ProblemError as problem:
            if problem.status != 404:
                raise
            return JobLost("lost", "the server no longer knows the job", job)

    def runs(self, job: str) -> bool:
        """Whether a job runs that was not yet said to."""
        try:
            told = self._get(_calls.path("jobs", job))
        except TrineError:
            return False  # what can't be asked can't be cancelled either
        return bool(told["state"] == "running")

    def cancel(self, job: str, states: Sequence[str] = ()) -> None:
        """Cancels a job, or only if it is in one of these states."""
        self._connections.request(_calls.cancel(job, states).request).result()

    def cancel_all_in(self, state: str) -> None:
        """Cancels all of them in a state. The server looks at that as it cancels, so none is stopped that has begun."""
        body = _calls.to_json({"tag": f"{TAG}:{self.name}", "state": state})
        self._connections.request(Request("POST", "/jobs/cancel", body=body)).result()

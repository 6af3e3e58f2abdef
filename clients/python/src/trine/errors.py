"""What can go wrong, all of it a `TrineError`."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import BrokenExecutor
from dataclasses import dataclass
from typing import Any, Optional


class TrineError(Exception):
    """Any failure that this package reports of its own accord."""


class ServerUnreachable(TrineError, ConnectionError):
    """The server can't be reached, or hung up before it had answered."""


class NoConnection(ServerUnreachable):
    """No connection to the server could be made, so that nothing has arrived there."""


class ServerSilent(ServerUnreachable):
    """The server said nothing for as long as it may. What it was asked for may have been done, or may still be."""


class Malformed(TrineError):
    """The server's answer is not what HTTP or the API says."""


@dataclass(frozen=True)
class Fault:
    """A place in a request that is at fault."""

    detail: str
    pointer: Optional[str] = None  # into the body, as JSON Pointer
    parameter: Optional[str] = None  # of the query

    @property
    def item(self) -> Optional[int]:
        """Which item of a batch it is in."""
        first, _, _ = (self.pointer or "").lstrip("/").partition("/")
        return int(first) if first.isdigit() else None


class ProblemError(TrineError):
    """The server refused, and says why in Problem Details (RFC 9457)."""

    def __init__(
        self,
        status: int,
        type: str,
        title: str,
        detail: str,
        errors: Sequence[Fault] = (),
        retry_after: Optional[float] = None,
    ) -> None:
        super().__init__(status, type, title, detail, tuple(errors), retry_after)
        self.status = status
        self.type = type  # a stable name, as `/problems/unknown-job`
        self.title = title  # the same for every problem of this type
        self.detail = detail  # what happened this time
        self.errors = tuple(errors)
        self.retry_after = retry_after  # seconds, if it may be tried again

    @property
    def pointer(self) -> Optional[str]:
        """The first place in the body that is at fault, as JSON Pointer."""
        return next((fault.pointer for fault in self.errors if fault.pointer is not None), None)

    def alone(self, index: int, size: int, most: str) -> TrineError:
        """The same of one item of a batch that was submitted by itself, and has this size, most of it in this."""
        before = f"/{index}"

        def cut(text: str) -> str:
            rest = text[len(before) :]
            return rest.removeprefix(": ") if text.startswith(before) and rest[:1] in ("", "/", ":") else text

        faults = [
            Fault(fault.detail, None if fault.pointer is None else cut(fault.pointer), fault.parameter)
            for fault in self.errors
            if fault.item in (None, index)
        ]
        detail = cut(self.detail)
        if faults and len(faults) < len(
            self.errors
        ):  # it is of the first item that is at fault, and says how many more there are
            detail = ": ".join(part for part in (faults[0].pointer, faults[0].detail) if part)
        if self.status == 413:
            told = f"a call that takes {size} bytes on its way is more than the server takes: {detail}"
            return CannotTravel(f"{told}; most of it is in {most}" if most else told)
        return ProblemError(self.status, self.type, self.title, detail, faults, self.retry_after)

    def names(self, kind: str) -> bool:
        """Whether this is a problem of this kind, as `unknown-job`."""
        return self.type.rpartition("/")[2] == kind

    def __str__(self) -> str:
        return f"{self.status} {self.title}: {self.detail}"


class CannotTravel(TrineError, TypeError):
    """A function, an argument or a value can't be sent to the server; the message says which part of it, and why."""


class JobError(TrineError):
    """A job ended without output, and not because of an exception of its own that could be brought here."""

    def __init__(self, kind: str, message: str, job_id: Optional[str] = None) -> None:
        super().__init__(kind, message, job_id)
        self.kind = kind  # as `error`, `timeout`, `lost`
        self.message = message
        self.job_id = job_id

    def __str__(self) -> str:
        return self.message if self.job_id is None else f"{self.message} (job {self.job_id})"


class JobTimeout(JobError, TimeoutError):
    """The job ran longer than its deadline."""


class JobLost(JobError, BrokenExecutor):
    """Whatever ran the job died under it, too often; or the server no longer knows the job."""


class RemoteError(JobError):
    """A Python exception that could not be brought here as itself; `type` is its name."""

    def __init__(self, type: str, message: str, job_id: Optional[str] = None) -> None:
        super().__init__("error", message, job_id)
        self.args = (type, message, job_id)
        self.type = type

    def __str__(self) -> str:
        return f"{self.type}: {super().__str__()}"


class RemoteTraceback(Exception):
    """The traceback of an exception where it was raised; the `__cause__` of the exception here."""

    def __init__(self, tb: str) -> None:
        super().__init__(tb)
        self.tb = tb

    def __str__(self) -> str:
        return f'\n"""\n{self.tb}"""'


class ServerGone(TrineError, BrokenExecutor):
    """The server could not be reached for so long that the executor gave it up. What it had accepted may still be run."""


def problem_of(status: int, body: Any, retry_after: Optional[float]) -> ProblemError:
    """The problem that an answer tells of, also when it is not one of Trine's (a proxy's, say)."""
    told = body if isinstance(body, dict) else {}
    faults = [
        Fault(str(fault.get("detail", "")), fault.get("pointer"), fault.get("parameter"))
        for fault in told.get("errors") or ()
        if isinstance(fault, dict)
    ]
    title = str(told.get("title") or "The server refused")
    detail = str(told.get("detail") or (body if isinstance(body, str) else ""))
    return ProblemError(status, str(told.get("type") or "about:blank"), title, detail, faults, retry_after)

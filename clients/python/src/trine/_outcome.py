"""What a finished job means for whoever waits for it: a value, or an exception."""

from __future__ import annotations

import ast
import builtins
import contextlib
import json
import linecache
import re
from collections.abc import Sequence
from concurrent.futures import CancelledError
from typing import Any, Optional

from ._pickler import unpickled
from ._travel import Way
from .errors import CannotTravel, JobError, JobLost, JobTimeout, RemoteError, RemoteTraceback

NEVER_RAN = {"state": "cancelled"}  # what would be told of a job that was cancelled while it waited
NOT_BROUGHT = "JSON could not bring its arguments: the one that it has here is its text."


def ended_job(data: bytes) -> tuple[str, Any]:
    """A job that has ended, and what is told of it: an exception if it can't be read here."""
    try:
        told = json.loads(data)
    except (ValueError, RecursionError) as error:  # a number with too many digits for Python, or what is nested too deep
        found = re.match(rb'\{"job":"([^"]+)"', data)
        if found is None:
            raise
        return found[1].decode(), CannotTravel(f"what the call returned can't be read: {error}")
    return told["job"], told


def never_ran(told: Any) -> bool:
    """Whether this is the end of a job that was cancelled while it waited."""
    return isinstance(told, dict) and told.get("state") == "cancelled" and not told.get("attempt")


def outcome(told: Any, way: Way, job_id: str) -> tuple[Any, Optional[BaseException]]:
    """A call's value or its exception. Reading one runs code of its class; whatever that raises is the exception."""
    if isinstance(told, BaseException):
        return None, told
    try:
        if told.get("state") != "succeeded":
            return None, exception_of(told, job_id)
        return way.value(told.get("output")), None
    except BaseException as error:
        return None, error


def exception_of(told: dict[str, Any], job_id: str) -> BaseException:
    """The exception of a job that ended without output. Its cause has the traceback from where it was raised."""
    error = told.get("error") or {}
    state, kind = told.get("state"), str(error.get("kind", "error"))
    message = str(error.get("message") or f"the job ended as {state}")
    if state == "cancelled":
        return CancelledError(message)
    if state == "lost" or kind == "lost":
        return JobLost("lost", message, job_id)
    if kind == "timeout":
        return JobTimeout(kind, message, job_id)
    python = error.get("python")
    if not python:
        return JobError(kind, message, job_id)
    exception = _raised(python, job_id)
    text = python.get("traceback")
    if text:
        # Its class may allow no assignment, as a frozen dataclass does.
        BaseException.__setattr__(exception, "__cause__", RemoteTraceback(_with_lines(text)))
    return exception


def _with_lines(text: str) -> str:
    """A traceback with the lines of code that are here and were not there: those of functions that travelled by pickle."""
    lines = text.splitlines(True)
    told = []
    for line, following in zip(lines, [*lines[1:], ""]):
        told.append(line)
        frame = re.match(r'  File "(.+)", line (\d+), in ', line)
        if frame and not following.startswith("    "):
            code = linecache.getline(frame[1], int(frame[2])).strip()
            told += [f"    {code}\n"] if code else []
    return "".join(told)


def _raised(python: dict[str, Any], job_id: str) -> BaseException:
    """The exception itself, if it travelled; else one that is made of what is told of it."""
    if python.get("pickle"):
        try:
            exception = unpickled(python["pickle"])
            if isinstance(exception, BaseException):
                own = getattr(exception, "__notes__", None)
                own = own if isinstance(own, list) else []
                more = [note for note in python.get("notes") or () if note not in own]  # of the server
                if more:
                    BaseException.__setattr__(exception, "__notes__", [*own, *more])
                return exception
        except BaseException:  # code of its class may have run
            pass  # it is not here, say
    return _remade(python, job_id)


def _remade(python: dict[str, Any], job_id: str) -> BaseException:
    """One of the same built-in kind, if it is one; else one that names its kind."""
    kind, message = str(python.get("type", "Exception")), str(python.get("message", ""))
    known = getattr(builtins, kind, None)
    exception: BaseException = RemoteError(kind, message, job_id)
    notes = list(python.get("notes") or ())
    if isinstance(known, type) and issubclass(known, BaseException):
        with contextlib.suppress(AttributeError, SyntaxError, TypeError, ValueError):  # it takes what JSON could not bring
            made = known(*_arguments(python, message, job_id))
            made.__setstate__(python.get("attributes") or {})
            exception = made
            if python.get("args", ()) is None and kind != "KeyError":
                notes.append(NOT_BROUGHT)
    if notes:
        exception.__notes__ = notes  # before Python 3.11 nothing shows them
    return exception


def _arguments(python: dict[str, Any], message: str, job_id: str) -> Sequence[Any]:
    """What an exception's class is called with. That of a KeyError is often more than JSON has, such as a tuple."""
    if python.get("exceptions"):
        text = re.sub(r" \(\d+ sub-exceptions?\)$", "", message)
        return text, [_remade(each, job_id) for each in python["exceptions"]]
    if python.get("args"):
        return tuple(python["args"])
    if python.get("type") == "KeyError" and message:
        return (ast.literal_eval(message),)
    return (message,) if message else ()

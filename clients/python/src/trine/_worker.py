"""What a function can ask of Trine while it runs there. The server's hosts have a module `trine` with the same names.

Functions refer to these by name, so that where they run they find those of the host.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NoReturn


class Stopped(KeyboardInterrupt):
    """The job was asked to stop. It is no `Exception`, so that handlers of those don't swallow it, nor does an event loop."""

    def __init__(self, message: str = "the job was asked to stop") -> None:
        super().__init__(message)


def _nowhere() -> NoReturn:
    raise RuntimeError("no job runs here: this can only be asked by a function that Trine runs")


def progress(value: Any) -> None:
    """Reports anything that JSON can write as the job's progress."""
    _nowhere()


def stopped() -> bool:
    """Whether the job was asked to stop."""
    _nowhere()


def job_id() -> str:
    """The job's id, a UUID."""
    _nowhere()


def attempt() -> int:
    """The number of this attempt at the job, from 1."""
    _nowhere()


def artifacts() -> Path:
    """The job's own folder for files that are to be kept when it ends."""
    _nowhere()


for _each in (Stopped, progress, stopped, job_id, attempt, artifacts):
    _each.__module__ = "trine"

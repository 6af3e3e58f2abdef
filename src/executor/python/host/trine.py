"""Users' module `trine`: what a function can ask of Trine while it runs."""

import os
import sys
import types

from . import running
from .exceptions import Stopped
from .running import current


def here():
    job = None if running.forked else current()
    if job is None:
        raise RuntimeError("no job runs here (a child process does not count)")
    return job


def progress(value):
    """Reports anything that JSON can write as the job's progress. On threads, it ends a job that was asked to stop."""
    here().progress(value)


def stopped():
    """Whether the job was asked to stop."""
    return here().stopped


def job_id():
    """The job's id, a UUID."""
    return here().uuid


def attempt():
    """The number of this attempt at the job, from 1."""
    return here().attempt


def artifacts():
    """The job's own folder for files that are to be kept when it ends, as a path; made by the first call."""
    from pathlib import Path

    job = here()
    folder = os.path.join(job.host.artifacts, str(job.id))
    os.makedirs(folder, exist_ok=True)
    job.has_artifacts = True
    return Path(folder)


def provide():
    """Makes the module, for users' code to import."""
    module = sys.modules["trine"] = types.ModuleType("trine", "What a function can ask of Trine while it runs.")
    for member in (progress, stopped, job_id, attempt, artifacts, Stopped):
        member.__module__ = "trine"
        setattr(module, member.__name__, member)

"""Which job it is that runs. Others set `alone` and `forked`, so both are read where they are set: as `running.alone`."""

import contextvars

JOB = contextvars.ContextVar("trine_job", default=None)
alone = None  # the job that has this process to itself, in whichever thread
forked = False  # this is a child that a job made with `os.fork`, not the host


def current():
    """The job that this code runs for; None if it can't be known, as in a thread that a job started."""
    return JOB.get() or alone

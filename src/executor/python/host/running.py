"""Which job it is that runs. Others set `alone` and `forked`, so both are read where they are set: as `running.alone`."""

import contextvars
import threading

JOB = contextvars.ContextVar("trine_job", default=None)
alone = None  # the job that has this process to itself, in whichever thread
forked = False  # this is a child that a job made with `os.fork`, not the host


def current():
    """The job that this code runs for; None if it can't be known, as in a thread that was started past `threading`."""
    return JOB.get() or alone


def run_for(job, function, *args):
    """Makes a call for a job, in whosever turn this is."""
    context = contextvars.copy_context()
    context.run(JOB.set, job)
    return context.run(function, *args)


def hand_down():
    """Threads that a job starts are to run for it and to be measured as part of it. Where Python was built without a GIL they do run for it by
    themselves."""
    start = threading.Thread.start

    def start_for_job(thread):
        job = JOB.get()
        if job is not None:
            run, since = thread.run, job.meter.now()

            def run_for_job():
                JOB.set(job)
                # It would hold the thread, and so itself. After a start that failed it calls the one of that, which finds nothing here.
                vars(thread).pop("run", None)
                job.meter.helped(since, run)

            thread.run = run_for_job
        start(thread)

    threading.Thread.start = start_for_job

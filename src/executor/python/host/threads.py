"""The host with threads."""

import contextlib
import contextvars
import queue
import threading

from .exceptions import Stopped
from .host import Host
from .running import JOB
from .usage import gil_enabled


class Threads(Host):
    """Many jobs at once, each on a thread of a pool."""

    def __init__(self, sock):
        super().__init__(sock)
        self.shares_gil = gil_enabled() is not False
        self.waiting = queue.SimpleQueue()

    def prepare(self):
        for number in range(self.threads):
            threading.Thread(target=self.work, name=f"trine-{number}", daemon=True).start()

    def work(self):
        while True:
            job = self.waiting.get()
            context = contextvars.Context()
            context.run(JOB.set, job)
            context.run(self.perform, job)

    def begin(self, job):
        self.waiting.put(job)

    def stop(self, job):
        """A thread can't be stopped. What it awaits can be; else it is told when it next asks or reports."""
        job.stopped = True
        if job.cancel is None:
            job.due = Stopped()
        else:
            with contextlib.suppress(RuntimeError):  # its loop has just been closed
                job.cancel()

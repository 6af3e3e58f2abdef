"""The host with threads."""

import contextlib
import contextvars
import os
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
        """Whatever comes late of what a job has had raised in this thread, also while that waits: the next job has its turn, and the thread
        goes on."""
        taken = []
        while True:
            try:
                if not taken:
                    # In one step, or a job might be taken and be lost.
                    taken.extend(map(queue.SimpleQueue.get, (self.waiting,)))
                self.make(taken[0])
                taken.clear()
            except BaseException:
                if taken and taken[0].id not in self.jobs:
                    taken.clear()
                elif taken and taken[0].run is None:
                    os._exit(1)  # it has begun, and nobody would ever hear of its end

    def make(self, job):
        context = contextvars.Context()
        context.run(JOB.set, job)
        context.run(self.perform, job)

    def begin(self, job):
        self.waiting.put(job)

    def stop(self, job):
        """A thread can't be stopped. It is told when it next reports, or where it awaits something, whichever is first."""
        job.stopped = True
        job.due = Stopped()
        cancel = job.cancel
        if cancel is not None:
            with contextlib.suppress(RuntimeError):  # its loop has just been closed
                cancel()

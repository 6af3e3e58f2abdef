"""The host with one job at a time."""

import contextvars
import errno
import os
import resource
import signal
import threading

from . import running
from .errors import HOST
from .exceptions import CpuTimeExceeded, Stopped
from .host import FAILED, Host
from .jobs import call, imports
from .messages import message
from .usage import Memory, process_usage

OWN_THREADS = 2  # of a host without a job: the main one, and the one that captures what is printed
SOON_CPU_S = 0.01  # until it is tried once more to end a process
SHORT_NS = 20_000_000  # of a job; what stands behind one that takes longer is given back
FEW_FILES = 64  # left of those that this process may have open; `src/sandbox/watch.rs` has the same
LAST_CPU_S = 0.5  # CPU time of a job that has used up what it may, until its process is ended


def few_files_are_left():
    """Whether the next job may fail for what others have left open."""
    try:
        opened = os.stat("/proc/self/fd").st_size or len(os.listdir("/proc/self/fd"))  # its size since Linux 6.2
    except OSError as error:
        return error.errno == errno.EMFILE
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0] - opened < FEW_FILES


class Processes(Host):
    """One job at a time, in the main thread and with the process to itself.

    Calls may come behind the one that runs, so that the next one is there when it ends. They have not begun: if that takes long, or leaves
    something behind in the process, they are given back.

    Nobody reads the socket meanwhile but the capturing thread, every so often: a thread woken for each message would cost short jobs
    more than all else here.
    """

    usage = staticmethod(process_usage)
    told = None  # the job that an interrupt is for, if the host sent it: it comes a little later
    is_left = False  # the last job has left something behind that the next one must not meet

    def __init__(self, sock):
        super().__init__(sock)
        self.memory = Memory()
        self.handlers[signal.SIGPROF] = self.spent

    def handle(self, kind, body):
        if kind == "run":
            if self.is_left and body.get("behind"):
                self.give_back(body)
                return
            self.is_left = False
        super().handle(kind, body)

    def give_back(self, run):
        self.channel.send(message("returned", {"id": run["id"]}))

    def begin(self, job):
        running.alone = job
        self.take_signals()
        if job.cpu_ms is not None:
            signal.setitimer(signal.ITIMER_PROF, job.cpu_ms / 1000, LAST_CPU_S)
        contextvars.Context().run(self.perform, job)  # or a precision of decimals, say, would hold for the next job
        if job.cpu_ms is not None:
            signal.setitimer(signal.ITIMER_PROF, 0)
        running.alone = None

    def settle(self, job, outcome):
        """What goes on when a job has ended would count as the next one's: its figures, its log, its limit of CPU time. And without the
        capturing thread the next one could not be stopped."""
        self.is_worn = self.is_worn or threading.active_count() > OWN_THREADS or not self.capture.is_alive()
        if outcome[0] == FAILED and not self.is_worn:
            self.is_worn = few_files_are_left()
        self.is_left = self.is_worn or job.has_artifacts
        for timer in (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL):
            signal.setitimer(timer, 0)
        super().settle(job, outcome)

    def tick(self):
        job = running.alone
        if job is None:
            return
        if any(kind == "stop" and body["id"] == job.id for kind, body in self.channel.look_ahead()):
            job.stopped = True
        if job.thread is not None and job.meter.now() - job.meter.began_ns > SHORT_NS:
            for run in self.channel.take_back():
                self.give_back(run)
        if job.stopped and not job.interrupted:
            self.told = job
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        job.meter.look()

    def interrupt(self, signum, frame):
        """Raises in users' code. In the host's own an exception could cut a message in two, so there it waits for the way back, or for
        the next tick: that code may be on its way to users', which may not be back for long. What may await is cancelled by its loop, unless
        that has not come to it by the next tick."""
        job, told, self.told = running.alone, self.told, None
        if told not in (None, job):
            return  # that one has ended meanwhile
        if job is None or job.thread is None or job.interrupted or imports(frame):
            return  # it comes again with the next tick, unless it has been told
        if job.stopped and job.cancel is not None:
            cancel, job.cancel = job.cancel, None
            cancel()
            return
        job.due = Stopped() if job.stopped else KeyboardInterrupt()
        self.turn_to(job, frame)

    def spent(self, signum, frame):
        """The CPU time of a job is used up. One that does not heed that takes the process along, as does one that is loading a module."""
        job = running.alone
        if job is None or job.thread is None or job.cpu_ms is None:
            return  # it may be the timer of a job before
        error = CpuTimeExceeded(f"it has used more CPU time than the {job.cpu_ms} ms that a call of its function may")
        if job.overspent or imports(frame):
            if self.channel.is_draining or self.capture.lock.locked():
                # Its end would come in the midst of a message, or wait for a thread that may wait for a lock of users that this one has.
                signal.setitimer(signal.ITIMER_PROF, SOON_CPU_S, LAST_CPU_S)
                return
            job.meter.count(job.meter.usage())
            job.meter.end()
            self.is_worn = True  # for the server may hear of the end of the job before it sees that of the process
            self.settle(job, self.failed(job, error))
            self.channel.finish()
            os._exit(1)
        job.due, job.overspent = error, True
        self.turn_to(job, frame)

    @staticmethod
    def turn_to(job, frame):
        if not frame.f_code.co_filename.startswith(HOST) or frame.f_code is call.__code__:
            job.heed()

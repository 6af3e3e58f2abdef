"""What the three ways of running have in common."""

import _signal
import binascii
import gc
import operator
import os
import signal
import sys
import threading

from . import running
from .channel import Channel, both
from .errors import described, no_frames
from .exceptions import Invalid
from .jobs import Job, finished
from .library import Library
from .logs import Capture, Log, Stream
from .messages import as_json, framed, message, plain
from .pickles import Functions, as_pickle, pickled_error
from .usage import thread_usage

FAILED = b'"error":'  # so a `done` with an exception goes on


def same(some, others):
    return all(map(operator.is_, some, others))


class Host:
    """What the three ways of running have in common."""

    usage = staticmethod(thread_usage)
    memory = None
    polled = False
    shares_gil = False
    is_worn = False  # it should get no further jobs
    tick = None

    def __init__(self, sock):
        self.channel = Channel(sock)
        self.library = Library()
        self.functions = Functions()
        self.jobs = {}
        self.replaced = None  # what stood in the place of `streams` when a job ended, and the jobs that ran then
        self.handlers = {signal.SIGINT: self.interrupt, signal.SIGTERM: self.terminate}
        self.mask = _signal.pthread_sigmask(_signal.SIG_BLOCK, ())

    def main(self):
        _, setup = self.channel.receive()
        self.setup = setup
        self.threads = setup["threads"]
        self.max_output_bytes = setup["max_output_bytes"]
        self.max_log_bytes = setup["max_log_bytes"]
        self.artifacts = os.path.join(os.getcwd(), "artifacts")
        self.prepare()
        self.nobody = Log(self.channel, None, self.max_log_bytes)
        self.streams = Stream("stdout", 1, self.nobody).text(), Stream("stderr", 2, self.nobody).text()
        sys.stdout, sys.stderr = self.streams
        self.capture = Capture(self.channel.sock, self.nobody, self.tick)
        self.capture.start()
        self.take_signals()
        gc.freeze()  # what is here by now stays, so the collector need not look at it each time
        self.channel.send(message("ready", {}))
        self.serve()

    def prepare(self):
        """Does what may fail, while the reason still reaches the server as the last words of this process."""

    def serve(self):
        while True:
            self.handle(*self.channel.receive())

    def handle(self, kind, body):
        if kind == "run":
            code = None
            if body.get("pickle") is not None:
                self.functions.prepare()
            else:
                code = self.library.find(body["code"])
                if code is None:
                    self.refuse(body["id"], "unknown_code", f"this host does not have the code {body['code']['sha']}")
                    return
            if self.nobody.room.printed:
                self.nobody.renew()
            job = self.jobs[body["id"]] = Job(self, body, code)
            self.begin(job)
        elif kind == "stop" and body["id"] in self.jobs:
            self.stop(self.jobs[body["id"]])
        elif kind == "leave" and body["id"] in self.jobs:
            self.leave(self.jobs[body["id"]])
        elif kind == "ping":
            self.channel.send(message("pong", {}))
        elif kind == "unreadable":
            self.refuse(body["id"], "invalid", body["reason"])

    def refuse(self, job_id, kind, reason):
        self.channel.send(message("done", {"id": job_id, "error": no_frames(kind, "ValueError", reason), "measured": None}))

    def stop(self, job):
        """Asks a job to end; it may have begun or not."""
        job.stopped = True
        if job.cancel is not None:
            job.cancel()

    def leave(self, job):
        """A job that did not end though it was asked to is to go no further. A thread can't be kept from that, and a process is ended."""

    def take_signals(self):
        """The handlers that a job has put there instead were for itself, and so were the signals that it has blocked."""
        for signum, handler in self.handlers.items():
            if _signal.getsignal(signum) is not handler:  # what `signal` has makes an enumeration's member of it, which takes long
                signal.signal(signum, handler)
        _signal.pthread_sigmask(_signal.SIG_SETMASK, self.mask)

    def interrupt(self, signum, frame):
        """Interrupts are for `Processes`: here they would hit any job, or the host."""

    def terminate(self, signum, frame):
        """Whoever stops a service may tell all of its processes, as systemd does. When this one ends, the server says, which lets jobs end
        before. A child that a job made has nobody else to end it."""
        if running.forked:
            signal.signal(signum, signal.SIG_DFL)
            signal.raise_signal(signum)

    def put_back(self, job):
        """What stands in the place of the outputs may be for a job that still runs. If none of those does that ran when it was first seen here,
        it was left behind, as by several that replaced them at once and put back what was another's. It says what it still holds."""
        found = getattr(sys, "stdout", None), getattr(sys, "stderr", None)
        if same(found, self.streams):
            return
        others = set(self.jobs)
        others.discard(job.id)
        seen = self.replaced  # which another thread may change
        if seen is None or not same(found, seen[0]):
            seen = self.replaced = found, others
        if others.isdisjoint(seen[1]):
            found = seen = self.replaced = None
            sys.stdout, sys.stderr = self.streams

    def perform(self, job):
        job.meter.begin()
        try:
            self.settle(job, self.outcome(job))
        except BaseException as error:
            self.settle_late(job, error)

    def outcome(self, job):
        try:
            try:
                value = job.meter.call(self.evaluate, job)
            finally:
                job.meter.end()
            return self.written(job, value)
        except BaseException as error:
            return self.failed(job, error)

    def settle_late(self, job, error):
        """What a job has raised by a signal or from another thread, as time-outs are, may come when its function has ended just now."""
        if job.id in self.jobs:
            self.settle(job, self.failed(job, error))
        else:
            self.channel.send(b"")  # its end is on its way, but for what was kept from being sent

    @staticmethod
    def evaluate(job):
        job.thread = threading.get_ident()
        try:
            return finished(job, job.start())
        finally:
            job.thread = None

    def written(self, job, value):
        """A job's value, as part of its `done`."""
        try:
            if not job.by_pickle:
                return b'"output":', as_json(value, "the output", job.most_output)
            return b'"pickle":"', as_pickle(value, "the output", job.most_output), b'"'
        except Invalid:
            raise
        except Exception as error:
            raise Invalid(str(error), type(error).__name__) from None

    def failed(self, job, error):
        """A job's exception, as part of its `done`."""
        if type(error) is Invalid:
            return FAILED, plain(no_frames("invalid", error.cause, str(error)))
        told = described(error, str if job.code is None else job.code.tidy, self.setup)
        if job.stopped and told["type"].rpartition(".")[2] in ("Stopped", "KeyboardInterrupt", "CancelledError"):
            told["kind"] = "cancelled"
        outcome = FAILED, plain(told)
        if job.by_pickle:
            data = pickled_error(error)
            if data is not None and len(data) <= job.most_output:
                outcome += b',"pickle":"', binascii.b2a_base64(data, newline=False), b'"'
        return outcome

    def settle(self, job, outcome):
        if running.forked:
            os._exit(0)  # a child that a job made has come back from the job's function; it is no host, and can't tell anybody
        self.channel.heal()
        self.put_back(job)
        if running.alone is job:
            self.capture.drain()
        job.log.close()
        job.cancel = None  # or it would take a garbage collection to free the job
        artifacts = b'"artifacts":true,' if job.has_artifacts else b""
        worn = b'"worn":true,' if self.is_worn else b""
        head = b'{"done":{"id":%d,%b%b' % (job.id, artifacts, worn)
        done = framed(head, *outcome, b",%b}}" % job.meter.measured(self.polled))
        # As one step, or it would be neither told nor known any more if a signal handler raised in between.
        self.channel.waiting.extend(both((done,), map(self.jobs.pop, (job.id,))))
        self.channel.soon()

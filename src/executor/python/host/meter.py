"""What one job has used."""

import contextlib
import contextvars
import os
import threading
import time
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from .usage import DELAY, gil_enabled, thread_usage

# In JSON. To fill in bytes takes half as long as texts do, and it is done for each job.
NULL = b"null"
GIL = {True: b"true", False: b"false", None: NULL}
ALWAYS = (
    b'"measured":{"began_ns":%d,"started_at_us":%d,"wall_us":%d,"cpu_user_us":%d,"cpu_system_us":%d,'
    b'"ctx_voluntary":%d,"ctx_involuntary":%d,"gil":%b,"max_rss_bytes":%b,"core_wait_us":%b,"gil_wait_us":%b,'
)
LOOP = b'"polls":%d,"longest_poll_us":%d,"loop_wait_us":%d,"longest_hold_us":%d,"held_jobs":%b}'
NO_LOOP = b'"polls":null,"longest_poll_us":null,"loop_wait_us":null,"longest_hold_us":null,"held_jobs":null}'


class Meter:
    """What one job has used, in steps: one for a call, one for each poll of a coroutine.

    A job's meter has all that its own tasks, its calls of `asyncio.to_thread` and `run_in_executor` and the threads that it starts use; but of
    a thread that lives longer than the job only what it uses in a process of its own.
    """

    # As they are now: users' code may replace them in `time`, and libraries that freeze it do so in each module that has them by name.
    now, date_ns, process_ns = time.monotonic_ns, time.time_ns, time.process_time_ns

    LONG_NS = 50_000_000  # from here on, other jobs notice that a step held the loop
    SHORT_NS = 50_000  # a step that is shorter is taken for computing: to ask the kernel would cost more than most such steps
    LITTLE_NS = 1_000_000  # so little CPU time does not tell how seldom there is a core
    STANDSTILL_NS = 200_000  # a step that takes so much longer than it computes was kept waiting for something

    NOTHING = 0, 0, 0, 0, 0  # what `thread_usage` tells, and a wait for a core in ns

    def __init__(self, host):
        self.host = host
        self.usage = host.usage
        self.memory = host.memory
        self.core_wait_ns = 0 if host.polled else None
        self.cpu_ns = self.system_s = self.voluntary = self.involuntary = 0
        # By thread. While they are empty the garbage collector need not look at them, as it would at a set or a list.
        self.helpers = {}  # what each has used for the job besides; they tell themselves how long they had no core
        self.counted = {}  # those that run something now which is counted when it ends
        self.threads = {}
        self.others_ns = self.held_jobs = self.turn = self.before = self.peak = self.rang_ns = self.halted = None
        self.stood_still = False
        self.polls = self.longest_ns = self.hold_ns = self.loop_wait_ns = self.until = 0

    def begin(self):
        if self.memory is not None:
            self.memory.begin()
        if self.host.shares_gil:
            self.others_ns = -self.process_ns()
        self.began_us = self.date_ns() // 1000
        self.began_ns = self.ended_ns = self.loaded_ns = self.until = self.now()

    def end(self):
        self.ended_ns = self.now()
        if self.host.shares_gil:
            self.others_ns += self.process_ns()

    def leave(self):
        """A step on the loop has ended."""
        self.until = self.now()
        took = self.until - self.since
        if took >= self.SHORT_NS:
            self.count(self.usage())
            return
        self.cpu_ns += took
        self.before = None
        self.polls += 1
        if took > self.longest_ns:
            self.longest_ns = took
        if took > self.hold_ns:
            self.hold_ns = took

    def halt(self):
        """From here on, the job's coroutines wait for ever wherever they would go on."""
        self.before, self.halted = self.NOTHING, []

    def stay(self):
        future = self.host.loop.create_future()
        future._asyncio_future_blocking = True  # as a task wants it that awaits one
        self.halted.append(future)  # or it would be lost, and its task with it
        return future

    def rings(self, when, callback, *args):
        """A timer of the job was due then, and is seen to now."""
        if self.rang_ns is None:
            self.rang_ns = int(when * 1e9)
        callback(*args)

    def turn_came(self):
        """The job's next step begins. What others did on the loop since it could have begun was a wait for the loop."""
        host, now = self.host, self.now()
        self.since = now
        if self.turn != host.turn:
            # The loop has come back from a wait, and this job is one of those that waited for it: once for each time.
            if self.turn is not None:
                self.core_wait_ns += host.late_ns
            self.turn = host.turn
        ready = host.ready_ns
        if self.rang_ns is not None:
            # While the loop waited, nothing was ready.
            ready, self.rang_ns = min(ready, max(self.rang_ns, host.waited_ns)), None
        if ready < self.until:
            ready = self.until
        self.loop_wait_ns += now - ready
        self.before = host.used_lately(now)

    def call(self, function, *args):
        """One step in a thread of its own, with all that others can keep it waiting for."""
        self.since = self.now()
        self.before = self.since, self.usage()
        delay = DELAY.ns()
        try:
            return function(*args)
        finally:
            after = self.usage()
            if delay is not None:
                # Without a switch to something else there was no wait for a core.
                self.core_wait_ns = max(0, (DELAY.ns() or 0) - delay) if after[2:4] != self.before[1][2:4] else 0
                if self.threads:
                    self.core_wait_ns += sum(last - first for first, last in [*self.threads.values()])
            self.count(after)

    def count(self, after):
        then, before = self.before
        # What the kernel was not asked about was taken for computing. If it was not, this step seems to have computed less than nothing.
        spent = max(0, after[0] - before[0] - (self.since - then))
        self.cpu_ns += spent
        self.system_s += after[1] - before[1]
        self.voluntary += after[2] - before[2]
        self.involuntary += after[3] - before[3]
        self.before = None
        if self.memory is not None:
            self.peak = self.memory.peak_bytes(after[4] - before[4])
        self.polls += 1
        took = self.now() - self.since
        if took > self.longest_ns:
            self.longest_ns = took
            self.held_jobs = len(self.host.jobs) - 1 if took >= self.LONG_NS else None
        still = took - spent
        if self.host.polled:
            self.host.lately = self.since + took, after
        if self.host.polled and still >= self.STANDSTILL_NS:
            # It waited for something, or had no core: only then it is worth while to ask.
            core_wait = min(self.host.delayed(), still)
            self.core_wait_ns += core_wait
            took -= core_wait
            self.stood_still = self.stood_still or still - core_wait >= self.STANDSTILL_NS
        if self.polls == 1:
            took -= self.loaded_ns - self.began_ns  # a host loads what a job calls once, for all further ones
        self.hold_ns = max(self.hold_ns, took)

    def look(self):
        """Takes down how long the threads that the job has started have had no core. Called every so often; what is missing is the time
        of each thread before the first look and after the last one."""
        apart = {threading.main_thread().native_id, threading.get_native_id(), *self.helpers}
        with contextlib.suppress(OSError):  # a job may have as many files open as it may
            for thread in os.listdir("/proc/self/task"):
                if int(thread) not in apart:
                    with contextlib.suppress(OSError, IndexError), open(f"/proc/self/task/{thread}/schedstat", "rb") as file:
                        delay = int(file.read().split()[1])
                        self.threads[thread] = self.threads.get(thread, (delay,))[0], delay

    def handed(self, submit, function, *args):
        """Has a call made by another thread, to which `submit` gives it: one that this starts does not run for the job by itself, or it would
        count once more."""
        return contextvars.Context().run(submit, self.helped, self.now(), contextvars.copy_context().run, function, *args)

    def helped(self, since, function, *args):
        """Makes a call in another thread than the job's, which was wanted at `since`. What it uses is the job's; in a process of its own it
        counts as that anyway, but how long the thread had no core does not."""
        thread = threading.get_native_id()
        if thread in self.counted:
            return function(*args)
        self.counted[thread] = True
        earlier = self.helpers.setdefault(thread, self.NOTHING)
        before = thread_usage()
        try:
            return function(*args)
        finally:
            used = [after - was for after, was in zip(thread_usage(), before)]
            # It may have begun with a wait for a core.
            core_wait = max(0, min(DELAY.further_ns(), self.now() - since - used[0]))
            if self.usage is not thread_usage:
                used = self.NOTHING[1:]
            self.helpers[thread] = *map(sum, zip(earlier, (*used, core_wait))),
            del self.counted[thread]

    @staticmethod
    def is_helped(executor):
        """Whether its calls are made in threads of this process: what they use can be told."""
        return executor is None or isinstance(executor, ThreadPoolExecutor)

    def helping(self, in_executor):
        """The `run_in_executor` of a loop that is the job's own: what its threads use is the job's."""

        def run_in_executor(executor, function, *args):
            submit = partial(in_executor, executor)
            return self.handed(submit, function, *args) if self.is_helped(executor) else submit(function, *args)

        return run_in_executor

    def lock_wait_ns(self, cpu_ns, core_ns):
        """How long the job may have waited for the lock: while others computed it may have wanted it, or not. Who has the lock keeps it also
        while he has no core, which happens to him as to this job. None if that can be no part of what the job waited for."""
        if self.others_ns is None or (self.host.polled and not self.helpers and not self.stood_still):
            return None
        others_ns, idle_ns = self.others_ns - cpu_ns, self.ended_ns - self.began_ns - cpu_ns - core_ns - self.loop_wait_ns
        return max(0, min(others_ns * (cpu_ns + core_ns + self.LITTLE_NS) // (cpu_ns + self.LITTLE_NS), idle_ns))

    def measured(self, polled):
        """As part of a `done`."""
        own = self.cpu_ns, self.system_s, self.voluntary, self.involuntary, 0
        cpu_ns, system_s, voluntary, involuntary, helpers_core_ns = (
            map(sum, zip(own, *[*self.helpers.values()])) if self.helpers else own
        )
        core_ns = None if self.core_wait_ns is None else self.core_wait_ns + helpers_core_ns
        gil_ns = self.lock_wait_ns(cpu_ns, core_ns or 0)
        cpu_us = cpu_ns // 1000
        system_us = min(round(system_s * 1e6), cpu_us)
        began_ns = self.began_ns
        always = ALWAYS % (
            began_ns,
            self.began_us,
            (self.ended_ns - began_ns) // 1000,
            cpu_us - system_us,
            system_us,
            voluntary,
            involuntary,
            GIL[gil_enabled()],
            NULL if self.peak is None else b"%d" % self.peak,
            NULL if core_ns is None else b"%d" % (core_ns // 1000),
            NULL if gil_ns is None else b"%d" % (gil_ns // 1000),
        )
        if not polled:
            return always + NO_LOOP
        held = NULL if self.held_jobs is None else b"%d" % self.held_jobs
        return always + LOOP % (self.polls, self.longest_ns // 1000, self.loop_wait_ns // 1000, self.hold_ns // 1000, held)


class Metered(Coroutine):
    """A coroutine whose every step is a job's. In all else it passes for the coroutine inside."""

    __slots__ = ("inner", "meter")

    def __init__(self, inner, meter):
        self.inner = inner
        self.meter = meter

    def step(self, advance, value):
        meter = self.meter
        if meter.before is not None:
            # An eager task's first step, within a step of its parent; or the job has been halted.
            return advance(value) if meter.halted is None else meter.stay()
        meter.turn_came()
        try:
            return advance(value)
        finally:
            meter.leave()

    def __await__(self):
        return self

    __iter__ = __await__

    def __next__(self):
        return self.step(self.inner.send, None)

    def send(self, value):
        return self.step(self.inner.send, value)

    def throw(self, *error):
        return self.step(lambda error: self.inner.throw(*error), error)

    def close(self):
        return self.inner.close()

    def __getattr__(self, name):
        return getattr(self.inner, name)

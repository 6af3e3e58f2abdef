"""The host with an event loop."""

import asyncio
import contextlib
import gc
import socket
import time
from collections.abc import AsyncGenerator, Awaitable, Coroutine
from functools import partial
from types import CoroutineType

from .channel import LoopChannel
from .exceptions import Ended
from .helpers import Helpers
from .host import Host
from .jobs import awaited, reported, reports
from .meter import Meter, Metered
from .running import JOB, run_for
from .selector import Selector
from .usage import DELAY, gil_enabled


class Watched(Selector):
    """Tells the host how late its loop was each time that it came back from waiting: so long it had no core."""

    def __init__(self, host):
        super().__init__()
        self.host = host

    def select(self, timeout=None):
        host = self.host
        if timeout is not None and timeout <= 0:
            ready = super().select(timeout)
            host.ready_ns, host.selected_ns = host.selected_ns, Meter.now()
            return ready
        host.delayed()
        ready = super().select(timeout)
        host.ready_ns = host.selected_ns = host.waited_ns = Meter.now()
        host.lately = Async.LONG_AGO
        host.turn += 1
        host.late_ns = host.delayed()
        return ready


class Async(Host):
    """Many jobs at once on one asyncio loop. A function that does not await runs on it too, and holds it."""

    polled = True
    FRESH_NS = 200_000  # for so long after the kernel was asked what the loop has used it has computed, unless it went to sleep
    LONG_AGO = 0, None
    # The garbage collector looks after so many new objects, or after so many for each job if that is more: what jobs have made that run is no
    # garbage, and of one that waits for an answer that is some 50. By itself it would look after 700 or 2,000.
    MANY_OBJECTS, OBJECTS_OF_JOB = 10_000, 64
    # So many messages are taken in before the jobs go on, then twice as many each time, until all are here: what the first of many jobs waits for
    # begins before the last is here, and the last are not kept waiting by what the first go on with.
    AT_ONCE = 64

    def __init__(self, sock):
        super().__init__(sock)
        self.shares_gil = gil_enabled() is not False
        self.turn = self.late_ns = self.delay_ns = 0
        self.selected_ns = self.waited_ns = 0  # when the loop last looked what is ready, and when it last came back from waiting for it
        # Since when the steps that the loop makes now could have been made, unless their job made them ready later. They were made ready in the
        # turn before this one, by what was there when that began; or in this one, if the loop has waited for it.
        self.ready_ns = 0
        self.lately = self.LONG_AGO
        self.more = False  # what has come is not all taken in
        self.objects = gc.get_threshold()[0]  # after which the garbage collector looks, unless a job has changed that
        self.loop = asyncio.SelectorEventLoop(Watched(self))
        self.loop.time = time.monotonic  # as it is now, whatever a job puts there
        self.channel = LoopChannel(sock, self.loop)
        self.in_executor, self.at = self.loop.run_in_executor, self.loop.call_at
        self.handle_exception = self.loop.call_exception_handler
        self.helpers = Helpers(self.loop)

    def serve(self):
        asyncio.set_event_loop(self.loop)
        self.loop.set_task_factory(self.make_task)
        self.loop.run_in_executor = self.run_in_executor
        self.loop.call_at = self.call_at
        self.loop.call_exception_handler = self.call_exception_handler
        self.loop.set_default_executor = self.set_default_executor
        self.loop.add_reader(self.channel.sock.fileno(), self.readable)
        while True:
            # A job's task has ended like this and has the exception, and the loop can go on.
            with contextlib.suppress(SystemExit, KeyboardInterrupt):
                self.loop.run_forever()

    def used_lately(self, now):
        """What the loop's thread had used a short time ago, and when that was; since then it has computed."""
        then, _ = self.lately
        if now - then >= self.FRESH_NS:
            self.lately = now, self.usage()
            if then:
                self.delayed()  # how long the loop had no core until now is no part of the step that begins
        return self.lately

    def delayed(self):
        """How long the loop's thread has had no core since this was asked the last time, in ns."""
        before, self.delay_ns = self.delay_ns, DELAY.ns() or 0
        return self.delay_ns - before

    def readable(self):
        if not self.more:
            self.take_in(self.AT_ONCE)

    def put_off_collector(self):
        objects, (young, *old) = max(self.MANY_OBJECTS, self.OBJECTS_OF_JOB * len(self.jobs)), gc.get_threshold()
        if young == self.objects != objects:
            gc.set_threshold(objects, *old)
            self.objects = objects

    def take_in(self, most):
        self.more = False
        self.put_off_collector()
        take, fill = self.channel.frames.take, self.channel.fill
        for _ in range(most):
            while (received := take()) is None:
                if not fill(socket.MSG_DONTWAIT):
                    return
            self.handle(*received)
        self.more = True
        self.loop.call_soon(self.take_in, 2 * most)

    def make_task(self, loop, coroutine, **options):
        """Tasks that a job starts are measured as part of it, and end with it."""
        context = options.get("context")
        job = JOB.get() if context is None else context.get(JOB)
        if job is None or not isinstance(coroutine, Coroutine):
            return asyncio.Task(coroutine, loop=loop, **options)
        task = asyncio.Task(Metered(coroutine, job.meter), loop=loop, **options)
        job.tasks[task] = True
        task.add_done_callback(job.tasks.pop)
        if job.is_over:
            task.cancel()
        return task

    def call_at(self, when, callback, *args, context=None):
        """A job is told when its timer was due: the loop may look much later."""
        job = JOB.get() if context is None else context.get(JOB)
        if job is None:
            return self.at(when, callback, *args, context=context)
        return self.at(when, job.meter.rings, when, callback, *args, context=context)

    def call_exception_handler(self, context):
        """A task that nobody has asked how it ended may be found by the garbage collector in the turn of another job than its own. If
        that has ended, it is nobody's."""
        task = context.get("task", context.get("future"))
        if not isinstance(task, asyncio.Task):
            return self.handle_exception(context)
        meter = getattr(task.get_coro(), "meter", None)
        if meter is None:  # made by the job's code itself, past `make_task`
            return self.handle_exception(context)
        job = next((job for job in list(self.jobs.values()) if job.meter is meter), None)
        run_for(job, self.handle_exception, context)

    @staticmethod
    def set_default_executor(executor):
        """That of a job alone: others would be lost with it."""
        JOB.get().executor = executor

    def run_in_executor(self, executor, function, *args):
        job = JOB.get()
        if job is None or not job.meter.is_helped(executor):
            return self.in_executor(executor, function, *args)
        if executor is not None:
            return job.meter.handed(partial(self.in_executor, executor), function, *args)
        pool = job.executor or self.helpers
        call = job.meter.handed(pool.submit, function, *args)
        future = asyncio.wrap_future(call, loop=self.loop)

        def over(future):
            job.tasks.pop(future, None)
            if pool is self.helpers and future.cancelled():
                pool.leave(call)

        job.tasks[future] = True
        future.add_done_callback(over)
        return future

    @property
    def is_worn(self):
        return self.helpers.are_worn()

    def leave(self, job):
        job.meter.halt()

    def begin(self, job):
        asyncio.Task(self.perform(job), loop=self.loop)

    async def perform(self, job):
        JOB.set(job)
        job.cancel = asyncio.current_task().cancel
        job.meter.begin()
        try:
            try:
                value = await Metered(self.evaluate(job), job.meter)
            finally:
                job.meter.end()
            outcome = self.written(job, value)
        except Ended as end:
            outcome = self.failed(job, end.__cause__)
        except BaseException as error:
            outcome = self.failed(job, error)
        try:
            self.settle(job, outcome)
        except BaseException as error:
            self.settle_late(job, error)

    async def evaluate(self, job):
        try:
            try:
                result = job.start()
            except StopIteration as error:
                raise Ended from error
            if type(result) is CoroutineType:
                return await result
            if reports(result):
                return await self.in_turns(reported(job, result))
            return await awaited(job, result) if isinstance(result, (Awaitable, AsyncGenerator)) else result
        finally:
            # As they end, its tasks may start others, which may end next; those that are started then, or later, do nothing any more.
            while job.tasks:
                tasks, job.tasks = job.tasks, {}
                for task in tasks:
                    task.cancel()
                with contextlib.suppress(asyncio.CancelledError):  # to stop it is what this does
                    await asyncio.gather(*tasks, return_exceptions=True)
                job.is_over = True
            job.is_over = True

    async def in_turns(self, steps):
        try:
            while True:
                next(steps)
                await asyncio.sleep(0)
        except StopIteration as end:
            return end.value
        finally:
            steps.close()

"""One job, and how its function is called."""

import contextlib
import threading
import types
from collections.abc import AsyncGenerator, Awaitable
from functools import partial

from .exceptions import Stopped
from .logs import Log
from .messages import as_json, framed
from .meter import Meter
from .running import run_for

MOST_PROGRESS = 4096  # bytes of JSON; `src/job/event.rs` has the same


class Job:
    """One attempt at a job, from its `run` to its `done`."""

    def __init__(self, host, run, code):
        self.host = host
        self.id = run["id"]
        self.uuid = run["job"]
        self.attempt = run["attempt"]
        self.run = run
        self.code = code
        self.by_pickle = code is None
        self.meter = Meter(host)
        self.log = Log(host.channel, self.id, host.max_log_bytes)
        self.tasks = {}  # as its keys, those that its code has started, on `async`, and its calls in threads
        self.executor = None  # in place of the loop's own for its calls in threads
        self.is_over = False  # so that no task of it is to do anything any more
        self.cancel = None  # what cancels its coroutine, while it has one
        self.stopped = False  # it was asked to stop
        self.due = None  # an exception for when its code next turns to the host
        self.thread = None  # that its code has to itself and that runs it now
        self.interrupted = False  # it was told to stop
        self.cpu_ms = run.get("cpu_ms")  # that it may use
        self.overspent = False  # it was told that it has
        self.has_artifacts = False  # it has a folder for them
        self.most_output = min(host.max_output_bytes, run.get("output_bytes") or host.max_output_bytes)

    def start(self):
        """Loads what is to be run and calls it. Returns the value, or what will give it."""
        if self.stopped:
            raise Stopped("it was stopped before it began")
        run, self.run = self.run, None
        if self.by_pickle:
            function, args, kwargs = self.host.functions.call(run["pickle"])
        else:
            function, args, kwargs = self.code.entry(run["code"]["entrypoint"]), run.get("args") or (), run.get("kwargs") or {}
        self.meter.loaded_ns = self.meter.now()
        return call(function, args, kwargs)

    def heed(self):
        """Raises what is due, once."""
        if self.due is not None and self.thread == threading.get_ident():
            raise self.told()

    def told(self):
        """What is due. It is from here on no more."""
        self.interrupted = self.stopped
        due, self.due = self.due, None
        return due

    def progress(self, value, what="the progress"):
        self.heed()
        data = as_json(value, what, MOST_PROGRESS)
        self.host.channel.send(framed(b'{"progress":{"id":%d,"value":' % self.id, data, b"}}"), len(data))


def call(function, args, kwargs):
    """Users' functions are called from here only: where a signal may interrupt them (see `Processes.interrupt`)."""
    return function(*args, **kwargs)


def imports(frame):
    """Whether a module is being loaded there. One that is cut off in the midst would stay broken for all later jobs of this process."""
    while frame is not None and not frame.f_code.co_filename.startswith("<frozen importlib."):
        frame = frame.f_back
    return frame is not None


def reported(job, generator):
    """Drives a generator: what it yields is progress, what it returns is the output. Yields itself each time, as a turn for others."""
    try:
        value = next(generator)
        while True:
            try:
                job.progress(value, "what it yields")
            except BaseException as error:
                value = generator.throw(error)
            else:
                yield
                value = next(generator)
    except StopIteration as end:
        return end.value
    finally:
        generator.close()


async def awaited(job, result):
    """What a coroutine returns. An asynchronous generator returns nothing."""
    if not isinstance(result, AsyncGenerator):
        return await result
    import asyncio

    try:
        async for value in result:
            job.progress(value, "what it yields")
            await asyncio.sleep(0)  # a turn for others, also for what cancels it: it may never wait by itself
    finally:
        await result.aclose()


def reports(result):
    """Whether that is how a function reports, and not its value: what a generator expression makes is neither."""
    return isinstance(result, types.GeneratorType) and result.gi_code.co_name != "<genexpr>"


def finished(job, result):
    """What a call gives in the end, for a thread that may wait for it."""
    if reports(result):
        steps = reported(job, result)
        while True:
            try:
                next(steps)
            except StopIteration as end:
                return end.value
    if not isinstance(result, (Awaitable, AsyncGenerator)):
        return result
    import asyncio

    async def main():
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        with contextlib.suppress(AttributeError):  # a loop that is not Python's own may not let it be replaced
            loop.run_in_executor = job.meter.helping(loop.run_in_executor)
            # Tasks that nobody has asked how they ended may be found by the garbage collector in the turn of another job.
            loop.call_exception_handler = partial(run_for, job, loop.call_exception_handler)

        def cancel():
            if not job.interrupted:  # or it has had that already, from where it was
                job.told()
                task.cancel()

        job.cancel = lambda: loop.call_soon_threadsafe(cancel)
        if job.due is not None:  # it was stopped while it was loaded
            cancel()
        try:
            return await awaited(job, result)
        finally:
            job.cancel = None

    return asyncio.run(main())

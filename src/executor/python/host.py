"""Trine's Python host: runs users' functions for the server, which is at the other end of this process's standard input.

    python -I -u host.py async|threads|processes

`async` runs many jobs on one asyncio loop, where a function that does not await holds up all others; `threads` runs each job on a
thread of a pool, where the GIL shows; `processes` runs one job after the other in the main thread and has the process to itself.

Both sides send frames: four bytes of length, big-endian, then an object with one key in UTF-8 JSON. The server says `setup` once, then
`run` and `stop`; this process says `ready` once, then `log` and `progress` as they come, and `done` once for each `run`.

A host stays warm. Code is compiled once, so the globals of a module live on from one job to the next, and so do the working folder,
the environment and whatever else a process has.
"""

import binascii
import builtins
import codecs
import collections
import contextvars
import faulthandler
import fcntl
import importlib
import importlib.machinery
import io
import json
import linecache
import os
import queue
import re
import resource
import select
import signal
import socket
import struct
import sys
import threading
import time
import traceback
import types
from collections.abc import AsyncGenerator, Awaitable, Coroutine

LENGTH = struct.Struct(">I")
LONGEST_FRAME = 64 << 20  # bytes, as in the server
LONGEST_LINE = 16_384  # characters of a log line
LONGEST_TEXT = 262_144  # characters of a message or a traceback
MOST_FRAMES = 100  # of a traceback, innermost last
MOST_CAUSES = 8
TICK_MS = 100  # how often `processes` looks for a `stop` while it runs a job

JOB = contextvars.ContextVar("trine_job", default=None)
alone = None  # the job that has this process to itself, in whichever thread
forked = False  # this is a child that a job made with `os.fork`, not the host


class Invalid(Exception):
    """What a client sent or a function returned can't be used; `cause` is the name of the exception that said so."""

    def __init__(self, message, cause="ValueError"):
        super().__init__(message)
        self.cause = cause


class Stopped(BaseException):
    """The job was asked to stop. Like `KeyboardInterrupt` it is no `Exception`, so that handlers of those don't swallow it."""


def current():
    """The job that this code runs for; None if it can't be known, as in a thread that a job started."""
    return JOB.get() or alone


# ---- Messages -----------------------------------------------------------------------------------------------------------------------


def unwritable(value):
    kind = type(value)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    raise TypeError(f"JSON has no form for a value of type {name}")


to_text = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=unwritable).encode


def as_json(value, what, most):
    """A user's value in at most `most` bytes of JSON; a TypeError or ValueError says what is wrong with `what`."""
    try:
        data = to_text(value).encode()
    except Exception as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"{what} can't be written as JSON: {error}") from None
    return fits(data, what, most)


def fits(data, what, most):
    if len(data) > most:
        raise ValueError(f"{what} takes {len(data)} bytes; the most is {most}")
    return data


def framed(*parts):
    return b"".join((LENGTH.pack(sum(map(len, parts))), *parts))


def message(kind, body):
    return framed(b'{"%s":' % kind.encode(), plain(body), b"}")


def plain(body):
    """JSON of our own making. A lone surrogate in a text, which UTF-8 can't carry, becomes a question mark."""
    return to_text(body).encode(errors="replace")


def cut(text, most):
    return text if len(text) <= most else text[:most] + " … (cut)"


class Frames:
    """Takes bytes in where `space` says, and gives whole messages out. A long frame gets a buffer of its size: its bytes move once."""

    SPARE = 1 << 16

    def __init__(self):
        self.view = memoryview(bytearray(self.SPARE))
        self.start = self.end = 0

    def space(self):
        waiting = self.end - self.start
        needed = LENGTH.size
        if waiting >= LENGTH.size:
            needed += LENGTH.unpack_from(self.view, self.start)[0]
        if needed > LONGEST_FRAME:
            raise ValueError(f"a frame of {needed} bytes; the most is {LONGEST_FRAME}")
        if waiting == 0 and len(self.view) == self.SPARE:
            self.start = self.end = 0
        elif waiting == 0 or self.start + needed > len(self.view):
            view = memoryview(bytearray(max(needed, self.SPARE)))
            view[:waiting] = self.view[self.start : self.end]
            self.view, self.start, self.end = view, 0, waiting
        return self.view[self.end :]

    def take(self):
        """The next message as its kind and its body; None if it is not all here."""
        begin = self.start + LENGTH.size
        if self.end < begin:
            return None
        end = begin + LENGTH.unpack_from(self.view, self.start)[0]
        if self.end < end:
            return None
        text = str(self.view[begin:end], "utf-8")
        self.start = end
        try:
            return next(iter(json.loads(text).items()))
        except (RecursionError, ValueError) as error:
            # What is JSON can still be too deep for Python, or a number too long: trouble of one job, not of the host.
            found = re.match(r'\s*{\s*"run"\s*:\s*{\s*"id"\s*:\s*(\d+)', text)
            if found is None:
                raise
            return "unreadable", {"id": int(found[1]), "reason": f"Python can't read the arguments: {error}"}


class Channel:
    """The socket to the server, used by threads that may wait. The process ends with the connection."""

    def __init__(self, sock, complaints):
        self.sock = sock
        self.complaints = complaints
        self.frames = Frames()
        self.ahead = collections.deque()
        self.reading = threading.Lock()
        self.writing = threading.Lock()

    def fill(self, flags=0):
        """Reads once. False if it would have to wait."""
        try:
            count = self.sock.recv_into(self.frames.space(), 0, flags)
        except BlockingIOError:
            return False
        except OSError:
            count = 0
        if count == 0:
            os._exit(0)
        self.frames.end += count
        return True

    def take(self):
        try:
            return self.frames.take()
        except ValueError as error:
            os.write(self.complaints, f"trine: the server sent what is no message: {error}\n".encode(errors="replace"))
            os._exit(1)

    def receive(self):
        with self.reading:
            if self.ahead:
                return self.ahead.popleft()
            while (received := self.take()) is None:
                self.fill()
            return received

    def look_ahead(self):
        """All that has come, read without waiting and left for `receive`."""
        with self.reading:
            while self.fill(socket.MSG_DONTWAIT):
                while (received := self.take()) is not None:
                    self.ahead.append(received)
            return list(self.ahead)

    def send(self, data):
        with self.writing:
            try:
                self.sock.sendall(data)
            except OSError:
                os._exit(0)


class LoopChannel(Channel):
    """The same for an event loop, which must never wait to send: what the socket does not take at once is sent when it does."""

    def __init__(self, sock, complaints, loop):
        super().__init__(sock, complaints)
        self.loop = loop
        self.thread = threading.get_ident()
        self.backlog = collections.deque()

    def send(self, data):
        if threading.get_ident() != self.thread:
            self.loop.call_soon_threadsafe(self.send, data)
            return
        self.backlog.append(memoryview(data))
        if len(self.backlog) == 1 and not self.flush():
            self.loop.add_writer(self.sock.fileno(), self.writable)

    def flush(self):
        while self.backlog:
            data = self.backlog[0]
            try:
                sent = self.sock.send(data, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return False
            except OSError:
                os._exit(0)
            if sent == len(data):
                self.backlog.popleft()
            else:
                self.backlog[0] = data[sent:]
        return True

    def writable(self):
        if self.flush():
            self.loop.remove_writer(self.sock.fileno())


# ---- Users' code --------------------------------------------------------------------------------------------------------------------


class Code:
    """A function's code, known by the hash of its content. What an entry point leads to is looked up once."""

    def __init__(self, sha):
        self.sha = sha
        self.entries = {}
        self.loading = threading.RLock()

    def entry(self, name):
        found = self.entries.get(name)
        if found is None:
            with self.loading:
                found = self.entries[name] = self.find(name)
        return found

    @staticmethod
    def attribute(module, path, where):
        target = module
        for name in path.split("."):
            if not hasattr(target, name):
                raise Invalid(f"{where} has no {path!r}", "AttributeError")
            target = getattr(target, name)
        if not callable(target):
            raise Invalid(f"{path!r} in {where} can't be called: it is of type {type(target).__name__}", "TypeError")
        return target


class Source(Code):
    """One file, as a module of its own name. `linecache` has its text, so that tracebacks show its lines."""

    def __init__(self, sha, text):
        super().__init__(sha)
        self.text = text
        self.module = None
        self.name = f"trine_{sha[:16]}"
        self.folder = f"<{self.name}>/"

    def find(self, name):
        if self.module is None:
            self.module = self.load()
        return self.attribute(self.module, name, "main.py")

    def load(self):
        module = types.ModuleType(self.name)
        module.__file__ = self.folder + "main.py"
        # Without a modification time linecache keeps it and looks for no file.
        linecache.cache[module.__file__] = (len(self.text), None, self.text.splitlines(True), module.__file__)
        code = compile(self.text, module.__file__, "exec", dont_inherit=True)
        # Pickle, dataclasses and typing find a module by its name.
        sys.modules[self.name] = module
        try:
            exec(code, module.__dict__)
        except BaseException:
            del sys.modules[self.name]
            raise
        return module

    def forget(self):
        sys.modules.pop(self.name, None)
        linecache.cache.pop(self.folder + "main.py", None)

    def tidy(self, text):
        return text.replace(self.folder, "").replace(self.name + ".", "")


class Archive(Code):
    """A zip with several modules, under the names that they have in it: so two versions, or two functions, may want the same names.

    Therefore `sys.modules` holds the modules of at most one zip, the active one; those of the others wait in their `modules`. When a
    job imports a name of its own zip, that becomes the active one first; when another job imports a name of the active zip, none is.
    Modules refer to each other directly, so what was loaded goes on as it was. No zip is on `sys.path`: `find_spec`, on
    `sys.meta_path`, shows each job its own.
    """

    active = None
    importing = threading.RLock()

    def __init__(self, sha, path):
        super().__init__(sha)
        self.path = path
        self.folder = path + os.sep
        self.modules = {}
        self.tops = ()
        if Archive.find_spec not in sys.meta_path:
            self.isolate()

    def find(self, name):
        import zipfile

        module, colon, path = name.partition(":")
        if not colon:
            raise Invalid(f"the entry point of a zip is written 'module:function', not {name!r}")
        with zipfile.ZipFile(self.path) as content:
            self.tops = {entry.split("/")[0].partition(".")[0] for entry in content.namelist()}
        return self.attribute(importlib.import_module(module), path, module)

    def forget(self):
        with self.importing:
            if Archive.active is self:
                self.activate(None)
        sys.path_importer_cache.pop(self.path, None)

    def tidy(self, text):
        return text.replace(self.folder, "")

    def has(self, module):
        known = getattr(module, "__dict__", {})
        places = (known.get("__file__"), *(known.get("__path__") or ()))
        return any(isinstance(place, str) and place.startswith(self.folder) for place in places)

    @staticmethod
    def activate(archive):
        before, Archive.active = Archive.active, archive
        if before is not None:
            before.modules = {name: module for name, module in list(sys.modules.items()) if before.has(module)}
            for name in before.modules:
                del sys.modules[name]
        if archive is not None:
            sys.modules.update(archive.modules)

    @staticmethod
    def of_job():
        job = current()
        return job.code if job is not None and isinstance(job.code, Archive) else None

    @staticmethod
    def importing_as(name, importer, *args):
        """`importer(*args)`, which imports the module `name`, with the right zip active meanwhile."""
        own, active, top = Archive.of_job(), Archive.active, name.partition(".")[0]
        if own is not None and top in own.tops:
            wanted = own
        elif active is not None and active is not own and top in active.tops:
            wanted = None
        else:
            return importer(*args)
        with Archive.importing:
            if Archive.active is not wanted:
                Archive.activate(wanted)
            return importer(*args)

    @staticmethod
    def isolate():
        statement, function = builtins.__import__, importlib.import_module

        def import_(name, globals=None, locals=None, fromlist=(), level=0):
            whole = (globals or {}).get("__package__") or "" if level else name
            return Archive.importing_as(whole, statement, name, globals, locals, fromlist, level)

        def import_module(name, package=None):
            whole = package or "" if name.startswith(".") else name
            return Archive.importing_as(whole, function, name, package)

        builtins.__import__, importlib.import_module = import_, import_module
        sys.meta_path.insert(0, Archive)

    @staticmethod
    def find_spec(name, path=None, target=None):
        own = Archive.of_job() if path is None else None
        return None if own is None else importlib.machinery.PathFinder.find_spec(name, [own.path])


class Library:
    """The code that this host has seen; of each, so many used last are kept."""

    CAPACITY = 256

    def __init__(self):
        self.codes = {}

    def find(self, wanted):
        """None if the code is not known here and did not come with the job."""
        code = self.codes.pop(wanted["sha"], None)
        if code is None:
            if wanted.get("source") is not None:
                code = Source(wanted["sha"], wanted["source"])
            elif wanted.get("zip") is not None:
                code = Archive(wanted["sha"], wanted["zip"])
            else:
                return None
        self.codes[code.sha] = code
        if len(self.codes) > self.CAPACITY:
            self.codes.pop(next(iter(self.codes))).forget()
        return code


def unpickled(data):
    import pickle

    try:
        return pickle.loads(binascii.a2b_base64(data))
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "cloudpickle":
            raise
        reason = "this function came by cloudpickle, which is not installed for the server's interpreter"
        raise Invalid(f"{reason} {sys.executable} (Python {sys.version.split()[0]})", "ModuleNotFoundError") from None


def pickled(value):
    """By plain pickle, which is quick, or else by cloudpickle if it is here: that takes functions and classes by value."""
    import pickle

    try:
        return pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
    except Exception:
        try:
            import cloudpickle
        except ImportError:
            pass
        else:
            return cloudpickle.dumps(value, pickle.HIGHEST_PROTOCOL)
        raise


# ---- Measuring ----------------------------------------------------------------------------------------------------------------------


def thread_usage():
    """CPU time in ns, of it system time in s, voluntary and involuntary context switches: of this thread since it started."""
    # The thread's clock is exact, and reading it first makes the kernel bring up to date what getrusage tells.
    cpu_ns = time.thread_time_ns()
    usage = resource.getrusage(resource.RUSAGE_THREAD)
    return cpu_ns, usage[1], usage[14], usage[15]


def process_usage():
    """The same of all threads of this process, and of those of its children that it has waited for."""
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    system = own[1] + children[1]
    return round((own[0] + children[0] + system) * 1e9), system, own[14] + children[14], own[15] + children[15]


class Memory:
    """The peak of this process's resident memory, counted afresh for each job. None where /proc does not tell."""

    def __init__(self):
        try:
            self.reset = os.open("/proc/self/clear_refs", os.O_WRONLY | os.O_CLOEXEC)
            self.status = os.open("/proc/self/status", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            self.reset = None

    def begin(self):
        if self.reset is not None:
            os.pwrite(self.reset, b"5", 0)

    def peak_bytes(self):
        if self.reset is None:
            return None
        status = os.pread(self.status, 4096, 0)
        at = status.find(b"VmHWM:")
        return int(status[at + 6 : status.index(b"kB", at)]) * 1024 if at >= 0 else None


def gil_enabled():
    """Whether the GIL is on now: importing an extension can bring it back. None if this interpreter does not tell."""
    if hasattr(sys, "_is_gil_enabled"):
        return sys._is_gil_enabled()
    return True if sys.implementation.name == "cpython" else None


class Meter:
    """What one job has used, in steps between `enter` and `leave`: one for a call, one for each poll of a coroutine.

    A job's meter has all that its own tasks and its calls of `asyncio.to_thread` use, but not what threads use that it starts itself
    (in a process of its own it has).
    """

    __slots__ = ("usage", "memory", "began_ns", "began_us", "loaded_ns", "ended_ns", "before", "since", "used", "helpers", "polls",
                 "longest_ns", "peak")  # fmt: skip

    def __init__(self, usage, memory=None):
        self.usage = usage
        self.memory = memory
        self.used = [0, 0, 0, 0]
        self.helpers = []
        self.polls = self.longest_ns = 0
        self.before = self.peak = None

    def begin(self):
        if self.memory is not None:
            self.memory.begin()
        self.began_us = time.time_ns() // 1000
        self.began_ns = self.loaded_ns = time.monotonic_ns()

    def end(self):
        self.ended_ns = time.monotonic_ns()
        if self.memory is not None:
            self.peak = self.memory.peak_bytes()

    def enter(self):
        self.since = time.monotonic_ns()
        self.before = self.usage()

    def leave(self):
        after, before, used = self.usage(), self.before, self.used
        used[0] += after[0] - before[0]
        used[1] += after[1] - before[1]
        used[2] += after[2] - before[2]
        used[3] += after[3] - before[3]
        self.before = None
        self.polls += 1
        took = time.monotonic_ns() - self.since
        if took > self.longest_ns:
            self.longest_ns = took

    def helped(self, context, function, *args):
        """Makes a call in a helper thread, whose usage is the job's."""
        before = thread_usage()
        try:
            return context.run(function, *args)
        finally:
            self.helpers.append([after - was for after, was in zip(thread_usage(), before)])

    def measured(self, polled):
        cpu_ns, system, voluntary, involuntary = map(sum, zip(self.used, *self.helpers))
        cpu_us = cpu_ns // 1000
        system_us = min(round(system * 1e6), cpu_us)
        return {
            "began_ns": self.began_ns,
            "started_at_us": self.began_us,
            "wall_us": (self.ended_ns - self.began_ns) // 1000,
            "load_us": (self.loaded_ns - self.began_ns) // 1000,
            "cpu_user_us": cpu_us - system_us,
            "cpu_system_us": system_us,
            "polls": self.polls if polled else None,
            "longest_poll_us": self.longest_ns // 1000 if polled else None,
            "max_rss_bytes": self.peak,
            "ctx_voluntary": voluntary,
            "ctx_involuntary": involuntary,
            "gil": gil_enabled(),
        }


class Metered(Coroutine):
    """A coroutine whose every step is a job's. In all else it passes for the coroutine inside."""

    __slots__ = ("inner", "meter")

    def __init__(self, inner, meter):
        self.inner = inner
        self.meter = meter

    def step(self, advance, *value):
        meter = self.meter
        if meter.before is not None:
            # An eager task's first step, within a step of its parent.
            return advance(*value)
        meter.enter()
        try:
            return advance(*value)
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
        return self.step(self.inner.throw, *error)

    def close(self):
        return self.inner.close()

    def __getattr__(self, name):
        return getattr(self.inner, name)


# ---- Logs ---------------------------------------------------------------------------------------------------------------------------


class Log:
    """The lines of one job, or of nobody: whole ones, long ones cut, all together at most so many bytes."""

    def __init__(self, send, job_id, most):
        self.send = send
        self.job_id = job_id
        self.left = self.most = most
        self.unfinished = {}
        self.lock = threading.Lock()

    def write(self, stream, text, source=None):
        """`source` keeps apart what comes to one stream in several ways."""
        with self.lock:
            if self.left < 0:
                return
            *lines, rest = (self.unfinished.pop((stream, source), "") + text).split("\n")
            if rest:
                self.unfinished[stream, source] = rest[: LONGEST_LINE + 1]
            self.emit((stream, line) for line in lines)

    def close(self):
        """Sends what lacks its end of line."""
        with self.lock:
            self.emit((stream, rest) for (stream, _), rest in self.unfinished.items())
            self.unfinished.clear()

    def emit(self, lines):
        frames = []
        for stream, line in lines:
            line = cut(line, LONGEST_LINE)
            self.left -= len(line.encode(errors="replace")) + 1
            if self.left < 0:
                stream, line = "stderr", f"trine: this log is at its limit of {self.most} bytes; the rest is dropped"
            frames.append(message("log", {"id": self.job_id, "stream": stream, "line": line}))
            if self.left < 0:
                break
        if frames:
            self.send(b"".join(frames))


class Stream(io.TextIOBase):
    """What users find as `sys.stdout` and `sys.stderr`: it writes to the log of the job that prints."""

    encoding = "utf-8"
    errors = "replace"

    def __init__(self, name, descriptor, nobody):
        self.name = name
        self.descriptor = descriptor
        self.nobody = nobody
        self.buffer = Bytes(self)

    def write(self, text):
        if forked:
            os.write(self.descriptor, text.encode(errors="replace"))
        else:
            job = current()
            (self.nobody if job is None else job.log).write(f"std{self.name}", text)
        return len(text)

    def writable(self):
        return True

    def fileno(self):
        return self.descriptor

    def flush(self):
        """Nothing to do; and it must never fail for the sake of somebody who has closed it."""

    close = flush


class Bytes(io.BufferedIOBase):
    """`sys.stdout.buffer`."""

    def __init__(self, stream):
        self.stream = stream

    def write(self, data):
        self.stream.write(str(data, "utf-8", "replace"))
        return len(data)

    def writable(self):
        return True

    def fileno(self):
        return self.stream.descriptor

    def flush(self):
        """As of the stream."""

    close = flush

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
import contextlib
import contextvars
import copyreg
import faulthandler
import fcntl
import gc
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
import selectors
import signal
import socket
import struct
import sys
import threading
import time
import traceback
import types
from collections.abc import AsyncGenerator, Awaitable, Coroutine

HOST = sys._getframe().f_code.co_filename  # this file, as frames name it
LENGTH = struct.Struct(">I")
LONGEST_LINE = 16_384  # characters of a log line
LONGEST_TEXT = 262_144  # characters of a message or a traceback
MOST_FRAMES = 100  # of a traceback, innermost last
MOST_CAUSES = 8
LAST_CPU_S = 0.5  # CPU time of a job that has used up what it may, until its process is ended
TICK_MS = 100  # how often `processes` looks for a `stop` while it runs a job

JOB = contextvars.ContextVar("trine_job", default=None)
alone = None  # the job that has this process to itself, in whichever thread
forked = False  # this is a child that a job made with `os.fork`, not the host


class Invalid(Exception):
    """What a client sent or a function returned can't be used; `cause` is the name of the exception that said so."""

    def __init__(self, message, cause="ValueError"):
        super().__init__(message)
        self.cause = cause


class CpuTimeExceeded(BaseException):
    """The job has used as much CPU time as its function may."""


class Stopped(BaseException):
    """The job was asked to stop. Like `KeyboardInterrupt` it is no `Exception`, so that handlers of those don't swallow it."""


def current():
    """The job that this code runs for; None if it can't be known, as in a thread that a job started."""
    return JOB.get() or alone


# ---- Messages -----------------------------------------------------------------------------------------------------------------------


def name_of(kind):
    """A type's name, as tracebacks show it."""
    return kind.__qualname__ if kind.__module__ in ("builtins", "__main__") else f"{kind.__module__}.{kind.__qualname__}"


def unwritable(value):
    raise TypeError(f"JSON has no form for a value of type {name_of(type(value))}")


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
        """Room for more, once `take` has given all that is here."""
        waiting = self.end - self.start
        needed = LENGTH.size
        if waiting >= LENGTH.size:
            needed += LENGTH.unpack_from(self.view, self.start)[0]
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

    def __init__(self, sock):
        self.sock = sock
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

    def receive(self):
        with self.reading:
            if self.ahead:
                return self.ahead.popleft()
            while (received := self.frames.take()) is None:
                self.fill()
            return received

    def look_ahead(self):
        """All that has come, read without waiting and left for `receive`."""
        if not self.reading.acquire(blocking=False):
            return []
        try:
            while True:
                while (received := self.frames.take()) is not None:
                    self.ahead.append(received)
                if not self.fill(socket.MSG_DONTWAIT):
                    return list(self.ahead)
        finally:
            self.reading.release()

    def send(self, data):
        with self.writing:
            try:
                self.sock.sendall(data)
            except OSError:
                os._exit(0)

    send_soon = send


class LoopChannel(Channel):
    """The same for an event loop, which must never wait to send: what the socket does not take at once is sent when it does."""

    def __init__(self, sock, loop):
        super().__init__(sock)
        self.loop = loop
        self.thread = threading.get_ident()
        self.backlog = collections.deque()
        self.waits = False  # for the socket to take more
        self.is_soon = False  # what is there is sent in this turn of the loop

    def send(self, data):
        if threading.get_ident() != self.thread:
            self.loop.call_soon_threadsafe(self.send, data)
            return
        self.backlog.append(memoryview(data))
        self.send_backlog()

    def send_soon(self, data):
        """In this turn of the loop, with what else is to be sent in it: many ends are one message."""
        self.backlog.append(memoryview(data))
        if not self.is_soon:
            self.is_soon = True
            self.loop.call_soon(self.send_backlog)

    def send_backlog(self):
        self.is_soon = False
        if not self.waits and not self.flush():
            self.waits = True
            self.loop.add_writer(self.sock.fileno(), self.writable)

    def flush(self):
        """Sends all that is there. False if the socket does not take it now."""
        while self.backlog:
            data = self.backlog[0] if len(self.backlog) == 1 else memoryview(b"".join(self.backlog))
            self.backlog.clear()
            try:
                sent = self.sock.send(data, socket.MSG_DONTWAIT)
            except BlockingIOError:
                sent = 0
            except OSError:
                os._exit(0)
            if sent < len(data):
                self.backlog.append(data[sent:])
                return False
        return True

    def writable(self):
        if self.flush():
            self.waits = False
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
            sys.modules.pop(self.name, None)
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
        if Archive not in sys.meta_path:
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


class Functions:
    """Functions that came by pickle. Calls of one function begin with the same bytes: it is unpickled once, the arguments each time.

    As with a module's, what such a function keeps in its globals lives on. What carries a state of its own is unpickled each time.
    """

    CAPACITY = 64
    LONGEST = 1 << 18  # bytes of a function that is kept: so the memory that this takes up has a bound

    # A pickle of Trine's client is `concat((loads(function),), (args, kwargs))`: this, four bytes of length, the function, `CALLED`, the
    # arguments' pickle without its end, `JOINED`.
    BEGINNING = b"\x80\x05coperator\nconcat\ncpickle\nloads\nB"
    CALLED = b"\x85R\x85"
    JOINED = b"\x86R."

    def __init__(self):
        self.known = {}
        self.is_ready = False

    def prepare(self):
        """Loads what most pickles need, once and before a job's time begins: or the first one would seem to compute."""
        if not self.is_ready:
            self.is_ready = True
            import pickle  # noqa: F401

            # What is wrong with it is told by the first job that needs it.
            with contextlib.suppress(Exception):
                import cloudpickle  # noqa: F401

    def call(self, text):
        """The function and its arguments, from any pickle of the three."""
        data = binascii.a2b_base64(text)
        start = len(self.BEGINNING) + LENGTH.size
        if data.startswith(self.BEGINNING) and data.endswith(self.JOINED):
            end = start + int.from_bytes(data[start - LENGTH.size : start], "little")
            if end - start <= self.LONGEST and data.startswith(self.CALLED, end):
                arguments = data[end + len(self.CALLED) : -len(self.JOINED)] + b"."
                return self.function(data[start:end]), *unpickled(arguments)
        return unpickled(data)

    def function(self, data):
        # Two threads may unpickle it at once: then the one that comes later has its own, once.
        found = self.known.pop(data, None)
        if found is None:
            found = unpickled(data)
            if not isinstance(found, types.FunctionType) or found.__closure__ is not None:
                return found
            if len(self.known) >= self.CAPACITY:
                self.known.pop(next(iter(self.known)), None)
        self.known[data] = found
        return found


def unpickled(data):
    import pickle

    try:
        return pickle.loads(data)
    except ModuleNotFoundError as error:
        here = f"the server's interpreter {sys.executable} (Python {sys.version.split()[0]})"
        if (error.name or "").partition(".")[0] == "cloudpickle":
            reason = f"this function came by cloudpickle, which is not installed for {here}"
        else:
            reason = f"{error}, for {here}: functions and classes of modules that it lacks travel along if they are imported by name"
        raise Invalid(reason, "ModuleNotFoundError") from None
    except AttributeError as error:
        here = getattr(sys.modules.get("cloudpickle"), "__version__", None)
        if here is None or "cloudpickle" not in str(error):
            raise
        reason = f"this function came by another cloudpickle than the server's interpreter {sys.executable} has, {here}"
        raise Invalid(f"{reason}: {error}", "AttributeError") from None


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


def pickled_error(error):
    """An exception in a way in which it can be unpickled; None if there is none. Python's own way calls its class with `args`, which is not
    what every class takes; without that call, `args` and its attributes are put back. That will do if nothing else was lost."""
    import pickle

    def rebuilt():
        class Pickler(getattr(sys.modules.get("cloudpickle"), "CloudPickler", pickle.Pickler)):
            def reducer_override(self, value):
                if value is error:
                    return copyreg.__newobj__, (type(error), *error.args), {**error.__dict__, "args": error.args}
                above = getattr(super(), "reducer_override", None)
                return NotImplemented if above is None else above(value)

        file = io.BytesIO()
        Pickler(file, pickle.HIGHEST_PROTOCOL).dump(error)
        return file.getvalue()

    usual = None
    with contextlib.suppress(Exception):
        data = pickled(error)
        copy = unpickled(data)
        if copy.args == error.args or str(copy) == str(error):
            return data
        usual = data
    with contextlib.suppress(Exception):
        data = rebuilt()
        copy = unpickled(data)
        if copy.args == error.args and str(copy) == str(error):
            return data
    return usual


# ---- Measuring ----------------------------------------------------------------------------------------------------------------------


def thread_usage():
    """CPU time in ns, of it system time in s, voluntary and involuntary context switches: of this thread since it started."""
    # The thread's clock is exact, and reading it first makes the kernel bring up to date what getrusage tells.
    cpu_ns = time.thread_time_ns()
    usage = resource.getrusage(resource.RUSAGE_THREAD)
    return cpu_ns, usage[1], usage[14], usage[15]


def process_usage():
    """The same of all threads of this process, and of those of its children that it has waited for; then its peak memory in KiB."""
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    system = own[1] + children[1]
    return round((own[0] + children[0] + system) * 1e9), system, own[14] + children[14], own[15] + children[15], own[2]


class Delay:
    """How long this thread has been ready to run without a core, in ns since it started. None where /proc does not tell."""

    kept = threading.local()  # the file stays open as long as the thread lives

    @classmethod
    def of_thread(cls):
        try:
            file = cls.kept.__dict__.get("file")
            if file is None:
                file = cls.kept.file = open("/proc/thread-self/schedstat", "rb", 0)
            return int(os.pread(file.fileno(), 64, 0).split()[1])
        except (OSError, IndexError):
            return None


class Memory:
    """The peak of this process's resident memory, counted afresh for each job. None where /proc does not tell."""

    def __init__(self):
        try:
            self.reset = os.open("/proc/self/clear_refs", os.O_WRONLY | os.O_CLOEXEC)
            self.status = os.open("/proc/self/status", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            self.reset = None
            return
        self.begin()
        # What getrusage tells never falls below the peak of whatever program this process was before. If that is no more than this one
        # begins with, it is the same figure for nothing: to read it takes longer than many a job.
        self.in_usage = process_usage()[4] * 1024 <= self.in_status()

    def begin(self):
        if self.reset is not None:
            os.pwrite(self.reset, b"5", 0)

    def peak_bytes(self, usage):
        if self.reset is None:
            return None
        return usage[4] * 1024 if self.in_usage else self.in_status()

    def in_status(self):
        status = os.pread(self.status, 4096, 0)
        at = status.find(b"VmHWM:")
        return int(status[at + 6 : status.index(b"kB", at)]) * 1024 if at >= 0 else 0


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

    FORM = (
        '"measured":{"began_ns":%d,"started_at_us":%d,"wall_us":%d,"load_us":%d,"cpu_user_us":%d,"cpu_system_us":%d,"polls":%s,'
        '"longest_poll_us":%s,"max_rss_bytes":%s,"ctx_voluntary":%d,"ctx_involuntary":%d,"gil":%s,"core_wait_us":%s,"gil_wait_us":%s,'
        '"held_jobs":%s}'
    )
    LONG_NS = 50_000_000  # from here on, other jobs notice that a step held the loop
    SHORT_NS = 50_000  # a step that is shorter is taken for computing: to ask the kernel would cost more than most such steps
    STANDSTILL_NS = 200_000  # a step that takes so much longer than it computes was kept waiting for something

    def __init__(self, host):
        self.host = host
        self.usage = host.usage
        self.memory = host.memory
        self.core_wait_ns = 0 if host.polled else None
        self.gil_wait_ns = self.held_jobs = self.turn = None
        self.used = [0, 0, 0, 0]
        self.helpers = []
        self.threads = {}
        self.polls = self.longest_ns = 0
        self.before = self.peak = None

    def begin(self):
        if self.memory is not None:
            self.memory.begin()
        self.began_us = time.time_ns() // 1000
        self.began_ns = self.loaded_ns = time.monotonic_ns()

    def end(self):
        self.ended_ns = time.monotonic_ns()

    def enter(self):
        self.since = time.monotonic_ns()
        self.before = self.host.used_until(self.since)

    def leave(self):
        if self.host.polled:
            took = time.monotonic_ns() - self.since
            if took < self.SHORT_NS:
                self.used[0] += took
                self.before = None
                self.polls += 1
                if took > self.longest_ns:
                    self.longest_ns = took
                return
        self.count(self.usage())

    def call(self, function, *args):
        """One step in a thread of its own, with all that others can keep it waiting for."""
        delay, others = Delay.of_thread(), time.process_time_ns()
        self.enter()
        try:
            return function(*args)
        finally:
            after = self.usage()
            others = time.process_time_ns() - others
            if delay is not None:
                self.core_wait_ns = Delay.of_thread() - delay + sum(last - first for first, last in [*self.threads.values()])
            if self.host.shares_gil:
                # While other threads had the lock, this one may have wanted it, or not.
                own = after[0] - self.before[0]
                idle = time.monotonic_ns() - self.since - own - (self.core_wait_ns or 0)
                self.gil_wait_ns = max(0, min(others - own, idle))
            self.count(after)

    def late(self):
        """The loop has just come back from its wait, and this job is one of those that waited for it: once for each time."""
        if self.turn != self.host.turn:
            if self.turn is not None:
                self.core_wait_ns += self.host.late_ns
            self.turn = self.host.turn

    def count(self, after):
        before, used = self.before, self.used
        used[0] += after[0] - before[0]
        used[1] += after[1] - before[1]
        used[2] += after[2] - before[2]
        used[3] += after[3] - before[3]
        self.before = None
        if self.memory is not None:
            self.peak = self.memory.peak_bytes(after)
        self.polls += 1
        took = time.monotonic_ns() - self.since
        if took > self.longest_ns:
            self.longest_ns = took
            self.held_jobs = len(self.host.jobs) - 1 if took >= self.LONG_NS else None
        still = took - (after[0] - before[0])
        if self.host.polled:
            self.host.lately = self.since + took, after
        if self.host.polled and still >= self.STANDSTILL_NS:
            # It waited for something, or had no core: only then it is worth while to ask.
            self.core_wait_ns += min(self.host.delayed(), still)

    def look(self):
        """Takes down how long the threads that the job has started have had no core. Called every so often; what is missing is the time
        of each thread before the first look and after the last one."""
        apart = threading.main_thread().native_id, threading.get_native_id()
        for thread in os.listdir("/proc/self/task"):
            if int(thread) not in apart:
                with contextlib.suppress(OSError, IndexError), open(f"/proc/self/task/{thread}/schedstat", "rb") as file:
                    delay = int(file.read().split()[1])
                    self.threads[thread] = self.threads.get(thread, (delay,))[0], delay

    def helped(self, context, function, *args):
        """Makes a call in a helper thread, whose usage is the job's."""
        before = thread_usage()
        try:
            return context.run(function, *args)
        finally:
            self.helpers.append([after - was for after, was in zip(thread_usage(), before)])

    def measured(self, polled):
        """As part of a `done`."""
        cpu_ns, system, voluntary, involuntary = map(sum, zip(self.used, *self.helpers)) if self.helpers else self.used
        cpu_us = cpu_ns // 1000
        system_us = min(round(system * 1e6), cpu_us)
        figures = (
            self.began_ns,
            self.began_us,
            (self.ended_ns - self.began_ns) // 1000,
            (self.loaded_ns - self.began_ns) // 1000,
            cpu_us - system_us,
            system_us,
            self.polls if polled else "null",
            self.longest_ns // 1000 if polled else "null",
            "null" if self.peak is None else self.peak,
            voluntary,
            involuntary,
            {True: "true", False: "false", None: "null"}[gil_enabled()],
            "null" if self.core_wait_ns is None else self.core_wait_ns // 1000,
            "null" if self.gil_wait_ns is None else self.gil_wait_ns // 1000,
            "null" if self.held_jobs is None or not polled else self.held_jobs,
        )
        return (self.FORM % figures).encode()


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
        meter.late()
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


class Stream(io.RawIOBase):
    """What is below users' `sys.stdout` or `sys.stderr`: the log of whichever job prints."""

    def __init__(self, name, descriptor, nobody):
        self.name = name
        self.descriptor = descriptor
        self.nobody = nobody

    def write(self, data):
        if forked:
            return os.write(self.descriptor, data)
        job = current()
        (self.nobody if job is None else job.log).write(self.name, str(data, "utf-8", "replace"))
        if alone is not None:
            alone.heed()
        return len(data)

    def writable(self):
        return True

    def fileno(self):
        return self.descriptor

    def close(self):
        """Never: the next job has the same."""

    def text(self):
        return io.TextIOWrapper(self, "utf-8", "backslashreplace", write_through=True)


class Capture(threading.Thread):
    """Reads what reaches descriptors 1 and 2 past `sys.stdout` and `sys.stderr`: from C code and from child processes.

    That is the log of the job that has the process to itself, or nobody's. The same thread ends the process when the server hangs up,
    and calls `tick` every so often if there is one.
    """

    def __init__(self, sock, nobody, tick=None):
        super().__init__(name="trine-capture", daemon=True)
        self.sock = sock
        self.nobody = nobody
        self.tick = tick
        self.lock = threading.Lock()
        self.written = select.poll()
        self.streams = {}
        for descriptor, stream in ((1, "stdout"), (2, "stderr")):
            reader, writer = os.pipe()
            os.dup2(writer, descriptor)
            os.close(writer)
            self.written.register(reader, select.POLLIN)
            self.streams[reader] = stream, codecs.getincrementaldecoder("utf-8")("replace")

    def run(self):
        news = select.poll()
        news.register(self.sock, 0)  # only its end is news here
        for reader in self.streams:
            news.register(reader, select.POLLIN)
        while True:
            for descriptor, _ in news.poll(None if self.tick is None else TICK_MS):
                if descriptor not in self.streams:
                    os._exit(0)
                self.drain()
            if self.tick is not None:
                self.tick()

    def drain(self):
        """Logs what has been written up to now, in whatever thread. One read takes all that a pipe holds."""
        with self.lock:
            for reader, _ in self.written.poll(0):
                stream, decoder = self.streams[reader]
                job = alone
                log = self.nobody if job is None else job.log
                log.write(stream, decoder.decode(os.read(reader, 65_536)), source=self)


# ---- Errors -------------------------------------------------------------------------------------------------------------------------

LIBRARY = os.path.dirname(os.__file__) + os.sep
MACHINERY = (HOST, "<frozen ", LIBRARY + "asyncio" + os.sep, LIBRARY + "importlib" + os.sep)


def visible(stack):
    """Without this file's frames, and without those of the machinery that led from them to the user's first."""
    first = next((at for at, frame in enumerate(stack) if not frame.filename.startswith(MACHINERY)), len(stack))
    return [frame for frame in stack[first:] if frame.filename != HOST]


def described(error, tidy):
    """An exception as the object that goes to the server. `tidy` shortens the names of users' files and modules."""
    told = traceback.TracebackException.from_exception(error)
    chain = [told]
    for link in chain:
        link.stack[:] = visible(link.stack)
        chain += filter(None, (link.__cause__, link.__context__, *(getattr(link, "exceptions", None) or ())))
    text = tidy("".join(told.format()))
    return {"kind": "error", **structured(error, told, tidy, MOST_CAUSES), "traceback": cut(text, LONGEST_TEXT)}


def no_frames(kind, type_name, reason):
    """An error that is not the function's own, in the same form."""
    return {"kind": kind, "type": type_name, "message": cut(reason, LONGEST_TEXT), "traceback": "", "frames": []}


def structured(error, told, tidy, most_causes):
    try:
        text = str(error)
    except BaseException:
        text = "its message can't be had: str() of it fails"
    frames = [
        {"file": tidy(frame.filename), "line": frame.lineno, "function": frame.name, "code": frame.line or None}
        for frame in told.stack[-MOST_FRAMES:]
    ]
    if isinstance(error, SyntaxError) and error.filename:
        code = (error.text or "").strip() or None
        frames.append({"file": tidy(error.filename), "line": error.lineno, "function": "<module>", "code": code})
    body = {
        "type": tidy(name_of(type(error))),
        "message": cut(tidy(text), LONGEST_TEXT),
        "frames": frames,
    }
    if error.__cause__ is not None or error.__suppress_context__:
        cause, cause_told = error.__cause__, told.__cause__
    else:
        cause, cause_told = error.__context__, told.__context__
    if cause is not None and cause_told is not None and most_causes > 0:
        body["cause"] = structured(cause, cause_told, tidy, most_causes - 1)
    return body


# ---- Jobs ---------------------------------------------------------------------------------------------------------------------------


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
        self.log = Log(host.channel.send, self.id, host.max_log_bytes)
        self.tasks = set()  # that its code has started, on `async`
        self.cancel = None  # what cancels its coroutine, while it has one
        self.stopped = False  # it was asked to stop
        self.due = None  # an exception for when its code next turns to the host
        self.thread = None  # that its code has to itself and that runs it now
        self.interrupted = False  # it was told to stop by a signal
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
        self.meter.loaded_ns = time.monotonic_ns()
        return call(function, args, kwargs)

    def heed(self):
        """Raises what is due, once."""
        if self.due is not None and self.thread == threading.get_ident():
            due, self.due = self.due, None
            raise due

    def progress(self, value, what="the progress"):
        self.heed()
        data = as_json(value, what, self.host.max_output_bytes)
        self.host.channel.send(framed(b'{"progress":{"id":%d,"value":' % self.id, data, b"}}"))


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
    try:
        async for value in result:
            job.progress(value, "what it yields")
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
        job.cancel = lambda: loop.call_soon_threadsafe(task.cancel)
        if job.due is not None:
            task.cancel()  # it was stopped while it was loaded
        try:
            return await awaited(job, result)
        finally:
            job.cancel = None

    return asyncio.run(main())


# ---- Hosts --------------------------------------------------------------------------------------------------------------------------


class Host:
    """What the three ways of running have in common."""

    usage = staticmethod(thread_usage)
    memory = None
    polled = False
    shares_gil = False
    tick = None

    def __init__(self, sock):
        self.channel = Channel(sock)
        self.library = Library()
        self.functions = Functions()
        self.jobs = {}

    def used_until(self, now):
        """What the thread or the process of a job has used until `now`, which is now."""
        return self.usage()

    def main(self):
        _, setup = self.channel.receive()
        self.threads = setup["threads"]
        self.max_output_bytes = setup["max_output_bytes"]
        self.max_log_bytes = setup["max_log_bytes"]
        if setup.get("cwd") is not None:
            os.chdir(setup["cwd"])
        self.artifacts = os.path.join(os.getcwd(), "artifacts")
        self.nobody = Log(self.channel.send, None, self.max_log_bytes)
        self.streams = Stream("stdout", 1, self.nobody).text(), Stream("stderr", 2, self.nobody).text()
        sys.stdout, sys.stderr = self.streams
        self.capture = Capture(self.channel.sock, self.nobody, self.tick)
        self.capture.start()
        signal.signal(signal.SIGINT, self.interrupt)
        ready = {
            "pid": os.getpid(),
            "version": ".".join(map(str, sys.version_info[:3])),
            "implementation": sys.implementation.name,
            "gil": gil_enabled(),
            "free_threaded_build": "t" in sys.abiflags,
        }
        gc.freeze()  # what is here by now stays, so the collector need not look at it each time
        self.channel.send(message("ready", ready))
        self.serve()

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
            self.nobody.left = self.nobody.most
            job = self.jobs[body["id"]] = Job(self, body, code)
            self.begin(job)
        elif kind == "stop" and body["id"] in self.jobs:
            self.stop(self.jobs[body["id"]])
        elif kind == "unreadable":
            self.refuse(body["id"], "invalid", body["reason"])

    def refuse(self, job_id, kind, reason):
        self.channel.send(message("done", {"id": job_id, "error": no_frames(kind, "ValueError", reason), "measured": None}))

    def stop(self, job):
        """Asks a job to end; it may have begun or not."""
        job.stopped = True
        if job.cancel is not None:
            job.cancel()

    def interrupt(self, signum, frame):
        """Interrupts are for `Processes`: here they would hit any job, or the host."""

    def perform(self, job):
        job.meter.begin()
        try:
            try:
                value = job.meter.call(self.evaluate, job)
            finally:
                job.meter.end()
            outcome = self.written(job, value)
        except BaseException as error:
            outcome = self.failed(job, error)
        self.settle(job, outcome)

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
            return b'"pickle":"', self.in_base64(pickled(value), job.most_output), b'"'
        except Exception as error:
            what = "the output can't be pickled: " if job.by_pickle else ""
            raise Invalid(f"{what}{error}", type(error).__name__) from None

    def failed(self, job, error):
        """A job's exception, as part of its `done`."""
        if isinstance(error, Invalid):
            return b'"error":', plain(no_frames("invalid", error.cause, str(error)))
        if isinstance(error, MemoryError):
            traceback.clear_frames(error.__traceback__)
        told = described(error, str if job.code is None else job.code.tidy)
        if job.stopped and type(error).__name__ in ("Stopped", "KeyboardInterrupt", "CancelledError"):
            told["kind"] = "cancelled"
        outcome = b'"error":', plain(told)
        if job.by_pickle:
            data = pickled_error(error)
            if data is not None and len(data) <= job.most_output:
                outcome += b',"pickle":"', binascii.b2a_base64(data, newline=False), b'"'
        return outcome

    @staticmethod
    def in_base64(data, most):
        return binascii.b2a_base64(fits(data, "the output", most), newline=False)

    def settle(self, job, outcome):
        if alone is job:
            self.capture.drain()
        job.log.close()
        job.cancel = None  # or it would take a garbage collection to free the job
        del self.jobs[job.id]
        artifacts = b'"artifacts":true,' if job.has_artifacts else b""
        figures = job.meter.measured(self.polled)
        self.channel.send_soon(framed(b'{"done":{"id":%d,' % job.id, artifacts, *outcome, b",", figures, b"}}"))


class Selector(selectors.DefaultSelector):
    """Tells the host how late its loop was each time that it came back from waiting: so long it had no core."""

    def __init__(self, host):
        super().__init__()
        self.host = host

    def select(self, timeout=None):
        if timeout is not None and timeout <= 0:
            return super().select(timeout)
        self.host.delayed()
        ready = super().select(timeout)
        self.host.lately = Async.LONG_AGO
        self.host.turn += 1
        self.host.late_ns = self.host.delayed()
        return ready


class Async(Host):
    """Many jobs at once on one asyncio loop. A function that does not await runs on it too, and holds it."""

    polled = True
    FRESH_NS = 200_000  # for so long after the kernel was asked what the loop has used it has computed, unless it went to sleep
    LONG_AGO = 0, None

    def __init__(self, sock):
        super().__init__(sock)
        import asyncio

        self.asyncio = asyncio
        self.turn = self.late_ns = self.delay_ns = 0
        self.lately = self.LONG_AGO
        self.loop = asyncio.SelectorEventLoop(Selector(self))
        self.channel = LoopChannel(sock, self.loop)
        self.in_executor = self.loop.run_in_executor

    def serve(self):
        self.asyncio.set_event_loop(self.loop)
        self.loop.set_task_factory(self.make_task)
        self.loop.run_in_executor = self.run_in_executor
        self.loop.add_reader(self.channel.sock.fileno(), self.readable)
        while True:
            # A job's task has ended like this and has the exception, and the loop can go on.
            with contextlib.suppress(SystemExit, KeyboardInterrupt):
                self.loop.run_forever()

    def used_until(self, now):
        then, used = self.lately
        if now - then < self.FRESH_NS:
            return used[0] + now - then, *used[1:]
        used = self.usage()
        self.lately = now, used
        return used

    def delayed(self):
        """How long the loop's thread has had no core since this was asked the last time, in ns."""
        before, self.delay_ns = self.delay_ns, Delay.of_thread() or 0
        return self.delay_ns - before

    def readable(self):
        self.channel.fill(socket.MSG_DONTWAIT)
        while (received := self.channel.frames.take()) is not None:
            self.handle(*received)

    def make_task(self, loop, coroutine, **options):
        """Tasks that a job starts are measured as part of it, and end with it."""
        context = options.get("context")
        job = JOB.get() if context is None else context.get(JOB)
        if job is None or not isinstance(coroutine, Coroutine):
            return self.asyncio.Task(coroutine, loop=loop, **options)
        task = self.asyncio.Task(Metered(coroutine, job.meter), loop=loop, **options)
        job.tasks.add(task)
        task.add_done_callback(job.tasks.discard)
        return task

    def run_in_executor(self, executor, function, *args):
        job = JOB.get()
        if executor is None and job is not None:
            function, args = job.meter.helped, (contextvars.copy_context(), function, *args)
        return self.in_executor(executor, function, *args)

    def begin(self, job):
        self.loop.create_task(self.perform(job))

    async def perform(self, job):
        JOB.set(job)
        job.cancel = self.asyncio.current_task().cancel
        job.meter.begin()
        try:
            try:
                value = await Metered(self.evaluate(job), job.meter)
            finally:
                job.meter.end()
            outcome = self.written(job, value)
        except BaseException as error:
            outcome = self.failed(job, error)
        self.settle(job, outcome)

    async def evaluate(self, job):
        try:
            result = job.start()
            if reports(result):
                return await self.in_turns(reported(job, result))
            return await awaited(job, result) if isinstance(result, (Awaitable, AsyncGenerator)) else result
        finally:
            if job.tasks:
                for task in job.tasks:
                    task.cancel()
                await self.asyncio.gather(*job.tasks, return_exceptions=True)

    async def in_turns(self, steps):
        try:
            while True:
                next(steps)
                await self.asyncio.sleep(0)
        except StopIteration as end:
            return end.value
        finally:
            steps.close()


class Threads(Host):
    """Many jobs at once, each on a thread of a pool."""

    def __init__(self, sock):
        super().__init__(sock)
        self.shares_gil = gil_enabled() is not False
        self.waiting = queue.SimpleQueue()

    def serve(self):
        for number in range(self.threads):
            threading.Thread(target=self.work, name=f"trine-{number}", daemon=True).start()
        super().serve()

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
            job.due = Stopped("the job was asked to stop")
        else:
            with contextlib.suppress(RuntimeError):  # its loop has just been closed
                job.cancel()


class Processes(Host):
    """One job at a time, in the main thread and with the process to itself.

    Nobody reads the socket meanwhile but the capturing thread, every so often: a thread woken for each message would cost short jobs
    more than all else here.
    """

    usage = staticmethod(process_usage)

    def __init__(self, sock):
        super().__init__(sock)
        self.memory = Memory()
        signal.signal(signal.SIGPROF, self.spent)

    def begin(self, job):
        global alone
        alone = job
        sys.stdout, sys.stderr = self.streams
        if job.cpu_ms is not None:
            signal.setitimer(signal.ITIMER_PROF, job.cpu_ms / 1000, LAST_CPU_S)
        self.perform(job)
        if job.cpu_ms is not None:
            signal.setitimer(signal.ITIMER_PROF, 0)
        alone = None

    def tick(self):
        job = alone
        if job is None:
            return
        job.meter.look()
        if any(kind == "stop" and body["id"] == job.id for kind, body in self.channel.look_ahead()):
            job.stopped = True
        if job.stopped and not job.interrupted:
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    def interrupt(self, signum, frame):
        """Raises in users' code. In this file's an exception could cut a message in two, so there it waits for the way back."""
        job = alone
        if job is None or job.thread is None or imports(frame):
            return  # it comes again with the next tick
        job.due = KeyboardInterrupt("stopped" if job.stopped else "")
        job.interrupted = job.stopped
        self.turn_to(job, frame)

    def spent(self, signum, frame):
        """The CPU time of a job is used up. One that does not heed that takes the process along, as does one that is loading a module."""
        job = alone
        if job is None or job.thread is None:
            return
        error = CpuTimeExceeded(f"it has used more CPU time than the {job.cpu_ms} ms that a call of its function may")
        if job.overspent or imports(frame):
            job.meter.leave()
            job.meter.end()
            self.settle(job, self.failed(job, error))
            os._exit(1)
        job.due, job.overspent = error, True
        self.turn_to(job, frame)

    @staticmethod
    def turn_to(job, frame):
        if frame.f_code.co_filename != HOST or frame.f_code is call.__code__:
            job.heed()


# ---- Start --------------------------------------------------------------------------------------------------------------------------


def here():
    job = None if forked else current()
    if job is None:
        raise RuntimeError("no job runs here (a thread that a job starts itself, or a child process, does not count)")
    return job


def progress(value):
    """Reports anything that JSON can write as the job's progress. On threads, it ends a job that was asked to stop."""
    here().progress(value)


def stopped():
    """Whether the job was asked to stop."""
    return here().stopped


def job_id():
    """The job's id, a UUID."""
    return here().uuid


def attempt():
    """The number of this attempt at the job, from 1."""
    return here().attempt


def artifacts():
    """The job's own folder for files that are to be kept when it ends, as a path; made by the first call."""
    from pathlib import Path

    job = here()
    folder = os.path.join(job.host.artifacts, str(job.id))
    os.makedirs(folder, exist_ok=True)
    job.has_artifacts = True
    return Path(folder)


def main(mode):
    # Users' code finds nothing on its standard input, and only what `Capture` reads goes to its outputs.
    sock = socket.socket(fileno=fcntl.fcntl(0, fcntl.F_DUPFD_CLOEXEC, 100))
    faulthandler.enable(fcntl.fcntl(2, fcntl.F_DUPFD_CLOEXEC, 100))  # where a crash was is told to the server
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)

    def after_fork():
        global alone, forked
        alone, forked = None, True
        sock.close()

    os.register_at_fork(after_in_child=after_fork)
    module = sys.modules["trine"] = types.ModuleType("trine", "What a function can ask of Trine while it runs.")
    for member in (progress, stopped, job_id, attempt, artifacts, Stopped):
        member.__module__ = "trine"
        setattr(module, member.__name__, member)
    # What a client pickled by reference to its own `__main__` must not find this file's functions.
    sys.modules["__main__"] = types.ModuleType("__main__")
    {"async": Async, "threads": Threads, "processes": Processes}[mode](sock).main()


if __name__ == "__main__":
    main(sys.argv[1])

"""What jobs print."""

import codecs
import io
import os
import select
import threading

from . import running
from .messages import cut, message
from .running import current

LONGEST_LINE = 16_384  # characters of a log line
TICK_MS = 100  # how often `processes` looks for a `stop` while it runs a job


class Log:
    """The lines of one job, or of nobody: whole ones, long ones cut, all together at most so many bytes.

    It may be written to in the midst of a write: the garbage collector runs finalizers anywhere, and they may print, as signal handlers
    may. So there is one lock for all that is written, and what a write has taken it puts back beside what has come meanwhile.
    """

    def __init__(self, channel, job_id, most):
        self.send = channel.send
        self.lock = channel.writing
        self.job_id = job_id
        self.left = self.most = most
        self.unfinished = {}

    def write(self, stream, text, source=None):
        """`source` keeps apart what comes to one stream in several ways."""
        with self.lock:
            if self.left < 0:
                return
            key = stream, source
            *lines, rest = (self.unfinished.pop(key, "") + text).split("\n")
            if rest:
                # No call is between the look and the change: there the collector or a handler could come in.
                self.unfinished[key] = (self.unfinished[key] + rest if key in self.unfinished else rest)[: LONGEST_LINE + 1]
            self.emit((stream, line) for line in lines)

    def close(self):
        """Sends what lacks its end of line."""
        while self.unfinished:
            with self.lock:
                unfinished, self.unfinished = self.unfinished, {}
                self.emit((stream, rest) for (stream, _), rest in unfinished.items())

    def emit(self, lines):
        frames = []
        for stream, line in lines:
            if self.left < 0:
                break
            line = cut(line, LONGEST_LINE)
            size = len(line.encode(errors="replace")) + 1
            self.left -= size
            if self.left < 0:
                stream, line = "stderr", f"trine: this log is at its limit of {self.most} bytes; the rest is dropped"
            frames.append(message("log", {"id": self.job_id, "stream": stream, "line": line}))
        if frames:
            self.send(b"".join(frames))


class Stream(io.RawIOBase):
    """What is below users' `sys.stdout` or `sys.stderr`: the log of whichever job prints."""

    def __init__(self, name, descriptor, nobody):
        self.name = name
        self.descriptor = descriptor
        self.nobody = nobody

    def write(self, data):
        if running.forked:
            return os.write(self.descriptor, data)
        job = current()
        (self.nobody if job is None else job.log).write(self.name, str(data, "utf-8", "replace"))
        if running.alone is not None:
            running.alone.heed()
        return len(data)

    def writable(self):
        return True

    def fileno(self):
        return self.descriptor

    def close(self):
        """Never: the next job has the same."""

    def text(self):
        return Text(self, "utf-8", "backslashreplace", write_through=True)


class Text(io.TextIOWrapper):
    """Users' `sys.stdout` or `sys.stderr`."""

    def detach(self):
        """Gives what is below it, for another wrapper round that, and stays as it is: the next job has the same."""
        self.flush()
        return self.buffer


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
            # The writer stays open: if a job closes the descriptor, a pipe without one would be news for ever.
            reader, writer = os.pipe()
            os.dup2(writer, descriptor)
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
        # In the order in which whoever logs takes them: it may be interrupted, and drain this in the midst of that.
        with self.nobody.lock, self.lock:
            for reader, _ in self.written.poll(0):
                stream, decoder = self.streams[reader]
                job = running.alone
                log = self.nobody if job is None else job.log
                log.write(stream, decoder.decode(os.read(reader, 65_536)), source=self)

"""What jobs print."""

import codecs
import contextlib
import io
import os
import select
import threading

from . import running
from .messages import cut, message
from .running import current

LONGEST_LINE = 16_384  # characters of a log line
FEW = 16  # texts that may wait for the end of their line
TICK_MS = 100  # how often `processes` looks for a `stop` while it runs a job


class Room:
    """What a log has room for: so many bytes."""

    def __init__(self, most):
        self.left = most
        self.printed = self.taken = 0  # characters; those between wait for their turn
        self.is_full = False  # what waits is more than is left


class Log:
    """The lines of one job, or of nobody: whole ones, long ones cut, all together at most so many bytes.

    Whoever prints may hold locks of users, so what is printed only joins the line of what is to be sent. Messages are made of it when it is
    its turn, by one thread after the other: what is printed in the midst of that, by a finalizer or a signal handler, comes later.
    """

    def __init__(self, channel, job_id, most):
        self.channel = channel
        self.job_id = job_id
        self.most = most
        self.unfinished = {}
        self.renew()

    def renew(self):
        """Gives it room for as much as at first. What was printed before still counts where it did, whenever its turn is."""
        self.room = Room(self.most)

    def write(self, stream, text, source=None):
        """`source` keeps apart what comes to one stream in several ways."""
        room = self.room
        if room.is_full or room.left < 0:
            return
        if len(text) > LONGEST_LINE:
            text = "\n".join([line[: LONGEST_LINE + 1] for line in text.split("\n")])  # so that no more waits than counts
        if room.printed - room.taken > self.most:
            room.is_full = True
            self.channel.send((self.end, room))
            return
        size = len(text)
        room.printed += size  # several threads at once may make it too small, never too large
        item = self.lines, room, stream, text, source
        if "\n" in text or len(self.channel.waiting) > FEW:
            self.channel.send(item, size)
        else:
            self.channel.waiting.append(item)  # no message is made of it before the line has its end, which `print` writes by itself

    def close(self):
        """What lacks its end of line is sent with the next message."""
        if self.room.printed:
            self.channel.waiting.append((self.rest,))

    def lines(self, room, stream, text, source):
        """Messages of what was printed."""
        key = stream, source
        size = len(text)
        *lines, rest = (self.unfinished.get(key, "") + text).split("\n")
        data = self.emit(room, [(stream, line) for line in lines]) if lines else b""
        room.taken += size
        self.unfinished[key] = rest[: LONGEST_LINE + 1]
        return data

    def rest(self):
        data = self.emit(self.room, [(stream, rest) for (stream, _), rest in self.unfinished.items() if rest])
        self.unfinished = {}
        return data

    def end(self, room):
        """The message that the rest is dropped."""
        room.left = min(room.left, 0)
        return self.emit(room, [("stderr", "")])

    def emit(self, room, lines):
        left, frames = room.left, []
        for stream, line in lines:
            if left < 0:
                break
            line = cut(line, LONGEST_LINE)
            left -= len(line.encode(errors="replace")) + 1
            if left < 0:
                stream, line = "stderr", f"trine: this log is at its limit of {self.most} bytes; the rest is dropped"
            frames.append(message("log", {"id": self.job_id, "stream": stream, "line": line}))
        data = b"".join(frames)
        room.left = left  # now that nothing can fail any more
        return data


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
                with contextlib.suppress(BaseException):  # whatever a job has done to this process: the next one is to be looked after too
                    self.drain()
            if self.tick is not None:
                with contextlib.suppress(BaseException):
                    self.tick()

    def drain(self):
        """Logs what has been written up to now, in whatever thread. One read takes all that a pipe holds."""
        with self.lock:
            for reader, _ in self.written.poll(0):
                stream, decoder = self.streams[reader]
                job = running.alone
                log = self.nobody if job is None else job.log
                log.write(stream, decoder.decode(os.read(reader, 65_536)), source=self)

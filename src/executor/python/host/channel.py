"""The socket to the server."""

import collections
import os
import socket
import threading

from .messages import Frames


class Channel:
    """The socket to the server, used by threads that may wait. The process ends with the connection."""

    def __init__(self, sock):
        self.sock = sock
        self.frames = Frames()
        self.ahead = collections.deque()
        self.reading = threading.Lock()
        # Held by whoever makes a message of what is printed, or sends. A finalizer or a signal handler may print in the midst of either.
        self.writing = threading.RLock()
        self.backlog = collections.deque()
        self.is_sending = False

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
        """A message comes whole: what this thread is to send while it sends comes after that."""
        with self.writing:
            self.backlog.append(data)
            while self.backlog and not self.is_sending:
                self.is_sending = True
                try:
                    self.sock.sendall(self.backlog.popleft())
                except OSError:
                    os._exit(0)
                finally:
                    self.is_sending = False

    send_soon = send


class LoopChannel(Channel):
    """The same for an event loop, which must never wait to send: what the socket does not take at once is sent when it does."""

    def __init__(self, sock, loop):
        super().__init__(sock)
        self.loop = loop
        self.thread = threading.get_ident()
        self.waits = False  # for the socket to take more
        self.is_soon = False  # what is there is sent in this turn of the loop

    def send(self, data):
        if threading.get_ident() != self.thread:
            self.loop.call_soon_threadsafe(self.send, data)
            return
        self.backlog.append(data)
        self.send_backlog()

    def send_soon(self, data):
        """In this turn of the loop, with what else is to be sent in it: many ends are one message."""
        self.backlog.append(data)
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
        while self.backlog and not self.is_sending:
            self.is_sending = True
            try:
                data = self.backlog.popleft()
                if self.backlog:
                    data = b"".join((data, *[self.backlog.popleft() for _ in range(len(self.backlog))]))
                sent = self.sent(data)
                if sent < len(data):
                    self.backlog.appendleft(memoryview(data)[sent:])
                    return False
            finally:
                self.is_sending = False
        return True

    def sent(self, data):
        try:
            return self.sock.send(data, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return 0
        except OSError:
            os._exit(0)

    def writable(self):
        self.waits = False
        self.loop.remove_writer(self.sock.fileno())
        self.send_backlog()

"""The socket to the server."""

import collections
import contextlib
import os
import socket
import threading
from itertools import repeat, starmap
from operator import itemgetter
from select import POLLOUT, poll

from .messages import Frames

popleft = collections.deque.popleft

MOST_WAITING = 1 << 20  # bytes for which a short message may wait; the longer one is, the fewer may be before it
MOST_OF_LOOP = 4 << 20  # bytes for which the loop does not wait
MANY_OF_STEP = 64  # messages that one step of the loop may send before it waits for each
SHORT = 1 << 10  # bytes; what is shorter counts as much
PATIENCE_S = 0.05  # for whoever sends; longer only if it is the server that keeps them, and never beside a loop


def both(first, second):
    """What the first of two iterators gives, where the second goes on with it: as one step, if it is C code that takes it in."""
    return map(itemgetter(0), zip(first, second))


class Channel:
    """The socket to the server, used by threads that may wait. The process ends with the connection.

    All that is to be sent stands in one line, and whoever finds nobody at it sends. Nobody waits for that: a thread that is at it may be
    kept by a finalizer, which the garbage collector runs anywhere and which may want a lock of users that the other thread has.

    A signal handler of users, or another thread of theirs, may raise between any two steps: the process lives on, and so must this. So what must
    not be apart is one step, in which no code in Python runs: to take a lock and note that, to take messages and keep them, to send and to take
    down how much was sent.
    """

    def __init__(self, sock):
        self.sock = sock
        self.frames = Frames()
        self.ahead = collections.deque()
        self.reading = threading.Lock()
        self.waiting = collections.deque()  # messages, and calls that give them when it is their turn
        self.backlog = collections.deque()  # messages whose turn it is
        self.going = []  # what is being sent, and behind it how much of it the socket took, each time
        self.part = 0  # bytes of that which it did not take yet
        # Held by whoever is at it. A finalizer or a signal handler may come in between and send too.
        self.writing = threading.RLock()
        self.is_draining = False

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

    def take_back(self):
        """The calls behind another one that were read ahead and left for `receive`: they are left for it no more."""
        if not self.reading.acquire(blocking=False):
            return []
        try:
            left, taken = collections.deque(), []
            for kind, body in self.ahead:
                # What can't be read does not say that it stands behind another one. It comes again, when it is its turn.
                is_behind = kind == "unreadable" or (kind == "run" and body.get("behind"))
                (taken if is_behind else left).append((kind, body))
            self.ahead = left
            return [body for _, body in taken]
        finally:
            self.reading.release()

    def send(self, item, size=0):
        """Sends a message, or what a function makes of its arguments, as a tuple. It has a size if users may send without end."""
        if size and (left := (len(self.waiting) + len(self.backlog)) * max(size, SHORT) + self.part) > MOST_WAITING:
            self.wait(left)
        self.waiting.append(item)
        self.drain()

    def wait(self, left):
        """For whoever is at it to end. Only as long as the server keeps them up: it waits for no lock of users."""
        while True:
            [is_held] = map(self.writing.acquire, (True,), (PATIENCE_S,))
            if is_held:
                self.writing.release()
                return
            if self.takes_more():
                return

    def takes_more(self, patience_s=0):
        room = poll()
        room.register(self.sock, POLLOUT)
        return bool(room.poll(patience_s * 1000))

    def drain(self):
        """Sends all, unless somebody is at it: they look for more after they have let go."""
        while self.waiting:
            [is_held] = map(self.writing.acquire, (False,))
            if not is_held:
                return
            try:
                if self.is_draining:
                    return  # by this thread, which goes on with what has come meanwhile
                self.take_turns()
            except BaseException:
                # What others have left to this thread would wait until somebody sends again.
                with contextlib.suppress(BaseException):
                    self.take_turns()
                raise
            finally:
                self.writing.release()

    soon = drain

    def take_turns(self):
        """Of those that are there now."""
        self.is_draining = True
        try:
            for _ in range(len(self.waiting)):
                item, taken = self.waiting[0], map(popleft, (self.waiting,))
                if type(item) is tuple:
                    # It stays there if it can't be made: whoever sends may be deep in calls of its own, and the item another's.
                    make, *what = item
                    taken = both(starmap(make, (what,)), taken)
                self.backlog.extend(filter(None, taken))
            if self.backlog or self.going:
                self.send_backlog()
        finally:
            self.is_draining = False

    def send_backlog(self):
        while not self.send_once() or self.backlog:
            pass

    def send_once(self, *flags):
        """Sends as much as the socket takes at once. False if something is left of what it was given."""
        going = self.going
        if not going:
            taken = map(popleft, repeat(self.backlog, len(self.backlog)))
            going.extend(taken if len(self.backlog) == 1 else map(b"".join, (taken,)))
        data = going[0]
        try:
            going.extend(map(self.sock.send, (data if len(going) == 1 else memoryview(data)[sum(going[1:]) :],), *flags))
        except BlockingIOError:
            pass
        except OSError as error:
            if error.errno is None or error.__traceback__.tb_next is not None:
                raise  # of a signal handler or another thread, as a time-out is
            os._exit(0)
        self.part = len(data) - (going[1] if len(going) == 2 else sum(going[1:]))
        if self.part:
            return False
        going.clear()
        return True

    def heal(self):
        """Called where this thread is at nothing here. Before Python 3.11 a handler may raise where that leaves this thread at it."""
        [is_held] = map(self.writing.acquire, (False,))
        if is_held:
            self.is_draining = False
            while self.writing._is_owned():
                self.writing.release()

    def finish(self):
        """Waits until all is sent: for a process that is about to end."""
        with self.writing:
            self.drain()


class LoopChannel(Channel):
    """The same for an event loop, which is not to wait to send: what the socket does not take at once is sent when it does."""

    def __init__(self, sock, loop):
        super().__init__(sock)
        self.loop = loop
        self.thread = threading.get_ident()
        self.waits = False  # for the socket to take more
        self.is_soon = False  # what is there is sent in this turn of the loop
        self.is_called = False  # the loop is to send what other threads have made
        self.sending = threading.RLock()  # held by whoever sends: the loop, or a thread that found too much there
        self.is_sending = False
        self.has_waited = False  # in this turn of the loop
        self.step, self.sent = None, 0  # the task that sent something last in a turn that has waited, and how many messages one after the other

    def soon(self):
        """In this turn of the loop, with what else is to be sent in it: many ends are one message."""
        if not self.is_soon:
            self.loop.call_soon(self.drain_now)
            self.is_soon = True

    def drain_now(self):
        self.is_soon = False
        self.again(self.drain)

    def again(self, send):
        """Sends, and if something is raised meanwhile, again in the next turn of the loop: nobody else may."""
        try:
            send()
        except BaseException:
            self.loop.call_soon(self.called)
            raise

    def heal(self):
        super().heal()
        [is_held] = map(self.sending.acquire, (False,))
        if is_held:
            self.is_sending = False
            while self.sending._is_owned():
                self.sending.release()

    def wait(self, left):
        """Not for the loop, which may itself be waiting for this thread: that sends what is there, if the server soon takes it. The loop does so
        where there is much, and waits the longer the more that is, if it is to: whoever asks whether it hears does so for a second."""
        patience_s = PATIENCE_S
        if threading.get_ident() == self.thread:
            if left <= MOST_OF_LOOP:
                return
            patience_s *= min(left // MOST_OF_LOOP, 5) if self.is_to_wait() else 0
        if self.takes_more(patience_s):
            self.flush()

    def is_to_wait(self):
        """Once a turn, since all that runs on the loop waits too, and for each message of a step that sends so many that it must be holding
        the loop: the next turn may be far."""
        import asyncio

        step = asyncio.current_task(self.loop)
        if not self.has_waited:
            self.loop.call_soon(self.turned)
            self.has_waited, self.step, self.sent = True, step, 0
            return True
        if step is not self.step:
            self.step, self.sent = step, 0
        self.sent += 1
        return self.sent > MANY_OF_STEP

    def turned(self):
        self.has_waited, self.step = False, None

    def send_backlog(self):
        if threading.get_ident() == self.thread:
            self.send_here()
        elif not self.is_called:
            self.is_called = True
            try:
                self.loop.call_soon_threadsafe(self.called)
            except BaseException:
                self.is_called = False
                raise

    def called(self):
        self.is_called = False
        self.again(self.drain)
        self.again(self.send_here)

    def send_here(self):
        if not self.waits and not self.flush():
            self.loop.add_writer(self.sock.fileno(), self.writable)
            self.waits = True

    def flush(self):
        """Sends all that is there, unless somebody is at it. False if the socket does not take it now."""
        while self.backlog or self.going:
            [is_held] = map(self.sending.acquire, (False,))
            if not is_held:
                return True
            try:
                if self.is_sending:
                    return True
                self.is_sending = True
                try:
                    if not self.send_once((socket.MSG_DONTWAIT,)):
                        return False
                finally:
                    self.is_sending = False
            finally:
                self.sending.release()
        return True

    def writable(self):
        self.waits = False
        self.loop.remove_writer(self.sock.fileno())
        self.again(self.send_here)

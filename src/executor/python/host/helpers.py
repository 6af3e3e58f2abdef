"""The threads in which the jobs of an event loop have calls made."""

import contextvars
import os
import queue
import threading
from concurrent.futures import Future


class Helpers:
    """The threads of `asyncio.to_thread`, which all jobs share, as many as Python's own pool has. The loop's thread gives them calls.

    Nobody can end a call. While one goes on that nobody waits for any more, another thread stands in for its own, so that what a job has
    left behind keeps no other from its turn.
    """

    SOON_S = 0.1  # in which most calls end that are left
    MOST_LEFT = 64  # calls with a thread that stands in for theirs; with so many the host is worn

    def __init__(self, loop):
        self.loop = loop
        self.most = min(32, (os.cpu_count() or 1) + 4)
        self.threads = 0
        self.calls = queue.SimpleQueue()
        self.left = set()

    def submit(self, function, *args):
        call = Future()
        self.calls.put((call, function, args))
        self.start()
        return call

    def leave(self, call):
        """Nobody waits for a call any more; it may have begun or not, or have ended."""
        self.loop.call_later(self.SOON_S, self.stand_in, call)

    def stand_in(self, call):
        if call.running():
            self.left.add(call)
            call.add_done_callback(self.left.discard)
            self.start()

    def start(self):
        if self.threads < self.most + min(len(self.left), self.MOST_LEFT):
            thread = threading.Thread(target=self.work, name=f"trine-helper-{self.threads}", daemon=True)
            contextvars.Context().run(thread.start)  # it is no job's
            self.threads += 1

    def work(self):
        while True:
            self.make(*self.calls.get())

    @staticmethod
    def make(call, function, args):
        if call.set_running_or_notify_cancel():
            try:
                call.set_result(function(*args))
            except BaseException as error:
                call.set_exception(error)
                call = None  # or the exception would hold itself, by its traceback

    def are_worn(self):
        return len(self.left) >= self.MOST_LEFT

"""The channel and what waits for its turn there, without a host."""

import asyncio
import contextlib
import signal
import socket
import sys
import threading
import types
import unittest

from harness import HOST, PATIENCE_S

package = sys.modules["_trine_host"] = types.ModuleType("_trine_host")
package.__path__ = [HOST]

from _trine_host.channel import Channel, LoopChannel  # noqa: E402
from _trine_host.logs import Log  # noqa: E402
from _trine_host.messages import Frames, message  # noqa: E402


class Waiting(unittest.TestCase):
    def setUp(self):
        ours, self.socket = socket.socketpair()
        self.addCleanup(self.socket.close)
        self.addCleanup(ours.close)
        self.channel = Channel(ours)
        self.frames = Frames()

    def keep(self):
        """Keeps a thread at the channel until what this gives is called."""
        kept, go = threading.Event(), threading.Event()

        def make():
            kept.set()
            go.wait(PATIENCE_S)
            return b""

        thread = threading.Thread(target=self.channel.send, args=((make,),))
        thread.start()
        self.assertTrue(kept.wait(PATIENCE_S))

        def let_go():
            go.set()
            thread.join()

        return let_go

    def lines(self):
        """Those that were sent."""
        lines = []
        while True:
            while (received := self.frames.take()) is not None:
                lines.append(received[1]["line"])
            try:
                count = self.socket.recv_into(self.frames.space(), 0, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return lines
            self.frames.end += count

    def test_lines_count_where_they_were_printed_whenever_their_turn_is(self):
        log = Log(self.channel, None, 1000)
        let_go = self.keep()
        for job in range(4):
            log.renew()
            for _ in range(9):
                log.write("stdout", f"{job}" * 99 + "\n")
        for _ in range(9):
            log.write("stdout", "more" * 24 + "\n")
        log.renew()
        log.write("stdout", "renewed\n")
        let_go()
        lines = self.lines()
        self.assertEqual(lines[:36], [f"{job}" * 99 for job in range(4) for _ in range(9)])
        self.assertEqual(lines[36:38], ["more" * 24, "trine: this log is at its limit of 1000 bytes; the rest is dropped"])
        self.assertEqual(lines[38:], ["renewed"])

    def test_what_a_signal_handler_raises_in_the_midst_costs_no_message_and_no_lock(self):
        raised, lines = 0, []

        class Raised(Exception):
            pass

        def handler(_, frame):
            nonlocal raised
            if frame.f_code.co_filename == Channel.send.__code__.co_filename:
                raised += 1
                raise Raised

        self.addCleanup(signal.signal, signal.SIGALRM, signal.signal(signal.SIGALRM, handler))
        self.addCleanup(signal.setitimer, signal.ITIMER_REAL, 0)
        signal.setitimer(signal.ITIMER_REAL, 0.0001, 0.0001)
        sent = 0
        while raised < 3_000:
            # As other threads leave it to whoever is at it.
            self.channel.waiting.append(message("log", {"line": sent}))
            sent += 1
            with contextlib.suppress(Raised):
                self.channel.send(b"")
            if sys.version_info < (3, 11):
                with contextlib.suppress(Raised):
                    self.channel.heal()  # as when a job has ended
            lines += self.lines()
        signal.setitimer(signal.ITIMER_REAL, 0)
        if sys.version_info < (3, 11):
            self.channel.heal()
        self.channel.send(b"")
        self.assertEqual(lines + self.lines(), list(range(sent)))
        taken = []
        thread = threading.Thread(target=lambda: taken.append(self.channel.writing.acquire(blocking=False)))
        thread.start()
        thread.join()
        self.assertEqual(taken, [True])

    def test_what_is_left_to_a_thread_is_sent_though_that_is_interrupted(self):
        kept, go, errors = threading.Event(), threading.Event(), [TimeoutError()]

        def make():
            kept.set()
            go.wait(PATIENCE_S)
            if errors:
                raise errors.pop()
            return message("log", {"line": "interrupted"})

        def send():
            with contextlib.suppress(TimeoutError):
                self.channel.send((make,))

        thread = threading.Thread(target=send)
        thread.start()
        self.assertTrue(kept.wait(PATIENCE_S))
        self.channel.send(message("log", {"line": "left"}))
        go.set()
        thread.join()
        self.assertEqual(self.lines(), ["interrupted", "left"])

    def test_a_loop_sends_what_it_was_kept_from_in_its_next_turn(self):
        loop = asyncio.SelectorEventLoop()
        self.addCleanup(loop.close)
        loop.set_exception_handler(lambda *_: None)
        channel = LoopChannel(self.channel.sock, loop)
        errors = [TimeoutError(), KeyError()]

        def make():
            if errors:
                raise errors.pop()
            return message("log", {"line": "at last"})

        async def turns():
            channel.waiting.append((make,))
            channel.soon()
            for _ in range(3):
                await asyncio.sleep(0)

        loop.run_until_complete(turns())
        self.assertEqual(self.lines(), ["at last"])

    def test_a_loop_waits_once_a_turn_and_for_a_step_that_sends_on_and_on(self):
        loop = asyncio.SelectorEventLoop()
        self.addCleanup(loop.close)
        channel = LoopChannel(self.channel.sock, loop)
        waits = []
        channel.takes_more = lambda patience_s: waits.append(patience_s) if patience_s else None
        sent = message("log", {"line": "x" * 1000})

        async def send(count):
            for _ in range(count):
                channel.send(sent, 1)

        async def counted(*counts):
            waits.clear()
            await asyncio.gather(*map(send, counts))
            return len(waits)

        async def turns():
            for _ in range(5000):
                channel.send(sent)  # what has no size never waits, and the server takes nothing
            found = [await counted(*[10] * 500) for _ in range(3)]
            self.assertLess(max(waits), 1)  # though 20 MB are there by now
            return found, await counted(1000), await counted(10, 10, 1000, 10, 10)

        each, alone, among = loop.run_until_complete(turns())
        self.assertEqual(each, [1, 1, 1])
        self.assertGreater(alone, 900)
        self.assertGreater(among, 900)
        self.assertLess(among, 1000)

    def test_a_line_is_not_lost_when_whoever_sends_it_is_interrupted(self):
        def make(errors, line):
            if errors:
                raise errors.pop()
            return message("log", {"id": 1, "stream": "stdout", "line": line})

        for error in (RecursionError, KeyboardInterrupt, TimeoutError):
            with self.subTest(error=error):
                with self.assertRaises(error):
                    self.channel.send((make, [error], "interrupted"))
                self.channel.send((make, [], "next"))
                self.assertEqual(self.lines(), ["interrupted", "next"])

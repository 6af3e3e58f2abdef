"""An executor whose server, or the way there, breaks."""

import concurrent.futures
import json
import signal
import threading
import time
import unittest
from unittest import mock

from harness import PATIENCE_S, Proxy, Server, ServerTest, Stranger, hold_first, square, submitting

import trine
from trine import _calls


class Breaks(ServerTest):
    def test_a_connection_that_breaks_all_the_time(self):
        proxy = self.opened(Proxy(self.url))
        proxy.cut_after = 100_000
        with self.executor(proxy.url) as executor:
            futures = [executor.submit(square, n) for n in range(1000)]
            self.assertEqual([future.result(PATIENCE_S) for future in futures], [n * n for n in range(1000)])
        self.assertGreater(proxy.cuts, 5)
        self.assertEqual(len({job.id for job in self.jobs_of(executor)}), 1000)

    def test_a_server_that_restarts(self):
        server = self.opened(Server())
        executor = self.executor(server.url)
        futures = [executor.submit(square, n) for n in range(300)]
        futures[0].result(PATIENCE_S)
        server.stop(signal.SIGKILL)
        futures += [executor.submit(square, n) for n in range(300, 400)]
        server.start()
        self.assertEqual([future.result(PATIENCE_S) for future in futures], [n * n for n in range(400)])
        executor.shutdown()

    def test_a_job_that_is_gone_after_a_break_is_lost_whatever_else_still_waits(self):
        executor = self.executor()
        later = executor.with_options(delay_ms=600_000)
        old, new = later.submit(square, 1), later.submit(square, 2)
        self.until(lambda: old.job_id and new.job_id)
        connections, back = executor._engine._connections, threading.Event()
        stream, request = connections.stream, connections.request
        failures = [trine.ServerUnreachable("once more")]

        def opened(*args):
            if not back.is_set():
                raise trine.ServerUnreachable("away")
            return stream(*args)

        def answered(asked):
            if failures:
                raise failures.pop()
            return request(asked)

        connections.stream = opened
        executor._engine._stream.abort()
        self.client().cancel(new.job_id)
        self.client().delete_result(new.job_id)  # as if it was kept no longer
        connections.request = answered
        back.set()
        self.assertIsInstance(new.exception(PATIENCE_S), trine.JobLost)
        self.assertFalse(old.done())
        self.assertTrue(old.cancel())

    def test_a_call_is_made_once_however_its_answer_is_lost(self):
        def unreachable(make, request):
            make(request)
            raise trine.ServerUnreachable("the answer is lost")

        def of_a_proxy(make, request):
            make(request)
            raise trine.ProblemError(504, "about:blank", "Gateway Timeout", "")

        def overtaken(make, request):
            late.append(request)
            raise trine.ServerUnreachable("the request is still on its way")

        for lose in (unreachable, of_a_proxy, overtaken):
            with self.subTest(lose.__name__), self.executor() as executor:
                late, losses = [], [lose]

                def exchange(make, request, late=late, losses=losses):
                    if losses:
                        return losses.pop()(make, request)
                    for each in late:
                        make(each)
                    return make(request)

                submitting(executor, exchange)
                self.assertEqual(executor.submit(square, 3).result(PATIENCE_S), 9)
                self.assertEqual(losses, [])
                self.assertEqual(len(self.jobs_of(executor)), 1)

    def test_a_thread_that_there_is_no_room_for(self):
        start = threading.Thread.start
        for name in ("send", "read", "let_go"):
            with self.subTest(name):
                executor, failures = trine.Executor(self.url, executor="processes"), [name]

                def started(thread, failures=failures):
                    if failures and thread.name.startswith(f"trine-{failures[0]}"):
                        failures.pop()
                        raise RuntimeError("can't start new thread")
                    start(thread)

                with mock.patch.object(threading.Thread, "start", started):
                    self.assertRaisesRegex(RuntimeError, "start new thread", executor.submit, square, 2)
                    future = executor.submit(square, 3)
                self.assertEqual(future.result(PATIENCE_S), 9)
                self.in_time(executor.shutdown)
                unused = trine.Executor(self.url)
                failures.append(name)
                with mock.patch.object(threading.Thread, "start", started):
                    self.assertRaises(RuntimeError, unused.submit, square, 2)
                self.in_time(unused.shutdown)

    def test_a_way_on_which_a_batch_takes_too_long(self):
        """As much as a server waits for, and a single call that it has to be told of twice."""
        executor = self.executor()
        slow, sizes = [True], []

        def exchange(make, request):
            sizes.append(len(json.loads(request.body)))
            if sizes[-1] > 10 or (slow and sizes[-1] == 1):
                if sizes[-1] == 1:
                    slow.pop()
                raise trine.ProblemError(408, "about:blank", "Request Timeout", "")
            return make(request)

        gate, first = hold_first(self, executor)
        submitting(executor, exchange)
        futures = [executor.submit(square, n) for n in range(40)]
        gate.set()
        self.assertEqual(first.result(PATIENCE_S), 1)
        self.assertEqual([future.result(PATIENCE_S) for future in futures], [n * n for n in range(40)])
        self.assertEqual(sizes, [1, 1, 40, 20, 10, 10, 20, 10, 10])

    def test_a_call_that_takes_too_long_by_itself(self):
        executor = self.executor()
        long = executor.with_options(tags={"size": "long"})

        def exchange(make, request):
            if b'"size"' in request.body:
                raise trine.ProblemError(408, "about:blank", "Request Timeout", "")
            return make(request)

        submitting(executor, exchange)
        self.assertEqual(long.submit(square, 1).exception(PATIENCE_S).status, 408)
        self.assertEqual(executor.submit(square, 2).result(PATIENCE_S), 4)

    def test_a_server_that_is_not_trines(self):
        stranger = self.opened(Stranger())
        with self.assertRaisesRegex(trine.ServerGone, "is not what the API says"):
            self.executor(stranger.url).submit(square, 1).result(PATIENCE_S)

    def test_a_proxy_that_keeps_the_events(self):
        stranger = self.opened(Stranger())
        stranger.keeps_events = True
        with mock.patch.object(_calls, "SILENCE", 0.01), self.assertRaisesRegex(trine.ServerGone, "silent"):
            self.executor(stranger.url, patience=0.01).submit(square, 1).result(PATIENCE_S)

    def test_a_server_that_is_gone(self):
        server = self.opened(Server())
        executor = self.executor(server.url, patience=0.2)
        futures = [executor.submit(time.sleep, 600) for _ in range(8)]
        self.until(lambda: any(future.running() for future in futures))
        server.stop(signal.SIGKILL)
        for future in futures:
            with self.assertRaises(trine.ServerGone):
                future.result(PATIENCE_S)
        with self.assertRaises(concurrent.futures.BrokenExecutor):
            executor.submit(square, 1)
        executor.shutdown()

    def test_a_server_that_was_never_there(self):
        with self.executor("http://127.0.0.1:9", patience=0.1) as executor:
            self.assertIsInstance(executor.submit(square, 1).exception(PATIENCE_S), trine.ServerGone)

    def test_an_executor_that_is_broken_can_be_ended(self):
        away = trine.ProblemError(503, "about:blank", "Service Unavailable", "")
        for error in (away, trine.Malformed("no answer")):
            with self.subTest(type(error).__name__):
                executor = self.executor(patience=0)

                def fails(make, request, error=error):
                    raise error

                submitting(executor, fails)
                self.assertIsInstance(executor.submit(square, 1).exception(PATIENCE_S), trine.ServerGone)
                self.in_time(executor.shutdown, cancel_futures=True)

    def test_calls_on_their_way_end_once_when_the_executor_breaks(self):
        executor = self.executor()
        engine, sent, answered = executor._engine, threading.Event(), threading.Event()
        self.addCleanup(answered.set)

        def refused(make, request):
            sent.set()
            answered.wait()
            raise trine.ProblemError(429, "about:blank", "Too Many Requests", "")

        def malformed(*args):
            raise trine.Malformed("no stream")

        submitting(executor, refused)
        future = executor.submit(square, 1)
        sent.wait(PATIENCE_S)
        engine._connections.stream = malformed
        engine._stream.abort()
        self.assertIsInstance(future.exception(PATIENCE_S), trine.ServerGone)
        answered.set()
        executor.shutdown()
        self.assertEqual((len(engine._queue), engine._in_flight, engine._unfinished), (0, 0, 0))


if __name__ == "__main__":
    unittest.main()

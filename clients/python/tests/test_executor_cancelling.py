"""Calls of an executor that are cancelled."""

import concurrent.futures
import json
import signal
import sys
import threading
import time
import unittest
import urllib.request
import uuid

from harness import PATIENCE_S, Server, ServerTest, hold, hold_first, square, submitting

import trine


class Cancelling(ServerTest):
    def test_a_call_that_was_not_sent(self):
        executor = self.executor(max_workers=1)
        running = executor.submit(time.sleep, 600)
        self.until(running.running)
        pending = executor.submit(square, 1)
        self.assertFalse(running.cancel())
        self.assertTrue(pending.cancel())
        self.assertTrue(pending.cancelled() and pending.cancel())
        self.assertIsNone(pending.job_id)
        self.client().cancel(running.job_id)

    def test_a_call_that_waits_at_the_server(self):
        executor = self.executor()
        running = [executor.submit(time.sleep, 600) for _ in range(4)]
        pending = [executor.submit(square, n) for n in range(20)]
        self.until(lambda: all(future.running() for future in running) and all(future.job_id for future in pending))
        self.assertEqual([future.cancel() for future in pending], [True] * 20)
        self.assertEqual(concurrent.futures.wait(pending, 0).not_done, set())
        self.assertEqual({self.client().get(future.job_id).state for future in pending}, {"cancelled"})
        self.assertEqual([future.cancel() for future in running], [False] * 4)
        for future in running:
            self.client().cancel(future.job_id)

    def test_a_callback_may_raise_what_ends_a_thread(self):
        executor = self.executor()
        gate, _ = hold_first(self, executor)
        pending = executor.submit(square, 2)
        pending.add_done_callback(lambda future: sys.exit(3))
        self.assertRaises(SystemExit, pending.cancel)
        self.assertEqual(concurrent.futures.wait([pending], 0).not_done, set())
        gate.set()
        self.in_time(executor.shutdown)

    def test_who_is_interrupted_may_try_again(self):
        executor = self.executor(delay_ms=600_000)
        future = executor.submit(square, 1)
        self.until(lambda: future.job_id)
        connections = executor._engine._connections
        make, interrupts = connections.request, [KeyboardInterrupt]

        def interrupted(request):
            if interrupts:
                raise interrupts.pop()
            return make(request)

        connections.request = interrupted
        self.assertRaises(KeyboardInterrupt, future.cancel)
        self.assertTrue(self.in_time(future.cancel))

    def begins_as_it_is_cancelled(self):
        """An executor, its running call, and one that begins when the executor is just about to cancel it."""
        client, key = self.client(), {"key": str(uuid.uuid4()), "limit": 1}
        first = client.submit({"type": "sleep", "ms": 600_000}, bound="io", concurrency=key)
        executor = self.executor(concurrency=key)
        future = executor.submit(time.sleep, 600)
        self.until(lambda: future.job_id)
        connections = executor._engine._connections
        make = connections.request

        def asked(request):
            if request.method in ("POST", "DELETE") and client.get(first.id).state == "running":
                client.cancel(first.id)
                self.until(lambda: client.get(future.job_id).state == "running")
            return make(request)

        connections.request = asked
        return executor, future

    def test_a_call_that_begins_meanwhile_was_not_cancelled(self):
        _, future = self.begins_as_it_is_cancelled()
        self.assertFalse(future.cancel())
        self.assertEqual((future.running(), future.done()), (True, False))
        with urllib.request.urlopen(f"{self.url}/jobs/{future.job_id}") as answer:
            self.assertFalse(json.load(answer)["stopping"])

    def test_a_call_that_begins_meanwhile_is_not_cancelled_with_its_executor(self):
        executor, future = self.begins_as_it_is_cancelled()
        executor.shutdown(wait=False, cancel_futures=True)
        self.assertFalse(future.done())
        with urllib.request.urlopen(f"{self.url}/jobs/{future.job_id}") as answer:
            job = json.load(answer)
        self.assertEqual((job["state"], job["stopping"]), ("running", False))

    def test_a_callback_may_cancel_calls_that_were_on_their_way_with_its_own(self):
        executor = self.executor()
        later, refused = executor.with_options(delay_ms=600_000), executor.with_options(priority=1000)
        gate, batches = hold(self, executor)
        executor.submit(square, 1)
        self.until(lambda: batches)
        calls = [later.submit(square, n) for n in range(10)]
        cancelled = []
        refused.submit(square, 2).add_done_callback(lambda future: cancelled.extend(call.cancel() for call in calls))
        calls += [later.submit(square, n) for n in range(10)]
        gate.set()
        self.until(lambda: len(cancelled) == len(calls))
        self.assertEqual(len(batches), 2)
        self.assertEqual(cancelled, [True] * len(calls))
        self.assertEqual(executor.submit(square, 3).result(PATIENCE_S), 9)

    def test_calls_that_the_server_has_no_room_for(self):
        server = self.opened(Server("--max-waiting", "1"))
        client = self.client(server.url)
        idle = {"type": "python", "source": "def main():\n    pass\n"}
        first = client.submit(idle, bound="cpu", executor="threads", delay_ms=600_000)
        answers = []

        def noted(make, request):
            answers.append(make(request))
            return answers[-1]

        executor, other = (self.executor(server.url, executor="threads") for _ in range(2))
        submitting(executor, noted)
        one, two = executor.submit(square, 1), executor.submit(square, 2)
        self.until(lambda: any(answer.status == 429 for answer in answers))
        self.assertTrue(self.in_time(one.cancel))
        futures = [other.submit(square, n) for n in range(3)]
        self.in_time(other.shutdown, cancel_futures=True)
        self.assertTrue(all(future.cancelled() for future in futures))
        client.cancel(first.id)
        self.assertEqual(two.result(PATIENCE_S), 4)

    def test_calls_come_as_there_is_room_for_them(self):
        server = self.opened(Server("--max-waiting", "10"))
        executor = self.executor(server.url, executor="threads")
        later = executor.with_options(delay_ms=600_000)
        waiting = [later.submit(square, n) for n in range(6)]
        self.until(lambda: all(future.job_id for future in waiting))
        gate, batches = hold(self, executor)
        with self.assertLogs("trine", "WARNING") as logs:
            futures = [executor.submit(square, n) for n in range(40)]
            self.until(lambda: batches)
            gate.set()
            self.assertEqual([future.result(PATIENCE_S) for future in futures], [n * n for n in range(40)])
        (line,) = logs.output
        self.assertIn("no room", line)
        self.assertTrue(all(future.cancel() for future in waiting))

    def away_then_full(self, executor, of=1):
        """Has batches of so many calls or more fail: as if the server were away, then, until there is room, as if it were full.

        Returns the keys under which they come, the request that failed first, and the event that there is room.
        """
        keys, late, room = [], [], threading.Event()
        self.addCleanup(room.set)

        def exchange(make, request):
            if len(json.loads(request.body)) >= of:
                keys.append(request.headers["Idempotency-Key"])
                if len(keys) == 1:
                    late.append(request)
                    raise trine.ProblemError(503, "about:blank", "Service Unavailable", "")
                if not room.is_set():
                    raise trine.ProblemError(429, "about:blank", "Too Many Requests", "", retry_after=0.01)
            return make(request)

        submitting(executor, exchange)
        return keys, late, room

    def test_a_server_that_is_away_and_then_has_no_room(self):
        """Calls that it may have accepted after all can be cancelled, and are made once."""
        for cancels in (True, False):
            with self.subTest(cancels=cancels):
                executor = self.executor()
                make = executor._engine._connections.request
                keys, late, room = self.away_then_full(executor)
                futures = [executor.submit(square, 2)]
                self.until(lambda: len(keys) > 2)  # noqa: B023
                if cancels:
                    self.assertTrue(self.in_time(futures[0].cancel))
                    continue
                futures.append(executor.submit(square, 3))
                (job,) = make(late[0]).result()["items"]
                self.client().wait(job["id"], timeout=PATIENCE_S)
                room.set()
                self.assertEqual([future.result(PATIENCE_S) for future in futures], [4, 9])
                self.assertEqual(futures[0].job_id, job["id"])
                self.assertEqual(len(self.jobs_of(executor)), 2)

    def test_a_batch_that_may_have_been_accepted_is_sent_again_whole_or_not_at_all(self):
        for how in ("one", "all", "shutdown"):
            with self.subTest(how):
                executor = self.executor()
                engine, later = executor._engine, executor.with_options(delay_ms=600_000)
                make = engine._connections.request
                keys, late, room = self.away_then_full(executor, of=2)  # the two that wait for one
                gate, _ = hold_first(self, executor)
                one, two = later.submit(square, 2), executor.submit(square, 3)
                gate.set()
                self.until(lambda: len(keys) > 2)  # noqa: B023
                if how == "shutdown":
                    self.in_time(executor.shutdown, cancel_futures=True)
                elif how == "all":
                    engine.let_go([one._call, two._call])
                    self.until(two.cancelled)
                else:
                    engine.let_go([one._call])
                    make(late[0])
                    room.set()
                    self.assertEqual(two.result(PATIENCE_S), 9)
                    self.assertEqual(len(set(keys)), 1)
                    self.assertEqual(len(self.jobs_of(executor)), 3)
                self.until(one.cancelled)

    def test_a_call_for_which_there_is_no_connection(self):
        server = self.opened(Server())
        executor, tries = self.executor(server.url, patience=600), []
        self.assertEqual(executor.submit(square, 1).result(PATIENCE_S), 1)
        submitting(executor, lambda make, request: (tries.append(request), make(request))[1])
        server.stop(signal.SIGKILL)
        futures = [executor.submit(square, n) for n in (2, 3)]
        self.until(lambda: tries)
        self.assertTrue(self.in_time(futures[0].cancel))
        server.start()
        self.assertEqual(futures[1].result(PATIENCE_S), 9)

    def test_a_key_that_may_not_cancel(self):
        server = self.opened(Server())
        admin = self.client(server.url, key=self.client(server.url).create_key("admin", ["admin"]).key)
        key = admin.create_key("ci", ["submit", "read"]).key
        executor = self.executor(server.url, key=key, delay_ms=600_000)
        self.addCleanup(admin.cancel_many, all=True)
        futures = [executor.submit(square, n) for n in range(2)]
        self.until(lambda: all(future.job_id for future in futures))
        with self.assertLogs("trine", "WARNING") as logs:
            self.assertEqual([future.cancel() for future in futures], [False, False])
            executor._engine.stop(futures[0]._call)
            executor.shutdown(wait=False, cancel_futures=True)
            self.assertEqual([future.done() for future in futures], [False, False])
        (line,) = logs.output  # which is true of all calls
        self.assertRegex(line, "has not cancelled.*scope.*cancel")
        for future in futures:
            admin.cancel(future.job_id)
        self.assertEqual(concurrent.futures.wait(futures, PATIENCE_S).not_done, set())

    def test_a_server_that_can_not_be_asked_to_cancel(self):
        executor = self.executor(delay_ms=600_000)
        futures = [executor.submit(square, n) for n in range(2)]
        self.until(lambda: all(future.job_id for future in futures))
        connections = executor._engine._connections
        make = connections.request

        def unreachable(request):
            raise trine.ServerUnreachable("the cable is out")

        self.addCleanup(setattr, connections, "request", make)
        for cancelled in futures:
            connections.request = unreachable
            with self.assertLogs("trine", "WARNING") as logs:
                self.assertEqual([future.cancel() for future in futures], [future.cancelled() for future in futures])
            (line,) = logs.output
            self.assertIn("the cable is out", line)
            connections.request = make
            self.assertTrue(cancelled.cancel())

    def test_a_call_that_has_ended(self):
        executor = self.executor()
        future = executor.submit(square, 3)
        future.result(PATIENCE_S)
        self.assertFalse(future.cancel())
        self.assertEqual(future.result(), 9)


if __name__ == "__main__":
    unittest.main()

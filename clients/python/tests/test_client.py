"""The blocking client against a real server."""

import datetime
import threading
import unittest
import uuid

from harness import Proxy, Server, ServerTest

from trine import ProblemError, ServerUnreachable

SLEEP = {"type": "sleep", "ms": 0}


class Jobs(ServerTest):
    def setUp(self):
        self.trine = self.client()
        self.tags = {"test": str(uuid.uuid4())}

    def test_a_job_is_submitted_and_waited_for(self):
        job = self.trine.submit({"type": "primes", "below": 1000}, bound="cpu", tags=self.tags, priority=3)
        self.assertEqual((job.bound, job.priority, job.tags), ("cpu", 3, self.tags))
        job = self.trine.wait(job.id, timeout=60)
        self.assertEqual((job.state, job.output, job.attempt, job.error), ("succeeded", {"count": 168}, 1, None))
        self.assertTrue(job.finished)
        self.assertGreaterEqual(job.timing.wall_us, 0)
        self.assertLess(abs(job.finished_at - datetime.datetime.now(datetime.timezone.utc)), datetime.timedelta(minutes=1))
        result = self.trine.result(job.id)
        self.assertEqual((result.id, result.output, result.timing), (job.id, job.output, job.timing))
        self.assertEqual(job.raw["id"], job.id)
        self.assertEqual(self.trine.route(job.id)["executor"], job.route.executor)

    def test_a_submission_can_wait_for_its_result(self):
        limit = {"key": self.tags["test"], "limit": 1}
        more = {"priority": 7, "executor": "threads", "retry": {"attempts": 4}, "concurrency": limit}
        job = self.trine.submit(SLEEP, bound="io", wait=10, **more)
        self.assertEqual((job.state, job.priority, job.executor, job.concurrency), ("succeeded", 7, "threads", limit))
        self.assertEqual((job.retry["attempts"], len(job.attempts)), (4, 1))
        self.assertEqual(job, self.trine.get(job.id))

    def test_what_lists_are_filtered_by(self):
        begin = datetime.datetime.now(datetime.timezone.utc)
        tags = {**self.tags, "another": "one"}
        late = self.trine.submit({"type": "sleep", "ms": 60_000}, bound="io", tags=tags, deadline_ms=1, wait=10)
        busy = self.trine.submit({"type": "primes", "below": 3_000_000}, bound="io", tags=self.tags, wait=60)
        for listed in (self.trine.jobs, self.trine.results):
            self.assertEqual([job.id for job in listed(tags=self.tags, error="timeout")], [late.id])
            self.assertEqual([job.id for job in listed(tags=self.tags, advice="computes")], [busy.id])
            self.assertEqual([job.id for job in listed(tags=self.tags, since=begin, order="oldest")], [late.id, busy.id])
            self.assertEqual(list(listed(tags=self.tags, until=begin)), [])
            self.assertEqual([job.id for job in listed(tags=tags)], [late.id])
            with self.assertRaisesRegex(TypeError, "'colour'"):
                listed(colour="red")
            with self.assertRaisesRegex(ValueError, "no time zone"):
                listed(since=datetime.datetime(2026, 1, 31, 12))
        with self.assertRaisesRegex(ValueError, "no time zone"):
            self.trine.submit(SLEEP, bound="io", run_at=datetime.datetime(2026, 1, 31, 12))

    def test_a_request_with_a_key_is_sent_again_if_the_connection_breaks(self):
        proxy = self.opened(Proxy(self.url))
        trine = self.client(proxy.url)
        self.assertTrue(trine.healthy())
        # The connection that is kept breaks as soon as the answer comes; the next one does not.
        proxy.cut_answer = True
        job = trine.submit(SLEEP, bound="io", tags=self.tags, idempotency_key=str(uuid.uuid4()))
        self.assertFalse(proxy.cut_answer)
        self.assertEqual([found.id for found in self.trine.jobs(tags=self.tags)], [job.id])

    def test_what_a_submission_can_say(self):
        now = datetime.datetime.now(datetime.timezone.utc)
        at, end = now + datetime.timedelta(hours=1), now + datetime.timedelta(hours=2)
        limit = {"key": str(uuid.uuid4()), "limit": 2}
        job = self.trine.submit(
            {"type": "sleep", "ms": 1},
            bound="io",
            executor="threads",
            retry={"attempts": 3},
            run_at=at,
            expires_at=end,
            unique={},
            concurrency=limit,
            rate={**limit, "per_ms": 1000},
            webhook={"url": "https://example.com/ended", "events": ["failed"]},
        )
        self.addCleanup(self.trine.cancel, job.id)
        self.assertEqual((job.state, job.run_at, job.expires_at, job.executor), ("scheduled", at, end, "threads"))
        self.assertEqual((job.concurrency, job.rate, job.retry["attempts"]), (limit, {**limit, "per_ms": 1000}, 3))
        self.assertEqual((job.webhook["url"], job.existing), ("https://example.com/ended", False))
        again = self.trine.submit({"type": "sleep", "ms": 1}, bound="io", unique={}, delay_ms=1, executor=None)
        self.assertEqual((again.id, again.existing), (job.id, True))
        first = self.trine.submit(SLEEP, bound="io", delay_ms=600_000)
        second = self.trine.submit(SLEEP, bound="io", after=[{"job": first.id, "on_failure": "run"}])
        self.assertEqual((first.state, second.state), ("scheduled", "blocked"))
        self.trine.cancel(first.id)
        self.assertEqual(self.trine.wait(second.id, 60).state, "succeeded")
        with self.assertRaises(ProblemError) as caught:
            self.trine.submit(SLEEP, bound="io", requires={"moon": "full"})
        self.assertEqual(caught.exception.pointer, "/requires/moon")

    def test_a_wait_has_an_end(self):
        job = self.trine.submit({"type": "sleep", "ms": 600_000}, bound="io")
        with self.assertRaisesRegex(TimeoutError, job.id):
            self.trine.wait(job.id, timeout=0)
        self.trine.cancel(job.id)
        cancelled = self.trine.wait(job.id, timeout=60)
        self.assertEqual((cancelled.state, cancelled.error.kind), ("cancelled", "cancelled"))
        self.assertIn(self.trine.retry(job.id).state, ("queued", "running"))
        self.trine.cancel(job.id)

    def test_threads_share_a_client(self):
        found = []

        def ask():
            for below in range(10, 20):
                job = self.trine.submit({"type": "primes", "below": below}, bound="cpu", wait=30)
                found.append((job.id, job.workload["below"], below))

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(len({job for job, _, _ in found}), 80)
        self.assertTrue(all(answered == asked for _, answered, asked in found))


class Problems(ServerTest):
    def problem(self, call, *args, **kwargs):
        with self.assertRaises(ProblemError) as caught:
            call(*args, **kwargs)
        return caught.exception

    def test_a_problem_says_what_and_where(self):
        trine = self.client()
        problem = self.problem(trine.submit, {"type": "primes", "below": "many"}, bound="cpu")
        self.assertEqual((problem.status, problem.pointer), (422, "/workload/below"))
        self.assertTrue(problem.names("invalid-job"))
        self.assertIn("/workload/below", str(problem))
        self.assertEqual(self.problem(trine.get, str(uuid.uuid4())).status, 404)
        self.assertEqual(self.problem(trine.get, "../jobs").status, 404)
        done = trine.submit(SLEEP, bound="io", wait=10)
        self.assertTrue(self.problem(trine.cancel, done.id).names("already-finished"))
        batch = [{"workload": SLEEP, "bound": "io"}, {"workload": SLEEP}]
        self.assertEqual(self.problem(trine.submit_many, batch).pointer, "/1/bound")

    def test_a_server_that_is_not_there(self):
        server = self.opened(Server())
        trine = self.client(server.url)
        self.assertTrue(trine.healthy())
        server.stop()
        self.assertFalse(trine.healthy())
        with self.assertRaises(ServerUnreachable):
            trine.get(str(uuid.uuid4()))
        server.start()
        self.assertTrue(trine.healthy())


if __name__ == "__main__":
    unittest.main()

"""Calls of an executor that come after others."""

import asyncio
import gc
import time
import unittest

from harness import PATIENCE_S, ServerTest, hold, hold_first, square, submitting

import trine
from trine._future import Call


def fail():
    raise ValueError("bad")


class Order(ServerTest):
    def parents(self, future):
        return {parent.id for parent in self.client().get(future.job_id).graph.parents}

    def test_after_calls_that_were_just_submitted(self):
        executor = self.executor()
        gate, batches = hold(self, executor)
        one, two = executor.submit(square, 1), executor.submit(square, 2)
        self.until(lambda: batches)
        three = executor.submit(square, 3)
        after = executor.with_options(after=[one, {"job": three}])
        last = after.with_options(tags={"for": "the page"}).submit(square, 4)
        self.assertEqual((one.job_id, three.job_id), (None, None))
        gate.set()
        self.assertEqual([future.result(PATIENCE_S) for future in (one, two, three, last)], [1, 4, 9, 16])
        self.assertEqual(self.parents(last), {one.job_id, three.job_id})
        again = executor.with_options(after=[last, {"job": one.job_id}]).submit(square, 5)
        self.assertEqual(again.result(PATIENCE_S), 25)
        self.assertEqual(self.parents(again), {last.job_id, one.job_id})

    def test_after_one_that_does_not_succeed(self):
        executor = self.executor()
        failed = executor.submit(fail)
        cancelled = executor.with_options(after=[failed]).submit(square, 1)
        runs = executor.with_options(after=[{"job": failed, "on_failure": "run"}]).submit(square, 2)
        self.assertEqual(runs.result(PATIENCE_S), 4)
        concurrent = executor.with_options(after=[runs]).submit(square, 3)
        self.assertEqual(concurrent.result(PATIENCE_S), 9)
        self.until(cancelled.done)
        self.assertTrue(cancelled.cancelled())

    def test_after_one_that_never_becomes_a_job(self):
        executor = self.executor()
        lost = [executor.submit(square, (n for n in ())), executor.with_options(priority=1000).submit(square, 1)]
        gate, _ = hold_first(self, executor)
        lost.append(executor.submit(square, 2))

        def after(**rule):
            return [executor.with_options(after=[{"job": each, **rule}]).submit(square, 3) for each in lost]

        cancelled, failed, runs = [*after(), *after(on_failure="cancel")], after(on_failure="fail"), after(on_failure="run")
        self.assertTrue(lost[2].cancel())
        gate.set()
        self.until(lambda: all(call.done() for call in cancelled))
        self.assertTrue(all(call.cancelled() for call in cancelled))
        for call in failed:
            error = call.exception(PATIENCE_S)
            self.assertEqual((type(error), error.kind), (trine.JobError, "dependency"))
        self.assertEqual([call.result(PATIENCE_S) for call in runs], [9] * 3)
        self.assertEqual(executor.submit(square, 4).result(PATIENCE_S), 16)

    def test_after_a_call_of_another_executor(self):
        executor = self.executor()
        other = self.executor(bound="io", executor="threads")
        gate, first = hold_first(self, other)
        second = executor.with_options(after=[first]).submit(square, 3)
        self.assertEqual(executor.submit(square, 4).result(PATIENCE_S), 16)  # it holds up none of the others
        self.assertIsNone(second.job_id)
        gate.set()
        self.assertEqual(second.result(PATIENCE_S), 9)
        self.assertEqual(self.parents(second), {first.job_id})

    def test_what_waits_for_another_call_can_be_cancelled(self):
        executor, other = self.executor(), self.executor()
        gate, first = hold_first(self, other)
        calls = [executor.with_options(after=[first]).submit(square, n) for n in range(3)]
        self.assertTrue(calls[0].cancel())
        self.in_time(executor.shutdown, cancel_futures=True)
        self.assertTrue(all(call.cancelled() for call in calls))
        gate.set()
        self.assertEqual(first.result(PATIENCE_S), 1)

    def test_a_batch_that_the_server_has_no_room_for_keeps_the_order(self):
        executor = self.executor()
        answers = []

        def full(make, request):
            answers.append(request)
            if len(answers) < 3:
                raise trine.ProblemError(429, "about:blank", "Too Many Requests", "", retry_after=0.01)
            return make(request)

        submitting(executor, full)
        first = executor.submit(square, 2)
        second = executor.with_options(after=[first]).submit(square, 3)
        self.assertEqual(second.result(PATIENCE_S), 9)

    def test_what_is_no_job_is_refused(self):
        executor = self.executor()
        for wrong in (None, "0193-no-mapping", {"job": None}, {}, 7):
            with self.subTest(wrong), self.assertRaisesRegex(TypeError, '"after" takes futures'):
                executor.with_options(after=[wrong])
        self.assertRaisesRegex(TypeError, '"after" takes futures', trine.Executor, self.url, after=[None])
        for single in (executor.submit(square, 1), {"job": "0193"}, "0193"):
            with self.subTest(single), self.assertRaisesRegex(TypeError, '"after" takes a list'):
                executor.with_options(after=single)

    def test_the_last_of_a_chain_does_not_keep_the_others(self):
        executor = self.executor()
        last, jobs = executor.submit(square, 1), []
        for _ in range(3):
            last.result(PATIENCE_S)
            jobs.append(last.job_id)
            last = executor.with_options(after=[last]).submit(square, 2)
        last.result(PATIENCE_S)

        def kept():
            gc.collect()
            return [call for call in gc.get_objects() if isinstance(call, Call) and call.id in jobs]

        self.until(lambda: not kept())

    def test_for_asyncio(self):
        async def main():
            async with trine.AsyncExecutor(self.url, executor="processes") as executor:
                first = executor.submit(time.sleep, 0.01)
                second = executor.with_options(after=[first]).submit(square, 3)
                self.assertEqual(await second, 9)
                self.assertEqual(self.parents(second), {first.job_id})

        asyncio.run(main())


if __name__ == "__main__":
    unittest.main()

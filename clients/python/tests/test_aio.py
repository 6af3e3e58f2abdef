"""The client for asyncio against a real server."""

import asyncio
import unittest
import uuid

from harness import ServerTest

import trine
from trine import ProblemError

SLEEP = {"type": "sleep", "ms": 0}


class Jobs(ServerTest, unittest.IsolatedAsyncioTestCase):
    async def asyncSetUp(self):
        self.trine = trine.AsyncClient(self.url)
        self.addAsyncCleanup(self.trine.close)
        self.tags = {"test": str(uuid.uuid4())}

    async def test_tasks_share_a_client(self):
        jobs = await asyncio.gather(
            *(self.trine.submit({"type": "primes", "below": below}, bound="cpu", wait=30) for below in range(10, 60))
        )
        self.assertEqual([job.workload["below"] for job in jobs], list(range(10, 60)))
        self.assertEqual({job.state for job in jobs}, {"succeeded"})

    async def test_many_are_listed_page_by_page(self):
        accepted = await self.trine.submit_many({"workload": SLEEP, "bound": "io", "tags": self.tags} for _ in range(25))
        ids = [job.id for job in accepted]
        self.assertEqual([job.id async for job in self.trine.jobs(tags=self.tags, order="oldest", page_size=10)], ids)
        for job in ids:
            await self.trine.wait(job)
        self.assertEqual(len([result async for result in self.trine.results(tags=self.tags)]), 25)

    async def test_a_key_makes_a_request_that_is_sent_again_be_taken_once(self):
        key, batch = str(uuid.uuid4()), [{"workload": SLEEP, "bound": "io"}]
        jobs = await asyncio.gather(*(self.trine.submit(SLEEP, bound="io", idempotency_key=key) for _ in range(5)))
        self.assertEqual(len({job.id for job in jobs}), 1)
        batches = [await self.trine.submit_many(batch, idempotency_key=f"{key}/many") for _ in range(2)]
        self.assertEqual(batches[0][0].id, batches[1][0].id)
        later = await self.trine.submit(SLEEP, bound="io", delay_ms=600_000, priority=7)
        self.assertEqual((later.state, later.priority), ("scheduled", 7))
        await self.trine.cancel(later.id)

    async def test_a_task_that_is_cancelled_leaves_no_answer_for_the_next(self):
        job = await self.trine.submit({"type": "sleep", "ms": 600_000}, bound="io")
        waiting = asyncio.ensure_future(self.trine.wait(job.id))
        while (await self.trine.get(job.id)).state != "running":
            pass
        waiting.cancel()
        with self.assertRaises(asyncio.CancelledError):
            await waiting
        self.assertEqual((await self.trine.get(job.id)).id, job.id)
        await self.trine.cancel(job.id)
        self.assertEqual((await self.trine.wait(job.id, timeout=60)).state, "cancelled")
        with self.assertRaises(ProblemError):
            await self.trine.cancel(job.id)

    async def test_event_loops_share_a_client(self):
        client = trine.AsyncClient(self.url)

        async def submitted():
            return (await client.submit(SLEEP, bound="io", wait=30)).state

        async def twice():
            self.assertEqual([await submitted() for _ in range(2)], ["succeeded"] * 2)

        for _ in range(2):  # each on a loop that ends with its call
            await asyncio.to_thread(asyncio.run, twice())
        await twice()
        await asyncio.to_thread(asyncio.run, twice())
        await twice()
        await asyncio.to_thread(asyncio.run, client.close())
        await twice()
        await client.close()

    async def test_the_server(self):
        self.assertTrue(await self.trine.healthy())
        self.assertEqual([each["name"] for each in (await self.trine.executors())["items"]], ["async", "threads", "processes"])
        self.assertIn("sleep", [each["name"] for each in await self.trine.workloads()])
        await self.trine.submit(SLEEP, bound="io", wait=10)
        self.assertIn("sleep", [each.workload for each in await self.trine.summary("workload")])
        self.assertEqual(len((await self.trine.cluster())["items"]), 1)

    async def test_limits_that_jobs_share(self):
        limit = {"key": str(uuid.uuid4()), "limit": 1}
        await self.trine.submit(SLEEP, bound="io", wait=10, rate={**limit, "per_ms": 600_000})
        (found,) = [each async for each in self.trine.limits() if each.key == limit["key"]]
        self.assertEqual((found.kind, found.limit, found.started), ("rate", 1, 1))

    async def test_a_comparison(self):
        work = {"type": "primes", "below": 100_000}
        asked = await self.trine.compare(work, bound="cpu", executors=["threads"], concurrency=[1], tasks=4, budget_ms=1000)
        waiting = await self.trine.compare(work, bound="cpu")
        cancelled = await self.trine.cancel_comparison(waiting.id)
        assert cancelled is not None
        self.assertEqual(cancelled.state, "cancelled")
        done = await self.trine.wait_for_comparison(asked.id, 60)
        self.assertEqual(done.state, "finished")
        self.assertEqual(await self.trine.comparison(asked.id), done)
        self.assertIn(asked.id, [each.id async for each in self.trine.comparisons()])

"""The client for asyncio against a real server."""

import asyncio
import unittest

from harness import ServerTest, begun, until

import trine
from trine import ProblemError

SLEEP = {"type": "sleep", "ms": 0}


class Loops(ServerTest, unittest.IsolatedAsyncioTestCase):
    async def asyncSetUp(self):
        self.trine = trine.AsyncClient(self.url)
        self.addAsyncCleanup(self.trine.close)

    async def test_tasks_share_a_client(self):
        jobs = await asyncio.gather(
            *(self.trine.submit({"type": "primes", "below": below}, bound="cpu", wait=30) for below in range(10, 60))
        )
        self.assertEqual([job.workload["below"] for job in jobs], list(range(10, 60)))
        self.assertEqual({job.state for job in jobs}, {"succeeded"})

    async def test_one_key_at_once_is_one_job(self):
        jobs = await asyncio.gather(*(self.trine.submit(SLEEP, bound="io", idempotency_key="at-once") for _ in range(5)))
        self.assertEqual(len({job.id for job in jobs}), 1)

    async def test_a_task_that_is_cancelled_leaves_no_answer_for_the_next(self):
        job = await self.trine.submit({"type": "sleep", "ms": 600_000}, bound="io")
        waiting = asyncio.ensure_future(self.trine.wait(job.id))
        await until(lambda: begun(self.trine, job))
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

"""The executor for asyncio against a real server."""

import asyncio
import gc
import signal
import threading
import time
import unittest

from harness import PATIENCE_S, Server, ServerTest, square

import trine


class Calls(ServerTest, unittest.IsolatedAsyncioTestCase):
    async def asyncSetUp(self):
        self.trine = trine.AsyncExecutor(self.url, executor="processes")
        self.addAsyncCleanup(self.trine.shutdown, cancel_futures=True)

    async def test_values_and_exceptions(self):
        self.assertEqual(await self.trine.submit(square, 3), 9)
        with self.assertRaises(ZeroDivisionError) as caught:
            await self.trine.submit(divmod, 1, 0)
        self.assertIsInstance(caught.exception.__cause__, trine.RemoteTraceback)
        self.assertEqual(await asyncio.gather(*(self.trine.submit(square, n) for n in range(100))), [n * n for n in range(100)])

    async def test_a_stop_iteration_is_the_cause_of_what_is_raised(self):
        with self.assertRaises(RuntimeError) as caught:
            await asyncio.wait_for(self.trine.submit(next, iter([])), PATIENCE_S)
        self.assertIsInstance(caught.exception.__cause__, StopIteration)

    async def test_a_future_knows_its_job(self):
        future = self.trine.submit(square, 3)
        self.assertIsNone(future.timing)
        self.assertEqual(await future, 9)
        self.assertGreaterEqual(future.timing.wall_us, 0)
        async with trine.AsyncClient(self.url) as client:
            self.assertEqual((await client.result(future.job_id)).timing, future.timing)

    async def test_calls_have_options_of_their_own(self):
        async with trine.AsyncClient(self.url) as client:
            async with self.trine.with_options(priority=5, tags={"kind": "urgent"}) as urgent:
                self.assertEqual([value async for value in urgent.map(square, range(20))], [n * n for n in range(20)])
                future = urgent.submit(square, 3)
            self.assertEqual(await future, 9)
            job = await client.get(future.job_id)
            self.assertEqual((job.priority, job.tags["kind"]), (5, "urgent"))
            with self.assertRaises(RuntimeError):
                urgent.submit(square, 3)
            self.assertEqual(await self.trine.submit(square, 3), 9)

    async def test_map(self):
        self.assertEqual([value async for value in self.trine.map(square, range(50), buffersize=4)], [n * n for n in range(50)])
        values = self.trine.map(divmod, [1, 1], [1, 0])
        self.assertEqual(await values.__anext__(), (1, 0))
        with self.assertRaises(ZeroDivisionError):
            await values.__anext__()

    async def test_as_completed(self):
        futures = [self.trine.submit(square, n) for n in range(50)]
        done = [future async for future in self.trine.as_completed(futures)]
        self.assertEqual(set(done), set(futures))
        self.assertTrue(all(future.done() for future in done))

    async def test_a_task_that_is_cancelled_cancels_its_job_also_while_it_runs(self):
        async with trine.AsyncClient(self.url) as client, trine.AsyncExecutor(self.url, executor="processes") as executor:

            async def call():
                await executor.submit(time.sleep, 600)

            task = asyncio.ensure_future(call())
            running = None
            tags = {"trine-executor": executor._engine._jobs.name}
            while running is None:
                running = next(iter([job async for job in client.jobs(tags=tags, state="running")]), None)
            task.cancel()
            with self.assertRaises(asyncio.CancelledError):
                await task
            self.assertEqual((await client.wait(running.id, timeout=PATIENCE_S)).state, "cancelled")

    async def test_a_task_that_is_cancelled_while_the_server_is_away_cancels_its_job(self):
        server = self.opened(Server())
        async with trine.AsyncExecutor(server.url, executor="processes") as executor:
            call = executor.submit(time.sleep, 600)
            there = executor._engine
            while not (call.job_id and there._jobs.runs(call.job_id)):
                await asyncio.sleep(0.01)
            server.stop(signal.SIGKILL)
            tried, make = threading.Event(), there._connections.request

            def asked(request):
                try:
                    return make(request)
                finally:
                    if request.method == "DELETE":
                        tried.set()

            there._connections.request = asked
            call.cancel()
            self.assertTrue(await asyncio.to_thread(tried.wait, PATIENCE_S))
            server.start()
            async with trine.AsyncClient(server.url) as client:
                self.assertEqual((await client.wait(call.job_id, timeout=PATIENCE_S)).state, "cancelled")

    async def test_one_that_nobody_has_any_more_ends_with_its_last_call(self):
        executor = trine.AsyncExecutor(self.url, executor="processes").with_options(priority=5)
        engine = executor._engine._engine
        gc.collect()
        first, last = executor.submit(square, 3), executor.submit(square, 4)
        self.assertEqual(await first, 9)
        del executor
        gc.collect()
        self.assertEqual(await last, 16)
        self.in_time(engine.join)

    async def test_the_end_waits_for_all(self):
        async with trine.AsyncExecutor(self.url, executor="processes") as executor:
            futures = [executor.submit(square, n) for n in range(20)]
        self.assertEqual([future.result() for future in futures], [n * n for n in range(20)])
        with self.assertRaises(RuntimeError):
            executor.submit(square, 1)

"""Streams of events and logs against a real server, over connections that break."""

import asyncio
import itertools
import signal
import threading
import unittest
import uuid

from harness import PATIENCE_S, Proxy, Server, ServerTest, with_both

import trine


def labels():
    return {"test": str(uuid.uuid4())}


class Streams(ServerTest):
    def setUp(self):
        self.trine = self.client()

    def test_a_job_from_its_beginning_to_its_end(self):
        job = self.trine.submit({"type": "primes", "below": 1000}, bound="cpu")
        events = list(self.trine.events(job.id))
        self.assertEqual([event.kind for event in events], ["accepted", "running", "finished"])
        self.assertEqual([event.job for event in events], [job.id] * 3)
        ids = [event.id for event in events]
        self.assertEqual(ids, sorted(set(ids)))
        end = events[-1]
        self.assertEqual((end.state, end.output, end.attempt), ("succeeded", {"count": 168}, 1))
        self.assertEqual(end.timing, self.trine.result(job.id).timing)
        self.assertEqual(events[1].executor, job.route.executor)
        self.assertEqual(list(self.trine.events(job.id, after=ids[0])), events[1:])
        self.assertEqual(list(self.trine.events(job.id, after=ids[-1])), [])
        self.assertEqual(list(self.trine.events(job.id, kinds=["running"])), [events[1]])

    def test_a_job_that_there_is_not(self):
        with self.assertRaises(trine.ProblemError):
            next(self.trine.events(str(uuid.uuid4())))

    def test_a_failure_is_told(self):
        job = self.trine.submit({"type": "file", "path": "nowhere", "op": "read"}, bound="io")
        (end,) = self.trine.events(job.id, kinds=["finished"])
        self.assertEqual((end.state, end.error.kind), ("failed", "error"))
        self.assertIn("nowhere", end.error.message)

    def test_many_jobs_over_a_connection_that_breaks_all_the_time(self):
        proxy = self.opened(Proxy(self.url))
        tags = labels()
        first = self.trine.submit({"type": "sleep", "ms": 0}, bound="io", tags=tags, wait=30)
        after = next(self.trine.events(first.id)).id - 1
        jobs = [{"workload": {"type": "sleep", "ms": 0}, "bound": "io", "tags": tags}] * 999
        self.trine.submit_many(jobs)
        whole = list(itertools.islice(self.trine.events(tags=tags, after=after), 3_000))
        proxy.cut_after = 3_000
        broken = list(itertools.islice(self.client(proxy.url).events(tags=tags, after=after), 3_000))
        self.assertGreater(proxy.cuts, 100)
        self.assertEqual(broken, whole)
        self.assertEqual(len({event.job for event in whole if event.kind == "finished"}), 1_000)

    def test_a_stream_that_breaks_before_its_first_event_misses_none(self):
        proxy = self.opened(Proxy(self.url))
        tags, found = labels(), []
        events = self.client(proxy.url).events(tags=tags, kinds="finished")
        thread = threading.Thread(target=lambda: found.append(next(events)), daemon=True)
        thread.start()
        self.until(lambda: proxy.answers)  # from then on it has a place in the stream
        job = None
        for _ in range(5):
            proxy.cut()
            if job is None:
                job = self.trine.submit({"type": "sleep", "ms": 0}, bound="io", tags=tags, wait=30)
        thread.join(PATIENCE_S)
        self.assertEqual(found[0].job, job.id)

    def test_a_server_that_restarts(self):
        server = self.opened(Server())
        client = self.client(server.url)
        job = client.submit({"type": "sleep", "ms": 600_000}, bound="io")
        events = client.events(job.id)
        self.assertEqual([next(events).kind, next(events).kind], ["accepted", "running"])
        server.stop(signal.SIGKILL)
        server.start()
        self.assertIn(next(events).kind, ("requeued", "retrying", "running"))
        client.cancel(job.id)
        self.assertEqual(list(events)[-1].state, "cancelled")

    def test_logs(self):
        job = self.trine.submit({"type": "sleep", "ms": 0}, bound="io", wait=30)
        self.assertEqual(list(self.trine.logs(job.id)), [])


class AsyncStreams(ServerTest, unittest.IsolatedAsyncioTestCase):
    async def test_streams_at_once(self):
        async with trine.AsyncClient(self.url) as client:
            tags = labels()

            async def follow(job):
                return [event.kind async for event in client.events(job)]

            jobs = [await client.submit({"type": "sleep", "ms": 10}, bound="io", tags=tags) for _ in range(20)]
            for kinds in await asyncio.gather(*(follow(job.id) for job in jobs)):
                self.assertEqual(kinds, ["accepted", "running", "finished"])

    async def test_a_connection_that_breaks(self):
        proxy = self.opened(Proxy(self.url))
        tags = labels()
        async with trine.AsyncClient(self.url) as direct, trine.AsyncClient(proxy.url) as client:
            first = await direct.submit({"type": "sleep", "ms": 0}, bound="io", tags=tags, wait=30)
            after = [event.id async for event in direct.events(first.id)][-1]
            await direct.submit_many([{"workload": {"type": "sleep", "ms": 0}, "bound": "io", "tags": tags}] * 100)
            proxy.cut_after = 3_000
            jobs = []
            async for event in client.events(tags=tags, after=after, kinds=["finished"]):
                jobs.append(event.job)
                if len(jobs) == 100:
                    break
            self.assertEqual(len(set(jobs)), 100)
            self.assertGreater(proxy.cuts, 5)


class Artifacts(ServerTest, unittest.IsolatedAsyncioTestCase):
    @with_both
    async def test_what_a_job_left_behind(self, connect):
        client = connect()
        source = (
            "import trine\ndef main():\n"
            "    (trine.artifacts() / 'a b.bin').write_bytes(bytes(range(256)))\n    (trine.artifacts() / 'empty').touch()\n"
        )
        job = await client.submit({"type": "python", "source": source}, bound="io", wait=30)
        self.assertEqual([(each.name, each.bytes) for each in await client.artifacts(job.id)], [("a b.bin", 256), ("empty", 0)])
        self.assertEqual(await client.artifact(job.id, "a b.bin"), bytes(range(256)))
        self.assertEqual(await client.artifact(job.id, "empty"), b"")
        self.assertEqual(await client.artifacts(job.id, attempt=2), [])
        with self.assertRaises(trine.ProblemError) as refused:
            await client.artifact(job.id, "nothing")
        self.assertEqual(refused.exception.status, 404)

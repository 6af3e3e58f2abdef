"""Calls that are the same with both clients, against a real server."""

import datetime
import io
import signal
import socket
import threading
import time
import traceback
import unittest
import uuid
import zipfile
from pathlib import Path
from unittest import mock

import cloudpickle
from harness import PATIENCE_S, Proxy, Server, ServerTest, Stranger, begun, every, until, with_both

import trine
from trine import ProblemError, _calls

SLEEP = {"type": "sleep", "ms": 0}
NEVER = "0 0 29 2 *"  # but for one day in four years
SOURCE = "def main():\n    return {}\n"
BUSY = {"type": "primes", "below": 300_000}
IDLE = {"type": "sleep", "ms": 20}
KEY = "trine_a_secret"
HOUR = datetime.timedelta(hours=1)


class Tracebacks(ServerTest, unittest.IsolatedAsyncioTestCase):
    @with_both
    async def test_a_key_is_in_no_traceback_nor_what_its_frames_hold(self, connect):
        proxy = self.opened(Proxy(self.url))
        client = connect(proxy.url, key=KEY)
        there = client.client if hasattr(client, "client") else client
        self.assertNotIn(KEY, repr(there._connections.server))
        proxy.cut_answer = True
        raised = []
        for url in (None, "http://127.0.0.1:9"):  # the answer is cut, and nobody listens
            try:
                await (connect(url, key=KEY) if url else client).get("unknown")
            except trine.ServerUnreachable as error:
                raised.append(traceback.TracebackException.from_exception(error, capture_locals=True))
        for each in raised:
            self.assertNotIn(KEY, "".join(each.format()))
        self.assertEqual(len(raised), 2)


class Connecting(ServerTest, unittest.IsolatedAsyncioTestCase):
    @with_both
    async def test_what_went_by_a_connection_that_broke_may_have_arrived(self, connect):
        listener = socket.create_server(("127.0.0.1", 0))

        def answer_once():
            connection, _ = listener.accept()
            connection.recv(1 << 16)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}")
            connection.recv(1 << 16)
            listener.close()
            connection.close()

        answering = threading.Thread(target=answer_once)
        answering.start()
        client = connect(f"http://127.0.0.1:{listener.getsockname()[1]}")
        self.assertEqual(await client.route("job"), {})
        for kind in (trine.ServerUnreachable, trine.NoConnection):
            with self.assertRaises(trine.ServerUnreachable) as caught:
                await client.route("job")
            self.assertIs(type(caught.exception), kind)
        answering.join()


class Jobs(ServerTest, unittest.IsolatedAsyncioTestCase):
    async def submitted(self, client, tags, count, **options):
        jobs = [{"workload": SLEEP, "bound": "io", "tags": tags, **options}] * count
        return [job.id for job in await client.submit_many(job for job in jobs)]  # any iterable will do

    @with_both
    async def test_many_are_accepted_in_their_order_and_listed_page_by_page(self, connect):
        client, tags = connect(), {"test": str(uuid.uuid4())}
        ids = await self.submitted(client, tags, 25)
        self.assertEqual(ids, sorted(set(ids)))
        self.assertEqual([job.id for job in await every(client.jobs(tags=tags, order="oldest", page_size=10))], ids)
        for job in ids:
            await client.wait(job)
        results = await every(client.results(tags=tags, state="succeeded", page_size=10))
        self.assertEqual([result.id for result in results], ids[::-1])

    @with_both
    async def test_a_key_makes_a_request_that_is_sent_again_be_taken_once(self, connect):
        client, key = connect(), str(uuid.uuid4())
        first, again = [await client.submit(SLEEP, bound="io", idempotency_key=key) for _ in range(2)]
        self.assertEqual(again.id, first.id)
        with self.assertRaises(ProblemError) as caught:
            await client.submit(SLEEP, bound="cpu", idempotency_key=key)
        self.assertTrue(caught.exception.names("idempotency-key-reused"))
        batch = [{"workload": SLEEP, "bound": "io"}] * 3
        keys = [str(uuid.uuid4()) for _ in range(2)]
        first, again, other = [
            [job.id for job in await client.submit_many(batch, idempotency_key=key)] for key in (keys[0], keys[0], keys[1])
        ]
        self.assertEqual(again, first)
        self.assertFalse(set(other) & set(first))
        for wrong in ("", "two words", "a\r\nHost: b", "x" * 256):
            with self.assertRaisesRegex(ValueError, "idempotency key"):
                await client.submit(SLEEP, bound="io", idempotency_key=wrong)

    @with_both
    async def test_all_that_pass_a_filter_are_cancelled_and_run_again(self, connect):
        client = connect()
        tags, others = ({"test": str(uuid.uuid4())} for _ in range(2))
        begin = datetime.datetime.now(datetime.timezone.utc)
        jobs = await self.submitted(client, tags, 5, delay_ms=600_000)
        (other,) = await self.submitted(client, others, 1, delay_ms=600_000)
        running = await client.submit({"type": "sleep", "ms": 600_000}, bound="io", tags=tags)
        await until(lambda: begun(client, running))
        self.assertEqual(await client.cancel_many(tags=tags, until=begin), trine.Cancelled(0, 0))
        self.assertEqual(await client.cancel_many(tags=tags, since=begin), trine.Cancelled(5, 1))
        await client.wait(running.id, PATIENCE_S)
        self.assertEqual((await client.get(other)).state, "scheduled")
        self.assertEqual(await client.retry_many(tags=tags), trine.Retried(0, False))
        self.assertEqual(await client.retry_many(tags=tags, state=["cancelled", "lost"], since=begin), trine.Retried(6, False))
        for job in jobs:
            self.assertEqual((await client.wait(job, PATIENCE_S)).state, "succeeded")
        self.assertEqual(await client.cancel_many(tags=tags), trine.Cancelled(0, 1))
        self.assertEqual(await client.cancel_many(tags=others), trine.Cancelled(1, 0))

    @with_both
    async def test_a_wait_may_be_for_ever_and_asks_for_a_minute_at_a_time(self, connect):
        client = connect()
        job = await client.submit(SLEEP, bound="io", wait=float("inf"))
        self.assertEqual((await client.wait(job.id, float("inf"))).state, "succeeded")
        for call in (_calls.get(job.id, 86_400), _calls.comparison("any", 86_400), _calls.submit({}, 86_400, None)):
            self.assertEqual(call.request.patience, 60)

    @with_both
    async def test_what_a_silent_server_may_have_done_is_not_asked_for_again(self, connect):
        proxy = self.opened(Proxy(self.url))
        client, direct = connect(proxy.url, timeout=1), connect()
        job = await direct.submit(SLEEP, bound="io", delay_ms=600_000)
        self.assertTrue(await client.healthy())  # its connection is kept
        proxy.lose_answer = True
        with self.assertRaises(trine.ServerSilent):
            await client.cancel(job.id)
        self.assertEqual((await direct.get(job.id)).state, "cancelled")

    @with_both
    async def test_what_failed_is_run_again(self, connect):
        client = connect()
        tags = {"test": str(uuid.uuid4())}
        late = await client.submit({"type": "sleep", "ms": 60_000}, bound="io", tags=tags, deadline_ms=1, wait=10)
        self.assertEqual(late.error.kind, "timeout")
        self.assertEqual(await client.retry_many(tags=tags, error="panic"), trine.Retried(0, False))
        self.assertEqual(await client.retry_many(tags=tags, error="timeout"), trine.Retried(1, False))
        await client.wait(late.id, PATIENCE_S)

    @with_both
    async def test_really_all_jobs(self, connect):
        server = self.opened(Server())
        client = connect(server.url)
        await self.submitted(client, {}, 3, delay_ms=600_000)
        for refused in (client.cancel_many, client.retry_many):
            with self.assertRaisesRegex(ProblemError, "needs a condition"):
                await refused()
        self.assertEqual(await client.cancel_many(all=True), trine.Cancelled(3, 0))
        self.assertEqual(await client.retry_many(all=True), trine.Retried(0, False))

    @with_both
    async def test_who_waits_keeps_to_the_time(self, connect):
        client = connect()
        job = await client.submit({"type": "sleep", "ms": 600_000}, bound="io")
        self.assertEqual(_calls.get(job.id, 0.2).request.query, {"wait": 0.2})
        begin = time.monotonic()
        with self.assertRaisesRegex(TimeoutError, "is still"):
            await client.wait(job.id, 0.2)
        self.assertGreaterEqual(time.monotonic() - begin, 0.2)
        await client.cancel(job.id)

    @with_both
    async def test_who_waits_puts_up_with_a_server_that_restarts(self, connect):
        server = self.opened(Server())
        client = connect(server.url)
        job = await client.submit(SLEEP, bound="io", delay_ms=600_000)

        def restart():
            server.stop(signal.SIGKILL)
            server.start()
            self.client(server.url).cancel(job.id)

        restarting = threading.Thread(target=restart)
        restarting.start()
        self.assertEqual((await client.wait(job.id, PATIENCE_S)).state, "cancelled")
        restarting.join()

    @with_both
    async def test_filters_that_make_no_sense(self, connect):
        client = connect()
        with self.assertRaises(ProblemError) as caught:
            await client.cancel_many(state="succeeded")
        self.assertEqual(caught.exception.pointer, "/state")
        with self.assertRaises(ProblemError) as caught:
            await client.retry_many(tags={"one": "label", "another": "one"}, error="none")
        self.assertEqual(caught.exception.pointer, "/error")

    @with_both
    async def test_a_result_is_removed(self, connect):
        client = connect()
        job = await client.submit(SLEEP, bound="io", delay_ms=600_000)
        with self.assertRaises(ProblemError) as caught:
            await client.delete_result(job.id)
        self.assertTrue(caught.exception.names("not-finished"))
        await client.cancel(job.id)
        self.assertIsNone(await client.delete_result(job.id))
        with self.assertRaises(ProblemError) as caught:
            await client.get(job.id)
        self.assertTrue(caught.exception.names("unknown-job"))


class Nodes(ServerTest, unittest.IsolatedAsyncioTestCase):
    @with_both
    async def test_figures_and_lists(self, connect):
        client = connect()
        await client.submit(SLEEP, bound="io", wait=10)
        figures = await client.summary(["workload"], state=["succeeded", "failed"])
        (sleep,) = [item for item in figures if item.workload == "sleep"]
        self.assertGreater(sleep.count, 0)
        self.assertGreaterEqual(sleep.wall_us.p99, sleep.wall_us.p50)
        self.assertIn("sleep", [item.workload for item in await client.summary("workload")])
        self.assertIn("sleep", [workload["name"] for workload in await client.workloads()])
        self.assertEqual([each["name"] for each in (await client.executors())["items"]], ["async", "threads", "processes"])
        self.assertTrue(await client.healthy())

    @with_both
    async def test_limits_that_jobs_share(self, connect):
        client, key = connect(), str(uuid.uuid4())
        shared = {"concurrency": {"key": key, "limit": 1}, "rate": {"key": key, "limit": 1, "per_ms": 600_000}}
        first = await client.submit({"type": "sleep", "ms": 600_000}, bound="io", **shared)
        second = await client.submit(SLEEP, bound="io", **shared)
        await until(lambda: begun(client, first))
        found = {limit.kind: limit for limit in await every(client.limits(page_size=1)) if limit.key == key}
        running, rate = found["concurrency"], found["rate"]
        self.assertEqual((running.limit, running.running, running.waiting, running.opens_at), (1, 1, 1, None))
        self.assertEqual((rate.limit, rate.started, rate.per_ms), (1, 1, 600_000))
        self.assertGreater(rate.opens_at, datetime.datetime.now(datetime.timezone.utc))
        for job in (first, second):
            await client.cancel(job.id)

    @with_both
    async def test_the_cluster(self, connect):
        (node,) = (await connect().cluster())["items"]
        self.assertTrue(node["self"])

    @with_both
    async def test_a_node_is_drained_and_resumed(self, connect):
        server = self.opened(Server("--node", "the-one"))
        client = connect(server.url)
        (node,) = (await client.drain_node("the-one"))["items"]
        self.assertIn(node["state"], ("draining", "drained"))
        self.assertEqual((await client.healthy(), await client.alive()), (False, True))
        self.assertIn("drain", (await client.trouble()).detail)
        (node,) = (await client.resume_node("the-one"))["items"]
        self.assertEqual((node["state"], await client.healthy(), await client.alive()), ("up", True, True))
        self.assertIsNone(await client.trouble())
        for switch in (client.drain_node, client.resume_node):
            with self.assertRaises(ProblemError) as caught:
                await switch("another")
            self.assertTrue(caught.exception.names("unknown-node"))

    @with_both
    async def test_a_server_that_is_not_trines(self, connect):
        stranger = self.opened(Stranger())
        client = connect(stranger.url)
        for asked in (client.submit(SLEEP, bound="io"), client.get("x"), client.workloads(), client.quota()):
            with self.assertRaisesRegex(trine.Malformed, r"\(text/html\) is not what the API says"):
                await asked

    @with_both
    async def test_a_server_that_is_gone(self, connect):
        server = self.opened(Server())
        server.stop()
        client = connect(server.url)
        self.assertEqual((await client.healthy(), await client.alive()), (False, False))
        self.assertIsInstance(await client.trouble(), trine.NoConnection)

    @with_both
    async def test_the_server_tells_of_its_interpreters_and_its_sandbox(self, connect):
        told = await connect().executors()
        self.assertEqual(told["python"]["interpreters"][0]["cloudpickle"], cloudpickle.__version__)
        self.assertEqual((told["sandbox"]["mode"], told["quarantined"]), ("on", []))


async def summed(client):
    items = (await client.what_if(workload="sleep")).items
    return sum(item.runs for item in items) == 30


class Profiles(ServerTest, unittest.IsolatedAsyncioTestCase):
    async def asyncSetUp(self):
        self.server = self.opened(Server())
        async with trine.AsyncClient(self.server.url) as client:
            for work, bound in ((IDLE, "cpu"), (BUSY, "io")):
                for job in await client.submit_many([{"workload": work, "bound": bound}] * 30):
                    await client.wait(job.id, PATIENCE_S)
            # The sums of the days are written once a second.
            await until(lambda: summed(client))

    @with_both
    async def test_what_was_learned(self, connect):
        client = connect(self.server.url)
        self.assertEqual([each.workload for each in await every(client.profiles(page_size=1))], ["primes", "sleep"])
        (listed,) = await every(client.profiles(workload="primes", observed="cpu"))
        self.assertEqual(await every(client.profiles(workload="primes", executor="processes")), [])
        with self.assertRaises(ProblemError):
            await every(client.profiles(observed="magic"))
        profile = await client.profile(listed.key)
        self.assertEqual(profile, listed)
        self.assertEqual((profile.workload, profile.runs, profile.form), ("primes", 30, "blocking"))
        self.assertEqual((profile.learned.observed, profile.learned.runs), ("cpu", 30))
        (runs,) = profile.executors
        self.assertEqual((runs.executor, runs.runs, runs.failures, runs.tagged), ("threads", 30, {}, {"io": 30}))
        self.assertGreaterEqual(runs.wall_us.p99, runs.wall_us.p50)
        self.assertIsNone(runs.longest_poll_us)
        self.assertLessEqual(runs.since, runs.until)
        with self.assertRaises(ProblemError) as caught:
            await client.profile("of no/workload")
        self.assertTrue(caught.exception.names("unknown-profile"))

    @with_both
    async def test_what_speaks_against_it(self, connect):
        client = connect(self.server.url)
        (finding,) = await client.findings(kind="computes", workload="primes", executor="threads")
        self.assertEqual((finding.kind, finding.workload, finding.executor), ("computes", "primes", "threads"))
        self.assertLessEqual(finding.jobs, finding.of)
        self.assertIn("cpu", finding.advice)
        self.assertEqual((await client.profile(finding.key)).findings, (finding,))
        self.assertIn(finding, await client.findings())
        self.assertEqual(await client.findings(kind="memory"), [])
        with self.assertRaises(ProblemError):
            await client.findings(kind="magic")

    @with_both
    async def test_what_would_have_changed(self, connect):
        now = datetime.datetime.now(datetime.timezone.utc)
        client = connect(self.server.url)
        found = await client.what_if(workload="sleep")
        self.assertGreater(found.until - found.since, datetime.timedelta(days=6))
        (item,) = found.items
        self.assertEqual((item.bound, item.executor, item.observed, item.runs), ("cpu", "threads", "io", 30))
        self.assertEqual((await client.profile(item.key)).workload, "sleep")
        self.assertEqual((item.rule, item.gain_slot_us), ("measured_io", item.wall_us - item.cpu_us))
        earlier = await client.what_if(since=now - 240 * HOUR, until=now - 48 * HOUR)
        self.assertEqual((earlier.items, earlier.held_runs, earlier.held_us), ((), 0, 0))
        with self.assertRaises(ProblemError):
            await client.what_if(since=now, until=now - 48 * HOUR)


class Events(ServerTest, unittest.IsolatedAsyncioTestCase):
    @with_both
    async def test_those_of_a_job_that_was_run_again_in_the_smallest_pieces(self, connect):
        client = connect()
        job = await client.submit(SLEEP, bound="io", wait=PATIENCE_S)
        await client.retry(job.id)
        await client.wait(job.id, PATIENCE_S)
        with mock.patch("trine._connections.RECEIVE", 1), mock.patch("trine._aio_connections.RECEIVE", 1):
            kinds = [event.kind for event in await every(client.events(job.id))]
        self.assertEqual(kinds, ["accepted", "running", "finished", "requeued", "running", "finished"])


class Comparisons(ServerTest, unittest.IsolatedAsyncioTestCase):
    @with_both
    async def test_from_its_beginning_to_its_end(self, connect):
        client, work = connect(), {"type": "primes", "below": 100_000}
        asked = await client.compare(work, bound="cpu", executors=["threads"], concurrency=[1], tasks=4, budget_ms=1000)
        self.assertIn(asked.state, ("queued", "running"))
        waiting = await client.compare(work, bound="cpu")
        self.assertEqual((await client.cancel_comparison(waiting.id)).state, "cancelled")
        with self.assertRaisesRegex(TimeoutError, asked.id):
            await client.wait_for_comparison(asked.id, 0)
        done = await client.wait_for_comparison(asked.id, PATIENCE_S)
        self.assertEqual((done.state, done.error, done.bound, done.finished), ("finished", None, "cpu", True))
        self.assertEqual([(row["executor"], row["concurrency"]) for row in done.matrix], [("threads", 1)])
        self.assertTrue(done.verdict.because)
        self.assertEqual(await client.comparison(asked.id, wait=1), done)
        self.assertEqual([each.id for each in await every(client.comparisons(page_size=1))][:2], [waiting.id, asked.id])
        self.assertIsNone(await client.cancel_comparison(waiting.id))
        self.assertEqual((await every(client.comparisons()))[0].id, asked.id)

    @with_both
    async def test_its_charts_and_its_report(self, connect):
        client = connect()
        asked = await client.compare(BUSY, bound="cpu", executors=["threads"], concurrency=[1, 2], tasks=4, budget_ms=1000)
        for refused in (client.comparison_chart, client.comparison_report):
            with self.assertRaises(ProblemError) as caught:
                await refused(asked.id)
            self.assertTrue(caught.exception.names("no-report"))
        await client.wait_for_comparison(asked.id, PATIENCE_S)
        svg = await client.comparison_chart(asked.id)
        self.assertTrue(svg.startswith(b"<svg"), svg[:40])
        self.assertNotEqual(await client.comparison_chart(asked.id, of="latency"), svg)
        png = await client.comparison_chart(asked.id, of="speedup", format="png")
        self.assertTrue(png.startswith(b"\x89PNG"), png[:40])
        report = await client.comparison_report(asked.id)
        self.assertTrue(report.startswith("<!doctype html>"), report[:40])
        self.assertIn("<svg", report)


class Arguments(ServerTest, unittest.IsolatedAsyncioTestCase):
    @with_both
    async def test_what_makes_no_sense_is_refused_here(self, connect):
        client = connect()
        for code, kind, why in ((SOURCE.encode(), ValueError, "no zip"), (Path(__file__), TypeError, "of the type PosixPath")):
            with self.assertRaisesRegex(kind, why):
                await client.put_function("f", code)
        with self.assertRaisesRegex(ValueError, "no state is named"):
            await client.cancel_many(state=[])
        with self.assertRaisesRegex(TypeError, "a moment is a datetime, not '2026"):
            await every(client.jobs(since="2026-11-30T00:00:00Z"))


class Functions(ServerTest, unittest.IsolatedAsyncioTestCase):
    @with_both
    async def test_its_versions(self, connect):
        client = connect()
        name = f"f-{uuid.uuid4().hex[:8]}"
        first = await client.put_function(name, SOURCE, bound="io")
        second = await client.put_function(name, SOURCE.replace("{}", "[]"), bound="io")
        self.assertEqual((second.latest, (await client.function(name, first.version[:8])).latest), (True, False))
        self.assertEqual(await client.function_code(name, first.version), SOURCE)
        again = await client.redeploy_function(name, first.version)
        self.assertEqual((again.version, again.latest, again.created_at), (first.version, True, first.created_at))
        self.assertGreater(again.deployed_at, second.deployed_at)
        self.assertEqual((await client.function(name)).version, first.version)
        self.assertEqual((await client.function(name, second.version)).version, second.version)
        for call in (client.function, client.function_code, client.redeploy_function):
            with self.assertRaises(ProblemError) as caught:
                await call(name, "0" * 64)
            self.assertTrue(caught.exception.names("unknown-function"))
        zipped = io.BytesIO()
        with zipfile.ZipFile(zipped, "w") as file:
            file.writestr("main.py", SOURCE)
        third = await client.put_function(name, zipped.getvalue(), bound="io")
        self.assertEqual(await client.function_code(name, third.version), zipped.getvalue())
        await client.delete_function(name)


class Schedules(ServerTest, unittest.IsolatedAsyncioTestCase):
    @with_both
    async def test_one_is_created_but_not_replaced(self, connect):
        client = connect()
        name = f"s-{uuid.uuid4().hex[:8]}"
        made = await client.put_schedule(name, NEVER, SLEEP, bound="io", replace=False)
        self.assertEqual((made.name, made.cron), (name, NEVER))
        with self.assertRaises(ProblemError) as caught:
            await client.put_schedule(name, NEVER, SLEEP, bound="io", replace=False)
        self.assertTrue(caught.exception.names("schedule-exists"))
        await client.delete_schedule(name)


class Keys(ServerTest, unittest.IsolatedAsyncioTestCase):
    async def asyncSetUp(self):
        self.server = self.opened(Server())
        async with trine.AsyncClient(self.server.url) as client:
            self.admin = await client.create_key("admin", ["admin"])

    @with_both
    async def test_from_its_creation_to_its_end(self, connect):
        client = connect(self.server.url, key=self.admin.key)
        end = datetime.datetime.now(datetime.timezone.utc) + HOUR
        made = await client.create_key("ci", ["submit", "read"], expires_at=end, quota={"queued": 7, "running": None})
        self.assertEqual((made.name, made.scopes, made.state, made.owner), ("ci", ("submit", "read"), "live", made.id))
        self.assertEqual((made.quota, made.expires_at, made.revoked_at), ({"queued": 7}, end, None))
        self.assertIn(made.id, made.key)
        self.assertNotIn(made.key, repr(made))
        known = await client.key(made.id)
        self.assertEqual((type(known), known.created_at, known.quota), (trine.Key, made.created_at, made.quota))
        keys = await client.keys()
        self.assertEqual((keys[0].id, keys[-1]), (self.admin.id, known))

        changed = await client.put_key_quota(made.id, running=3, bytes=1000)
        self.assertEqual(changed.quota, {"running": 3, "bytes": 1000})
        rotated = await client.rotate_key(made.id, grace_seconds=60)
        self.assertEqual((rotated.owner, rotated.scopes, rotated.quota), (made.id, made.scopes, changed.quota))
        self.assertNotEqual(rotated.key, made.key)
        self.assertLess((await client.key(made.id)).expires_at, end)
        revoked = await client.revoke_key(rotated.id)
        self.assertEqual((revoked.state, (await client.key(rotated.id)).state), ("revoked", "revoked"))
        self.assertIsNotNone(revoked.revoked_at)
        with self.assertRaises(ProblemError) as caught:
            await client.create_key("ci", ["fly"])
        self.assertTrue(caught.exception.names("invalid-key"))
        for call in (client.key, client.rotate_key, client.revoke_key, client.put_key_quota, client.quota):
            with self.assertRaises(ProblemError) as caught:
                await call("0" * 12)
            self.assertTrue(caught.exception.names("unknown-key"))

    @with_both
    async def test_how_much_of_a_quota_is_used(self, connect):
        admin = connect(self.server.url, key=self.admin.key)
        made = await admin.create_key("ci", ["submit"], quota={"queued": 7, "per_minute": 600})
        client = connect(self.server.url, key=made.key)
        await client.submit(SLEEP, bound="io", delay_ms=600_000)
        own = await client.quota()
        self.assertEqual((own.queued.most, own.running), (7, trine.QuotaPart(0)))
        self.assertEqual((own.queued.used, own.per_minute), (1, trine.QuotaPart(1, 600)))
        self.assertGreater(own.bytes.used, 0)
        self.assertEqual((await admin.quota(made.id)).queued, own.queued)
        with self.assertRaises(ProblemError) as caught:
            await client.keys()
        self.assertEqual(caught.exception.status, 403)
        with self.assertRaises(ProblemError):
            await admin.quota()

    @with_both
    async def test_what_there_is_no_quota_left_to_run_again_is_told(self, connect):
        admin = connect(self.server.url, key=self.admin.key)
        made = await admin.create_key("ci", ["submit", "read", "cancel"], quota={"per_minute": 6})
        client = connect(self.server.url, key=made.key)
        for _ in range(4):
            await client.submit(SLEEP, bound="io", delay_ms=600_000)
        self.assertEqual(await client.cancel_many(all=True), trine.Cancelled(4, 0))
        # A minute brings six, so one may have come back meanwhile.
        self.assertIn(await client.retry_many(state="cancelled"), (trine.Retried(2, True), trine.Retried(3, True)))

    @with_both
    async def test_what_administrators_did(self, connect):
        client = connect(self.server.url, key=self.admin.key)
        made = await client.create_key("ci", ["read"])
        await client.revoke_key(made.id)
        last, before, *_, first = await every(client.audit(page_size=1))
        self.assertEqual((last.operation, last.target, last.status), ("revokeKey", f"/keys/{made.id}", 200))
        self.assertEqual((before.operation, before.target, before.status), ("createKey", "/keys", 201))
        self.assertEqual((first.operation, first.key, last.key), ("createKey", None, self.admin.id))
        self.assertGreater(last.at, before.at)


if __name__ == "__main__":
    unittest.main()

"""Calls that are the same with both clients, against a real server."""

import datetime
import unittest
import uuid

from harness import PATIENCE_S, BothTest, Server

import trine
from trine import ProblemError

SLEEP = {"type": "sleep", "ms": 0}
NEVER = "0 0 29 2 *"  # but for one day in four years
SOURCE = "def main():\n    return {}\n"
BUSY = {"type": "primes", "below": 300_000}
HOUR = datetime.timedelta(hours=1)


async def every(items):
    return [item async for item in items]


class Jobs(BothTest):
    async def is_in(self, client, job, state):
        return (await client.get(job)).state == state

    async def submitted(self, client, tags, count, **options):
        jobs = [{"workload": SLEEP, "bound": "io", "tags": tags, **options}] * count
        return [job.id for job in await client.submit_many(jobs)]

    async def test_all_that_pass_a_filter_are_cancelled_and_run_again(self):
        for client in self.both():
            tags, others = ({"test": str(uuid.uuid4())} for _ in range(2))
            begin = datetime.datetime.now(datetime.timezone.utc)
            jobs = await self.submitted(client, tags, 5, delay_ms=600_000)
            (other,) = await self.submitted(client, others, 1, delay_ms=600_000)
            running = await client.submit({"type": "sleep", "ms": 600_000}, bound="io", tags=tags)
            await self.told(self.is_in, client, running.id, "running")
            self.assertEqual(await client.cancel_many(tags=tags, until=begin), trine.Cancelled(0, 0))
            self.assertEqual(await client.cancel_many(tags=tags, since=begin), trine.Cancelled(5, 1))
            await client.wait(running.id, PATIENCE_S)
            self.assertEqual((await client.get(other)).state, "scheduled")
            self.assertEqual(await client.retry_many(tags=tags), 0)
            self.assertEqual(await client.retry_many(tags=tags, state="cancelled", since=begin), 6)
            for job in jobs:
                self.assertEqual((await client.wait(job, PATIENCE_S)).state, "succeeded")
            self.assertEqual(await client.cancel_many(tags=tags), trine.Cancelled(0, 1))
            self.assertEqual(await client.cancel_many(tags=others), trine.Cancelled(1, 0))

    async def test_what_failed_is_run_again(self):
        for client in self.both():
            tags = {"test": str(uuid.uuid4())}
            late = await client.submit({"type": "sleep", "ms": 60_000}, bound="io", tags=tags, deadline_ms=1, wait=10)
            self.assertEqual(late.error.kind, "timeout")
            self.assertEqual(await client.retry_many(tags=tags, error="panic"), 0)
            self.assertEqual(await client.retry_many(tags=tags, error="timeout"), 1)
            await client.wait(late.id, PATIENCE_S)

    async def test_really_all_jobs(self):
        server = Server()
        self.addCleanup(server.close)
        for client in self.both(server.url):
            await self.submitted(client, {}, 3, delay_ms=600_000)
            for refused in (client.cancel_many, client.retry_many):
                with self.assertRaisesRegex(ProblemError, "needs a condition"):
                    await refused()
            self.assertEqual(await client.cancel_many(all=True), trine.Cancelled(3, 0))
            self.assertEqual(await client.retry_many(all=True), 0)

    async def test_filters_that_make_no_sense(self):
        for client in self.both():
            with self.assertRaises(ProblemError) as caught:
                await client.cancel_many(state="succeeded")
            self.assertEqual(caught.exception.pointer, "/state")
            with self.assertRaises(ProblemError) as caught:
                await client.retry_many(tags={"one": "label", "another": "one"})
            self.assertEqual(caught.exception.pointer, "/tag")

    async def test_a_result_is_removed(self):
        for client in self.both():
            job = await client.submit(SLEEP, bound="io", delay_ms=600_000)
            with self.assertRaises(ProblemError) as caught:
                await client.delete_result(job.id)
            self.assertTrue(caught.exception.names("not-finished"))
            await client.cancel(job.id)
            self.assertIsNone(await client.delete_result(job.id))
            with self.assertRaises(ProblemError) as caught:
                await client.get(job.id)
            self.assertTrue(caught.exception.names("unknown-job"))


class Nodes(BothTest):
    async def test_a_node_is_drained_and_resumed(self):
        server = Server("--node", "the-one")
        self.addCleanup(server.close)
        for client in self.both(server.url):
            (node,) = (await client.drain_node("the-one"))["items"]
            self.assertIn(node["state"], ("draining", "drained"))
            self.assertEqual((await client.healthy(), await client.alive()), (False, True))
            (node,) = (await client.resume_node("the-one"))["items"]
            self.assertEqual((node["state"], await client.healthy(), await client.alive()), ("up", True, True))
            for switch in (client.drain_node, client.resume_node):
                with self.assertRaises(ProblemError) as caught:
                    await switch("another")
                self.assertTrue(caught.exception.names("unknown-node"))

    async def test_a_server_that_is_gone(self):
        server = Server()
        self.addCleanup(server.close)
        server.stop()
        for client in self.both(server.url):
            self.assertEqual((await client.healthy(), await client.alive()), (False, False))


class Profiles(BothTest):
    async def asyncSetUp(self):
        self.server = Server()
        self.addCleanup(self.server.close)
        async with trine.AsyncClient(self.server.url) as client:
            for job in await client.submit_many([{"workload": BUSY, "bound": "io", "executor": "async"}] * 30):
                await client.wait(job.id, PATIENCE_S)
            await client.submit(SLEEP, bound="io", wait=10)

            async def is_learned():
                profiles = {each.workload: each.runs for each in await every(client.profiles())}
                return profiles == {"primes": 30, "sleep": 1} and (await client.what_if()).items

            await self.told(is_learned)  # it is written once a second

    async def test_what_was_learned(self):
        for client in self.both(self.server.url):
            self.assertEqual([each.workload for each in await every(client.profiles(page_size=1))], ["primes", "sleep"])
            (listed,) = await every(client.profiles(workload="primes", observed="cpu"))
            self.assertEqual(await every(client.profiles(workload="primes", executor="threads")), [])
            with self.assertRaises(ProblemError):
                await every(client.profiles(observed="magic"))
            profile = await client.profile(listed.key)
            self.assertEqual(profile, listed)
            self.assertEqual((profile.workload, profile.runs, profile.form), ("primes", 30, "blocking"))
            self.assertEqual((profile.learned.observed, profile.learned.runs), ("cpu", 30))
            (runs,) = profile.executors
            self.assertEqual((runs.executor, runs.runs, runs.failures, runs.tagged), ("async", 30, {}, {"io": 30}))
            self.assertGreaterEqual(runs.wall_us.p99, runs.wall_us.p50)
            self.assertGreaterEqual(runs.wall_us.p99, runs.longest_poll_us.p50)
            self.assertLessEqual(runs.since, runs.until)
            with self.assertRaises(ProblemError) as caught:
                await client.profile("of no/workload")
            self.assertTrue(caught.exception.names("unknown-profile"))

    async def test_what_speaks_against_it(self):
        for client in self.both(self.server.url):
            (finding,) = await client.findings(kind="computes", workload="primes", executor="async")
            self.assertEqual((finding.kind, finding.workload, finding.executor), ("computes", "primes", "async"))
            self.assertLessEqual(finding.jobs, finding.of)
            self.assertIn("cpu", finding.advice)
            self.assertEqual((await client.profile(finding.key)).findings[0], finding)
            self.assertIn(finding, await client.findings())
            self.assertEqual(await client.findings(kind="memory"), [])
            with self.assertRaises(ProblemError):
                await client.findings(kind="magic")

    async def test_what_would_have_changed(self):
        now = datetime.datetime.now(datetime.timezone.utc)
        for client in self.both(self.server.url):
            found = await client.what_if(workload="primes")
            self.assertGreater(found.until - found.since, datetime.timedelta(days=6))
            (item,) = found.items
            self.assertEqual((item.bound, item.executor, item.observed, item.runs), ("io", "async", "cpu", 30))
            self.assertEqual((item.would, item.rule), ("threads", "measured_cpu"))
            self.assertEqual((await client.what_if(workload="sleep")).items, ())
            earlier = await client.what_if(since=now - 240 * HOUR, until=now - 48 * HOUR)
            self.assertEqual((earlier.items, earlier.held_runs, earlier.held_us), ((), 0, 0))
            with self.assertRaises(ProblemError):
                await client.what_if(since=now, until=now - 48 * HOUR)


class Comparisons(BothTest):
    async def test_its_charts_and_its_report(self):
        for client in self.both():
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


class Functions(BothTest):
    async def test_its_versions(self):
        for client in self.both():
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
            await client.delete_function(name)


class Schedules(BothTest):
    async def test_one_is_created_but_not_replaced(self):
        for client in self.both():
            name = f"s-{uuid.uuid4().hex[:8]}"
            made = await client.put_schedule(name, NEVER, SLEEP, bound="io", replace=False)
            self.assertEqual((made.name, made.cron), (name, NEVER))
            with self.assertRaises(ProblemError) as caught:
                await client.put_schedule(name, NEVER, SLEEP, bound="io", replace=False)
            self.assertTrue(caught.exception.names("schedule-exists"))
            await client.delete_schedule(name)


class Keys(BothTest):
    async def asyncSetUp(self):
        self.server = Server()
        self.addCleanup(self.server.close)
        async with trine.AsyncClient(self.server.url) as client:
            self.admin = await client.create_key("admin", ["admin"])

    def both_with(self, key):
        return self.both(self.server.url, headers={"Authorization": f"Bearer {key.key}"})

    async def test_from_its_creation_to_its_end(self):
        for client in self.both_with(self.admin):
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

    async def test_how_much_of_a_quota_is_used(self):
        for admin in self.both_with(self.admin):
            made = await admin.create_key("ci", ["submit"], quota={"queued": 7})
            for client in self.both_with(made):
                await client.submit(SLEEP, bound="io", delay_ms=600_000)
                own = await client.quota()
                self.assertEqual((own.queued.most, own.running), (7, trine.QuotaPart(0)))
                self.assertGreater(own.queued.used * own.bytes.used, 0)
                self.assertEqual((await admin.quota(made.id)).queued, own.queued)
                with self.assertRaises(ProblemError) as caught:
                    await client.keys()
                self.assertEqual(caught.exception.status, 403)
            with self.assertRaises(ProblemError):
                await admin.quota()

    async def test_what_administrators_did(self):
        for client in self.both_with(self.admin):
            made = await client.create_key("ci", ["read"])
            await client.revoke_key(made.id)
            last, before, *_, first = await every(client.audit(page_size=1))
            self.assertEqual((last.operation, last.target, last.status), ("revokeKey", f"/keys/{made.id}", 200))
            self.assertEqual((before.operation, before.target, before.status), ("createKey", "/keys", 201))
            self.assertEqual((first.operation, first.key, last.key), ("createKey", None, self.admin.id))
            self.assertGreater(last.at, before.at)


if __name__ == "__main__":
    unittest.main()

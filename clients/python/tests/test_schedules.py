"""Schedules, by both clients against a real server."""

import datetime
import unittest
import uuid

from harness import PATIENCE_S, ServerTest, every, with_both

import trine

SLEEP = {"type": "sleep", "ms": 0}
NEVER = "0 0 29 2 *"  # but for one day in four years


class Schedules(ServerTest, unittest.IsolatedAsyncioTestCase):
    def setUp(self):
        self.name = f"s-{uuid.uuid4().hex[:8]}"

    @with_both
    async def test_from_its_creation_to_its_end(self, connect):
        client = connect()
        made = await client.put_schedule(
            self.name, "30 3 * * *", SLEEP, bound="io", timezone="Asia/Tokyo", catch_up="once", priority=2
        )
        self.assertEqual((made.name, made.cron, made.timezone), (self.name, "30 3 * * *", "Asia/Tokyo"))
        self.assertEqual((made.catch_up, made.overlap, made.paused), ("once", "allow", False))
        self.assertEqual((made.job["workload"], made.job["bound"], made.job["priority"]), (SLEEP, "io", 2))
        at = {due.astimezone(datetime.timezone(datetime.timedelta(hours=9))).strftime("%H:%M") for due in made.next_runs}
        self.assertEqual((len(made.next_runs), at), (5, {"03:30"}))

        replaced = await client.put_schedule(self.name, NEVER, SLEEP, bound="io", overlap="skip")
        self.assertEqual((replaced.cron, replaced.timezone, replaced.overlap), (NEVER, "UTC", "skip"))
        self.assertEqual(replaced.created_at, made.created_at)
        self.assertIn(self.name, [schedule.name for schedule in await every(client.schedules(page_size=1))])

        paused = await client.pause_schedule(self.name)
        self.assertEqual((paused.paused, paused.next_runs), (True, ()))
        job = await client.run_schedule(self.name)
        self.assertEqual((await client.wait(job.id, PATIENCE_S)).state, "succeeded")
        (run,) = (await client.schedule(self.name)).last_runs
        self.assertEqual((run.job, run.outcome, run.by_hand, run.reason), (job.id, "submitted", True, None))
        self.assertIsInstance(run.due_at, datetime.datetime)
        self.assertFalse((await client.resume_schedule(self.name)).paused)

        await client.delete_schedule(self.name)
        with self.assertRaises(trine.ProblemError) as caught:
            await client.schedule(self.name)
        self.assertTrue(caught.exception.names("unknown-schedule"))

    @with_both
    async def test_what_it_refuses(self, connect):
        with self.assertRaises(trine.ProblemError) as caught:
            await connect().put_schedule(self.name, "at noon", SLEEP, bound="io")
        self.assertEqual(caught.exception.pointer, "/cron")


if __name__ == "__main__":
    unittest.main()

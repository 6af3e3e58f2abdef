"""Registered functions, by both clients against a real server."""

import unittest
import uuid

from harness import ServerTest, with_both

import trine

FIRST = "def main(n, by=2):\n    return n * by\n"
SECOND = "def main(n, by=2):\n    return -n * by\n"


class Functions(ServerTest, unittest.IsolatedAsyncioTestCase):
    @with_both
    async def test_from_its_deployment_to_its_end(self, connect):
        client, name = connect(), f"f-{uuid.uuid4().hex[:8]}"
        first = await client.put_function(name, FIRST, bound="io", executor="threads")
        second = await client.put_function(name, SECOND, bound="io", executor="threads")
        self.assertEqual((first.name, first.bound, first.executor), (name, "io", "threads"))
        self.assertNotEqual(first.version, second.version)
        self.assertEqual((await client.function(name)).version, second.version)
        self.assertEqual([of.version for of in await client.function_versions(name)], [second.version, first.version])
        self.assertIn(second.version, [of.version for of in await client.functions()])
        # What the job does not say, the function has declared.
        job = await client.run_function(name, 21, wait=30)
        self.assertEqual((job.state, job.output, job.bound, job.route.executor), ("succeeded", -42, "io", "threads"))
        job = await client.run_function(name, 21, version=first.version[:8], kwargs={"by": 3}, bound="cpu", wait=30)
        self.assertEqual((job.output, job.bound), (63, "cpu"))
        keyed = [await client.run_function(name, 1, idempotency_key=f"{name}/1", tags={"f": name}) for _ in range(2)]
        self.assertEqual((keyed[0].id, keyed[0].tags), (keyed[1].id, {"f": name}))
        await client.delete_function(name)
        with self.assertRaises(trine.ProblemError) as caught:
            await client.function(name)
        self.assertEqual(caught.exception.status, 404)

    @with_both
    async def test_what_a_call_may_use(self, connect):
        client, name = connect(), f"f-{uuid.uuid4().hex[:8]}"
        limits = {"memory_bytes": 1 << 30, "cpu_ms": 10_000, "output_bytes": 4}
        function = await client.put_function(name, FIRST, bound="cpu", executor="processes", **limits)
        self.assertEqual({limit: getattr(function, limit) for limit in limits}, limits)
        self.assertRegex((await client.run_function(name, 10_000, wait=30)).error.message, "the most is 4")
        with self.assertRaises(TypeError):
            await client.put_function(name, FIRST, memory_byte=1 << 30)
        await client.delete_function(name)


if __name__ == "__main__":
    unittest.main()

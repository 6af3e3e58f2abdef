"""Registered functions, by both clients against a real server."""

import asyncio
import unittest
import uuid

from harness import ServerTest

import trine

FIRST = "def main(n, by=2):\n    return n * by\n"
SECOND = "def main(n, by=2):\n    return -n * by\n"


class Functions(ServerTest):
    def test_from_its_deployment_to_its_end(self):
        client, name = self.client(), f"f-{uuid.uuid4().hex[:8]}"
        first = client.put_function(name, FIRST, bound="io", executor="threads")
        second = client.put_function(name, SECOND, bound="io", executor="threads")
        self.assertEqual((first.name, first.bound, first.executor), (name, "io", "threads"))
        self.assertNotEqual(first.version, second.version)
        self.assertEqual(client.function(name).version, second.version)
        self.assertEqual([of.version for of in client.function_versions(name)], [second.version, first.version])
        self.assertIn(second.version, [of.version for of in client.functions()])
        # What the job does not say, the function has declared.
        job = client.run_function(name, 21, wait=30)
        self.assertEqual((job.state, job.output, job.bound, job.route.executor), ("succeeded", -42, "io", "threads"))
        job = client.run_function(name, 21, version=first.version[:8], kwargs={"by": 3}, bound="cpu", wait=30)
        self.assertEqual((job.output, job.bound), (63, "cpu"))
        keyed = [client.run_function(name, 1, idempotency_key=f"{name}/1", tags={"f": name}) for _ in range(2)]
        self.assertEqual((keyed[0].id, keyed[0].tags), (keyed[1].id, {"f": name}))
        client.delete_function(name)
        with self.assertRaises(trine.ProblemError) as caught:
            client.function(name)
        self.assertEqual(caught.exception.status, 404)

    def test_what_a_call_may_use(self):
        client, name = self.client(), f"f-{uuid.uuid4().hex[:8]}"
        self.addCleanup(client.delete_function, name)
        limits = {"memory_bytes": 1 << 30, "cpu_ms": 10_000, "output_bytes": 4}
        function = client.put_function(name, FIRST, bound="cpu", executor="processes", **limits)
        self.assertEqual({limit: getattr(function, limit) for limit in limits}, limits)
        self.assertRegex(client.run_function(name, 10_000, wait=30).error.message, "the most is 4")
        with self.assertRaises(TypeError):
            client.put_function(name, FIRST, memory_byte=1 << 30)

    def test_for_asyncio(self):
        async def main():
            async with trine.AsyncClient(self.url) as client:
                name = f"f-{uuid.uuid4().hex[:8]}"
                deployed = await client.put_function(name, FIRST, bound="cpu")
                self.assertEqual((await client.function(name)).version, deployed.version)
                self.assertEqual(len(await client.function_versions(name)), 1)
                job = await client.run_function(name, 4, wait=30)
                self.assertEqual(job.output, 8)
                await client.delete_function(name)

        asyncio.run(main())


if __name__ == "__main__":
    unittest.main()

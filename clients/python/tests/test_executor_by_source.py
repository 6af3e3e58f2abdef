"""Calls of an executor that travel by source."""

import tempfile
import unittest
import venv

import harness
from harness import PATIENCE_S, Server, ServerTest, hold, square

import trine
from trine import _calls
from trine._outcome import ended_job


def multiply(a, b=2):
    return a * b


def divide(a, b):
    return a / b


def many_digits():
    import sys

    sys.set_int_max_str_digits(0)
    return 10**5000


class BySource(ServerTest):
    def test_a_server_that_takes_no_pickles(self):
        server = Server("--python-pickles", "deny")
        self.addCleanup(server.close)
        with self.executor(server.url) as executor:
            self.assertEqual(list(executor.map(square, range(5))), [0, 1, 4, 9, 16])
            self.assertEqual(list(executor.map(square, range(5), chunksize=2)), [0, 1, 4, 9, 16])
            self.assertIsInstance(executor.submit(square, {1}).exception(PATIENCE_S), trine.CannotTravel)
        with self.executor(server.url) as executor:
            gate, _ = hold(self, executor)  # what can't travel is found out by the thread that sends, for a whole batch
            futures = [executor.submit(square, value) for value in (3, "caf\udce9.txt", [1], 10**5000, 4)]
            gate.set()
            self.assertEqual([futures[at].result(PATIENCE_S) for at in (0, 4)], [9, 16])
            self.assertTrue(all(isinstance(futures[at].exception(PATIENCE_S), trine.CannotTravel) for at in (1, 3)))
            self.assertEqual(executor.submit(square, 5).result(PATIENCE_S), 25)
        with self.executor(server.url, how="pickle") as executor:
            error = executor.submit(square, 1).exception(PATIENCE_S)
            self.assertIn(error.status, (403, 422))

    def test_a_server_that_can_not_read_what_cloudpickle_makes(self):
        with tempfile.TemporaryDirectory(prefix="trine-python-") as home:
            for name, module in (("bare", None), ("old", '__version__ = "0.9.1"')):
                venv.EnvBuilder(symlinks=True).create(f"{home}/{name}")
                if module:
                    (packages,) = harness.pathlib.Path(home, name).glob("lib/python*/site-packages")
                    (packages / "cloudpickle.py").write_text(module)
            server = Server("--python-interpreters", f"bare={home}/bare/bin/python,old={home}/old/bin/python")
            self.addCleanup(server.close)
            told = self.client(server.url)._send(_calls.look("/executors"))["python"]["interpreters"]
            there = [each["cloudpickle"] for each in told]
            self.assertEqual(there, [harness.cloudpickle.__version__, None, "0.9.1"])
            for name, why in (("bare", "has no cloudpickle"), ("old", "has cloudpickle 0.9.1")):
                with self.subTest(name), self.executor(server.url, interpreter=name) as executor:
                    self.assertEqual(list(executor.map(square, range(5))), [0, 1, 4, 9, 16])
                    self.assertEqual(executor.submit(abs, 3 + 4j).result(PATIENCE_S), 5)  # by its name, in a plain pickle
                    for _ in range(2):
                        error = executor.submit(lambda: None).exception(PATIENCE_S)
                        self.assertIsInstance(error, trine.CannotTravel)
                        self.assertRegex(str(error), f"can't travel by source: .*; .*{why}")

    def test_source_if_it_is_asked_for(self):
        with self.executor(how="source") as executor:
            self.assertEqual(executor.submit(multiply, [1], b=2).result(PATIENCE_S), [1, 1])
            error = executor.submit(divide, 1, 0).exception(PATIENCE_S)
            self.assertIs(type(error), ZeroDivisionError)
            self.assertIn("return a / b", str(error.__cause__))

    def test_a_value_that_json_can_not_bring_ends_one_call(self):
        with self.executor(how="source") as executor:
            futures = [executor.submit(many_digits), executor.submit(square, 3)]
            self.assertIsInstance(futures[0].exception(PATIENCE_S), trine.CannotTravel)
            self.assertEqual(futures[1].result(PATIENCE_S), 9)
            self.assertEqual(executor.submit(square, 4).result(PATIENCE_S), 16)
        deep = b'{"job":"one","state":"succeeded","output":' + b"[" * 200_000 + b"]" * 200_000 + b"}"
        job, told = ended_job(deep)
        self.assertEqual((job, type(told)), ("one", trine.CannotTravel))


if __name__ == "__main__":
    unittest.main()

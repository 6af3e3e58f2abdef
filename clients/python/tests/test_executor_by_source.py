"""Calls of an executor that travel by source."""

import errno
import sys
import tempfile
import unittest
import venv

import harness
from harness import PATIENCE_S, Server, ServerTest, hold, square

import trine
from trine._outcome import ended_job


def multiply(a, b=2):
    return a * b


def divide(a, b):
    return a / b


def raise_oserror(name):
    error = FileNotFoundError(2, "No such file or directory", name)
    error.__notes__ = ["while the page was read"]
    error.line = 7
    raise error


def raise_key_error(key):
    raise KeyError(*([key] if key else [(1, 2)] if key is None else ()))


def raise_with_rows(pair):
    error = ValueError("bad rows", [1, {"a": (1, 2) if pair else None}])
    error.rows = {"a": [1]}
    raise error


def raise_own():
    class Mine(Exception):
        pass

    error = Mine("bad")
    error.__notes__ = ["of mine"]
    raise error


def raise_group():
    class Mine(Exception):
        pass

    inner = ExceptionGroup("inner", [OSError(28, "full"), Mine("own")])  # noqa: F821
    inner.add_note("twice")
    raise ExceptionGroup("several (2 sub-exceptions)", [ValueError("one"), inner])  # noqa: F821


def raise_empty():
    raise ValueError


def leave(code):
    raise SystemExit(code)


def import_nothing():
    import nowhere_at_all  # noqa: F401


def many_digits():
    import sys

    sys.set_int_max_str_digits(0)
    return 10**5000


class BySource(ServerTest):
    def test_a_server_that_takes_no_pickles(self):
        server = self.opened(Server("--python-pickles", "deny"))
        with self.executor(server.url) as executor, self.assertLogs("trine", "WARNING") as logged:
            self.assertEqual(list(executor.map(square, range(5))), [0, 1, 4, 9, 16])
            self.assertEqual(list(executor.map(square, range(5), chunksize=2)), [0, 1, 4, 9, 16])
            with self.assertRaisesRegex(trine.CannotTravel, "argument 1 of square .*; by pickle, where .* python_pickles"):
                executor.submit(square, {1}).result(PATIENCE_S)
        [told] = logged.output  # once
        self.assertRegex(told, "travel by source here, .* no tuples: the server takes no pickles")
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
            for name, module in (("bare", None), ("old", '__version__ = "0.9.1"'), ("new", '__version__ = "9.0"')):
                venv.EnvBuilder(symlinks=True).create(f"{home}/{name}")
                if module:
                    (packages,) = harness.pathlib.Path(home, name).glob("lib/python*/site-packages")
                    (packages / "cloudpickle.py").write_text(module)
            interpreters = ",".join(f"{name}={home}/{name}/bin/python" for name in ("bare", "old", "new"))
            server = self.opened(Server("--python-interpreters", interpreters))
            told = self.client(server.url).executors()["python"]["interpreters"]
            there = [each["cloudpickle"] for each in told]
            self.assertEqual(there, [harness.cloudpickle.__version__, None, "0.9.1", "9.0"])
            for name, why in (("bare", "no cloudpickle"), ("old", "cloudpickle 0.9.1, and"), ("new", "cloudpickle 9.0, and")):
                why += ".*; interpreter='python' names one that suits$"
                logs = self.assertLogs("trine", "WARNING")
                with self.subTest(name), self.executor(server.url, interpreter=name) as executor, logs as logged:
                    self.assertEqual(list(executor.map(square, range(5))), [0, 1, 4, 9, 16])
                    self.assertEqual(executor.submit(abs, 3 + 4j).result(PATIENCE_S), 5)  # by its name, in a plain pickle
                    for _ in range(2):
                        error = executor.submit(lambda: None).exception(PATIENCE_S)
                        self.assertIsInstance(error, trine.CannotTravel)
                        self.assertRegex(str(error), f"can't travel by source: .*; .*{why}")
                        self.assertNotIn("python_pickles", str(error))
                    [told] = logged.output
                    self.assertRegex(told, f"travel by source here, .* no tuples: .*{why}")

    def test_source_if_it_is_asked_for(self):
        with self.executor(how="source") as executor:
            self.assertEqual(executor.submit(multiply, [1], b=2).result(PATIENCE_S), [1, 1])
            error = executor.submit(divide, 1, 0).exception(PATIENCE_S)
            self.assertIs(type(error), ZeroDivisionError)
            self.assertIn("return a / b", str(error.__cause__))

    def test_exceptions_are_what_they_were_as_far_as_json_brings_them(self):
        with self.executor(how="source") as executor:

            def raised(function, *args):
                return executor.submit(function, *args).exception(PATIENCE_S)

            error = raised(raise_oserror, "a/b")
            self.assertIs(type(error), FileNotFoundError)
            self.assertEqual((error.errno, error.filename, error.line), (errno.ENOENT, "a/b", 7))
            self.assertEqual(error.__notes__[0], "while the page was read")
            self.assertEqual([raised(raise_key_error, key).args for key in ("a", None, "")], [("a",), ((1, 2),), ()])
            self.assertEqual(raised(raise_empty).args, ())
            self.assertEqual(raised(import_nothing).name, "nowhere_at_all")
            ended = raised(leave, 3)
            self.assertEqual((type(ended), ended.code), (SystemExit, 3))
            error = raised(raise_with_rows, False)
            self.assertEqual((error.args, error.rows), (("bad rows", [1, {"a": None}]), {"a": [1]}))
            error = raised(raise_with_rows, True)
            self.assertEqual((type(error), str(error)), (ValueError, "('bad rows', [1, {'a': (1, 2)}])"))
            self.assertIn("could not bring its arguments", error.__notes__[0])
            error = raised(raise_own)
            self.assertEqual((type(error), error.__notes__), (trine.RemoteError, ["of mine"]))

    @unittest.skipIf(sys.version_info < (3, 11), "exception groups came with Python 3.11")
    def test_groups_of_exceptions_are_groups_here(self):
        with self.executor(how="source") as executor:
            group = executor.submit(raise_group).exception(PATIENCE_S)
        self.assertEqual((type(group).__name__, group.message), ("ExceptionGroup", "several (2 sub-exceptions)"))
        one, inner = group.exceptions
        self.assertEqual((type(one), str(one)), (ValueError, "one"))
        self.assertEqual((inner.message, inner.__notes__, inner.exceptions[0].errno), ("inner", ["twice"], errno.ENOSPC))
        self.assertEqual((type(inner.exceptions[1]), inner.exceptions[1].message), (trine.RemoteError, "own"))
        self.assertIn("OSError: [Errno 28] full", str(group.__cause__))

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

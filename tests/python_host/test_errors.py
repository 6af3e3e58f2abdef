"""How exceptions are told."""

import os
import sys
import unittest

from harness import HostTest, in_each


class Errors(HostTest):
    @in_each()
    def test_frames_show_the_users_files_and_lines_only(self, host):
        source = """
            import asyncio, json

            def inner(text):
                return json.loads(text)  # fails

            def main(text):
                return inner(text)

            async def coroutine(text):
                await asyncio.sleep(0)
                return inner(text)

            async def nested(text):
                return await asyncio.gather(coroutine(text))

            def generator(text):
                yield 1
                inner(text)
        """
        for entrypoint, path in (
            ("main", [("main", 8), ("inner", 5)]),
            ("coroutine", [("coroutine", 12), ("inner", 5)]),
            ("nested", [("nested", 15), ("coroutine", 12), ("inner", 5)]),
            ("generator", [("generator", 19), ("inner", 5)]),
        ):
            error = host.call(source, "{", entrypoint=entrypoint)["error"]
            self.assertEqual((error["kind"], error["type"]), ("error", "json.decoder.JSONDecodeError"))
            mine = [frame for frame in error["frames"] if frame["file"] == "main.py"]
            self.assertEqual([(frame["function"], frame["line"]) for frame in mine], path, entrypoint)
            self.assertEqual(mine[-1]["code"], "return json.loads(text)  # fails")
            self.assertEqual(error["frames"][0], mine[0])
            self.assertTrue(error["frames"][-1]["file"].endswith("decoder.py"))
            self.assertNotIn(os.sep + "host" + os.sep, error["traceback"])
            self.assertNotIn("/asyncio/", error["traceback"])
            self.assertTrue(error["traceback"].startswith('Traceback (most recent call last):\n  File "main.py", line'))
            self.assertIn("return json.loads(text)  # fails", error["traceback"])
            self.assertTrue(error["traceback"].endswith(f"JSONDecodeError: {error['message']}\n"))

    @in_each()
    def test_lines_are_those_of_the_jobs_own_version(self, host):
        for word in ("one", "two"):
            error = host.call(f"\ndef main():\n    raise ValueError('{word}')\n")["error"]
            self.assertEqual(
                error["frames"], [{"file": "main.py", "line": 3, "function": "main", "code": f"raise ValueError('{word}')"}]
            )

    @in_each()
    def test_causes_are_told(self, host):
        source = """
            class Mine(Exception): pass
            def main(how):
                try:
                    {}["x"]
                except KeyError as error:
                    if how == "from": raise Mine("outer") from error
                    if how == "none": raise Mine("outer") from None
                    raise Mine("outer")
        """
        for how in ("from", "while", "none"):
            error = host.call(source, how)["error"]
            self.assertEqual((error["type"], error["message"]), ("Mine", "outer"))
            self.assertTrue(error["traceback"].endswith("\nMine: outer\n"))
            if how == "none":
                self.assertNotIn("cause", error)
            else:
                self.assertEqual((error["cause"]["type"], error["cause"]["message"]), ("KeyError", "'x'"))
                self.assertEqual(error["cause"]["frames"][0]["line"], 5)
                self.assertIn("KeyError: 'x'", error["traceback"])

    @in_each()
    def test_a_call_with_wrong_arguments_has_no_frames(self, host):
        error = host.call("def main(a): pass")["error"]
        self.assertEqual(error["frames"], [])
        self.assertEqual(error["traceback"], f"TypeError: {error['message']}\n")

    @in_each()
    def test_the_end_of_an_iterator_is_an_exception_like_others(self, host):
        error = host.call("def main(): next(iter([]))")["error"]
        self.assertEqual((error["kind"], error["type"], error["message"]), ("error", "StopIteration", ""))
        self.assertEqual([frame["function"] for frame in error["frames"]], ["main"])
        self.assertNotIn("cause", error)

    @in_each()
    def test_a_syntax_error_says_where(self, host):
        error = host.call("x = 1\ndef main(:\n    pass\n")["error"]
        self.assertEqual((error["kind"], error["type"]), ("error", "SyntaxError"))
        self.assertEqual(error["frames"], [{"file": "main.py", "line": 2, "function": "<module>", "code": "def main(:"}])
        self.assertIn('File "main.py", line 2', error["traceback"])
        self.assertIn("(main.py, line 2)", error["message"])

    @in_each()
    def test_an_exit_ends_its_job_only(self, host):
        source = """
            import asyncio, sys
            def main(): sys.exit(3)
            def interrupt(): raise KeyboardInterrupt
            async def coroutine():
                await asyncio.sleep(0.001)
                sys.exit(3)
            async def nested():
                await asyncio.create_task(coroutine())
            async def callback():
                asyncio.get_running_loop().call_soon(sys.exit, 3)
                await asyncio.sleep(0.01)
                return "alive"
            async def waits():
                await asyncio.sleep(0.2)
                return "fine"
        """
        other = host.submit(source, entrypoint="waits")
        for entrypoint in ("main", "coroutine", "nested"):
            error = host.call(source, entrypoint=entrypoint)["error"]
            self.assertEqual((error["kind"], error["type"], error["message"]), ("error", "SystemExit", "3"), entrypoint)
        self.assertEqual(host.call(source, entrypoint="interrupt")["error"]["type"], "KeyboardInterrupt")
        if host.mode == "async":
            self.assertEqual(host.call(source, entrypoint="callback")["output"], "alive")
        self.assertEqual(host.wait(other)["output"], "fine")

    @in_each()
    def test_deep_recursion_is_told_in_short(self, host):
        error = host.call("def main(): return main()")["error"]
        self.assertEqual(error["type"], "RecursionError")
        self.assertEqual(len(error["frames"]), 100)
        self.assertLess(len(error["traceback"]), 5000)

    @in_each()
    def test_long_lines_are_told_in_short(self, host):
        error = host.call(f"main = lambda n=0: main(n + 1) if n < 90 else 1 / 0  # {'x' * 700_000}")["error"]
        self.assertEqual((error["type"], len(error["frames"])), ("ZeroDivisionError", 91))
        self.assertLess(max(len(frame["code"]) for frame in error["frames"]), 1_100)

    @in_each()
    def test_an_exception_that_cannot_be_told_is_told_all_the_same(self, host):
        source = """
            class Mine(Exception):
                def __str__(self): raise ValueError
            def main(): raise Mine("\\ud800")
            def surrogate(): raise ValueError("\\ud800" + "x" * 1_000_000)
        """
        error = host.call(source)["error"]
        self.assertEqual((error["type"], error["message"]), ("Mine", "its message can't be had: str() of it fails"))
        error = host.call(source, entrypoint="surrogate")["error"]
        self.assertTrue(error["message"].startswith("?xxx"))
        self.assertTrue(error["message"].endswith("x … (cut)"))

    @in_each()
    def test_a_syntax_error_that_users_raise_may_have_anything_for_its_place(self, host):
        source = """
            from pathlib import Path
            def main(): raise SyntaxError("bad", (Path("conf.x"), 3, 1, "x = "))
            def text(): raise SyntaxError("bad", ("conf.x", "three", None, 5))
        """
        error = host.call(source)["error"]
        self.assertEqual((error["type"], error["message"]), ("SyntaxError", "bad (line 3)"))
        self.assertEqual(error["frames"][-1], {"file": "conf.x", "line": 3, "function": "<module>", "code": "x ="})
        self.assertEqual(host.call(source, entrypoint="text")["error"]["type"], "SyntaxError")

    @in_each(threads=1)
    def test_an_exception_that_fails_when_it_is_asked_is_told_all_the_same(self, host):
        source = """
            class Other(BaseException):
                def __init__(self): pass

            def fails(*args): raise Other

            class Meta(type):
                __getattribute__ = fails

            class Of(BaseException, metaclass=Meta): pass
            class Traceback(Exception): __traceback__ = property(fails)
            class Cause(MemoryError): __cause__ = __traceback__ = property(fails)
            class Class(Exception): __class__ = property(fails)
            class Reduced(Exception): __reduce_ex__ = fails
            class Text(str): __len__ = replace = fails
            class Message(Exception): __str__ = lambda self: Text("x")

            def main(name): raise globals()[name]()
            def chained():
                try: raise Traceback
                except Traceback: raise KeyError("x")
        """
        for name in ("Of", "Traceback", "Cause", "Class", "Reduced", "Message"):
            error = host.call(source, name)["error"]
            self.assertEqual((error["kind"], error["type"]), ("error", name))
            if error["message"]:
                self.assertEqual(error["message"], "it can't be described: Other is raised meanwhile")
        self.assertEqual(host.call(source, entrypoint="chained")["error"]["type"], "KeyError")
        self.assertEqual(host.call("def main(): return 'fine'")["output"], "fine")

    @unittest.skipIf(sys.version_info < (3, 11), "exception groups came with Python 3.11")
    @in_each()
    def test_groups_are_told(self, host):
        error = host.call("def main(): raise ExceptionGroup('several', [ValueError('one'), TypeError('two')])")["error"]
        self.assertEqual(error["type"], "ExceptionGroup")
        self.assertIn("ValueError: one", error["traceback"])

    @in_each()
    def test_what_an_exception_is_made_of_is_told_as_far_as_json_can(self, host):
        source = """
            def missing(): open("/nowhere")
            def noted():
                error = OSError(28, "full")
                error.code, error.other, error.__notes__ = 5, object(), ["while writing", 3]
                raise error
            def plain(): raise ValueError("bad")
            def several(): raise ValueError("bad", 3)
            def rows(): raise ValueError("bad rows", [1, {"a": [None, {}]}])
            def with_lists():
                error = ValueError("bad")
                error.rows, error.byplace, error.pairs = [1, [2]], {"a": {"b": 1}}, [(1, 2)]
                error.wide = ["x" * 1_000]
                for _ in range(12): error.wide = [error.wide] * 1_000
                raise error
            def none(): raise KeyError
            def pair(): raise ValueError("bad", [(1, 2)])
            def numbered(): raise ValueError("bad", {1: 2})
            def unlike(): raise ValueError([1], float("inf"))
            def cyclic():
                rows = []
                rows.append(rows)
                raise ValueError("bad", rows)
            def endless(): raise ValueError(float("inf"), 1)
            def long(): raise ValueError("x" * 1_000_000, 1)
            def imports(): import nowhere_at_all
            class Mine(Exception): pass
            def mine():
                error = Mine("bad", 3)
                error.__notes__ = ["while counting"]
                raise error
        """

        def told(entrypoint):
            error = host.call(source, entrypoint=entrypoint)["error"]
            return {name: error[name] for name in ("args", "attributes", "notes", "exceptions") if name in error}

        self.assertEqual(told("missing"), {"args": [2, "No such file or directory", "/nowhere"]})
        self.assertEqual(told("noted"), {"args": [28, "full"], "attributes": {"code": 5}, "notes": ["while writing"]})
        self.assertEqual(told("several"), {"args": ["bad", 3]})
        self.assertEqual(told("imports")["attributes"], {"name": "nowhere_at_all"})
        self.assertEqual(told("mine"), {"notes": ["while counting"]})
        self.assertEqual(told("rows"), {"args": ["bad rows", [1, {"a": [None, {}]}]]})
        self.assertEqual(told("with_lists"), {"attributes": {"rows": [1, [2]], "byplace": {"a": {"b": 1}}}})
        for entrypoint in ("plain", "none"):
            self.assertEqual(told(entrypoint), {})
        for entrypoint in ("pair", "numbered", "unlike", "endless", "cyclic", "long"):
            self.assertEqual(told(entrypoint), {"args": None})

    @unittest.skipIf(sys.version_info < (3, 11), "exception groups came with Python 3.11")
    @in_each()
    def test_the_exceptions_of_a_group_are_told(self, host):
        source = """
            def main():
                inner = ExceptionGroup("inner", [OSError(28, "full")])
                inner.add_note("twice")
                raise ExceptionGroup("several", [ValueError("one"), inner])
            def many(): raise ExceptionGroup("many", [ValueError("x" * 1_000) for _ in range(1_000)])
            def deep():
                error = ValueError("one")
                for _ in range(100): error = ExceptionGroup("in", [error])
                raise error
        """
        one, inner = host.call(source)["error"]["exceptions"]
        self.assertEqual((one["type"], one["message"]), ("ValueError", "one"))
        self.assertEqual((inner["type"], inner["notes"]), ("ExceptionGroup", ["twice"]))
        self.assertEqual((inner["exceptions"][0]["type"], inner["exceptions"][0]["args"]), ("OSError", [28, "full"]))
        self.assertNotIn("exceptions", host.call(source, entrypoint="many")["error"])
        self.assertEqual(host.call(source, entrypoint="deep")["error"]["type"], "ExceptionGroup")

    @in_each()
    def test_running_out_of_memory_ends_its_job_only(self, host):
        source = """
            import resource
            def main(size):
                resource.setrlimit(resource.RLIMIT_AS, (size, size))
                kept = []
                while True: kept.append(bytearray(10_000_000))
        """
        self.assertEqual(host.call(source, 1 << 30)["error"]["type"], "MemoryError")
        self.assertEqual(host.call("def main(): return 'fine'")["output"], "fine")

    @in_each()
    def test_the_process_may_die_of_it(self, host):
        host.submit("import ctypes\ndef main(): ctypes.string_at(0)")
        with self.assertRaises((EOFError, ConnectionError)) as raised:
            host.until(lambda: False)
        if isinstance(raised.exception, EOFError):
            self.assertIn("Fatal Python error: Segmentation fault", str(raised.exception))
            self.assertIn("in main", str(raised.exception))


class Refusals(HostTest):
    """Real ones are in the sandbox's own tests; here the errors are those that they look like."""

    HINTS = ("sandbox refused", "resolve no names", "relative path", "has to be installed")
    SOURCE = """
        import os, pathlib, socket

        def refused(): raise PermissionError(1, "Operation not permitted")
        def unresolved(): raise socket.gaierror(-3, "Temporary failure in name resolution")
        def wrapped():
            try: unresolved()
            except OSError: raise ValueError("no page")
        def absent(): open("out of reach.csv")
        def absent_by_path(): os.stat(pathlib.Path("out of reach.csv"))
        def absent_there(): open("/out of reach.csv")
        def absent_by_then():
            try: open("out of reach.csv")
            except OSError: raise KeyError("nothing kept")
        def lacking_by_then():
            try: import nowhere_at_all
            except ImportError: raise KeyError("no such way") from None
        def refused_in_secret():
            try: refused()
            except OSError: raise KeyError("closed") from None
        def own_absent(): raise FileNotFoundError(2, "of mine", 5)
        def lacking(): import nowhere_at_all
        def own_lacking(): raise ModuleNotFoundError("of mine")
        def own(): raise PermissionError("of mine")
        def around():
            error = PermissionError("around")
            error.__cause__ = KeyError()
            error.__cause__.__cause__ = error
            raise error
    """

    def notes(self, host, entrypoint):
        error = host.call(self.SOURCE, entrypoint=entrypoint)["error"]
        for note in error.get("notes", ()):
            self.assertTrue(error["traceback"].endswith(f"\n{note}\n"))
        return [[word for word in self.HINTS if word in note] for note in error.get("notes", ())]

    @in_each(confined=True, network=False)
    def test_it_is_said_what_the_sandbox_may_be_behind(self, host):
        for entrypoint in ("unresolved", "wrapped"):
            self.assertEqual(self.notes(host, entrypoint), [["resolve no names"]])
        self.assertEqual(self.notes(host, "refused"), [["sandbox refused"]])
        for entrypoint in ("absent", "absent_by_path"):
            self.assertEqual(self.notes(host, entrypoint), [["relative path"]])
        for entrypoint in ("own", "around", "absent_there", "own_absent", "absent_by_then", "lacking_by_then", "refused_in_secret"):
            self.assertEqual(self.notes(host, entrypoint), [])

    @in_each(confined=True, network=True)
    def test_names_are_no_matter_of_the_sandbox_with_a_network(self, host):
        self.assertEqual(self.notes(host, "unresolved"), [])
        self.assertEqual(self.notes(host, "refused"), [["sandbox refused"]])

    @in_each()
    def test_nothing_is_said_without_a_sandbox(self, host):
        for entrypoint in ("refused", "absent"):
            self.assertEqual(self.notes(host, entrypoint), [])

    @in_each()
    def test_it_is_said_which_interpreter_lacks_a_module(self, host):
        self.assertEqual(self.notes(host, "lacking"), [["has to be installed"]])
        self.assertEqual(self.notes(host, "own_lacking"), [])

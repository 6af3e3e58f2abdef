"""What goes in and what comes out."""

import hashlib
import json
import pathlib
import random
import struct
import tempfile

from harness import HOST, HostTest, in_each


class Calls(HostTest):
    @in_each()
    def test_the_host_says_whether_it_has_the_lock(self, host):
        done = host.call("import sys\ndef main(): return getattr(sys, '_is_gil_enabled', lambda: True)()")
        self.assertIs(done["measured"]["gil"], done["output"])

    @in_each()
    def test_every_kind_of_function_gives_its_output(self, host):
        source = """
            import asyncio, functools

            def plain(a, b=2): return [a, b]
            async def coroutine(a, b=2):
                await asyncio.sleep(0.001)
                return [a, b]
            def generator(a, b=2):
                got = yield a
                yield b
                return [a, b, got]
            def silent(a, b=2):
                yield a
            async def asynchronous(a, b=2):
                yield a
                await asyncio.sleep(0.001)
                yield b
            partial = functools.partial(coroutine, b=3)
            class Callable:
                def __call__(self, a, b=2): return [a, b]
                async def method(self, a, b=2): return [b, a]
            instance = Callable()
            def gives_a_coroutine(a): return coroutine(a)
        """
        for entrypoint, output, progress in (
            ("plain", [1, 2], []),
            ("coroutine", [1, 2], []),
            ("generator", [1, 2, None], [1, 2]),
            ("silent", None, [1]),
            ("asynchronous", None, [1, 2]),
            ("partial", [1, 3], []),
            ("instance", [1, 2], []),
            ("instance.method", [2, 1], []),
            ("gives_a_coroutine", [1, 2], []),
        ):
            job = host.submit(source, 1, entrypoint=entrypoint)
            done = host.wait(job)
            self.assertEqual(done.get("output", done), output, entrypoint)
            self.assertNotIn("error", done)
            self.assertEqual(host.progress[job], progress, entrypoint)

    @in_each()
    def test_arguments_and_outputs_are_json(self, host):
        value = {"text": "zażółć 🐍 \u0000", "numbers": [0, -1, 1.5, 10**30], "none": None, "nested": {"": [[], {}, True]}}
        done = host.call("def main(*args, **kwargs): return [args, kwargs]", value, kwargs=value)
        self.assertEqual(done["output"], [[value], value])
        self.assertEqual(host.call("def main(): return {2: 'b', 1: 'a', None: 0}")["output"], {"2": "b", "1": "a", "null": 0})

    @in_each()
    def test_an_output_that_is_not_json_is_invalid(self, host):
        for expression, kind, words in (
            ("{1, 2}", "TypeError", "the output can't be written as JSON: JSON has no form for a value of type set"),
            ("[Mine()]", "TypeError", "Mine"),
            ("{(1, 2): 3}", "TypeError", "tuple"),
            ("float('nan')", "ValueError", "the output can't be written as JSON: Out of range float values"),
            ("deep()", "ValueError", "recursion|Stack overflow"),  # the latter since Python 3.14
            ("'\\ud800'", "ValueError", "surrogates"),
        ):
            source = "class Mine: pass\ndef deep():\n    a = []\n    for _ in range(200_000): a = [a]\n    return a\n"
            done = host.call(f"{source}def main(): return {expression}")
            self.assertNotIn("output", done)
            self.assertEqual((done["error"]["kind"], done["error"]["type"]), ("invalid", kind), expression)
            self.assertRegex(done["error"]["message"], words)

    @in_each("async")
    def test_the_first_of_many_go_on_while_the_last_still_come(self, host):
        source = """
            import asyncio

            async def main():
                return len(asyncio.get_running_loop()._selector.host.jobs)
        """
        host.call(source)
        sent = []
        host.send = sent.append
        jobs = [host.submit(source) for _ in range(100)]
        del host.send
        frames = [json.dumps(message).encode() for message in sent]
        host.socket.sendall(b"".join(struct.pack(">I", len(frame)) + frame for frame in frames))
        host.until(lambda: all(job in host.done for job in jobs))
        self.assertLess(host.done[jobs[0]]["output"], len(jobs))

    @in_each(max_output_bytes=1000)
    def test_outputs_and_progress_have_a_limit(self, host):
        source = "import trine\ndef main(n, report): return trine.progress('x' * n) if report else 'x' * n"
        self.assertEqual(len(host.call(source, 998, False)["output"]), 998)
        done = host.call(source, 999, False)
        self.assertEqual(done["error"]["kind"], "invalid")
        self.assertEqual(done["error"]["message"], "the output takes 1001 bytes; the most is 1000")
        self.assertIsNone(host.call(source, 4094, True)["output"])
        done = host.call(source, 4095, True)
        self.assertEqual(done["error"]["kind"], "error")
        self.assertEqual(done["error"]["message"], "the progress takes 4097 bytes; the most is 4096")

    @in_each()
    def test_what_is_yielded_must_be_json(self, host):
        error = host.call("def main():\n    yield 1\n    yield object()\n")["error"]
        self.assertEqual((error["kind"], error["type"]), ("error", "TypeError"))
        self.assertEqual(error["message"], "what it yields can't be written as JSON: JSON has no form for a value of type object")
        self.assertEqual([frame["line"] for frame in error["frames"]], [3])

    @in_each()
    def test_large_arguments_and_outputs(self, host):
        text = "".join(random.choices("abcdefgh", k=1 << 16)) * 127  # just under 8 MiB
        small = host.submit("def main(text): return len(text)", "small")
        large = host.submit("def main(text): return text[::-1]", text)
        again = host.submit("def main(text): return len(text)", text)
        self.assertEqual(host.wait(small)["output"], 5)
        self.assertEqual(host.wait(large)["output"], text[::-1])
        self.assertEqual(host.wait(again)["output"], len(text))
        self.assertEqual(host.call("def main(text): return text", "after")["output"], "after")

    @in_each()
    def test_frames_may_arrive_in_pieces_or_many_at_once(self, host):
        sent, host.socket = host.socket, Recorder()
        jobs = [host.submit("def main(a): return a", "x" * (n * 37)) for n in range(300)]
        recorded, host.socket = host.socket, sent
        data = memoryview(b"".join(recorded.sent))
        while data:
            size = random.choice((1, 3, 100, 5_000, 70_000, 200_000))
            sent.sendall(data[:size])
            data = data[size:]
        for n, job in enumerate(jobs):
            self.assertEqual(len(host.wait(job)["output"]), n * 37)

    @in_each()
    def test_arguments_that_python_cannot_read_end_their_job_alone(self, host):
        good = host.submit("def main(): return 1")
        host.ids += 1
        body = b'{"run": {"id": %d, "code": null, "args": [%s' % (host.ids, b"[" * 500_000 + b"]" * 500_000 + b"]}}")
        host.socket.sendall(len(body).to_bytes(4, "big") + body)
        error = host.wait(host.ids)["error"]
        self.assertEqual(error["kind"], "invalid")
        self.assertIn("can't read the arguments", error["message"])
        self.assertEqual(host.wait(good)["output"], 1)

    @in_each()
    def test_a_function_can_ask_what_it_runs_as(self, host):
        source = """
            import trine
            def main():
                trine.progress({"half": True})
                return [trine.job_id(), trine.attempt(), trine.stopped()]
        """
        job = host.submit(source, attempt=3, job="0193-uuid")
        self.assertEqual(host.wait(job)["output"], ["0193-uuid", 3, False])
        self.assertEqual(host.progress[job], [{"half": True}])

    @in_each(threads=1)
    def test_each_job_has_its_own_context_variables(self, host):
        source = """
            import contextvars
            seen = contextvars.ContextVar("seen", default=0)
            def main():
                seen.set(seen.get() + 1)
                return seen.get()
        """
        self.assertEqual([host.call(source)["output"] for _ in range(3)], [1, 1, 1])

    def test_threads_run_as_many_jobs_at_once_as_there_are(self):
        host = self.host("threads", threads=3)
        source = """
            import threading
            barrier = threading.Barrier(3)
            def main():
                return barrier.wait(30) >= 0
        """
        self.assertTrue(all(host.wait(job)["output"] for job in [host.submit(source) for _ in range(6)]))

    def test_async_runs_many_jobs_at_once(self):
        host = self.host("async")
        source = """
            import asyncio
            waiting = []
            async def main(last):
                waiting.append(asyncio.Event())
                if last:
                    for event in waiting: event.set()
                await waiting[-1].wait()
                return len(waiting)
        """
        jobs = [host.submit(source, n == 999) for n in range(1000)]
        self.assertEqual(host.wait(jobs[-1])["output"], 1000)
        self.assertEqual({host.wait(job)["output"] for job in jobs}, {1000})

    def test_the_garbage_collector_looks_the_later_the_more_jobs_wait(self):
        source = """
            import asyncio, gc
            waiting, go = [], asyncio.Event()
            async def wait():
                waiting.append(1)
                await go.wait()
            def after(): return gc.get_threshold()[0], len(waiting)
            def change(objects): gc.set_threshold(objects)
            def end(): go.set()
        """
        host = self.host("async")
        waits = [host.submit(source, entrypoint="wait") for _ in range(300)]
        host.call(source, entrypoint="after")  # behind all of them
        self.assertEqual(host.call(source, entrypoint="after")["output"], [64 * 300, 300])
        host.call(source, entrypoint="end")
        for wait in waits:
            host.wait(wait)
        self.assertEqual(host.call(source, entrypoint="after")["output"], [10_000, 300])
        host.call(source, 5, entrypoint="change")
        self.assertEqual(host.call(source, entrypoint="after")["output"], [5, 300], "what a job has set stays")

    def test_processes_runs_what_is_sent_ahead_in_order(self):
        host = self.host("processes")
        jobs = [
            host.submit("import threading\ndef main(n): return [n, threading.current_thread() is threading.main_thread()]", n)
            for n in range(50)
        ]
        self.assertEqual([host.wait(job)["output"] for job in jobs], [[n, True] for n in range(50)])
        self.assertEqual(list(host.done), jobs)

    @in_each()
    def test_the_client_is_there_if_it_is_installed(self, host):
        source = """
            import sys
            def without():
                import trine
                return [hasattr(trine, "Client"), hasattr(trine, "__wrapped__")]
            def lacking():
                from trine import Client
            def main(folder):
                sys.path.insert(0, folder)
                import trine
                from trine import Client, job_id
                import trine._names
                return [Client.__name__, Client.asked() == trine.job_id(), trine.Stopped is Client.stopped, "Client" in vars(trine._names)]
        """
        self.assertEqual(host.call(source, entrypoint="without")["output"], [False, False])
        error = host.call(source, entrypoint="lacking")["error"]
        self.assertEqual(error["type"], "ImportError")
        self.assertIn("the client as far as that is installed for", error["message"])
        with tempfile.TemporaryDirectory() as folder:
            package = pathlib.Path(folder, "trine")
            package.mkdir()
            (package / "__init__.py").write_text("from ._names import Client\nfrom ._worker import job_id\n")
            (package / "_worker.py").write_text("raise ImportError\n")
            names = "from ._worker import Stopped, job_id\nclass Client:\n    asked, stopped = job_id, Stopped\n"
            (package / "_names.py").write_text(names)
            self.assertEqual(host.call(source, folder)["output"], ["Client", True, True, True])


class Warmth(HostTest):
    @in_each()
    def test_a_module_is_run_once_and_its_globals_stay(self, host):
        source = "calls = 0\ndef main():\n    global calls\n    calls += 1\n    return calls\n"
        self.assertEqual([host.call(source)["output"] for _ in range(3)], [1, 2, 3])
        self.assertEqual(host.call(source + "# another version")["output"], 1)

    @in_each()
    def test_a_source_may_begin_with_a_byte_order_mark(self, host):
        source = "\ufeffdef main(): return 'marked'"
        done = host.call(source)
        self.assertEqual(done.get("output", done), "marked")
        check = pathlib.Path(HOST).with_name("check.py").read_text()
        self.assertIsNone(host.call(check, source, "main", entrypoint="check")["output"])

    @in_each()
    def test_a_module_can_be_found_by_its_name(self, host):
        source = """
            import dataclasses, inspect, pickle, sys, typing

            @dataclasses.dataclass
            class Point:
                x: "int"
                next: "typing.Optional[Point]" = None

            def main():
                point = pickle.loads(pickle.dumps(Point(1, Point(2))))
                assert typing.get_type_hints(Point)["next"] == typing.Optional[Point]
                return [dataclasses.asdict(point), inspect.getsource(main).splitlines()[0], sys.modules[__name__].__name__ == __name__]
        """
        done = host.call(source)
        self.assertEqual(done.get("output", done), [{"x": 1, "next": {"x": 2, "next": None}}, "def main():", True])

    @in_each()
    def test_code_that_is_not_known_is_asked_for(self, host):
        code = {"sha": "ab" * 32, "source": None, "zip": None, "entrypoint": "main"}
        done = host.wait(host.submit(code=code))
        self.assertEqual(done["error"]["kind"], "unknown_code")
        self.assertIsNone(done["measured"])
        self.assertEqual(host.call(code={**code, "source": "def main(): return 7"})["output"], 7)
        self.assertEqual(host.call(code=code)["output"], 7)

    @in_each("async", "processes")
    def test_the_code_used_last_is_kept(self, host):
        code = {"source": None, "zip": None, "entrypoint": "main"}

        def run(n, source=None, code=code, host=host):
            return host.call(code={**code, "sha": hashlib.sha256(b"%d" % n).hexdigest(), "source": source})

        for n in range(256):
            self.assertEqual(run(n, f"def main(): return {n}")["output"], n)
        self.assertEqual(run(0)["output"], 0)
        self.assertEqual(run(256, "def main(): return 256")["output"], 256)
        self.assertEqual(run(1)["error"]["kind"], "unknown_code")
        self.assertEqual(run(0)["output"], 0)
        self.assertEqual(
            host.call("import sys\ndef main(): return sum(name.startswith('trine_') for name in sys.modules)")["output"],
            256,
        )

    @in_each()
    def test_a_module_that_failed_to_load_is_loaded_anew(self, host):
        source = "import os\nif not os.environ.get('READY'):\n    raise ValueError('not yet')\ndef main(): return 1"
        self.assertEqual(host.call(source)["error"]["message"], "not yet")
        host.call("import os\ndef main(): os.environ['READY'] = 'yes'")
        self.assertEqual(host.call(source)["output"], 1)

    @in_each()
    def test_a_bad_entry_point_is_invalid(self, host):
        for entrypoint, message in (
            ("absent", "main.py has no 'absent'"),
            ("number", "'number' in main.py can't be called: it is of type int"),
            ("number.absent", "main.py has no 'number.absent'"),
        ):
            error = host.call("number = 1", entrypoint=entrypoint)["error"]
            self.assertEqual((error["kind"], error["message"]), ("invalid", message))


class Recorder:
    def __init__(self):
        self.sent = []

    def sendall(self, data):
        self.sent.append(data)

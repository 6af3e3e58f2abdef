"""Whose line is it?"""

import os
import tempfile
import time

from harness import HostTest, in_each

OUT, ERR = "stdout", "stderr"


class Logs(HostTest):
    @in_each()
    def test_lines_are_whole_and_come_before_the_end(self, host):
        source = """
            import sys
            print("while loading")
            def main():
                print("one", "two", end="")
                print("three")
                print("a\\nb\\n\\nc")
                sys.stderr.write("no end")
                sys.stdout.buffer.write("zażółć\\n".encode())
                sys.stdout.flush()
                print("to stderr", file=sys.stderr)
                sys.stdout.write("last")
        """
        job = host.submit(source)
        self.assertNotIn("error", host.wait(job))
        said = host.logs[job]
        expected = ["while loading", "one twothree", "a", "b", "", "c", "zażółć", "last"]
        self.assertEqual([line for stream, line in said if stream == OUT], expected)
        self.assertEqual([line for stream, line in said if stream == ERR], ["no endto stderr"])
        self.assertEqual(list(host.logs), [job])

    @in_each("async", "threads", threads=8)
    def test_jobs_at_once_each_have_their_own_lines(self, host):
        source = """
            import asyncio, time
            def log(n, m): print(f"{n}:{m}")  # threads of one job may come between each other's writes
            async def coroutine(n):
                for m in range(20):
                    print(f"{n}:", end="")
                    await asyncio.sleep(0.001)
                    print(m)
                await asyncio.gather(*(asyncio.to_thread(log, n, 20) for _ in range(2)))
                await asyncio.create_task(nested(n))
            async def nested(n):
                print(f"{n}:", end="")
                await asyncio.sleep(0.001)
                print(21)
            def function(n):
                for m in range(20):
                    print(f"{n}:", end="")
                    time.sleep(0.001)
                    print(m)
        """
        if host.mode == "threads":
            jobs = [host.submit(source, n, entrypoint="function") for n in range(16)]
            numbers = [*range(20)]
        else:
            jobs = [host.submit(source, n, entrypoint="coroutine") for n in range(100)]
            numbers = [*range(20), 20, 20, 21]
        for n, job in enumerate(jobs):
            self.assertNotIn("error", host.wait(job))
            text = "".join(line + "\n" for _, line in host.logs[job])
            self.assertEqual(text.count("\n"), len(numbers))
            self.assertEqual(
                sorted(text.replace("\n", "").replace(f"{n}:", " ").split(), key=int), [str(number) for number in numbers]
            )

    def test_a_process_has_all_lines_of_its_job(self):
        source = """
            import ctypes, multiprocessing, os, subprocess, sys, threading
            def child(): print("from a fork")
            def main():
                os.write(1, b"from a descriptor\\n")
                ctypes.CDLL(None).dprintf(2, b"from C\\n")
                subprocess.run([sys.executable, "-c", "print('from a program')"])
                threading.Thread(target=print, args=("from a thread",)).start()
                fork = multiprocessing.get_context("fork").Process(target=child)
                fork.start()
                fork.join()
                os.write(1, "zażół".encode()[:-1])
                os.write(1, "zażół".encode()[-1:] + b"no end")
        """
        host = self.host("processes")
        for _ in range(3):
            job = host.submit(source)
            self.assertNotIn("error", host.wait(job))
            lines = [(OUT, "from a descriptor"), (ERR, "from C"), (OUT, "from a program"), (OUT, "from a thread")]
            self.assertCountEqual(host.logs[job], [*lines, (OUT, "from a fork"), (OUT, "zażółno end")])
        self.assertNotIn(None, host.logs)

    @in_each("async", "threads")
    def test_what_nobody_can_be_named_for_is_nobodys(self, host):
        source = """
            import _thread, os
            def main():
                os.write(1, b"from a descriptor\\n")
                ended = _thread.allocate_lock()
                ended.acquire()
                _thread.start_new_thread(lambda: (print("from a thread"), ended.release()), ())
                ended.acquire()
        """
        self.assertNotIn("error", host.call(source))
        host.until(lambda: len([*host.logs[None], *host.logs[1]]) == 2)
        self.assertCountEqual([*host.logs[None], *host.logs[1]], [(OUT, "from a descriptor"), (OUT, "from a thread")])
        self.assertIn((OUT, "from a descriptor"), host.logs[None])

    @in_each(threads=2)
    def test_how_a_task_ended_that_nobody_asked_is_in_no_log_of_another_job(self, host):
        source = """
            import asyncio, gc, trine
            found = []
            async def fails(): raise ValueError("of the first")
            async def leaves(waits):
                gc.disable()
                task = asyncio.create_task(fails())
                held = [task]
                held.append(held)
                await asyncio.sleep(0.001)
                del task, held
                trine.progress("left")
                while waits and not found: await asyncio.sleep(0.001)
            def finds(waits):
                gc.collect()
                gc.enable()
                print("of the second")
                if waits: found.append(True)
        """
        for waits in (False, True)[: 1 if host.mode == "processes" else 2]:
            first = host.submit(source, waits, entrypoint="leaves")
            host.until(lambda job=first: host.progress[job] if waits else host.done.get(job))
            second = host.submit(source, waits, entrypoint="finds")
            for job in (first, second):
                self.assertNotIn("error", host.wait(job))
            self.assertEqual(host.logs[second], [(OUT, "of the second")])
            self.assertEqual("of the first" in str(host.logs[first]), waits or host.mode != "async")

    @in_each(threads=2)
    def test_threads_of_jobs_run_for_them(self, host):
        source = """
            import threading, trine
            from concurrent.futures import ThreadPoolExecutor
            def step(n):
                print(n)
                trine.progress(n)
                return trine.job_id()
            def main():
                with ThreadPoolExecutor(1) as pool:
                    found = [*pool.map(step, [1, 2])]
                inner = threading.Thread(target=lambda: found.append(step(3)))
                outer = threading.Thread(target=lambda: (inner.start(), inner.join()))
                outer.start()
                outer.join()
                return found
        """
        for job in [host.submit(source) for _ in range(2)]:
            done = host.wait(job)
            self.assertEqual(done.get("output", done), [f"job-{job}"] * 3)
            self.assertEqual(host.logs[job], [(OUT, "1"), (OUT, "2"), (OUT, "3")])
            self.assertEqual(host.progress[job], [1, 2, 3])

    @in_each(threads=1)
    def test_a_thread_that_could_not_be_started_can_be_later(self, host):
        source = """
            import contextlib, threading
            from unittest import mock
            start = next(name for name in ("_start_joinable_thread", "_start_new_thread") if hasattr(threading, name))
            def main():
                thread = threading.Thread(target=print, args=("at last",))
                with mock.patch.object(threading, start, side_effect=RuntimeError), contextlib.suppress(RuntimeError):
                    thread.start()
                thread.start()
                thread.join()
        """
        job = host.submit(source)
        self.assertNotIn("error", host.wait(job))
        self.assertEqual(host.logs[job], [(OUT, "at last")])

    @in_each()
    def test_long_lines_are_cut(self, host):
        job = host.submit("def main():\n    for _ in range(100): print('x' * 1000, end='')\n    print()\n    print('next')")
        host.wait(job)
        self.assertEqual(host.logs[job], [(OUT, "x" * 16_384 + " … (cut)"), (OUT, "next")])

    @in_each(max_log_bytes=1000)
    def test_a_log_has_a_limit(self, host):
        source = "def main(n):\n    for _ in range(n): print('x' * 99)\n    print('y' * 100_000)\n    print('z')"
        for _ in range(2):
            job = host.submit(source, 10)
            host.wait(job)
            said = host.logs[job]
            self.assertEqual(said[:10], [(OUT, "x" * 99)] * 10)
            self.assertEqual(said[10:], [(ERR, "trine: this log is at its limit of 1000 bytes; the rest is dropped")])

    @in_each(max_log_bytes=1 << 30)
    def test_finalizers_may_print_while_another_line_is_written(self, host):
        source = """
            import gc

            class Printing:
                def __init__(self): self.myself = self  # so only the collector frees it
                def __del__(self): print("freed")

            def main(n):
                before = gc.get_threshold()
                for number in range(n):
                    gc.set_threshold(1 + number % 60)  # the collector comes at any place
                    Printing()
                    print("line", number, end="")
                    print()
                gc.set_threshold(*before)
                gc.collect()
        """
        job = host.submit(source, 600)
        self.assertNotIn("error", host.wait(job))
        # Such a print may come between the two parts of another, as it would on a terminal; yet nothing is lost.
        text = "".join(line for _, line in [*host.logs[job], *host.logs[None]])
        self.assertEqual(text.count("freed"), 600)
        self.assertEqual([n for n in range(600) if f"line {n}" not in text.replace("freed", "")], [])
        self.assertEqual(host.call("def main(): return 'fine'")["output"], "fine")

    @in_each(max_log_bytes=1 << 30)
    def test_finalizers_may_wait_for_a_lock_that_another_printer_holds(self, host):
        source = """
            import asyncio, gc, queue, threading, time, trine

            lock = threading.RLock()  # as that of a handler of `logging`
            wanted, given = queue.SimpleQueue(), queue.SimpleQueue()
            closed = []

            class Closing:
                def __init__(self): self.myself = self  # so only the collector frees it

                def __del__(self):
                    wanted.put(None)
                    with lock: print("closed")
                    given.put(None)
                    closed.append(1)

            def close(n):
                before = gc.get_threshold()
                for number in range(n):
                    gc.set_threshold(1 + number % 60)  # the collector comes at any place
                    Closing()
                    print("line", number)
                gc.set_threshold(*before)
                while len(closed) < n:  # it does nothing while another thread is at it
                    gc.collect()
                    time.sleep(0.001)

            def hold(n, report):
                for number in range(n):
                    with lock:
                        wanted.get()
                        print("held")
                        report(number)
                    given.get()

            async def close_in_thread(n): await asyncio.to_thread(close, n)
            async def hold_in_thread(n): await asyncio.to_thread(hold, n, trine.progress)
            def hold_in_job(n): hold(n, trine.progress)

            def both(n):
                thread = threading.Thread(target=hold, args=(n, print))
                thread.start()
                close(n)
                thread.join()
        """
        entrypoints = {"processes": ["both"], "threads": ["close", "hold_in_job"], "async": ["close_in_thread", "hold_in_thread"]}
        jobs = [host.submit(source, 600, entrypoint=entrypoint) for entrypoint in entrypoints[host.mode]]
        for job in jobs:
            self.assertNotIn("error", host.wait(job))
        text = "".join(line for lines in host.logs.values() for _, line in lines)
        self.assertEqual((text.count("line"), text.count("held"), text.count("closed")), (600, 600, 600))
        if host.mode != "processes":
            self.assertEqual(host.progress[jobs[1]], [*range(600)])
        self.assertEqual(host.call("def main(): return 'fine'")["output"], "fine")

    @in_each("threads", "async", max_log_bytes=1 << 30)
    def test_one_that_calls_itself_without_end_loses_no_lines_of_others(self, host):
        source = """
            import asyncio
            def fall(n):
                print("falls")
                fall(n + 1)
            def falls(n):
                for _ in range(n):
                    try: fall(0)
                    except RecursionError: pass
            def lines(n):
                for number in range(n): print(number)
            async def falls_in_thread(n): await asyncio.to_thread(falls, n)
            async def lines_in_thread(n): await asyncio.to_thread(lines, n)
        """
        suffix = "_in_thread" if host.mode == "async" else ""
        jobs = [host.submit(source, n, entrypoint=what + suffix) for what, n in (("falls", 20), ("lines", 10_000))]
        for job in jobs:
            self.assertNotIn("error", host.wait(job))
        self.assertEqual([line for _, line in host.logs[jobs[1]]], [str(number) for number in range(10_000)])

    @in_each(max_log_bytes=1 << 40)
    def test_what_the_server_does_not_take_is_not_kept_in_memory(self, host):
        source = """
            import asyncio, threading, time, trine
            def main(seconds, report=trine.progress):
                end = time.monotonic() + seconds
                while time.monotonic() < end:
                    print("x" * 1000)
                    print("y" * 1_000_000)
                    report("z" * 4000)
            def several(seconds):
                threads = [threading.Thread(target=main, args=(seconds, print)) for _ in range(3)]
                for thread in threads: thread.start()
                for thread in threads: thread.join()
            def reports(seconds):
                end = time.monotonic() + seconds
                while time.monotonic() < end: trine.progress("z" * 4000)
            async def in_thread(seconds): await asyncio.to_thread(reports, seconds)
        """
        entrypoints = {"processes": ["several"], "threads": ["main"] * 3, "async": ["in_thread"] * 3}[host.mode]
        jobs = [host.submit(source, 0.5, entrypoint=entrypoint) for entrypoint in entrypoints]
        time.sleep(0.6)
        peak_kib = host.peak_kib()
        for job in jobs:
            self.assertNotIn("error", host.wait(job))
        self.assertLess(peak_kib, 100_000)

    def test_what_a_loop_that_is_held_does_not_send_is_not_kept_in_memory(self):
        source = """
            import asyncio, threading, trine
            def report(n, ended):
                for _ in range(n): trine.progress("z" * 4000)
                ended.set()
            async def holds(n): report(n, threading.Event())
            async def main(n):
                ended = threading.Event()
                call = asyncio.create_task(asyncio.to_thread(report, n, ended))
                await asyncio.sleep(0)
                ended.wait()
                await call
        """
        for entrypoint in ("main", "holds"):
            with self.subTest(entrypoint):
                host = self.host("async")
                job = host.submit(source, 30_000, entrypoint=entrypoint)
                self.assertNotIn("error", host.wait(job))
                self.assertEqual(len(host.progress[job]), 30_000)
                self.assertLess(host.peak_kib(), 100_000)

    @in_each("async", "processes", max_log_bytes=1 << 30)
    def test_signal_handlers_may_print_while_another_line_is_written(self, host):
        source = """
            import signal

            handled = []

            def handle(signum, frame):
                handled.append(signum)
                print("handled\\n", end="")

            def main():
                signal.signal(signal.SIGALRM, handle)
                signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
                n = 0
                while len(handled) < 500:
                    print("x" * 10_000 + "\\n", end="")
                    n += 1
                signal.setitimer(signal.ITIMER_REAL, 0)
                return [n, len(handled)]
        """
        job = host.submit(source)
        printed, handled = host.wait(job)["output"]
        lines = [line for _, line in host.logs[job]]
        self.assertEqual(lines.count("x" * 10_000), printed)
        self.assertEqual(lines.count("handled"), handled)
        self.assertEqual(len(lines), printed + handled)

    @in_each("async", "processes", max_log_bytes=1 << 40)
    def test_messages_stay_whole_when_a_signal_handler_prints_and_raises(self, host):
        source = """
            import signal

            handled, printing = [], []

            def handle(signum, frame):
                handled.append(signum)
                print("handled")
                if printing:
                    printing.clear()
                    raise TimeoutError

            def main():
                signal.signal(signal.SIGALRM, handle)
                signal.setitimer(signal.ITIMER_REAL, 0.002, 0.002)
                text = ("x" * 10_000 + "\\n") * 50
                while len(handled) < 200:
                    try:
                        printing.append(1)
                        print(text, end="")
                        printing.clear()
                    except TimeoutError: pass
                signal.setitimer(signal.ITIMER_REAL, 0)
        """
        job = host.submit(source)
        self.assertNotIn("error", host.wait(job))
        # Such a print may come between the two parts of another.
        self.assertLessEqual({line.replace("handled", "") for _, line in host.logs[job]}, {"x" * 10_000, ""})
        self.assertEqual(host.call("def main(): return 'fine'")["output"], "fine")

    @in_each()
    def test_lines_come_while_the_job_runs(self, host):
        source = """
            import pathlib, time
            def main(path):
                print("started")
                while not pathlib.Path(path).exists(): time.sleep(0.001)
        """
        with tempfile.TemporaryDirectory() as folder:
            job = host.submit(source, os.path.join(folder, "go"))
            host.until(lambda: host.logs[job])
            self.assertNotIn(job, host.done)
            open(os.path.join(folder, "go"), "w").close()
            host.wait(job)

    @in_each()
    def test_a_closed_or_replaced_output_is_there_for_the_next_job(self, host):
        host.call("import sys\ndef main():\n    sys.stdout.close()\n    print('still')")
        host.call("import io, sys\ndef main(): sys.stdout = io.StringIO()")
        job = host.submit("def main(): print('here', flush=True)")
        self.assertNotIn("error", host.wait(job))
        self.assertEqual(host.logs[job], [(OUT, "here")])

    @in_each("threads", threads=8)
    def test_an_output_that_jobs_at_once_have_replaced_is_there_when_they_have_ended(self, host):
        source = """
            import collections, contextlib, io, threading, trine
            told = collections.defaultdict(threading.Event)
            def redirects(enters, leaves):
                with contextlib.redirect_stdout(io.StringIO()) as mine:
                    print(enters)
                    told[enters].set()
                    told[leaves].wait()
                return mine.getvalue()
            def waits(name):
                trine.progress("started")
                told[name].wait()
            def tell(name): told[name].set()
            def after(name): told[name].wait()
            def prints(): print("here")
        """
        first = host.submit(source, "first in", "first out", entrypoint="redirects")
        host.call(source, "first in", entrypoint="after")
        second = host.submit(source, "second in", "second out", entrypoint="redirects")
        host.call(source, "second in", entrypoint="after")
        beside = host.submit(source, "beside", entrypoint="waits")
        host.until(lambda: host.progress[beside])
        for name, job in (("first", first), ("second", second)):
            host.call(source, f"{name} out", entrypoint="tell")
            self.assertEqual(host.wait(job)["output"], f"{name} in\n")
        always = host.submit(source, "always", entrypoint="waits")
        host.until(lambda: host.progress[always])
        host.call(source, "beside", entrypoint="tell")
        host.wait(beside)
        job = host.submit(source, entrypoint="prints")
        host.wait(job)
        self.assertEqual(host.logs[job], [(OUT, "here")])
        host.call(source, "always", entrypoint="tell")
        host.wait(always)

    @in_each()
    def test_a_detached_output_is_there_for_the_next_job(self, host):
        host.call("import sys\ndef main(): sys.stdout.detach()")
        job = host.submit("def main(): print('here')")
        self.assertNotIn("error", host.wait(job))
        self.assertEqual(host.logs[job], [(OUT, "here")])

    def test_what_is_put_in_place_of_an_output_says_all_with_its_job(self):
        host = self.host("processes")
        source = """
            import io, sys
            def main():
                sys.stdout = io.TextIOWrapper(sys.stdout.detach(), encoding="utf-8")
                print("held")
            def after(): print("here")
        """
        jobs = [host.submit(source, entrypoint=entrypoint) for entrypoint in ("main", "after")]
        for job in jobs:
            self.assertNotIn("error", host.wait(job))
        self.assertEqual([host.logs[job] for job in jobs], [[(OUT, "held")], [(OUT, "here")]])

    @in_each()
    def test_a_closed_descriptor_keeps_nobody_busy(self, host):
        source = """
            import os, time
            def main():
                nothing = os.open(os.devnull, os.O_WRONLY)
                for descriptor in (1, 2): os.dup2(nothing, descriptor)
                os.close(nothing)
            def used(seconds):
                before = time.process_time()
                time.sleep(seconds)
                return time.process_time() - before
        """
        self.assertNotIn("error", host.call(source))
        self.assertLess(host.call(source, 0.3, entrypoint="used")["output"], 0.02)

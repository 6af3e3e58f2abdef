"""How an executor ends, and what its end does to its calls."""

import gc
import os
import subprocess
import sys
import textwrap
import threading
import time
import unittest
import weakref
from collections import deque

from harness import PATIENCE_S, ServerTest, hold, hold_first, square

import trine
from trine.executor import _values


class Ends(ServerTest):
    def test_nothing_is_taken_after_the_end(self):
        executor = self.executor()
        future = executor.submit(square, 3)
        executor.shutdown()
        self.assertEqual(future.result(0), 9)
        with self.assertRaisesRegex(RuntimeError, "after shutdown"):
            executor.submit(square, 1)
        executor.shutdown()

    def test_no_thread_is_left(self):
        before = set(threading.enumerate())
        with self.executor() as executor:
            list(executor.map(square, range(10)))
        self.assertEqual(set(threading.enumerate()) - before, set())

    def test_what_waits_can_be_cancelled_with_the_executor(self):
        executor = self.executor()
        futures = [executor.submit(time.sleep, 0.05) for _ in range(200)]
        self.until(lambda: futures[0].running() or futures[0].done())
        executor.shutdown(cancel_futures=True)
        self.assertTrue(all(future.done() for future in futures))
        cancelled = [future for future in futures if future.cancelled()]
        self.assertGreater(len(cancelled), 100)
        self.assertLess(len(cancelled), 200)

    def test_an_executor_that_nobody_has_ends_with_its_last_call(self):
        executor = trine.Executor(self.url, executor="processes")
        future = executor.submit(square, 4)
        engine, gone = executor._engine, weakref.ref(executor)
        del executor
        gc.collect()
        self.assertIsNone(gone())
        self.assertEqual(future.result(PATIENCE_S), 16)
        engine.join()

    def test_the_collector_may_free_an_executor_in_the_midst_of_anything(self):
        for left in (0, 1):
            with self.subTest(calls=left):
                executors = [trine.Executor(self.url, executor="processes")]
                engine = executors[0]._engine
                self.assertEqual(executors[0].submit(square, 4).result(PATIENCE_S), 16)
                later = [executors[0].with_options(delay_ms=200).submit(square, 5) for _ in range(left)]
                with engine._lock:
                    self.in_time(executors.clear)
                self.in_time(engine.join)
                self.assertEqual([future.result(0) for future in later], [25] * left)

    def test_the_collector_may_close_a_map_in_the_midst_of_anything(self):
        """One call that it is not asked for any more was sent, one was not."""
        executor = self.executor(max_workers=1)
        engine, later = executor._engine, executor.with_options(delay_ms=600_000)
        for part in (engine, later._engine):
            with self.subTest(type(part).__name__):
                futures = [executor.submit(square, 4), later.submit(square, 5), later.submit(square, 6)]
                values = [_values(part, deque(futures), iter(()), None, False)]
                self.assertEqual(next(values[0]), 16)
                self.until(lambda: futures[1].job_id)  # noqa: B023
                with engine._lock:
                    self.in_time(values.clear)
                self.until(lambda: all(future.cancelled() for future in futures[1:]))  # noqa: B023

    def test_a_callback_does_not_wait_for_its_own_thread(self):
        executor = self.executor()
        later = executor.with_options(delay_ms=600_000)
        waiting = later.submit(square, 1)
        with self.assertLogs("concurrent.futures") as logged:
            for ended in (later, executor):
                told = threading.Event()
                gate, _ = hold(self, executor)
                future = executor.submit(square, 3)
                future.add_done_callback(lambda _, ended=ended: ended.shutdown())
                future.add_done_callback(lambda _, told=told: told.set())
                gate.set()
                self.assertTrue(told.wait(PATIENCE_S))
        self.assertEqual(["cannot join current thread" in line for line in logged.output], [True] * 2)
        self.assertTrue(waiting.cancel())
        self.in_time(executor.shutdown)

    def test_a_callback_in_a_thread_that_cancels_waits_for_the_end(self):
        executor = self.executor()
        gate, future = hold_first(self, executor)
        pending = executor.submit(square, 2)
        pending.add_done_callback(lambda _: gate.set() or executor.shutdown())
        self.assertTrue(self.in_time(pending.cancel))
        self.assertEqual(future.result(0), 1)

    def test_no_call_is_lost_if_the_end_is_interrupted(self):
        executor = self.executor(max_workers=1)
        running = executor.submit(time.sleep, 600)
        self.until(running.running)
        futures = [executor.submit(square, n) for n in range(20)]

        def interrupt(future):
            raise KeyboardInterrupt

        futures[10].add_done_callback(interrupt)
        with self.assertRaises(KeyboardInterrupt):
            executor.shutdown(cancel_futures=True)
        self.client().cancel(running.job_id)
        self.in_time(executor.shutdown, cancel_futures=True)
        self.assertTrue(all(future.done() for future in futures))

    def test_an_interpreter_ends_after_its_last_call(self):
        program = textwrap.dedent("""
            import sys, time, trine, atexit
            executor = trine.Executor(sys.argv[1], executor="processes")
            @atexit.register
            def too_late():
                try:
                    executor.submit(abs, 1)
                except RuntimeError as error:
                    print(error)
            for wait in (0.2, 0):
                executor.submit(time.sleep, wait).add_done_callback(lambda future: print(future.result()))
            if "shutdown" in sys.argv:
                executor.shutdown(wait=False)
        """)
        path = os.pathsep.join(sys.path)
        for arguments, reason in (([], "interpreter shutdown"), (["shutdown"], "shutdown")):
            done = subprocess.run(
                [sys.executable, "-c", program, self.url, *arguments],
                env={**os.environ, "PYTHONPATH": path},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=PATIENCE_S,
                text=True,
            )
            self.assertEqual(done.stdout, f"None\nNone\ncannot schedule new futures after {reason}\n")


if __name__ == "__main__":
    unittest.main()

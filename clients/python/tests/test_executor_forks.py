"""An executor and a client in a process that is forked."""

import multiprocessing
import sys
import threading
import time
import unittest

import harness
from harness import PATIENCE_S, Proxy, ServerTest, square

from trine import _pickler, _travel


class Forks(ServerTest):
    def in_a_child(self, holds):
        """Whether something holds in a new process."""
        process = multiprocessing.get_context("fork").Process(target=lambda: sys.exit(not holds()))
        process.start()
        process.join(PATIENCE_S)
        process.kill()
        return process.exitcode == 0

    def test_two_processes_share_no_connection(self):
        proxy = self.opened(Proxy(self.url))
        client = self.client(proxy.url)
        self.assertTrue(client.healthy())
        self.assertTrue(self.in_a_child(client.healthy))
        self.assertEqual(len(proxy.pairs), 2)
        self.assertTrue(client.healthy())
        self.assertEqual(len(proxy.pairs), 2)

    def test_an_executor_stays_with_its_process(self):
        executor = self.executor()
        running = executor.submit(time.sleep, 600)
        self.until(running.running)
        stream = executor._engine._stream

        def refused():
            with executor:
                try:
                    executor.submit(square, 3)
                except RuntimeError as error:
                    running.cancel()
                    return "new futures after a fork: make an executor in the new process" in str(error)

        self.assertTrue(self.in_a_child(refused))
        self.assertEqual(executor.submit(square, 3).result(PATIENCE_S), 9)
        self.assertIs(executor._engine._stream, stream)
        self.assertFalse(running.done())

    def test_calls_with_options_stay_with_their_process_too(self):
        urgent = self.executor().with_options(delay_ms=600_000)
        future = urgent.submit(square, 3)
        self.assertTrue(self.in_a_child(lambda: urgent.shutdown() is None))
        self.assertFalse(future.done())
        self.assertTrue(future.cancel())

    def test_a_function_travels_while_another_thread_makes_a_process(self):
        """That is done while nobody registers a module, or the new process would wait for that for ever."""
        held, forking = threading.Event(), threading.get_ident()

        def registers():
            with _pickler._registering:
                held.set()
                self.until(lambda: sys._current_frames()[forking].f_code.co_name == "_launch")  # where it forks

        thread = threading.Thread(target=registers)
        thread.start()
        held.wait(PATIENCE_S)
        self.assertTrue(self.in_a_child(lambda: _travel.ByPickle(b"").workload(harness.hang_up, (), {})))
        thread.join()

    def test_an_executor_that_has_not_begun_is_one_of_each_process(self):
        executor = self.executor()
        urgent, name = executor.with_options(priority=5), executor._engine._jobs.name

        def works():
            mine = urgent.submit(square, 3).result(PATIENCE_S) == 9 and executor._engine._jobs.name != name
            executor.shutdown()
            return mine

        self.assertTrue(self.in_a_child(works))
        self.assertEqual(urgent.submit(square, 4).result(PATIENCE_S), 16)
        self.assertEqual(executor._engine._jobs.name, name)


if __name__ == "__main__":
    unittest.main()

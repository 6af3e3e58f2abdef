"""What the function of a call may use."""

import resource
import unittest

from harness import PATIENCE_S, Host, HostTest, in_each

SPEND = """
    def main():
        for _ in iter(int, 1):
            pass

    def deaf():
        for _ in iter(int, 1):
            try:
                for _ in iter(int, 1):
                    pass
            except BaseException:
                pass

    def quick():
        return "fine"
"""


class Limits(HostTest):
    def test_a_host_that_can_not_start_its_threads_is_not_ready(self):
        before = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (1 << 30, before[1]))
        self.addCleanup(resource.setrlimit, resource.RLIMIT_AS, before)
        with self.assertRaisesRegex(EOFError, "can't start new thread"):
            Host("threads", threads=1_000)

    def test_a_call_that_uses_more_cpu_time_ends_and_the_next_goes_on(self):
        host = self.host("processes")
        done = host.call(SPEND, cpu_ms=50)
        self.assertEqual((done["error"]["type"], done["error"]["kind"]), ("CpuTimeExceeded", "error"))
        self.assertIn("50 ms", done["error"]["message"])
        self.assertGreaterEqual(done["measured"]["cpu_user_us"] + done["measured"]["cpu_system_us"], 40_000)
        # What another has used does not count, nor does time that passes.
        for _ in range(3):
            self.assertEqual(host.call(SPEND, entrypoint="quick", cpu_ms=50)["output"], "fine")
        self.assertEqual(host.call("import time\ndef main(): time.sleep(0.2)", cpu_ms=50)["output"], None)

    def test_no_job_takes_the_limit_from_the_next_one(self):
        host = self.host("processes")
        self.assertNotIn("error", host.call("import signal\ndef main(): signal.signal(signal.SIGPROF, signal.SIG_IGN)"))
        source = """
            import time
            def main():
                while time.process_time() < 10: pass
        """
        self.assertEqual(host.call(source, cpu_ms=50).get("error", {}).get("type"), "CpuTimeExceeded")
        # Nor does its timer end one without a limit.
        self.assertNotIn("error", host.call("import signal\ndef main(): signal.setitimer(signal.ITIMER_PROF, 0.01, 0.01)"))
        source = """
            import time
            def main():
                end = time.process_time() + 0.1
                while time.process_time() < end: pass
        """
        self.assertNotIn("error", host.call(source))

    def test_a_call_that_does_not_heed_it_takes_its_process_along(self):
        host = self.host("processes")
        done = host.call(SPEND, entrypoint="deaf", cpu_ms=50)
        self.assertEqual((done["error"]["type"], done["worn"]), ("CpuTimeExceeded", True))
        self.assertEqual(host.process.wait(PATIENCE_S), 1)

    def test_a_call_that_only_prints_and_does_not_heed_it_takes_its_process_along_too(self):
        for _ in range(3):
            host = self.host("processes", max_log_bytes=1 << 30)
            # In both ways, of which another thread reads one.
            source = """
                import os
                def main():
                    while True:
                        try:
                            print("x" * 200 + "\\ny", end="")
                            os.write(1, b"z\\n")
                        except BaseException: pass
            """
            self.assertEqual(host.call(source, cpu_ms=50)["error"]["type"], "CpuTimeExceeded")
            # What was printed meanwhile comes before its end, and has to be taken.
            with self.assertRaises((EOFError, ConnectionError)):
                host.until(lambda: False)
            self.assertEqual(host.process.wait(PATIENCE_S), 1)

    @in_each()
    def test_the_output_is_no_longer_than_the_function_says(self, host):
        source = "def main(n): return 'x' * n"
        self.assertEqual(host.call(source, 8, output_bytes=10)["output"], "x" * 8)
        error = host.call(source, 9, output_bytes=10)["error"]
        self.assertIn("the output takes 11 bytes; the most is 10", error["message"])
        self.assertEqual(host.call(source, 9)["output"], "x" * 9)


if __name__ == "__main__":
    unittest.main()

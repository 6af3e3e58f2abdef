"""Calls that come while another one is being made by a process."""

import os
import tempfile

from harness import HostTest

SOURCE = """
    import os, threading, time, trine

    def short(value):
        return value

    def until(path):
        trine.progress("begun")
        while not os.path.exists(path): time.sleep(0.001)
        return "through"

    def leaves_a_thread():
        threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()

    def leaves_a_file():
        (trine.artifacts() / "a").write_text("a")
"""


class Behind(HostTest):
    def folder(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        return folder.name

    def call(self, host, entrypoint, *args, **more):
        return host.submit(SOURCE, *args, entrypoint=entrypoint, **more)

    def test_one_behind_a_short_call_is_made_after_it(self):
        host = self.host("processes")
        jobs = [self.call(host, "short", n, behind=n > 0) for n in range(50)]
        self.assertEqual([host.wait(job)["output"] for job in jobs], [*range(50)])
        self.assertEqual((list(host.done), host.returned), (jobs, set()))

    def test_what_stands_behind_a_long_call_comes_back(self):
        host = self.host("processes")
        path = os.path.join(self.folder(), "go")
        long = self.call(host, "until", path)
        behind = {self.call(host, "short", n, behind=True) for n in range(2)}
        host.until(lambda: host.returned == behind)
        self.assertEqual(list(host.done), [])
        # Those that come later still do.
        late = self.call(host, "short", 3, behind=True)
        host.until(lambda: late in host.returned)
        open(path, "w").close()
        self.assertEqual(host.wait(long)["output"], "through")
        self.assertEqual(host.wait(self.call(host, "short", 4, behind=True))["output"], 4)
        self.assertFalse(behind & set(host.done))

    def test_one_behind_a_long_call_that_is_to_stop_comes_back_too(self):
        host = self.host("processes")
        long = self.call(host, "until", "/nowhere/at/all")
        behind = self.call(host, "short", 1, behind=True)
        host.send({"stop": {"id": behind}})
        host.until(lambda: behind in host.returned)
        self.assertEqual(list(host.done), [])
        host.send({"stop": {"id": long}})
        self.assertEqual(host.wait(long)["error"]["kind"], "cancelled")

    def test_what_was_left_behind_is_met_by_nothing_behind(self):
        for leaves in ("leaves_a_thread", "leaves_a_file"):
            with self.subTest(leaves):
                host = self.host("processes", cwd=self.folder())
                first = self.call(host, leaves)
                behind = {self.call(host, "short", n, behind=True) for n in range(2)}
                self.assertIsNone(host.wait(first)["output"])
                host.until(lambda: host.returned == behind)
                # One that was sent to it alone is made, and others behind that.
                self.assertEqual(host.wait(self.call(host, "short", 3))["output"], 3)

"""Known work against the figures."""

import contextlib
import mmap
import os
import subprocess
import sys
import time

from harness import HostTest, in_each

SPIN = """
    import asyncio, concurrent.futures, threading, time

    def spin(ms, clock=time.thread_time):
        end = clock() + ms / 1000
        while clock() < end: pass

    def cpu(ms): spin(ms)
    def wait(ms): time.sleep(ms / 1000)

    async def await_(ms):
        for _ in range(10): await asyncio.sleep(ms / 10_000)

    async def mixed(ms):
        for _ in range(4):
            spin(ms / 8)
            await asyncio.sleep(ms / 8_000)

    async def turns(ms):
        for n in range(20):
            spin(ms / 20)
            await asyncio.sleep(n % 2 / 1000)

    async def blocked(ms):
        await asyncio.sleep(0.001)
        time.sleep(ms / 1000)
        await asyncio.sleep(0.001)

    async def nested(ms):
        async def inner(n):
            await asyncio.sleep(0.001)
            spin(ms / 4)
            if n: await asyncio.create_task(inner(n - 1))
        await asyncio.gather(inner(1), inner(1))

    async def helped(ms):
        await asyncio.gather(*(asyncio.to_thread(spin, ms / 2) for _ in range(2)))

    async def pooled(ms):
        with concurrent.futures.ThreadPoolExecutor() as pool:
            await asyncio.get_running_loop().run_in_executor(pool, spin, ms)

    async def given(ms):
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            asyncio.get_running_loop().set_default_executor(pool)
            await helped(ms)

    async def shared(ms):
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            pool.submit(spin, ms / 2).result()
            await asyncio.get_running_loop().run_in_executor(pool, spin, ms / 2)

    def threads(ms):
        started = [threading.Thread(target=spin, args=(ms / 2,)) for _ in range(2)]
        for thread in started: thread.start()
        for thread in started: thread.join()

    def child(ms):
        import subprocess, sys
        subprocess.run([sys.executable, "-c", f"import time\\nwhile time.process_time() < {ms} / 1000: pass"])
"""
MS = 200
US = MS * 1000


class Measuring(HostTest):
    def measure(self, host, entrypoint):
        done = host.call(SPIN, MS, entrypoint=entrypoint)
        self.assertNotIn("error", done)
        return done["measured"]

    def cpu(self, host, entrypoint):
        measured = self.measure(host, entrypoint)
        return measured["cpu_user_us"] + measured["cpu_system_us"]

    def assert_about(self, value, expected, slack_us=30_000):
        # Clocks are read one after the other, and a busy machine may be in between.
        self.assertGreaterEqual(value, expected - 5_000)
        self.assertLessEqual(value, expected + slack_us)

    @in_each()
    def test_clocks(self, host):
        before_ns, before_us = time.monotonic_ns(), time.time_ns() // 1000
        measured = self.measure(host, "wait")
        self.assertLess(before_ns, measured["began_ns"])
        self.assertLess(measured["began_ns"] + US * 1000, time.monotonic_ns())
        self.assertLessEqual(before_us, measured["started_at_us"])
        self.assertLess(measured["started_at_us"] + US, time.time_ns() // 1000 + 1)
        self.assertGreaterEqual(measured["wall_us"], US)

    @in_each()
    def test_cpu_time_of_work_and_of_waiting(self, host):
        self.measure(host, "wait")  # imports what there is to import
        self.assert_about(self.cpu(host, "cpu"), US)
        waited = self.measure(host, "wait")
        self.assertLess(waited["cpu_user_us"] + waited["cpu_system_us"], 10_000)
        self.assertGreaterEqual(waited["ctx_voluntary"], 1)
        self.assert_about(self.cpu(host, "mixed"), US / 2)

    @in_each()
    def test_clocks_that_a_job_has_replaced_are_not_the_hosts(self, host):
        source = """
            import asyncio, sys, time

            def main():
                # As freezegun does: wherever they are.
                for module in [*sys.modules.values()]:
                    for name, value in [*vars(module).items()]:
                        if getattr(value, "__module__", None) == "time" and name.partition("_")[0] in ("time", "monotonic", "process", "thread"):
                            setattr(module, name, lambda: 0)

            def waits(sleep=time.sleep): sleep(0.01)
            async def sleeps(): await asyncio.sleep(0.01)
        """
        waits = "sleeps" if host.mode == "async" else "waits"
        for entrypoint in (waits, "main", waits):
            began_ns, began_us = time.monotonic_ns(), time.time_ns() // 1000
            measured = host.call(source, entrypoint=entrypoint)["measured"]
            self.assertGreaterEqual(measured["began_ns"], began_ns)
            self.assertGreaterEqual(measured["started_at_us"], began_us)
            self.assertGreater(measured["wall_us"], 10_000 if entrypoint == waits else 0)
            self.assertGreaterEqual(min(value for value in measured.values() if value is not None), 0)

    @in_each("async")
    def test_computing_is_never_less_than_none(self, host):
        source = """
            import asyncio, time

            async def main():
                host = asyncio.get_running_loop()._selector.host
                while True:
                    await asyncio.sleep(0)
                    # More was taken for computing than the kernel will say; and a step that is short leaves it so.
                    lately = host.lately = time.monotonic_ns() + 10**12, (2 * 10**12, 0.0, 0, 0, 0)
                    await asyncio.sleep(0)
                    if host.lately is lately: break
                end = time.monotonic() + 0.001
                while time.monotonic() < end: pass
        """
        done = host.call(source)
        self.assertNotIn("error", done)
        self.assertGreaterEqual(min(done["measured"]["cpu_user_us"], done["measured"]["cpu_system_us"]), 0)

    @in_each("async")
    def test_steps_of_a_coroutine(self, host):
        waited = self.measure(host, "await_")
        self.assertEqual(waited["polls"], 11)
        self.assertLess(waited["longest_poll_us"], 50_000)
        blocked = self.measure(host, "blocked")
        self.assertEqual(blocked["polls"], 3)
        self.assertGreaterEqual(blocked["longest_poll_us"], US)
        # A wait for a core before, in another step, is not taken off.
        self.assertGreater(blocked["longest_hold_us"], US / 2)
        self.assertLess(blocked["cpu_user_us"] + blocked["cpu_system_us"], 20_000)
        loaded = host.call(f"import time\ntime.sleep({MS} / 1000)\nasync def main(): pass")["measured"]
        self.assertGreaterEqual(loaded["longest_poll_us"], US)
        self.assertLess(loaded["longest_hold_us"], US / 2)
        held = self.measure(host, "cpu")
        self.assertEqual(held["polls"], 1)
        self.assertGreaterEqual(held["longest_poll_us"], US)

    @contextlib.contextmanager
    def busy_machine(self):
        burners = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2 * os.cpu_count())]
        try:
            yield
        finally:
            for burner in burners:
                burner.kill()
                burner.wait()

    @in_each("threads", "processes")
    def test_waiting_for_a_core_is_told_from_waiting(self, host):
        with self.busy_machine():
            busy, waited = self.measure(host, "cpu"), self.measure(host, "wait")
        kept = busy["core_wait_us"]
        self.assertGreater(kept, 0)
        # It did one or the other nearly all the time.
        self.assertGreater(busy["cpu_user_us"] + busy["cpu_system_us"] + kept, busy["wall_us"] * 0.9)
        self.assertLess(waited["core_wait_us"], US / 2)

    @in_each("threads", threads=1)
    def test_a_job_may_close_what_the_wait_for_a_core_is_read_from(self, host):
        source = """
            import contextlib, os, time
            def main():
                os.closerange(0, 100)
                with contextlib.ExitStack() as files:
                    while files.enter_context(open("/proc/self/comm")).fileno() < 20: pass
                    time.sleep(0.001)
                    return "closed"
            def reads():
                files = [open("/proc/self/comm") for _ in range(20)]
                time.sleep(0.001)
                return "read"
        """
        for entrypoint, output in (("main", "closed"), ("reads", "read")):
            done = host.call(source, entrypoint=entrypoint)
            self.assertEqual(done.get("output", done), output)

    @in_each("threads", "processes")
    def test_helper_threads_that_had_no_core_are_told_from_waiting(self, host):
        with self.busy_machine():
            measured = [host.call(SPIN, MS / 10, entrypoint="pooled")["measured"] for _ in range(10)]
        figures = ("cpu_user_us", "cpu_system_us", "core_wait_us")
        told = sum(each[figure] for each in measured for figure in figures)
        self.assertGreater(told, sum(each["wall_us"] for each in measured) * 0.7)

    @in_each("threads")
    def test_what_may_be_waiting_for_the_lock_is_bounded(self, host):
        alone = self.measure(host, "cpu")
        jobs = [host.submit(SPIN, MS, entrypoint="cpu") for _ in range(4)]
        together = [host.wait(job)["measured"] for job in jobs]
        if alone["gil"] is False:
            self.assertEqual([measured["gil_wait_us"] for measured in together], [None] * 4)
            return
        self.assertLess(alone["gil_wait_us"], US / 4)
        for measured in together:
            cpu = measured["cpu_user_us"] + measured["cpu_system_us"]
            self.assertLessEqual(measured["gil_wait_us"], measured["wall_us"] - cpu)
        self.assertGreater(max(measured["gil_wait_us"] for measured in together), US)

    def at_once(self, host, entrypoint, ms):
        """How long jobs computed, and what of their time is neither that, nor a wait for the lock, nor others' doing."""
        jobs = [host.submit(SPIN, ms, entrypoint=entrypoint) for _ in range(6)]
        computed = own = 0
        for measured in (host.wait(job)["measured"] for job in jobs):
            cpu, lock = measured["cpu_user_us"] + measured["cpu_system_us"], measured["gil_wait_us"] or 0
            computed += cpu
            own += max(0, measured["wall_us"] - cpu - lock - measured["core_wait_us"] - (measured["loop_wait_us"] or 0))
        return computed, own

    @in_each("threads")
    def test_who_has_the_lock_keeps_it_while_he_has_no_core(self, host):
        if host.call("def main(): pass")["measured"]["gil"]:
            with self.busy_machine():
                computed, own = self.at_once(host, "cpu", MS)
            self.assertGreater(computed, own)

    @in_each("async")
    def test_helper_threads_wait_for_the_lock_as_well(self, host):
        measured = self.measure(host, "await_")
        self.assertIsNone(measured["gil_wait_us"])
        if measured["gil"]:
            for entrypoint in ("helped", "pooled", "threads"):
                computed, own = self.at_once(host, entrypoint, MS / 4)
                self.assertGreater(computed, own, entrypoint)

    @in_each("async")
    def test_who_was_on_the_loop_while_it_was_held(self, host):
        idle = [host.submit(SPIN, 4 * MS, entrypoint="await_") for _ in range(3)]
        self.assertEqual(self.measure(host, "cpu")["held_jobs"], 3)
        for job in idle:
            self.assertIsNone(host.wait(job)["measured"]["held_jobs"])

    @in_each("async")
    def test_a_turn_that_comes_late_is_told_from_waiting(self, host):
        jobs = [host.submit(SPIN, MS, entrypoint="turns") for _ in range(4)]
        idle = host.submit(SPIN, MS, entrypoint="await_")
        for measured in (host.wait(job)["measured"] for job in jobs):
            ran = measured["cpu_user_us"] + measured["cpu_system_us"]
            kept = measured["loop_wait_us"] + measured["core_wait_us"]
            self.assertGreater(measured["loop_wait_us"], US)
            self.assertLessEqual(ran + kept, measured["wall_us"] + 1_000)
            # Ten times it waited for a millisecond.
            self.assertGreater(ran, 0.7 * (measured["wall_us"] - kept))
        crowded = host.wait(idle)["measured"]
        alone = self.measure(host, "await_")
        self.assertLess(alone["loop_wait_us"], 20_000)
        for measured in (crowded, alone):
            # It waits for so long by itself, give or take what a timer of the loop is late.
            self.assert_about(measured["wall_us"] - measured["loop_wait_us"] - measured["core_wait_us"], US)

    @in_each("threads", "processes")
    def test_only_a_loop_has_polls(self, host):
        measured = self.measure(host, "await_")
        self.assertIsNone(measured["polls"])
        self.assertIsNone(measured["longest_poll_us"])
        self.assertIsNone(measured["loop_wait_us"])
        self.assertIsNone(measured["longest_hold_us"])

    @in_each("async")
    def test_tasks_and_helper_threads_count_for_the_job_that_started_them(self, host):
        idle = host.submit(SPIN, 4 * MS, entrypoint="await_")
        self.assert_about(self.cpu(host, "nested"), US)
        self.assert_about(self.cpu(host, "helped"), US)
        self.assert_about(self.cpu(host, "threads"), US)
        for pool in ("pooled", "given", "shared"):
            self.assert_about(self.cpu(host, pool), US)
        nested = self.measure(host, "nested")
        self.assertGreaterEqual(nested["polls"], 9)
        self.assertGreaterEqual(nested["longest_poll_us"], US / 4)
        self.assertLess(nested["longest_hold_us"], US)
        measured = host.wait(idle)["measured"]
        self.assertLess(measured["cpu_user_us"] + measured["cpu_system_us"], 20_000)
        self.assertLess(measured["longest_poll_us"], 50_000)

    @in_each("async", "threads")
    def test_jobs_at_once_are_told_apart(self, host):
        self.measure(host, "await_")  # imports what there is to import
        light = [host.submit(SPIN, 2 * MS, entrypoint="await_" if host.mode == "async" else "wait") for _ in range(2)]
        heavy = host.submit(SPIN, MS, entrypoint="cpu")
        figures = [host.wait(job)["measured"] for job in (heavy, *light)]
        heavy, *light = (measured["cpu_user_us"] + measured["cpu_system_us"] for measured in figures)
        self.assert_about(heavy, US, 60_000)
        self.assertLess(max(light), 30_000)

    @in_each("processes")
    def test_a_process_counts_its_threads_and_children(self, host):
        self.assert_about(self.cpu(host, "threads"), US, 60_000)
        self.assert_about(self.cpu(host, "child"), US, 200_000)

    @in_each("threads", "processes")
    def test_a_loop_of_the_jobs_own_counts_its_helper_threads(self, host):
        self.assert_about(self.cpu(host, "helped"), US, 60_000)
        for pool in ("pooled", "shared"):
            self.assert_about(self.cpu(host, pool), US, 60_000)

    @in_each("threads")
    def test_threads_count_for_the_job_that_started_them(self, host):
        measured = self.measure(host, "threads")
        self.assert_about(measured["cpu_user_us"] + measured["cpu_system_us"], US, 60_000)
        if measured["gil_wait_us"] is not None:
            self.assertLess(measured["gil_wait_us"], US / 4)

    def test_a_process_in_which_something_goes_on_gets_no_further_job(self):
        host = self.host("processes")
        source = """
            import signal, threading
            def nothing(): pass
            def joins():
                thread = threading.Thread(target=nothing)
                thread.start()
                thread.join()
            def leaves(): threading.Thread(target=threading.Event().wait, daemon=True).start()
            def alarm(): signal.alarm(1)
            def armed(): return signal.getitimer(signal.ITIMER_REAL)
        """
        for quiet in ("nothing", "joins", "alarm"):
            self.assertNotIn("worn", host.call(source, entrypoint=quiet))
        self.assertEqual(host.call(source, entrypoint="armed")["output"], [0, 0])
        self.assertTrue(host.call(source, entrypoint="leaves")["worn"])

    def test_memory_is_that_of_the_job(self):
        host = self.host("processes")
        # As it is mapped, so it goes: allocators, as that without a global lock, may keep what was freed.
        source = """
            import mmap
            def main(mib):
                with mmap.mmap(-1, mib << 20) as memory:
                    for _ in range(mib): memory.write(b"x" * (1 << 20))
        """
        first, large, last = (host.call(source, mib)["measured"]["max_rss_bytes"] for mib in (1, 200, 1))
        self.assertGreater(large, 200 << 20)
        self.assertLess(first, 100 << 20)
        self.assertLess(last, 100 << 20)
        for mode in ("async", "threads"):
            self.assertIsNone(self.host(mode).call(source, 1)["measured"]["max_rss_bytes"])

    @in_each("processes")
    def test_memory_of_a_job_that_makes_none_resident_is_what_it_finds(self, host):
        source = """
            import mmap
            kept = None
            def keep(mib):
                global kept
                kept = mmap.mmap(-1, mib << 20)
                for _ in range(mib): kept.write(b"x" * (1 << 20))
            def drop():
                kept.close()
            def populate(mib):
                mmap.mmap(-1, mib << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE).close()
            def nothing(): pass
        """

        def peak(entrypoint, *args):
            return host.call(source, *args, entrypoint=entrypoint)["measured"]["max_rss_bytes"]

        large = 200 << 20
        self.assertGreater(peak("keep", 200), large)
        self.assertGreater(peak("nothing"), large)
        self.assertGreater(peak("drop"), large)
        self.assertLess(peak("nothing"), large / 2)
        if hasattr(mmap, "MAP_POPULATE"):  # from Python 3.10 on
            # The kernel makes pages resident that the job itself does not touch.
            self.assertGreater(peak("populate", 200), large)
            self.assertLess(peak("nothing"), large / 2)

    @in_each("async")
    def test_a_measured_task_passes_for_an_ordinary_one(self, host):
        source = """
            import asyncio, contextvars
            async def inner():
                await asyncio.sleep(0.01)
                return 1
            async def raises(): raise ValueError("x")
            async def main():
                task = asyncio.create_task(inner(), name="mine")
                await asyncio.sleep(0)
                assert "inner()" in repr(task) and task.get_name() == "mine", repr(task)
                assert task.get_stack()[-1].f_code.co_name == "inner"
                assert asyncio.iscoroutine(task.get_coro())
                try: await asyncio.create_task(raises())
                except ValueError: pass
                try: await asyncio.wait_for(asyncio.create_task(inner()), 0.001)
                except asyncio.TimeoutError: pass
                if hasattr(asyncio, "TaskGroup"):
                    async with asyncio.TaskGroup() as group:
                        other = group.create_task(inner(), context=contextvars.copy_context())
                    assert other.result() == 1
                if hasattr(asyncio, "eager_task_factory"):
                    eager = asyncio.Task(inner(), loop=asyncio.get_running_loop(), eager_start=True)
                    assert await eager == 1
                return await task
        """
        done = host.call(source)
        self.assertEqual(done.get("output", done), 1)

    @in_each("async")
    def test_tasks_end_with_their_job(self, host):
        source = """
            import asyncio
            ended = []
            async def forever():
                try:
                    await asyncio.sleep(1000)
                finally:
                    ended.append(1)
            async def main():
                asyncio.create_task(forever())
                await asyncio.sleep(0.001)
            def count(): return len(ended)
        """
        self.assertNotIn("error", host.call(source))
        self.assertEqual(host.call(source, entrypoint="count")["output"], 1)

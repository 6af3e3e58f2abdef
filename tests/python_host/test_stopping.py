"""Jobs that are asked to stop, and hosts that are left alone."""

import base64
import os
import pickle
import signal
import tempfile
import textwrap

from harness import PATIENCE_S, HostTest, in_each

SOURCE = """
    import asyncio, time, trine

    def step(kind="started"): trine.progress(kind)

    async def awaits():
        step()
        try:
            await asyncio.sleep(1000)
        finally:
            step("cleaned")

    async def nested():
        await asyncio.gather(awaits(), asyncio.sleep(1000))

    async def returns_what_it_has():
        try:
            await awaits()
        except asyncio.CancelledError:
            return "part"

    async def holds_its_loop():
        step()
        try:
            while True: time.sleep(0.001)
        finally:
            await cleans()

    def asks():
        step()
        while not trine.stopped(): time.sleep(0.001)
        return "as asked"

    def reports():
        try:
            while True:
                step()
                time.sleep(0.001)
        except Exception:
            return "not a good idea"

    def yields():
        try:
            while True:
                yield "started"
                time.sleep(0.001)
        finally:
            step("cleaned")

    async def cleans():
        step("cleaned")
        await asyncio.sleep(0)
        step("cleaned all")

    async def reports_on():
        try:
            while True: step()
        finally:
            await cleans()

    async def yields_on():
        try:
            while True: yield "started"
        finally:
            await cleans()

    async def stubborn():
        step()
        while True:
            try:
                while True: await asyncio.sleep(0.001)
            except asyncio.CancelledError:
                step("told")

    def sleeps():
        step()
        try:
            time.sleep(1000)
        finally:
            time.sleep(0.3)
            step("cleaned")

    def spins():
        step()
        while True: pass

    def prints():
        step()
        while True: print("x" * 100)

    def heeds():
        try:
            while True:
                step()
                time.sleep(0.001)
        except trine.Stopped as stopped:
            return str(stopped)

    def quick(): return "fine"
"""


class Made:
    """Becomes what a call gives when it is unpickled."""

    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        make, *args = self.call
        return make, tuple(args)


class Stopping(HostTest):
    def stop(self, host, entrypoint):
        job = host.submit(SOURCE, entrypoint=entrypoint)
        host.until(lambda: host.progress[job])
        host.send({"stop": {"id": job}})
        return job, host.wait(job)

    def assert_cancelled(self, done, type_name):
        self.assertEqual((done["error"]["kind"], done["error"]["type"]), ("cancelled", type_name))

    @in_each()
    def test_what_awaits_is_cancelled(self, host):
        for entrypoint in ("awaits", "nested"):
            job, done = self.stop(host, entrypoint)
            self.assert_cancelled(done, "asyncio.exceptions.CancelledError")
            self.assertEqual(host.progress[job], ["started", "cleaned"])
            self.assertEqual(host.call(SOURCE, entrypoint="quick")["output"], "fine")
        job, done = self.stop(host, "returns_what_it_has")
        self.assertEqual(done.get("output"), "part")

    @in_each("threads")
    def test_a_thread_is_told_when_it_asks_or_reports(self, host):
        self.assertEqual(self.stop(host, "asks")[1]["output"], "as asked")
        self.assert_cancelled(self.stop(host, "reports")[1], "trine.Stopped")
        job, done = self.stop(host, "yields")
        self.assert_cancelled(done, "trine.Stopped")
        self.assertEqual(host.progress[job][-1], "cleaned")

    @in_each("threads", "processes")
    def test_what_reports_and_never_waits_is_told_once_though_it_could_await(self, host):
        for entrypoint in ("reports_on", "yields_on"):
            job, done = self.stop(host, entrypoint)
            self.assertEqual(done["error"]["kind"], "cancelled")
            self.assertEqual(host.progress[job][-2:], ["cleaned", "cleaned all"])
            self.assertEqual(host.call(SOURCE, entrypoint="quick")["output"], "fine")

    @in_each("threads", "processes")
    def test_a_function_can_heed_that_it_is_stopped(self, host):
        self.assertEqual(self.stop(host, "heeds")[1].get("output"), "the job was asked to stop")

    @in_each("threads", "processes")
    def test_what_another_thread_raises_while_a_job_sends_is_the_jobs_alone(self, host):
        source = """
            import ctypes, threading, trine

            def main():
                me, enough, caught = ctypes.c_ulong(threading.get_ident()), threading.Event(), 0
                def raises():
                    raised = 0
                    while not enough.wait(0.0001):
                        if raised == caught:
                            raised += 1
                            ctypes.pythonapi.PyThreadState_SetAsyncExc(me, ctypes.py_object(TimeoutError))
                thread = threading.Thread(target=raises)
                thread.start()
                while True:
                    try:
                        while caught < 300: trine.progress(caught)
                        enough.set()
                        return thread.join()
                    except TimeoutError:
                        caught += 1
        """
        # What it makes of that, in the midst of writing a value say, is its own affair.
        host.call(source)
        self.assertEqual(host.call(SOURCE, entrypoint="quick")["output"], "fine")

    @in_each("async")
    def test_a_loop_is_heard_from_unless_a_job_holds_it(self, host):
        job = host.submit(SOURCE, entrypoint="stubborn")
        host.until(lambda: host.progress[job])
        host.send({"stop": {"id": job}})
        host.until(lambda: host.progress[job][-1] == "told")
        host.send({"ping": {}})
        host.until(lambda: host.pongs == 1)
        asks = host.submit(SOURCE, entrypoint="asks")
        host.until(lambda: host.progress[asks])
        # It holds the loop until it is told to stop, and the loop would have to tell it.
        host.send({"ping": {}})
        self.assertTrue(host.quiet(0.1))

    @in_each("async")
    def test_a_job_that_is_left_goes_no_further(self, host):
        source = """
            import asyncio, trine
            seen = []
            async def goes_on(name):
                while True:
                    try:
                        seen.append(name)
                        await asyncio.sleep(0.0001)
                    except asyncio.CancelledError:
                        trine.progress("told")
            async def main(): await asyncio.gather(goes_on("task"), goes_on("other task"))
            async def count():
                before = len(seen)
                await asyncio.sleep(0.05)
                return len(seen) - before
        """
        job = host.submit(source)
        self.assertGreater(host.call(source, entrypoint="count")["output"], 0)
        host.send({"leave": {"id": job}})
        self.assertEqual(host.call(source, entrypoint="count")["output"], 0)
        # Not even to hear that it is cancelled.
        host.send({"stop": {"id": job}})
        self.assertEqual(host.call(source, entrypoint="count")["output"], 0)
        self.assertEqual(host.progress[job], [])

    @in_each("async")
    def test_a_generator_on_the_loop_gives_way(self, host):
        for entrypoint in ("yields", "yields_on"):
            job, done = self.stop(host, entrypoint)
            self.assert_cancelled(done, "asyncio.exceptions.CancelledError")
            self.assertRegex(host.progress[job][-1], "cleaned")

    @in_each("async")
    def test_calls_in_threads_that_jobs_leave_behind_keep_no_other_from_theirs(self, host):
        source = """
            import asyncio, threading, trine
            released = threading.Event()

            async def hangs():
                trine.progress("started")
                await asyncio.to_thread(released.wait)

            async def calls(): return await asyncio.to_thread(len, "fine")

            async def forgets():
                for _ in range(40): asyncio.get_running_loop().run_in_executor(None, released.wait)

            async def gives_up(times):
                for _ in range(times):
                    begun = threading.Event()
                    call = asyncio.create_task(asyncio.to_thread(lambda: (begun.set(), released.wait())))
                    while not begun.is_set(): await asyncio.sleep(0.001)
                    call.cancel()

            def release(): released.set()

            def quick(): return "fine"
        """
        jobs = [host.submit(source, entrypoint="hangs") for _ in range(40)]
        host.until(lambda: all(host.progress[job] for job in jobs))
        waits = host.submit(source, entrypoint="calls")
        for job in jobs:
            host.send({"stop": {"id": job}})
        for job in jobs:
            self.assert_cancelled(host.wait(job), "asyncio.exceptions.CancelledError")
        self.assertEqual(host.wait(waits)["output"], 4)
        self.assertNotIn("error", host.call(source, entrypoint="forgets"))
        self.assertEqual(host.call(source, entrypoint="calls")["output"], 4)
        host.call(source, entrypoint="release")
        # There is an end to that: then another host should take over.
        source += "    # anew"
        host.call(source, 64, entrypoint="gives_up")
        while "worn" not in (done := host.call(source, entrypoint="quick")):
            self.assertEqual(done["output"], "fine")
        self.assertIs(done["worn"], True)
        host.call(source, entrypoint="release")
        self.assertEqual(host.call(source, entrypoint="calls")["output"], 4)
        while "worn" in host.call(source, entrypoint="quick"):
            pass

    @in_each("async")
    def test_a_default_executor_is_that_of_its_job_alone(self, host):
        source = """
            import asyncio, concurrent.futures, threading
            async def name(): return await asyncio.to_thread(lambda: threading.current_thread().name)
            async def main():
                with concurrent.futures.ThreadPoolExecutor(thread_name_prefix="own") as pool:
                    asyncio.get_running_loop().set_default_executor(pool)
                    return await name()
        """
        self.assertEqual(host.call(source).get("output"), "own_0")
        self.assertNotIn("own", host.call(source, entrypoint="name")["output"])

    @in_each("async")
    def test_no_task_outlives_its_job(self, host):
        source = """
            import asyncio

            alive, done = set(), []

            async def forever(name):
                alive.add(name)
                try: await asyncio.sleep(1000)
                finally: alive.discard(name)

            async def cleans():
                try: await asyncio.sleep(1000)
                finally:
                    # What it waits for as it ends may be a task.
                    await asyncio.create_task(asyncio.sleep(0.001))
                    done.append("main")
                    asyncio.create_task(forever("by a task that ends"))

            async def again():
                try: await asyncio.sleep(1000)
                finally: asyncio.create_task(again())

            async def main():
                for start in (cleans, again):
                    asyncio.create_task(start())
                await asyncio.sleep(0)

            async def late():
                loop = asyncio.get_running_loop()
                def called_back():
                    loop.create_task(forever("by a call back"))
                    done.append("late")
                loop.call_later(0.01, called_back)

            async def look(entrypoint):
                while entrypoint not in done: await asyncio.sleep(0)
                for _ in range(10): await asyncio.sleep(0)
                names = {task.get_coro().__name__ for task in asyncio.all_tasks()} & {"forever", "again", "cleans"}
                return [*alive, *names]
        """
        for entrypoint in ("late", "main"):
            self.assertNotIn("error", host.call(source, entrypoint=entrypoint))
            self.assertEqual(host.call(source, entrypoint, entrypoint="look")["output"], [], entrypoint)

    @in_each("processes")
    def test_a_process_is_interrupted(self, host):
        for entrypoint in ("sleeps", "spins", "yields", "reports", "holds_its_loop"):
            job, done = self.stop(host, entrypoint)
            self.assert_cancelled(done, "trine.Stopped")
            if entrypoint in ("sleeps", "yields"):
                self.assertEqual(host.progress[job][-1], "cleaned")
            elif entrypoint == "holds_its_loop":
                self.assertEqual(host.progress[job], ["started", "cleaned", "cleaned all"])
            self.assertEqual(host.call(SOURCE, entrypoint="quick")["output"], "fine")

    @in_each("processes")
    def test_no_module_is_left_half_loaded(self, host):
        module = """
            import builtins, time, trine
            builtins.loaded = getattr(builtins, "loaded", 0) + 1
            print("loading")
            while loaded == 1 and not trine.stopped(): time.sleep(0.001)
            for _ in range(100): time.sleep(0.001)
        """
        source = """
            import sys, time
            def main():
                import half_loaded
                time.sleep(1000)
            def again():
                import half_loaded
                return loaded
        """
        with tempfile.TemporaryDirectory() as folder:
            with open(os.path.join(folder, "half_loaded.py"), "w") as file:
                file.write(textwrap.dedent(module))
            source = textwrap.dedent(source) + f"\nsys.path.insert(0, {folder!r})\n"
            job = host.submit(source)
            host.until(lambda: host.logs[job])
            host.send({"stop": {"id": job}})
            self.assert_cancelled(host.wait(job), "trine.Stopped")
            self.assertEqual(host.call(source, entrypoint="again")["output"], 1)

    def test_messages_stay_whole_when_a_printing_process_is_interrupted(self):
        host = self.host("processes", max_log_bytes=1 << 40)
        for _ in range(5):
            self.assert_cancelled(self.stop(host, "prints")[1], "trine.Stopped")

    @in_each("threads", "processes", threads=1)
    def test_a_job_that_waits_can_be_stopped_too(self, host):
        first = host.submit("import time\ndef main(): time.sleep(0.5)")
        second = host.submit(SOURCE, entrypoint="sleeps")
        host.send({"stop": {"id": second}})
        self.assertNotIn("error", host.wait(first))
        self.assertEqual(host.wait(second)["error"]["kind"], "cancelled")

    def test_a_job_is_stopped_on_its_way_to_its_function(self):
        """The signal comes while the host unpickles the arguments, which waits for a pipe to be opened at its other end."""
        host = self.host("processes")
        opened_when_it_comes = """
            import os
            from _trine_host.processes import Processes
            def main(path):
                turn_to = Processes.turn_to
                def turned(job, frame):
                    turn_to(job, frame)
                    os.open(path, os.O_RDWR)
                Processes.turn_to = staticmethod(turned)
        """
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "pipe")
            os.mkfifo(path)
            self.assertNotIn("error", host.call(opened_when_it_comes, path))
            data = pickle.dumps((Made(eval, "lambda pipe: __import__('time').sleep(600)"), (Made(open, path),), {}))
            job = host.submit(code=None, pickle=base64.b64encode(data).decode())
            host.send({"stop": {"id": job}})
            self.assert_cancelled(host.wait(job), "trine.Stopped")

    @in_each("threads")
    def test_a_coroutine_is_stopped_while_it_loads(self, host):
        source = """
            import asyncio, pathlib, time
            print("loading")
            while not pathlib.Path(PATH).exists(): time.sleep(0.001)
            async def main(): await asyncio.sleep(1000)
        """
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "go")
            job = host.submit(source.replace("PATH", repr(path)))
            host.until(lambda: host.logs[job])
            host.send({"stop": {"id": job}})
            stopped = host.submit("def main(): return 'after the stop'")
            host.wait(stopped)
            open(path, "w").close()
            self.assertEqual(host.wait(job)["error"]["kind"], "cancelled")

    @in_each()
    def test_a_stop_that_comes_too_late_hits_nobody(self, host):
        for _ in range(100):
            job = host.submit(SOURCE, entrypoint="quick")
            host.send({"stop": {"id": job}})
            host.send({"stop": {"id": 12345}})
        for job in range(1, 101):
            done = host.wait(job)
            self.assertTrue(done.get("output") == "fine" or done["error"]["kind"] == "cancelled", done)
        self.assertEqual(host.call(SOURCE, entrypoint="quick")["output"], "fine")

    @in_each()
    def test_an_interrupt_from_outside_does_no_harm(self, host):
        for _ in range(20):
            os.kill(host.process.pid, signal.SIGINT)
            self.assertEqual(host.call(SOURCE, entrypoint="quick")["output"], "fine")

    def test_a_job_that_uses_up_its_files_takes_nothing_from_the_next_ones(self):
        host = self.host("processes")
        source = """
            import os, resource, threading, time

            def main():
                most = resource.getrlimit(resource.RLIMIT_NOFILE)
                looks, listdir = [], os.listdir

                def looked(path):
                    looks.append(path)
                    return listdir(path)

                held = []
                resource.setrlimit(resource.RLIMIT_NOFILE, (110, most[1]))
                os.listdir = looked
                try:
                    while True: held.append(os.open(os.devnull, os.O_RDONLY))
                except OSError: pass
                while len(looks) < 2 and any(thread.name == "trine-capture" for thread in threading.enumerate()): time.sleep(0.001)
                for file in held: os.close(file)
                os.listdir = listdir
                resource.setrlimit(resource.RLIMIT_NOFILE, most)

            def leaves_a_thread(): threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
        """
        done = host.call(source)
        self.assertNotIn("error", done)
        self.assertNotIn("worn", done)
        job, done = self.stop(host, "sleeps")
        self.assert_cancelled(done, "trine.Stopped")
        self.assertEqual(host.progress[job][-1], "cleaned")
        self.assertIs(host.call(source, entrypoint="leaves_a_thread").get("worn"), True)

    def test_the_next_job_is_told_to_stop_whatever_handlers_and_blocks_a_job_leaves_behind(self):
        host = self.host("processes")
        source = """
            import signal
            def ignores():
                for number in (signal.SIGINT, signal.SIGTERM): signal.signal(number, signal.SIG_IGN)
            def blocks(): signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        """
        for before in ("ignores", "blocks"):
            for entrypoint in ("sleeps", "spins"):
                self.assertNotIn("error", host.call(source, entrypoint=before))
                self.assert_cancelled(self.stop(host, entrypoint)[1], "trine.Stopped")

    @in_each("threads", threads=1)
    def test_an_exception_that_comes_late_costs_no_thread_and_no_job(self, host):
        source = """
            import ctypes, os, sys, threading, time

            class Late(BaseException): pass

            def this_job():
                frame = sys._getframe()
                while not hasattr(frame.f_locals.get("job"), "meter"): frame = frame.f_back
                return frame.f_locals["job"]

            def in_settle():
                job = this_job()
                def late():
                    del job.log.close
                    raise Late()
                job.log.close = late

            def while_it_waits():
                job, ident = this_job(), threading.get_ident()
                def late():
                    while job.id in job.host.jobs: time.sleep(0.001)
                    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(ident), ctypes.py_object(Late))
                    os.write(1, b"raised\\n")
                threading.Thread(target=late).start()

            def threads(): return [thread.name for thread in threading.enumerate()].count("trine-0")
        """
        self.assertTrue(host.call(source, entrypoint="in_settle")["error"]["type"].endswith("Late"))
        self.assertEqual(host.call(source, entrypoint="threads").get("output"), 1)
        self.assertNotIn("error", host.call(source, entrypoint="while_it_waits"))
        host.until(lambda: host.logs[None])
        for _ in range(2):
            self.assertEqual(host.call(source, entrypoint="threads").get("output"), 1)


class Surroundings(HostTest):
    @in_each()
    def test_the_host_ends_with_its_connection(self, host):
        host.socket.close()
        self.assertEqual(host.process.wait(PATIENCE_S), 0)

    @in_each()
    def test_the_host_ends_with_its_connection_in_mid_job(self, host):
        for entrypoint in ("spins", "sleeps"):
            other = self.host(host.mode)
            job = other.submit(SOURCE, entrypoint=entrypoint)
            other.until(lambda job=job, other=other: other.progress[job])
            other.socket.close()
            self.assertEqual(other.process.wait(PATIENCE_S), 0)

    @in_each()
    def test_a_function_cannot_come_by_the_connection_by_accident(self, host):
        source = """
            import os, sys
            def main():
                return [os.read(0, 10).decode(), sys.stdin.read(), input_fails(), sys.modules["__main__"].__dict__.get("main")]
            def input_fails():
                try: return input()
                except EOFError: return "EOF"
        """
        done = host.call(source)
        self.assertEqual(done.get("output", done), ["", "", "EOF", None])

    @in_each()
    def test_children_of_a_job_do_not_speak_for_it(self, host):
        source = """
            import os, subprocess, sys, trine
            def main():
                child = os.fork()
                if child == 0:
                    try: trine.progress("from the child")
                    except RuntimeError: os._exit(7)
                    os._exit(8)
                code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
                fds = subprocess.run([sys.executable, "-c", "import os; print(len(os.listdir('/proc/self/fd')))"], stdout=subprocess.PIPE)
                return [code, int(fds.stdout)]
            def returns(): return os.fork()
        """
        job = host.submit(source)
        self.assertEqual(host.wait(job).get("output"), [7, 4])
        self.assertEqual(host.progress[job], [])
        if host.mode != "async":
            self.assertGreater(host.call(source, entrypoint="returns")["output"], 0)
            self.assertEqual(host.call(SOURCE, entrypoint="quick")["output"], "fine")

    @in_each("threads", "processes")
    def test_a_child_that_comes_back_from_its_job_ends_whoever_was_sending(self, host):
        source = """
            import os, sys, threading
            def main():
                frame = sys._getframe()
                while not hasattr(frame.f_locals.get("self"), "channel"):
                    frame = frame.f_back
                writing = frame.f_locals["self"].channel.writing
                holds, enough = threading.Event(), threading.Event()
                def hold():
                    with writing:
                        holds.set()
                        enough.wait()
                threading.Thread(target=hold).start()
                holds.wait()
                child = os.fork()
                if child == 0: return
                enough.set()
                return os.waitpid(child, 0)[1]
        """
        self.assertEqual(host.call(source).get("output"), 0)

    @in_each()
    def test_a_host_pays_no_heed_to_who_ends_all_processes_and_a_child_of_a_job_ends(self, host):
        source = """
            import os, signal, time
            def main():
                host, (there, says) = os.getpid(), os.pipe()
                child = os.fork()
                if child == 0:
                    os.write(says, b"!")
                    while os.getppid() == host: time.sleep(0.01)
                    os._exit(0)
                os.read(there, 1)
                for process in (host, child): os.kill(process, signal.SIGTERM)
                return -os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        """
        self.assertEqual(host.call(source).get("output"), signal.SIGTERM)

    def test_a_pool_of_processes_in_a_job(self):
        host = self.host("processes")
        source = """
            import concurrent.futures, multiprocessing
            def square(n): return n * n
            def main():
                with concurrent.futures.ProcessPoolExecutor(2, multiprocessing.get_context("fork")) as pool:
                    return list(pool.map(square, range(5)))
        """
        self.assertEqual(host.call(source).get("output"), [0, 1, 4, 9, 16])

    @in_each()
    def test_an_exit_behind_pythons_back_ends_the_host(self, host):
        host.submit("import os\ndef main(): os._exit(9)")
        with self.assertRaises((EOFError, ConnectionError)):
            host.until(lambda: False)
        self.assertEqual(host.process.wait(PATIENCE_S), 9)

    def test_the_working_folder(self):
        with tempfile.TemporaryDirectory() as folder:
            host = self.host("processes", cwd=folder)
            self.assertEqual(host.call("import os\ndef main(): return os.getcwd()")["output"], os.path.realpath(folder))

"""The executor against a real server."""

import asyncio
import base64
import concurrent.futures
import dataclasses
import datetime
import functools
import gc
import json
import math
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
import traceback
import typing
import unittest
import urllib.request
import uuid
import venv
import weakref
from collections import deque
from unittest import mock

import harness
from harness import PATIENCE_S, Proxy, Server, ServerTest, Stranger

import trine
from trine import _calls, _travel
from trine._outcome import ended_job, exception_of
from trine.executor import _values


def multiply(a, b=2):
    return a * b


def divide(a, b):
    return a / b


def square(x):
    return x * x


async def waiting(x):
    await asyncio.sleep(0)
    return x


class Odd(Exception):
    """It holds what can't be pickled."""

    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")
        self.lock = threading.Lock()


class Point:
    def __init__(self, x):
        self.x = x

    def moved(self, by):
        return Point(self.x + by)

    def counted(self):
        self.x += 1
        return self.x


def recounted(made):
    made.calls += 1
    return made(made.calls)


class Slotted:
    __slots__ = ("x",)

    def __init__(self, x):
        self.x = x


def move_slotted(slotted, by):
    return Slotted(slotted.x + by)


UserId = typing.NewType("UserId", int)
T = typing.TypeVar("T")
Alias = typing.TypeAliasType("Alias", UserId) if hasattr(typing, "TypeAliasType") else UserId  # since Python 3.12
Arguments = typing.ParamSpec("Arguments") if hasattr(typing, "ParamSpec") else ...  # since Python 3.10


class Row(typing.NamedTuple):
    number: UserId
    name: str = "nobody"


@dataclasses.dataclass
class Box(typing.Generic[T]):
    inside: T
    owner: Alias = UserId(1)

    @functools.cached_property
    def twice(self):
        return self.inside * 2


def typed(row: Row, owner: UserId, ask: typing.Optional[typing.Callable[Arguments, T]] = None) -> tuple[Row, Box[int]]:
    box = Box(row.number, UserId(owner + 1))
    return row._replace(name=f"twice {box.twice}"), box


COUNT = 0


def counted():
    global COUNT
    COUNT += 1
    return COUNT


def fail(error):
    raise error  # where it goes wrong


class NeedTwo(Exception):
    def __init__(self, code, message):
        super().__init__(message)
        self.code = code


@dataclasses.dataclass(frozen=True)
class Frozen(Exception):
    """It allows no assignment, not even of its cause."""


def fail_frozen():
    raise Frozen


class Exits:
    """Whoever unpickles it is to exit."""

    def __reduce__(self):
        return sys.exit, (3,)


def fail_needing_two():
    raise NeedTwo(404, "gone")


def many_digits():
    import sys

    sys.set_int_max_str_digits(0)
    return 10**5000


def of_module():
    return harness.PATIENCE_S


def squares(below):
    return (number * number for number in range(below))


def count_to(below):
    yield from range(below)
    return "counted"


def fail_oddly():
    raise Odd(1, 2)


def touch_and_wait(path, gate):
    with open(path, "a") as file:
        file.write("x")
    while not os.path.exists(gate):
        time.sleep(0.01)


def hold(test, executor):
    """Holds an executor's batches up until the gate is set, or the test ends. Gives the gate, and the batches so far."""
    engine = executor._engine
    gate, batches, send = threading.Event(), [], engine._send

    def held(calls):
        batches.append(calls)
        gate.wait()
        send(calls)

    engine._send = held
    test.addCleanup(gate.set)
    return gate, batches


def submitting(executor, exchange):
    """Has `exchange` submit an executor's calls. It is given what makes a request, and the request."""
    connections = executor._engine._connections
    make = connections.request
    connections.request = lambda request: exchange(make, request) if request.path == "/jobs/batch" else make(request)


class Calls(ServerTest):
    def setUp(self):
        self.trine = self.executor()

    def test_a_function_keeps_its_globals_and_an_object_is_new_each_time(self):
        one_host = self.executor(executor="threads", how="pickle")
        self.assertEqual([one_host.submit(counted).result() for _ in range(3)], [1, 2, 3])
        point = Point(1)
        self.assertEqual([one_host.submit(point.counted).result() for _ in range(3)], [2, 2, 2])

    def test_values(self):
        self.assertEqual(self.trine.submit(multiply, 3, b=4).result(), 12)
        self.assertEqual(self.trine.submit(math.sqrt, 16).result(), 4.0)
        self.assertEqual(self.trine.submit(lambda *a, **k: (a, k), 1, fn=2, self=3).result(), ((1,), {"fn": 2, "self": 3}))
        moved = self.trine.submit(Point(1).moved, 2).result()
        self.assertIsInstance(moved, Point)
        self.assertEqual(moved.x, 3)
        slotted = self.trine.submit(move_slotted, Slotted(1), 2).result()
        self.assertIsInstance(slotted, Slotted)
        self.assertEqual(slotted.x, 3)
        self.assertEqual(self.trine.submit(waiting, 5).result(), 5)

    def test_what_has_types_of_a_module_of_its_own(self):
        hints = typing.get_type_hints(Box)
        for _ in range(2):
            row, box = self.trine.submit(typed, Row(UserId(3)), UserId(4)).result(PATIENCE_S)
            self.assertEqual((type(row), row), (Row, Row(3, "twice 6")))
            self.assertEqual((type(box), box, box.twice), (Box, Box(3, 5), 6))
        self.assertFalse(hasattr(row, "__dict__"))
        self.assertEqual(typing.get_type_hints(Box), hints)

    def test_a_class_is_no_other_when_a_value_of_it_comes_back(self):
        class Counts(Point):
            calls = 0

        for made in (Point, Counts):
            made.calls, moved = 1, made.moved
            point = self.trine.submit(recounted, made).result(PATIENCE_S)
            self.assertEqual((type(point), made.calls, made.moved), (made, 1, moved))

    def test_a_future_knows_its_job(self):
        future = self.trine.submit(multiply, 3)
        self.assertEqual(future.result(PATIENCE_S), 6)
        self.assertGreaterEqual(future.timing.wall_us, 0)
        job = self.client().get(future.job_id)
        self.assertEqual((job.state, job.bound), ("succeeded", "cpu"))
        self.assertTrue(job.tags["trine-executor"])

    def test_map_keeps_the_order(self):
        items = range(200)
        squares = [square(item) for item in items]
        self.assertEqual(list(self.trine.map(square, items)), squares)
        self.assertEqual(list(self.trine.map(square, items, chunksize=30)), squares)
        self.assertEqual(list(self.trine.map(square, items, buffersize=3)), squares)
        self.assertEqual(list(self.trine.map(multiply, items, items, chunksize=300)), squares)
        self.assertEqual(list(self.trine.map(waiting, items, chunksize=7)), list(items))
        self.assertEqual(list(self.trine.map(square, [])), [])

    def test_map_takes_no_more_than_its_buffer_from_an_endless_iterable(self):
        taken = []
        values = self.trine.map(square, (taken.append(1) or len(taken) for _ in iter(int, 1)), buffersize=4)
        self.assertEqual([next(values) for _ in range(10)], [square(n) for n in range(1, 11)])
        self.assertLessEqual(len(taken), 15)
        values.close()

    def test_map_does_not_wait_for_a_silent_server_longer_than_it_may(self):
        for accepted in (False, True):
            with self.subTest(accepted=accepted):
                executor = self.executor(delay_ms=600_000)
                engine, answers = executor._engine, threading.Event()
                self.addCleanup(answers.set)
                make = engine._connections.request

                def answered(request, make=make, answers=answers):
                    return (request.path == "/executors" or answers.wait()) and make(request)

                if not accepted:
                    engine._connections.request = answered
                values = executor.map(square, range(3), timeout=0.01)
                self.until(lambda: len(engine._calls) == 3 if accepted else engine._sending)  # noqa: B023
                engine._connections.request = answered
                with self.assertRaises(concurrent.futures.TimeoutError):
                    self.in_time(next, values)
                answers.set()
                executor.shutdown()
                jobs = self.client().jobs(tags={"trine-executor": engine._name})
                self.assertEqual({job.state for job in jobs}, {"cancelled"})

    def test_map_refuses_what_makes_no_sense(self):
        for wrong in ({"chunksize": 0}, {"chunksize": -1}, {"buffersize": 0}):
            with self.assertRaises(ValueError):
                self.trine.map(square, [1], **wrong)
        for wrong in ("foo", 2.0):
            with self.assertRaisesRegex(TypeError, "buffersize must be an integer or None"):
                self.trine.map(square, [1], buffersize=wrong)

    def test_map_gives_the_exception_in_its_place(self):
        values = self.trine.map(divmod, [1, 1, 1], [2, 0, 1])
        self.assertEqual(next(values), (0, 1))
        self.assertRaises(ZeroDivisionError, next, values)

    def test_an_exception_comes_back_with_its_traceback(self):
        error = self.trine.submit(fail, ValueError("bad", 7)).exception(PATIENCE_S)
        self.assertIs(type(error), ValueError)
        self.assertEqual(error.args, ("bad", 7))
        self.assertIsInstance(error.__cause__, trine.RemoteTraceback)
        self.assertIn("raise error  # where it goes wrong", str(error.__cause__))
        self.assertIn("in fail", "".join(traceback.format_exception(type(error), error, None)))

    def test_an_exception_that_does_not_take_its_args_comes_back(self):
        error = self.trine.submit(fail_needing_two).exception(PATIENCE_S)
        self.assertIs(type(error), NeedTwo)
        self.assertEqual((error.args, error.code), (("gone",), 404))
        self.assertIsInstance(error.__cause__, trine.RemoteTraceback)

    def test_an_exception_that_allows_no_assignment_comes_back(self):
        error = self.trine.submit(fail_frozen).exception(PATIENCE_S)
        self.assertIs(type(error), Frozen)
        self.assertIn("in fail_frozen", str(error.__cause__))

    def test_what_ends_a_thread_ends_one_call(self):
        futures = [self.trine.submit(Exits), self.trine.submit(square, 3)]
        self.assertIsInstance(futures[0].exception(PATIENCE_S), SystemExit)
        self.assertEqual(futures[1].result(PATIENCE_S), 9)
        raised = {"type": "Exits", "message": "", "pickle": base64.b64encode(pickle.dumps(Exits())).decode()}
        self.assertIsInstance(exception_of({"state": "failed", "error": {"python": raised}}, "one"), trine.RemoteError)
        with self.assertLogs("trine") as logged:
            told = self.trine.submit(time.sleep, 0.01)
            told.add_done_callback(lambda future: sys.exit(3))
            self.assertEqual(self.trine.submit(square, 3).result(PATIENCE_S), 9)
            self.until(told.done)
            self.assertEqual(self.trine.submit(square, 4).result(PATIENCE_S), 16)
        self.assertIn("exception calling a callback", logged.output[0])

    def test_a_module_that_the_server_lacks_is_named(self):
        error = self.trine.submit(of_module).exception(PATIENCE_S)
        self.assertIsInstance(error, ModuleNotFoundError)
        self.assertRegex(str(error), "No module named 'harness', for the server's interpreter .* imported by name")

    def test_a_generator_is_no_value(self):
        with self.assertRaisesRegex(TypeError, "generator"):
            self.trine.submit(squares, 3).result(PATIENCE_S)
        self.assertEqual(self.trine.submit(count_to, 3).result(PATIENCE_S), "counted")

    def test_an_exception_that_can_not_come_back_is_told(self):
        error = self.trine.submit(fail_oddly).exception(PATIENCE_S)
        self.assertIsInstance(error, trine.RemoteError)
        self.assertTrue(error.type.endswith("Odd"))
        self.assertIn("1 and 2", str(error))

    def test_what_can_not_travel_is_said_at_once(self):
        error = self.trine.submit(multiply, threading.Lock()).exception(0)
        self.assertIsInstance(error, trine.CannotTravel)
        self.assertIn("argument 1", str(error))

    def test_large_values(self):
        data = os.urandom(500_000)
        self.assertEqual(self.trine.submit(bytes.__mul__, data, 8).result(PATIENCE_S), data * 8)
        error = self.trine.submit(len, os.urandom(40_000_000)).exception(PATIENCE_S)
        self.assertIsInstance(error, trine.CannotTravel)
        self.assertRegex(str(error), r"takes 5\d{7} bytes on its way")
        error = self.trine.submit(len, os.urandom(9_500_000)).exception(PATIENCE_S)
        self.assertRegex(str(error), r"takes 12\d{6} bytes on its way is more than the server takes: a job may have at most")
        self.assertEqual(self.trine.submit(len, data).result(PATIENCE_S), len(data))

    def test_wait_and_as_completed(self):
        futures = [self.trine.submit(multiply, n) for n in range(50)]
        self.assertEqual({future.result() for future in concurrent.futures.as_completed(futures)}, {2 * n for n in range(50)})
        futures = {self.trine.submit(multiply, n) for n in range(50)}
        self.assertEqual(concurrent.futures.wait(futures).done, futures)

    def test_a_job_that_takes_too_long(self):
        with self.executor(deadline_ms=100) as executor:
            error = executor.submit(time.sleep, 600).exception(PATIENCE_S)
        self.assertIsInstance(error, trine.JobTimeout)
        self.assertIsInstance(error, TimeoutError)

    def test_a_worker_that_dies(self):
        error = self.trine.submit(os.kill, 0, signal.SIGKILL).exception(PATIENCE_S)
        self.assertIsInstance(error, (concurrent.futures.BrokenExecutor, trine.JobError))
        self.assertEqual(self.trine.submit(multiply, 1).result(PATIENCE_S), 2)

    def test_a_cancel_by_somebody_else(self):
        future = self.trine.submit(time.sleep, 600)
        self.until(future.running)
        self.client().cancel(future.job_id)
        with self.assertRaises(concurrent.futures.CancelledError):
            future.result(PATIENCE_S)

    def test_what_the_server_refuses_is_the_futures_exception(self):
        with self.executor(interpreter="no-such-python") as executor:
            error = executor.submit(multiply, 1).exception(PATIENCE_S)
        self.assertIsInstance(error, trine.ProblemError)
        self.assertEqual((error.status, error.pointer), (422, "/workload/interpreter"))
        self.assertNotIn("/0", str(error))

    def test_settings_that_there_are_not(self):
        with self.assertRaisesRegex(TypeError, "'colour'"):
            trine.Executor(self.url, colour="red")
        with self.assertRaises(ValueError):
            trine.Executor(self.url, how="by train")
        for wrong in ({"bound": "gpu"}, {"executor": "thread"}, {"routing": "random"}):
            (name,) = wrong
            with self.assertRaisesRegex(ValueError, f"{name} must be"):
                trine.Executor(self.url, **wrong)
            with self.assertRaisesRegex(ValueError, f"{name} must be"):
                self.executor().with_options(**wrong)
        with self.assertRaises(ValueError):
            trine.Executor(self.url, 0)


class Options(ServerTest):
    def setUp(self):
        self.trine = self.executor(tags={"team": "search"}, deadline_ms=60_000)

    def job(self, future):
        future.result(PATIENCE_S)
        return self.client().get(future.job_id)

    def test_calls_have_options_of_their_own(self):
        urgent = self.trine.with_options(priority=5, bound="io", tags={"kind": "urgent"})
        later = urgent.with_options(priority=-5, deadline_ms=None, tags={"team": "ads"})
        executors = (self.trine, urgent, later)
        futures = [executor.submit(square, n) for n in range(20) for executor in executors]
        self.assertEqual([future.result(PATIENCE_S) for future in futures], [n * n for n in range(20) for _ in executors])
        jobs = [self.job(future) for future in futures[-3:]]
        self.assertEqual([job.priority for job in jobs], [0, 5, -5])
        self.assertEqual([job.bound for job in jobs], ["cpu", "io", "io"])
        self.assertEqual([job.deadline_ms for job in jobs], [60_000, 60_000, None])
        self.assertEqual([job.tags["team"] for job in jobs], ["search", "search", "ads"])
        self.assertEqual([job.tags.get("kind") for job in jobs], [None, "urgent", "urgent"])

    def test_it_is_an_executor(self):
        urgent = self.trine.with_options(priority=5)
        self.assertIsInstance(urgent, concurrent.futures.Executor)
        self.assertEqual(list(urgent.map(square, range(50))), [n * n for n in range(50)])
        self.assertEqual(list(urgent.map(square, range(50), chunksize=20)), [n * n for n in range(50)])

        async def main():
            return await asyncio.get_running_loop().run_in_executor(urgent, square, 3)

        self.assertEqual(asyncio.run(main()), 9)

    def test_its_end_is_its_own(self):
        with self.trine.with_options(priority=5) as urgent:
            futures = [urgent.submit(time.sleep, 0.001) for _ in range(20)]
        self.assertTrue(all(future.done() for future in futures))
        self.assertRaises(RuntimeError, urgent.submit, square, 3)
        self.assertEqual(self.trine.submit(square, 3).result(PATIENCE_S), 9)
        one, other = (self.trine.with_options(delay_ms=600_000) for _ in range(2))
        mine, others = one.submit(square, 3), other.submit(square, 3)
        one.shutdown(cancel_futures=True)
        self.assertEqual((mine.cancelled(), others.done()), (True, False))
        self.assertTrue(others.cancel())
        self.trine.shutdown()
        self.assertRaises(RuntimeError, other.submit, square, 3)

    def test_its_end_stops_no_call_that_has_begun(self):
        part = self.trine.with_options(priority=1)
        futures = [part.submit(time.sleep, 0.01) for _ in range(200)]
        self.until(lambda: any(future.done() for future in futures))
        part.shutdown(cancel_futures=True)
        left = [future for future in futures if not future.cancelled()]
        self.assertEqual([future.result(PATIENCE_S) for future in left], [None] * len(left))
        self.assertTrue(any(future.cancelled() for future in futures))

    def test_it_keeps_the_executor_that_it_is_of(self):
        urgent = trine.Executor(self.url, executor="processes").with_options(priority=5)
        engine = urgent._engine._engine
        gc.collect()
        self.assertEqual(urgent.submit(square, 3).result(PATIENCE_S), 9)
        del urgent
        gc.collect()
        engine.join()

    def test_what_is_refused_harms_no_other_call(self):
        for wrong in ({"priorities": 5}, {"unique": {}}, {"patience": 1}):
            with self.assertRaisesRegex(TypeError, f"no option '{next(iter(wrong))}'"):
                self.trine.with_options(**wrong)
        too_high = self.trine.with_options(priority=1000)
        futures = [executor.submit(square, 3) for _ in range(3) for executor in (self.trine, too_high)]
        self.assertEqual([future.result(PATIENCE_S) for future in futures[::2]], [9] * 3)
        self.assertEqual({future.exception(PATIENCE_S).pointer for future in futures[1::2]}, {"/priority"})

    def test_a_call_whose_time_is_over(self):
        late = self.trine.with_options(expires_at=datetime.datetime(2020, 1, 1, tzinfo=datetime.timezone.utc))
        error = late.submit(square, 3).exception(PATIENCE_S)
        self.assertIsInstance(error, trine.JobError)
        self.assertEqual(error.kind, "expired")


class Cancelling(ServerTest):
    def test_a_call_that_was_not_sent(self):
        executor = self.executor(max_workers=1)
        running = executor.submit(time.sleep, 600)
        self.until(running.running)
        pending = executor.submit(square, 1)
        self.assertFalse(running.cancel())
        self.assertTrue(pending.cancel())
        self.assertTrue(pending.cancelled() and pending.cancel())
        self.assertIsNone(pending.job_id)
        self.client().cancel(running.job_id)

    def test_a_call_that_waits_at_the_server(self):
        executor = self.executor()
        running = [executor.submit(time.sleep, 600) for _ in range(4)]
        pending = [executor.submit(square, n) for n in range(20)]
        self.until(lambda: all(future.running() for future in running) and all(future.job_id for future in pending))
        self.assertEqual([future.cancel() for future in pending], [True] * 20)
        self.assertEqual(concurrent.futures.wait(pending, 0).not_done, set())
        self.assertEqual({self.client().get(future.job_id).state for future in pending}, {"cancelled"})
        self.assertEqual([future.cancel() for future in running], [False] * 4)
        for future in running:
            self.client().cancel(future.job_id)

    def test_a_callback_may_raise_what_ends_a_thread(self):
        executor = self.executor()
        gate, batches = hold(self, executor)
        executor.submit(square, 1)
        self.until(lambda: batches)
        pending = executor.submit(square, 2)
        pending.add_done_callback(lambda future: sys.exit(3))
        self.assertRaises(SystemExit, pending.cancel)
        self.assertEqual(concurrent.futures.wait([pending], 0).not_done, set())
        gate.set()
        self.in_time(executor.shutdown)

    def test_who_is_interrupted_may_try_again(self):
        executor = self.executor(delay_ms=600_000)
        future = executor.submit(square, 1)
        self.until(lambda: future.job_id)
        connections = executor._engine._connections
        make, interrupts = connections.request, [KeyboardInterrupt]

        def interrupted(request):
            if interrupts:
                raise interrupts.pop()
            return make(request)

        connections.request = interrupted
        self.assertRaises(KeyboardInterrupt, future.cancel)
        self.assertTrue(self.in_time(future.cancel))

    def begins_as_it_is_cancelled(self):
        """An executor, its running call, and one that begins when the executor is just about to cancel it."""
        client, key = self.client(), {"key": str(uuid.uuid4()), "limit": 1}
        first = client.submit({"type": "sleep", "ms": 600_000}, bound="io", concurrency=key)
        executor = self.executor(concurrency=key)
        future = executor.submit(time.sleep, 600)
        self.until(lambda: future.job_id)
        connections = executor._engine._connections
        make = connections.request

        def asked(request):
            if request.method in ("POST", "DELETE") and client.get(first.id).state == "running":
                client.cancel(first.id)
                self.until(lambda: client.get(future.job_id).state == "running")
            return make(request)

        connections.request = asked
        return executor, future

    def test_a_call_that_begins_meanwhile_was_not_cancelled(self):
        _, future = self.begins_as_it_is_cancelled()
        self.assertFalse(future.cancel())
        self.assertEqual((future.running(), future.done()), (True, False))
        with urllib.request.urlopen(f"{self.url}/jobs/{future.job_id}") as answer:
            self.assertFalse(json.load(answer)["stopping"])

    def test_a_call_that_begins_meanwhile_is_not_cancelled_with_its_executor(self):
        executor, future = self.begins_as_it_is_cancelled()
        executor.shutdown(wait=False, cancel_futures=True)
        self.assertFalse(future.done())
        with urllib.request.urlopen(f"{self.url}/jobs/{future.job_id}") as answer:
            job = json.load(answer)
        self.assertEqual((job["state"], job["stopping"]), ("running", False))

    def test_a_callback_may_cancel_calls_that_were_on_their_way_with_its_own(self):
        executor = self.executor()
        later, refused = executor.with_options(delay_ms=600_000), executor.with_options(priority=1000)
        gate, batches = hold(self, executor)
        executor.submit(square, 1)
        self.until(lambda: batches)
        calls = [later.submit(square, n) for n in range(10)]
        cancelled = []
        refused.submit(square, 2).add_done_callback(lambda future: cancelled.extend(call.cancel() for call in calls))
        calls += [later.submit(square, n) for n in range(10)]
        gate.set()
        self.until(lambda: len(cancelled) == len(calls))
        self.assertEqual(len(batches), 2)
        self.assertEqual(cancelled, [True] * len(calls))
        self.assertEqual(executor.submit(square, 3).result(PATIENCE_S), 9)

    def test_calls_that_the_server_has_no_room_for(self):
        server = Server("--max-waiting", "1")
        self.addCleanup(server.close)
        client = self.client(server.url)
        idle = {"type": "python", "source": "def main():\n    pass\n"}
        first = client.submit(idle, bound="cpu", executor="threads", delay_ms=600_000)
        answers = []

        def noted(make, request):
            answers.append(make(request))
            return answers[-1]

        executor, other = (self.executor(server.url, executor="threads") for _ in range(2))
        submitting(executor, noted)
        one, two = executor.submit(square, 1), executor.submit(square, 2)
        self.until(lambda: any(answer.status == 429 for answer in answers))
        self.assertTrue(self.in_time(one.cancel))
        futures = [other.submit(square, n) for n in range(3)]
        self.in_time(other.shutdown, cancel_futures=True)
        self.assertTrue(all(future.cancelled() for future in futures))
        client.cancel(first.id)
        self.assertEqual(two.result(PATIENCE_S), 4)

    def away_then_full(self, executor, of=1):
        """Has batches of so many calls or more fail: as if the server were away, then, until there is room, as if it were full.

        Returns the keys under which they come, the request that failed first, and the event that there is room.
        """
        keys, late, room = [], [], threading.Event()
        self.addCleanup(room.set)

        def exchange(make, request):
            if len(json.loads(request.body)) >= of:
                keys.append(request.headers["Idempotency-Key"])
                if len(keys) == 1:
                    late.append(request)
                    raise trine.ProblemError(503, "about:blank", "Service Unavailable", "")
                if not room.is_set():
                    raise trine.ProblemError(429, "about:blank", "Too Many Requests", "", retry_after=0.01)
            return make(request)

        submitting(executor, exchange)
        return keys, late, room

    def test_a_server_that_is_away_and_then_has_no_room(self):
        """Calls that it may have accepted after all can be cancelled, and are made once."""
        for cancels in (True, False):
            with self.subTest(cancels=cancels):
                executor = self.executor()
                make = executor._engine._connections.request
                keys, late, room = self.away_then_full(executor)
                futures = [executor.submit(square, 2)]
                self.until(lambda: len(keys) > 2)  # noqa: B023
                if cancels:
                    self.assertTrue(self.in_time(futures[0].cancel))
                    continue
                futures.append(executor.submit(square, 3))
                (job,) = make(late[0]).result()["items"]
                self.client().wait(job["id"], timeout=PATIENCE_S)
                room.set()
                self.assertEqual([future.result(PATIENCE_S) for future in futures], [4, 9])
                self.assertEqual(futures[0].job_id, job["id"])
                jobs = self.client().jobs(tags={"trine-executor": executor._engine._name})
                self.assertEqual(len(list(jobs)), 2)

    def test_a_batch_that_may_have_been_accepted_is_sent_again_whole_or_not_at_all(self):
        for how in ("one", "all", "shutdown"):
            with self.subTest(how):
                executor = self.executor()
                engine, later = executor._engine, executor.with_options(delay_ms=600_000)
                make = engine._connections.request
                keys, late, room = self.away_then_full(executor, of=2)  # the two that wait for one
                gate, batches = hold(self, executor)
                executor.submit(square, 1)
                self.until(lambda: batches)  # noqa: B023
                one, two = later.submit(square, 2), executor.submit(square, 3)
                gate.set()
                self.until(lambda: len(keys) > 2)  # noqa: B023
                if how == "shutdown":
                    self.in_time(executor.shutdown, cancel_futures=True)
                elif how == "all":
                    engine.let_go([one._call, two._call])
                    self.until(two.cancelled)
                else:
                    engine.let_go([one._call])
                    make(late[0])
                    room.set()
                    self.assertEqual(two.result(PATIENCE_S), 9)
                    self.assertEqual(len(set(keys)), 1)
                    self.assertEqual(len(list(self.client().jobs(tags={"trine-executor": engine._name}))), 3)
                self.until(one.cancelled)

    def test_a_call_that_has_ended(self):
        executor = self.executor()
        future = executor.submit(square, 3)
        future.result(PATIENCE_S)
        self.assertFalse(future.cancel())
        self.assertEqual(future.result(), 9)


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
        before = threading.active_count()
        with self.executor() as executor:
            list(executor.map(square, range(10)))
        self.assertEqual(threading.active_count(), before)

    def test_what_waits_can_be_cancelled_with_the_executor(self):
        executor = self.executor()
        futures = [executor.submit(time.sleep, 0.05) for _ in range(200)]
        self.until(futures[0].running)
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
        gate, batches = hold(self, executor)
        future = executor.submit(square, 1)
        self.until(lambda: batches)
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


class BySource(ServerTest):
    def test_a_server_that_takes_no_pickles(self):
        server = Server("--python-pickles", "deny")
        self.addCleanup(server.close)
        with self.executor(server.url) as executor:
            self.assertEqual(list(executor.map(square, range(5))), [0, 1, 4, 9, 16])
            self.assertEqual(list(executor.map(square, range(5), chunksize=2)), [0, 1, 4, 9, 16])
            self.assertIsInstance(executor.submit(square, {1}).exception(PATIENCE_S), trine.CannotTravel)
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
            for name, module in (("bare", None), ("old", '__version__ = "0.9.1"')):
                venv.EnvBuilder(symlinks=True).create(f"{home}/{name}")
                if module:
                    (packages,) = harness.pathlib.Path(home, name).glob("lib/python*/site-packages")
                    (packages / "cloudpickle.py").write_text(module)
            server = Server("--python-interpreters", f"bare={home}/bare/bin/python,old={home}/old/bin/python")
            self.addCleanup(server.close)
            told = self.client(server.url)._send(_calls.look("/executors"))["python"]["interpreters"]
            there = [each["cloudpickle"] for each in told]
            self.assertEqual(there, [harness.cloudpickle.__version__, None, "0.9.1"])
            for name, why in (("bare", "has no cloudpickle"), ("old", "has cloudpickle 0.9.1")):
                with self.subTest(name), self.executor(server.url, interpreter=name) as executor:
                    self.assertEqual(list(executor.map(square, range(5))), [0, 1, 4, 9, 16])
                    self.assertEqual(executor.submit(abs, 3 + 4j).result(PATIENCE_S), 5)  # by its name, in a plain pickle
                    for _ in range(2):
                        error = executor.submit(lambda: None).exception(PATIENCE_S)
                        self.assertIsInstance(error, trine.CannotTravel)
                        self.assertRegex(str(error), f"can't travel by source: .*; .*{why}")

    def test_source_if_it_is_asked_for(self):
        with self.executor(how="source") as executor:
            self.assertEqual(executor.submit(multiply, [1], b=2).result(PATIENCE_S), [1, 1])
            error = executor.submit(divide, 1, 0).exception(PATIENCE_S)
            self.assertIs(type(error), ZeroDivisionError)
            self.assertIn("return a / b", str(error.__cause__))

    def test_a_value_that_json_can_not_bring_ends_one_call(self):
        with self.executor(how="source") as executor:
            futures = [executor.submit(many_digits), executor.submit(square, 3)]
            self.assertIsInstance(futures[0].exception(PATIENCE_S), trine.CannotTravel)
            self.assertEqual(futures[1].result(PATIENCE_S), 9)
            self.assertEqual(executor.submit(square, 4).result(PATIENCE_S), 16)
        deep = b'{"job":"one","state":"succeeded","output":' + b"[" * 200_000 + b"]" * 200_000 + b"}"
        job, told = ended_job(deep)
        self.assertEqual((job, type(told)), ("one", trine.CannotTravel))


class Breaks(ServerTest):
    def test_a_connection_that_breaks_all_the_time(self):
        proxy = Proxy(self.url)
        self.addCleanup(proxy.close)
        proxy.cut_after = 100_000
        with self.executor(proxy.url) as executor:
            futures = [executor.submit(square, n) for n in range(1000)]
            self.assertEqual([future.result(PATIENCE_S) for future in futures], [n * n for n in range(1000)])
            name = executor._engine._name
        self.assertGreater(proxy.cuts, 5)
        jobs = self.client().jobs(tags={"trine-executor": name}, page_size=500)
        self.assertEqual(len({job.id for job in jobs}), 1000)

    def test_a_server_that_restarts(self):
        server = Server()
        self.addCleanup(server.close)
        executor = self.executor(server.url)
        futures = [executor.submit(square, n) for n in range(300)]
        futures[0].result(PATIENCE_S)
        server.stop(signal.SIGKILL)
        futures += [executor.submit(square, n) for n in range(300, 400)]
        server.start()
        self.assertEqual([future.result(PATIENCE_S) for future in futures], [n * n for n in range(400)])
        executor.shutdown()

    def test_a_job_that_is_gone_after_a_break_is_lost_whatever_else_still_waits(self):
        executor = self.executor()
        later = executor.with_options(delay_ms=600_000)
        old, new = later.submit(square, 1), later.submit(square, 2)
        self.until(lambda: old.job_id and new.job_id)
        connections, back = executor._engine._connections, threading.Event()
        stream, request = connections.stream, connections.request
        failures = [trine.ServerUnreachable("once more")]

        def opened(*args):
            if not back.is_set():
                raise trine.ServerUnreachable("away")
            return stream(*args)

        def answered(asked):
            if failures:
                raise failures.pop()
            return request(asked)

        connections.stream = opened
        executor._engine._stream.abort()
        self.client().cancel(new.job_id)
        self.client().delete_result(new.job_id)  # as if it was kept no longer
        connections.request = answered
        back.set()
        self.assertIsInstance(new.exception(PATIENCE_S), trine.JobLost)
        self.assertFalse(old.done())
        self.assertTrue(old.cancel())

    def test_a_call_is_made_once_however_its_answer_is_lost(self):
        def unreachable(make, request):
            make(request)
            raise trine.ServerUnreachable("the answer is lost")

        def of_a_proxy(make, request):
            make(request)
            raise trine.ProblemError(504, "about:blank", "Gateway Timeout", "")

        def overtaken(make, request):
            late.append(request)
            raise trine.ServerUnreachable("the request is still on its way")

        for lose in (unreachable, of_a_proxy, overtaken):
            with self.subTest(lose.__name__), self.executor() as executor:
                late, losses = [], [lose]

                def exchange(make, request, late=late, losses=losses):
                    if losses:
                        return losses.pop()(make, request)
                    for each in late:
                        make(each)
                    return make(request)

                submitting(executor, exchange)
                self.assertEqual(executor.submit(square, 3).result(PATIENCE_S), 9)
                self.assertEqual(losses, [])
                jobs = list(self.client().jobs(tags={"trine-executor": executor._engine._name}))
                self.assertEqual(len(jobs), 1)

    def test_a_server_that_is_not_trines(self):
        stranger = Stranger()
        self.addCleanup(stranger.close)
        with self.assertRaisesRegex(trine.ServerGone, "is not what the API says"):
            self.executor(stranger.url).submit(square, 1).result(PATIENCE_S)

    def test_a_proxy_that_keeps_the_events(self):
        stranger = Stranger()
        self.addCleanup(stranger.close)
        stranger.keeps_events = True
        with mock.patch.object(_calls, "SILENCE", 0.01), self.assertRaisesRegex(trine.ServerGone, "silent"):
            self.executor(stranger.url, patience=0.01).submit(square, 1).result(PATIENCE_S)

    def test_a_server_that_is_gone(self):
        server = Server()
        self.addCleanup(server.close)
        executor = self.executor(server.url, patience=0.2)
        futures = [executor.submit(time.sleep, 600) for _ in range(8)]
        self.until(lambda: any(future.running() for future in futures))
        server.stop(signal.SIGKILL)
        for future in futures:
            with self.assertRaises(trine.ServerGone):
                future.result(PATIENCE_S)
        with self.assertRaises(concurrent.futures.BrokenExecutor):
            executor.submit(square, 1)
        executor.shutdown()

    def test_a_server_that_was_never_there(self):
        with self.executor("http://127.0.0.1:9", patience=0.1) as executor:
            self.assertIsInstance(executor.submit(square, 1).exception(PATIENCE_S), trine.ServerGone)

    def test_an_executor_that_is_broken_can_be_ended(self):
        away = trine.ProblemError(503, "about:blank", "Service Unavailable", "")
        for error in (away, trine.Malformed("no answer")):
            with self.subTest(type(error).__name__):
                executor = self.executor(patience=0)

                def fails(make, request, error=error):
                    raise error

                submitting(executor, fails)
                self.assertIsInstance(executor.submit(square, 1).exception(PATIENCE_S), trine.ServerGone)
                self.in_time(executor.shutdown, cancel_futures=True)

    def test_calls_on_their_way_end_once_when_the_executor_breaks(self):
        executor = self.executor()
        engine, sent, answered = executor._engine, threading.Event(), threading.Event()
        self.addCleanup(answered.set)

        def refused(make, request):
            sent.set()
            answered.wait()
            raise trine.ProblemError(429, "about:blank", "Too Many Requests", "")

        def malformed(*args):
            raise trine.Malformed("no stream")

        submitting(executor, refused)
        future = executor.submit(square, 1)
        sent.wait(PATIENCE_S)
        engine._connections.stream = malformed
        engine._stream.abort()
        self.assertIsInstance(future.exception(PATIENCE_S), trine.ServerGone)
        answered.set()
        executor.shutdown()
        self.assertEqual((len(engine._queue), engine._in_flight, engine._unfinished), (0, 0, 0))


class Forks(ServerTest):
    def in_a_child(self, holds):
        """Whether something holds in a new process."""
        process = multiprocessing.get_context("fork").Process(target=lambda: sys.exit(not holds()))
        process.start()
        process.join(PATIENCE_S)
        process.kill()
        return process.exitcode == 0

    def test_two_processes_share_no_connection(self):
        proxy = Proxy(self.url)
        self.addCleanup(proxy.close)
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
            with _travel._registering:
                held.set()
                self.until(lambda: sys._current_frames()[forking].f_code.co_name == "_launch")  # where it forks

        thread = threading.Thread(target=registers)
        thread.start()
        held.wait(PATIENCE_S)
        self.assertTrue(self.in_a_child(lambda: _travel.ByPickle(b"").workload(harness.hang_up, (), {})))
        thread.join()

    def test_an_executor_that_has_not_begun_is_one_of_each_process(self):
        executor = self.executor()
        urgent, name = executor.with_options(priority=5), executor._engine._name

        def works():
            mine = urgent.submit(square, 3).result(PATIENCE_S) == 9 and executor._engine._name != name
            executor.shutdown()
            return mine

        self.assertTrue(self.in_a_child(works))
        self.assertEqual(urgent.submit(square, 4).result(PATIENCE_S), 16)
        self.assertEqual(executor._engine._name, name)


class Memory(ServerTest):
    def test_nothing_is_held_of_a_call_that_was_sent(self):
        executor = self.executor()
        point = Point(1)
        gone = weakref.ref(point)
        future = executor.submit(point.moved, 1)
        del point
        future.result(PATIENCE_S)
        self.until(lambda: gone() is None)
        value = weakref.ref(future.result())
        del future
        self.until(lambda: value() is None)


if __name__ == "__main__":
    unittest.main()

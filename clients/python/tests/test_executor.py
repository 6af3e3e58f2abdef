"""The executor against a real server: its calls and their options."""

import asyncio
import base64
import concurrent.futures
import dataclasses
import datetime
import functools
import gc
import math
import os
import pickle
import signal
import sys
import threading
import time
import traceback
import typing
import unittest
import weakref
from unittest import mock

import harness
from harness import PATIENCE_S, ServerTest, hold, hold_first, square, submitting

import trine
from trine._outcome import exception_of


def multiply(a, b=2):
    return a * b


async def waiting(x):
    await asyncio.sleep(0)
    return x


def noted(path):
    try:
        os.listdir(path)
    except OSError as error:
        error.__notes__ = ["while reading"]
        raise


LARGE = b""


def length_of_large():
    return len(LARGE), tells_of_large


def there_and_back(again=True):
    return (len(HALF), back_again(False)) if again else None  # noqa: F821 - it is put there


def back_again(again):
    return len(OTHER_HALF), there_and_back(again)  # noqa: F821 - it is put there


def tells_of_large():
    return length_of_large()


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


if sys.version_info >= (3, 11):

    class Pair(typing.NamedTuple, typing.Generic[T]):
        one: T
        two: int = 2

        def swapped(self):
            return Pair[int](self.two, self.one)


@functools.lru_cache(maxsize=3)
def remembered(x):
    return x * COUNT


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


def of_module():
    return harness.PATIENCE_S


def squares(below):
    return (number * number for number in range(below))


def count_to(below):
    yield from range(below)
    return "counted"


def fail_oddly():
    raise Odd(1, 2)


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

    @unittest.skipIf(sys.version_info < (3, 11), "generic named tuples came with Python 3.11")
    def test_a_generic_named_tuple(self):
        pair = self.trine.submit(lambda pair: pair.swapped(), Pair(1)).result(PATIENCE_S)
        self.assertEqual((type(pair), pair), (Pair, (2, 1)))
        self.assertEqual(self.trine.submit(lambda: str(Pair[int])).result(PATIENCE_S), str(Pair[int]))

    def test_a_function_that_remembers_goes_there_and_back(self):
        back = self.trine.submit(lambda: (remembered, "by value")).result(PATIENCE_S)[0]
        self.assertEqual((back(1), back.cache_info().maxsize, back.cache_parameters()), (0, 3, {"maxsize": 3, "typed": False}))

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
                jobs = self.client().jobs(tags={"trine-executor": engine._jobs.name})
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

    def test_an_exception_has_the_notes_of_the_server_beside_its_own(self):
        with self.assertRaises(PermissionError) as caught:
            self.trine.submit(noted, os.path.dirname(__file__)).result(PATIENCE_S)
        [own, told] = caught.exception.__notes__
        self.assertEqual(own, "while reading")
        self.assertIn("sandbox", told)

    def test_what_ends_a_thread_ends_one_call(self):
        futures = [self.trine.submit(Exits), self.trine.submit(square, 3)]
        self.assertIsInstance(futures[0].exception(PATIENCE_S), SystemExit)
        self.assertEqual(futures[1].result(PATIENCE_S), 9)
        raised = {"type": "Exits", "message": "", "pickle": base64.b64encode(pickle.dumps(Exits())).decode()}
        self.assertIsInstance(exception_of({"state": "failed", "error": {"python": raised}}, "one"), trine.RemoteError)
        with self.assertLogs("trine") as logged:
            gate, _ = hold(self, self.trine)
            told = self.trine.submit(time.sleep, 0.01)
            told.add_done_callback(lambda future: sys.exit(3))
            gate.set()
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
        error = self.trine.submit(multiply, self.trine.submit(multiply, 1)).exception(0)
        self.assertRegex(str(error), r"argument 1 can't be pickled: a future stays here: hand over its result\(\)")

    def test_large_values(self):
        data = os.urandom(500_000)
        self.assertEqual(self.trine.submit(bytes.__mul__, data, 8).result(PATIENCE_S), data * 8)
        error = self.trine.submit(len, os.urandom(40_000_000)).exception(PATIENCE_S)
        self.assertIsInstance(error, trine.CannotTravel)
        self.assertRegex(str(error), r"takes 5\d{7} bytes on its way")
        error = self.trine.submit(len, os.urandom(9_500_000)).exception(PATIENCE_S)
        self.assertRegex(str(error), r"takes 12\d{6} bytes on its way is more than the server takes: a job may have at most")
        self.assertRegex(str(error), "; most of it is in len: argument 1$")
        self.assertEqual(self.trine.submit(len, data).result(PATIENCE_S), len(data))

    def test_a_global_that_is_too_large_is_named(self):
        with mock.patch.dict(globals(), LARGE=bytes(10_000_000)):
            for function in (length_of_large, tells_of_large):
                error = self.trine.submit(function).exception(PATIENCE_S)
                self.assertRegex(str(error), f"; most of it is in {function.__name__}: (.*: )?its global 'LARGE'$")

    def test_what_an_object_or_several_globals_make_too_large(self):
        class Holder:
            def __init__(self):
                self.data = bytes(10_000_000)

            def size(self):
                return len(self.data)

        error = self.trine.submit(Holder().size).exception(PATIENCE_S)
        self.assertRegex(str(error), "; most of it is in .*size: its object$")
        with mock.patch.dict(globals(), HALF=bytes(5_000_000), OTHER_HALF=bytes(5_000_000)):
            error = self.trine.submit(there_and_back).exception(PATIENCE_S)
        self.assertRegex(str(error), "; most of it is in there_and_back: itself$")

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
        for kind in (trine.Executor, trine.AsyncExecutor, trine.Client, trine.AsyncClient):
            for wrong in ({"timeout": 0}, {"timeout": -1}, {"timeout": math.inf}, {"patience": -1}, {"patience": math.nan}):
                (name,) = wrong
                with self.assertRaisesRegex(ValueError, f"{name} must be"):
                    kind(self.url, **wrong)
                with self.assertRaisesRegex(TypeError, f"{name} must be a number of seconds, not None"):
                    kind(self.url, **{name: None})


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

    def test_many_that_are_refused_are_refused_together(self):
        gate, _ = hold_first(self, self.trine)
        too_high, nowhere = self.trine.with_options(priority=1000), self.trine.with_options(deadline_ms=0)
        futures = [executor.submit(square, 3) for _ in range(30) for executor in (too_high, nowhere, self.trine)]
        requests = []
        submitting(self.trine, lambda make, request: requests.append(request) or make(request))
        gate.set()
        for pointer, refused in (("/priority", futures[::3]), ("/deadline_ms", futures[1::3])):
            for future in refused:
                error = future.exception(PATIENCE_S)
                self.assertEqual([fault.pointer for fault in error.errors], [pointer])
                self.assertTrue(error.detail.startswith(f"{pointer}: "), error.detail)
                self.assertNotIn("more are at fault", str(error))
        self.assertEqual([future.result(PATIENCE_S) for future in futures[2::3]], [9] * 30)
        self.assertLess(len(requests), 6)

    def test_a_call_whose_time_is_over(self):
        late = self.trine.with_options(expires_at=datetime.datetime(2020, 1, 1, tzinfo=datetime.timezone.utc))
        error = late.submit(square, 3).exception(PATIENCE_S)
        self.assertIsInstance(error, trine.JobError)
        self.assertEqual(error.kind, "expired")


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

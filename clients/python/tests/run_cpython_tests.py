"""Runs the parts of CPython's own tests of concurrent.futures that apply to any executor, with calls made by a real Trine server.

    python3 clients/python/tests/run_cpython_tests.py [--executors processes,threads] [-k PATTERN] [-v]

The tests are those of `test.test_concurrent_futures` of the interpreter that runs this, which also runs the calls. Where it has
none (some distributions leave them out), another installed interpreter that has them is used, and named. Every case that is
skipped says why.
"""

import argparse
import contextlib
import importlib
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
import unittest
from concurrent import futures
from unittest import mock

import harness
import interpreters
from interpreters import PACKAGE

import trine

# Those that need what no executor has but a pool in this process or on this machine.
PRINTS = (
    "prints on the caller's standard output; what a job prints is in its log. "
    "The same end of an interpreter: test_executor_ends.Ends.test_an_interpreter_ends_after_its_last_call"
)
SKIPPED = {
    "ExecutorShutdownTest.test_interpreter_shutdown": PRINTS,
    "ExecutorShutdownTest.test_hang_gh83386": PRINTS,
}
SKIPPED_CLASSES = {
    "InitializerMixin": "an initializer is for workers that belong to one executor; Trine's serve everybody",
    "FailingInitializerMixin": "as InitializerMixin",
    "FailingInitializerResourcesTest": "as InitializerMixin",
    "ThreadPoolExecutorTest": "looks at the threads of ThreadPoolExecutor, or shares objects with the calls",
    "ThreadPoolShutdownTest": "looks at the threads of ThreadPoolExecutor; test_executor_ends.Ends has the same ends",
    "ThreadPoolWaitTests": "shares an event with the calls",
    "ProcessPoolShutdownTest": "looks at the processes of ProcessPoolExecutor; test_executor_ends.Ends has the same ends",
    "ExecutorDeadlockTest": "kills processes of ProcessPoolExecutor and shares pipes with them",
}
# Of the tests of ProcessPoolExecutor, those that are about any executor whose calls are made elsewhere.
ELSEWHERE = {"test_map_chunksize", "test_traceback"}
NOT_ELSEWHERE = "looks at the processes of ProcessPoolExecutor, or shares objects with them"


def modules():
    """The test modules: one file until Python 3.11, a package since."""
    package = importlib.import_module(PACKAGE)
    if not hasattr(package, "__path__"):
        return [package]
    names = sorted(path.stem for path in pathlib.Path(package.__file__).parent.glob("*.py") if path.stem != "__init__")
    return [importlib.import_module(f"{PACKAGE}.{name}") for name in names]


def find(name):
    """A class or function of the test modules; None if this Python does not have it."""
    return next((getattr(module, name) for module in modules() if hasattr(module, name)), None)


class TrineExecutor(trine.Executor):
    """The executor under test, made like a pool: by its number of workers."""

    url = os.environ.get("TRINE_URL", "")
    kind = os.environ.get("TRINE_EXECUTOR", "processes")

    def __init__(self, max_workers=None):
        super().__init__(self.url, max_workers, executor=self.kind)


def assert_python_ok(original):
    """Runs a program of the tests in another interpreter, with the executor under test for the pool that it imports."""

    def run(*args, **env):
        *options, program = args
        name = TrineExecutor.__name__
        program = program.replace(f"from concurrent.futures import {name}", f"from run_cpython_tests import {name}")
        path = os.pathsep.join([str(pathlib.Path(__file__).parent), *filter(None, sys.path)])
        return original(*options, program, PYTHONPATH=path, TRINE_URL=TrineExecutor.url, __isolated=False, **env)

    return run


class Event:
    """What tests wait for in their calls, since Python 3.14: a file that is there. The server's sandbox is off."""

    def __init__(self, path):
        self.path = path

    def set(self):
        self.path.touch()

    def wait(self):
        while not self.path.exists():
            time.sleep(0.01)
        return True


class TrineMixin:
    """What ThreadPoolMixin and ProcessPoolForkMixin are for the pools."""

    executor_type = TrineExecutor

    def create_event(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        return Event(pathlib.Path(folder.name) / "set")


def cases(kind):
    """The test cases for one of Trine's executors."""
    base, executor_mixin = find("BaseTestCase"), find("ExecutorMixin")
    made = []
    for name in ("ExecutorTest", "WaitTests", "AsCompletedTests", "ExecutorShutdownTest", "ProcessPoolExecutorTest"):
        mixin = find(name)
        space = {}
        for test in dir(mixin):
            inherited = name == "ProcessPoolExecutorTest" and hasattr(find("ExecutorTest"), test)
            if not test.startswith("test") or inherited:
                continue
            reason = SKIPPED.get(f"{name}.{test}")
            if name == "ProcessPoolExecutorTest" and test not in ELSEWHERE:
                reason = NOT_ELSEWHERE
            if reason:
                space[test] = unittest.skip(reason)(getattr(mixin, test))
        if name == "ProcessPoolExecutorTest":
            space.update({test: None for test in dir(find("ExecutorTest")) if test.startswith("test")})  # they have run already
            space["_test_traceback"] = mixin._test_traceback  # of the class that the server finds too
        bases = (TrineMixin, mixin, executor_mixin, base)
        made.append(type(f"Trine_{kind}_{name}", bases, {"__module__": mixin.__module__, **space}))
    return made


def future_cases():
    """The tests of futures, with Trine's. They make them by hand, so there is no job that a server could be asked to cancel."""

    class Future(trine.JobFuture):
        def __init__(self):
            super().__init__(None)

        cancel = futures.Future.cancel
        running = futures.Future.running

    tests = find("FutureTests")
    module = sys.modules[tests.__module__]
    replaced = {"Future": Future}
    for name in ("PENDING", "RUNNING", "CANCELLED", "CANCELLED_AND_NOTIFIED", "EXCEPTION", "SUCCESSFUL"):
        name += "_FUTURE"
        known = getattr(module, name)
        made = Future()
        made._state, made._exception, made._result = known._state, known._exception, known._result
        replaced[name] = made

    def create_future(state=futures._base.PENDING, exception=None, result=None):
        made = Future()
        made._state, made._exception, made._result = state, exception, result
        return made

    replaced["create_future"] = create_future
    return type("Trine_FutureTests", (tests,), {"__module__": tests.__module__}), module, replaced


def left_out():
    """The classes that are not run at all, each as one skipped case."""
    for name, reason in SKIPPED_CLASSES.items():
        if find(name) is not None:
            yield type(f"CPython_{name}", (unittest.TestCase,), {"test_all_of_it": unittest.skip(reason)(lambda self: None)})


def run(arguments):
    module = modules()[0]
    print(f"CPython's tests of concurrent.futures, from {module.__file__}, under Python {sys.version.split()[0]}", flush=True)
    from test import support
    from test.support import script_helper

    support.use_resources = None  # slow ones too
    loader = unittest.TestLoader()
    loader.testNamePatterns = [f"*{pattern}*" for pattern in arguments.k or []] or None
    good = True
    with contextlib.ExitStack() as stack:
        # Until Python 3.11 the test module makes a semaphore as soon as it is imported, which the sandbox does not let it.
        server = harness.Server("--python-processes", "4", "--sandbox", "off")
        stack.callback(server.close)
        TrineExecutor.url = server.url
        programs = assert_python_ok(script_helper.assert_python_ok)
        for each in modules():
            if hasattr(each, "assert_python_ok"):
                stack.enter_context(mock.patch.object(each, "assert_python_ok", programs))
        # The traceback from elsewhere is an exception of Trine's own.
        stack.enter_context(mock.patch("concurrent.futures.process._RemoteTraceback", trine.RemoteTraceback))
        for kind in arguments.executors.split(","):
            os.environ["TRINE_EXECUTOR"] = TrineExecutor.kind = kind
            good &= verdict(loader, cases(kind), f"with calls on {kind}", arguments)
        tests, where, replaced = future_cases()
        stack.enter_context(mock.patch.multiple(where, **replaced))
        good &= verdict(loader, [tests, *left_out()], "futures, and what is left out", arguments)
    return good


def verdict(loader, classes, title, arguments):
    print(f"\n{title}", flush=True)
    suite = unittest.TestSuite(map(loader.loadTestsFromTestCase, classes))
    result = unittest.TextTestRunner(verbosity=1 + arguments.verbose, stream=sys.stdout).run(suite)
    for test, reason in result.skipped:
        print(f"skipped {test.id().rpartition('.')[0].rpartition('.')[2]}.{test.id().rpartition('.')[2]}: {reason}")
    return result.wasSuccessful()


def elsewhere():
    """Runs all this in another interpreter, which need not have cloudpickle."""
    python = interpreters.with_tests()
    if python is None:
        sys.exit(f"{sys.executable} does not have {PACKAGE}, and no other interpreter was found that has")
    print(f"{sys.executable} does not have {PACKAGE}; {python} has, and is used instead", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(pathlib.Path(harness.cloudpickle.__file__).parent, pathlib.Path(folder) / "cloudpickle")
        sys.exit(subprocess.run([python, *sys.argv], env={**os.environ, "PYTHONPATH": folder}).returncode)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--executors", default="processes,threads", help="Trine's executors that make the calls")
    parser.add_argument("-k", action="append", help="only tests whose name has this in it")
    parser.add_argument("-v", dest="verbose", action="store_true", help="name each test")
    arguments = parser.parse_args()
    if not interpreters.has_tests(sys.executable):
        elsewhere()
    # Under its own name: what is pickled by name, and the programs that tests start, find it there.
    sys.exit(not importlib.import_module("run_cpython_tests").run(arguments))


if __name__ == "__main__":
    main()

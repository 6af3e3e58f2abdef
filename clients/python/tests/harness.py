"""A real server for the tests, and a connection to it that can be cut."""

import asyncio
import atexit
import concurrent.futures
import contextlib
import functools
import http.server
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import venv

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "src"))

import cloudpickle

import trine

ROOT = pathlib.Path(__file__).resolve().parents[3]
PATIENCE_S = 120


@functools.cache
def interpreter():
    """A virtual environment of this interpreter with cloudpickle in it: what the server runs functions with."""
    home = tempfile.mkdtemp(prefix="trine-python-")
    atexit.register(shutil.rmtree, home, True)
    venv.EnvBuilder(symlinks=True).create(home)
    (packages,) = pathlib.Path(home).glob("lib/python*/site-packages")
    shutil.copytree(pathlib.Path(cloudpickle.__file__).parent, packages / "cloudpickle")
    return f"{home}/bin/python"


class Server:
    """A running server with a data folder of its own, which outlives `stop`.

    The program is TRINE_BIN, or else what cargo has built.
    """

    def __init__(self, *arguments):
        self.binary = os.environ.get("TRINE_BIN") or str(ROOT / "target" / "debug" / "trine")
        self.folder = tempfile.mkdtemp(prefix="trine-client-")
        self.arguments = arguments
        # Bound, and does not listen: a server gets the port by its number, and nobody else gets it while there is none.
        self.port = socket.socket()
        self.port.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.port.bind(("0.0.0.0", 0))
        self.process = None
        self.start()

    def start(self):
        listen = f"127.0.0.1:{self.port.getsockname()[1]}"
        command = [self.binary, "serve", "--listen", listen, "--data-dir", self.folder, "--log", "warn"]
        command += ["--python-interpreters", interpreter(), *self.arguments]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        assert "listens at http://" in line, f"the server does not start: {line!r}"
        self.url = line.split("listens at ")[1].split()[0]

    def stop(self, how=signal.SIGTERM):
        self.process.send_signal(how)
        self.process.wait(PATIENCE_S)
        self.process.stdout.close()

    def close(self):
        if self.process.poll() is None:
            self.stop(signal.SIGKILL)
        self.port.close()
        shutil.rmtree(self.folder, ignore_errors=True)


@functools.cache
def shared():
    """The server that the tests share; it ends with them."""
    server = Server("--python-processes", "4")
    atexit.register(server.close)
    return server


class ServerTest(unittest.TestCase):
    """Tests against the shared server, or one of their own."""

    @property
    def url(self):
        return shared().url

    def opened(self, what):
        """A server or the like, which is closed when the test has ended."""
        self.addCleanup(what.close)
        return what

    def client(self, url=None, **settings):
        return self.opened(trine.Client(url or self.url, **settings))

    def executor(self, url=None, **settings):
        executor = trine.Executor(url or self.url, **{"executor": "processes", **settings})
        self.addCleanup(end, executor)
        return executor

    def jobs_of(self, executor):
        return list(self.client().jobs(tags={"trine-executor": executor._engine._jobs.name}, page_size=500))

    def until(self, condition):
        """Waits for a condition."""
        deadline = time.monotonic() + PATIENCE_S
        while not (held := condition()):
            if time.monotonic() > deadline:
                raise TimeoutError
            time.sleep(0.005)
        return held

    def in_time(self, task, *args, **kwargs):
        """What a task returns or raises that must not take for ever."""
        done = concurrent.futures.Future()

        def carry_out():
            try:
                done.set_result(task(*args, **kwargs))
            except BaseException as error:
                done.set_exception(error)

        thread = threading.Thread(target=carry_out, daemon=True)
        thread.start()
        thread.join(PATIENCE_S)
        self.assertTrue(done.done(), "it takes for ever")
        return done.result()


def with_both(test):
    """Makes a test that is written once, for the client for asyncio, with each of the two. It is given what makes a client."""

    @functools.wraps(test)
    async def made(self):
        def for_asyncio(url=None, **settings):
            client = trine.AsyncClient(url or self.url, **settings)
            self.addAsyncCleanup(client.close)
            return client

        def blocking(url=None, **settings):
            return Awaited(self.client(url, **settings))

        for connect in (for_asyncio, blocking):
            with self.subTest(connect.__name__):
                await test(self, connect)

    return made


class Awaited:
    """The blocking client with the calls of the one for asyncio."""

    def __init__(self, client):
        self.client = client

    def __getattr__(self, name):
        call = getattr(self.client, name)

        async def listed(*args, **kwargs):
            for item in call(*args, **kwargs):
                yield item

        async def answered(*args, **kwargs):
            return call(*args, **kwargs)

        return listed if call.__annotations__["return"].startswith("Iterator") else answered


async def every(items):
    return [item async for item in items]


async def until(condition):
    """Waits for a condition, and returns what it gave."""

    async def asked():
        while not (held := await condition()):
            await asyncio.sleep(0.01)
        return held

    return await asyncio.wait_for(asked(), PATIENCE_S)


async def begun(client, job):
    return (await client.get(job.id)).state == "running"


def end(executor):
    """Ends an executor now: a test that failed may have left calls that would run for long."""
    for call in list(executor._engine._calls.values()):
        executor._engine.stop(call)
    executor.shutdown(cancel_futures=True)


def square(x):
    return x * x


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


def hold_first(test, executor):
    """Holds a first call of an executor up, so that those after it are sent together. Gives the gate, and that call."""
    gate, batches = hold(test, executor)
    first = executor.submit(square, 1)
    test.until(lambda: batches)
    return gate, first


def submitting(executor, exchange):
    """Has `exchange` submit an executor's calls. It is given what makes a request, and the request."""
    connections = executor._engine._connections
    make = connections.request
    connections.request = lambda request: exchange(make, request) if request.path == "/jobs/batch" else make(request)


class Proxy:
    """Stands between a client and a server, and hangs up when it is told to or after so many bytes from the server."""

    def __init__(self, url):
        host, _, port = url.partition("//")[2].partition(":")
        self.server = host, int(port)
        self.cut_after = None
        self.cut_answer = False  # whether the next thing that the server says is lost, with its connection
        self.lose_answer = False  # whether it is, and the connection stays
        self.cuts = 0
        self.answers = 0  # so often the server was heard
        self.pairs = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                near, _ = self.listener.accept()
                try:
                    far = socket.create_connection(self.server)
                except OSError:
                    near.close()
                    continue
                self.pairs.append((near, far))
                threading.Thread(target=self._carry, args=(near, far, None), daemon=True).start()
                threading.Thread(target=self._carry, args=(far, near, self.cut_after), daemon=True).start()

    def _carry(self, source, sink, most):
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                if self.cut_answer and source.getpeername() == self.server:
                    self.cut_answer = False
                    break
                if self.lose_answer and source.getpeername() == self.server:
                    self.lose_answer = False
                    continue
                if most is not None and len(data) >= most:
                    self.cuts += 1
                    sink.sendall(data[:most])
                    break
                sink.sendall(data)
                self.answers += source.getpeername() == self.server
                most = most and most - len(data)
        hang_up(source, sink)

    def cut(self):
        """Breaks the connections that there are."""
        self.cuts += 1
        pairs, self.pairs = self.pairs, []
        for pair in pairs:
            hang_up(*pair)

    def close(self):
        self.listener.close()
        self.cut()


class Quiet(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass


class HttpServer(http.server.ThreadingHTTPServer):
    """A server that answers with its `Handler`."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), self.Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def close(self):
        self.shutdown()
        self.server_close()


class Stranger(HttpServer):
    """A server that is none of Trine's: it has a page for whatever it is asked."""

    keeps_events = False  # as a proxy does that gathers what it passes on

    class Handler(Quiet):
        def do_GET(self):
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            if not self.path.startswith("/events") or not self.server.keeps_events:
                self.wfile.write(b"<html>Welcome!</html>")
            else:
                self.rfile.read()  # until the client has enough

        do_POST = do_GET


def hang_up(*sockets):
    for each in sockets:
        with contextlib.suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
        each.close()

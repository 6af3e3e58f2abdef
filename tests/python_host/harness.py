"""A server for one host, as small as can be: it starts the real thing over a socket pair and keeps what it says."""

import collections
import contextlib
import functools
import hashlib
import json
import os
import select
import socket
import struct
import subprocess
import sys
import textwrap
import time
import unittest

HOST = os.path.realpath(os.path.join(os.path.dirname(__file__), "..", "..", "src", "executor", "python", "host"))
MODES = ("async", "threads", "processes")
PATIENCE_S = 120


class Host:
    """A running host."""

    def __init__(self, mode, threads=4, max_output_bytes=8 << 20, max_log_bytes=1 << 20, cwd=None, **confined):
        self.mode = mode
        self.socket, theirs = socket.socketpair()
        command = [sys.executable, "-I", "-u", os.path.join(HOST, "__main__.py"), mode]
        self.process = subprocess.Popen(command, stdin=theirs, stderr=subprocess.PIPE, cwd=cwd)
        theirs.close()
        self.socket.settimeout(PATIENCE_S)
        self.buffer = bytearray()
        self.ids = 0
        self.seen = set()
        self.done = {}
        self.returned = set()
        self.pongs = 0
        self.progress = collections.defaultdict(list)
        self.logs = collections.defaultdict(list)
        setup = {"threads": threads, "max_output_bytes": max_output_bytes, "max_log_bytes": max_log_bytes, **confined}
        self.send({"setup": setup})
        self.ready = False
        try:
            self.until(lambda: self.ready)
        except BaseException:
            self.close()
            raise

    def close(self):
        self.socket.close()
        self.process.wait(PATIENCE_S)
        self.process.stderr.close()

    def send(self, message):
        data = json.dumps(message).encode()
        self.socket.sendall(struct.pack(">I", len(data)) + data)

    def receive(self):
        """Takes in one message."""
        while len(self.buffer) < 4 or len(self.buffer) < 4 + struct.unpack_from(">I", self.buffer)[0]:
            data = self.socket.recv(1 << 20)
            if not data:
                raise EOFError(f"the host has hung up: {self.process.stderr.read().decode()}")
            self.buffer += data
        end = 4 + struct.unpack_from(">I", self.buffer)[0]
        ((kind, body),) = json.loads(self.buffer[4:end]).items()
        del self.buffer[:end]
        if kind == "ready":
            self.ready = True
        elif kind == "done":
            assert body["id"] not in self.done, body
            self.done[body["id"]] = body
        elif kind == "pong":
            self.pongs += 1
        elif kind == "returned":
            self.returned.add(body["id"])
        elif kind == "progress":
            self.progress[body["id"]].append(body["value"])
        elif kind == "log":
            self.logs[body["id"]].append((body["stream"], body["line"]))
        else:
            raise AssertionError(kind)

    def until(self, condition):
        deadline = time.monotonic() + PATIENCE_S
        while not (held := condition()):
            if time.monotonic() > deadline:
                raise TimeoutError(f"done {self.done}, progress {dict(self.progress)}, logs {dict(self.logs)}"[:2_000])
            self.receive()
        return held

    def quiet(self, seconds):
        """Whether nothing comes for so long."""
        return not self.buffer and not select.select([self.socket], [], [], seconds)[0]

    def peak_kib(self):
        """The most memory that it has had up to now."""
        with open(f"/proc/{self.process.pid}/status") as file:
            return next(int(line.split()[1]) for line in file if line.startswith("VmHWM:"))

    def submit(self, source=None, *args, entrypoint="main", kwargs=None, archive=None, **more):
        """Sends a `run` and returns its id."""
        self.ids += 1
        run = {"id": self.ids, "args": list(args), "kwargs": kwargs or {}, "attempt": 1, "job": f"job-{self.ids}"}
        if source is not None:
            source = textwrap.dedent(source)
            sha = hashlib.sha256(source.encode()).hexdigest()
            run["code"] = {"sha": sha, "source": None if sha in self.seen else source, "zip": None, "entrypoint": entrypoint}
            self.seen.add(sha)
        elif archive is not None:
            with open(archive, "rb") as file:
                sha = hashlib.sha256(file.read()).hexdigest()
            run["code"] = {"sha": sha, "source": None, "zip": archive, "entrypoint": entrypoint}
        run.update(more)
        self.send({"run": run})
        return self.ids

    def wait(self, job):
        """The `done` of a job."""
        return self.until(lambda: self.done.get(job))

    def call(self, *args, **kwargs):
        return self.wait(self.submit(*args, **kwargs))


class HostTest(unittest.TestCase):
    """Starts hosts that end with the test."""

    def host(self, mode, **settings):
        host = Host(mode, **settings)
        self.addCleanup(host.close)
        return host


def in_each(*modes, **settings):
    """Makes a test with a parameter `host` run with a host of each of these modes, or of all."""

    def decorate(test):
        @functools.wraps(test)
        def run(self):
            for mode in modes or MODES:
                with self.subTest(mode=mode), contextlib.closing(Host(mode, **settings)) as host:
                    test(self, host)

        return run

    return decorate

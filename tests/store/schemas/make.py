#!/usr/bin/env python3
"""Fills a database with every kind of row and prints it as SQL, for tests of the migrations that are to come.

    make.py target/debug/trine > tests/store/schemas/0018.sql

It is named for the latest migration. To be run when a version is released; what was printed before stays as it is."""

import atexit
import json
import pathlib
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

HOUR_MS = 3_600_000
folder = pathlib.Path(tempfile.mkdtemp(prefix="trine-schema-"))


class Server:
    def __init__(self, program, *settings):
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.key = None
        address = f"127.0.0.1:{self.port}"
        command = [program, "serve", "--listen", address, "--data-dir", str(folder), "--processes", "1", "--threads-cpu", "1",
                   "--http-allow", "127.0.0.1", "--webhook-backoff-ms", "600000", "--log", "error", *settings]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        atexit.register(self.process.kill)
        self.until(lambda: self.ask("GET", "/readyz", fail=False)[0] == 200)

    def ask(self, method, path, body=None, fail=True, **headers):
        data, headers = None, {name.replace("_", "-"): value for name, value in headers.items()}
        if body is not None:
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            headers.setdefault("Content-Type", "application/json")
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=90) as answer:
                return answer.status, json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as answer:
            if fail:
                sys.exit(f"{method} {path}: {answer.read().decode()}")
            return answer.code, None
        except (urllib.error.URLError, ConnectionError):
            if fail:
                raise
            return None, None

    def until(self, seen):
        end = time.monotonic() + 60
        while not (found := seen()):
            if time.monotonic() > end:
                sys.exit("it does not happen")
            time.sleep(0.02)
        return found

    def submit(self, workload, bound="io", headers=None, **options):
        return self.ask("POST", "/jobs", {"bound": bound, "workload": workload, **options}, **(headers or {}))[1]["id"]

    def state(self, job, *states):
        return self.until(lambda: self.ask("GET", f"/jobs/{job}")[1]["state"] in states)

    def ended(self, job):
        return self.state(job, "succeeded", "failed", "cancelled", "lost")

    def crash(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


def sleep(ms=0):
    return {"type": "sleep", "ms": ms}


def endings(server):
    """Results of every kind, with tags, findings, further attempts, outputs of other jobs, and long workloads."""
    first = server.submit({"type": "primes", "below": 1000}, "cpu", tags={"team": "search"}, priority=5)
    wrong = server.submit({"type": "primes", "below": 3_000_000}, "io", executor="async")
    closed = f"http://127.0.0.1:1/{'x' * 600}"
    failed = server.submit({"type": "http", "url": closed}, retry={"attempts": 2, "backoff_ms": 1})
    timeout = server.submit(sleep(HOUR_MS), deadline_ms=20, webhook={"url": "http://127.0.0.1:1/hook"})
    cancelled = server.submit(sleep(HOUR_MS))
    server.ask("DELETE", f"/jobs/{cancelled}")
    again = server.submit(sleep())
    for job in (first, wrong, failed, timeout, cancelled, again):
        server.ended(job)
    server.ask("POST", f"/jobs/{again}/retry")
    server.ended(again)
    child = server.submit(sleep(), after=[{"job": failed}])
    server.ended(child)
    removed = server.submit(sleep())
    server.ended(removed)
    server.ask("DELETE", f"/results/{removed}")


def functions(server):
    source = b"import sys\n\ndef main(x):\n    print('a line', x)\n    print('another', file=sys.stderr)\n    return x + 1\n"
    for text in (source, source.replace(b"+ 1", b"+ 2")):
        server.ask("PUT", "/functions/add?bound=cpu&executor=processes&memory_bytes=200000000", text, Content_Type="text/x-python")
    job = server.submit({"type": "function", "name": "add", "args": [1]}, "cpu", executor="processes")
    server.ended(job)


def comparisons(server):
    request = {"workload": sleep(1), "bound": "io", "tasks": 2, "concurrency": [1], "budget_ms": 1000}
    done = server.ask("POST", "/comparisons", request)[1]["id"]
    server.until(lambda: server.ask("GET", f"/comparisons/{done}?wait=60")[1]["state"] not in ("queued", "running"))
    long = {**request, "workload": sleep(2000)}
    stays, waits = (server.ask("POST", "/comparisons", long)[1]["id"] for _ in range(2))
    server.until(lambda: server.ask("GET", f"/comparisons/{stays}")[1]["state"] == "running")
    another = server.ask("POST", "/comparisons", long)[1]["id"]
    server.ask("DELETE", f"/comparisons/{another}")
    return waits


def schedules(server):
    job = {"bound": "io", "workload": sleep()}
    for name, more in (("nightly", {}), ("paused", {"overlap": "skip"})):
        server.ask("POST", "/schedules", {"name": name, "cron": "0 3 * * *", "timezone": "Europe/Berlin", "job": job, **more})
    server.ask("POST", "/schedules/nightly/run")
    server.ask("POST", "/schedules/paused/pause")


def waiting(server):
    """Jobs that wait for each of the things that one can wait for, and some that run."""
    scheduled = server.submit(sleep(), delay_ms=HOUR_MS * 24 * 365, tags={"team": "ads", "kind": "later"})
    server.submit(sleep(), after=[{"job": scheduled, "on_failure": "run"}])
    for _ in range(2):
        server.submit(sleep(HOUR_MS), concurrency={"key": "customer-7", "limit": 1})
        server.submit(sleep(), rate={"key": "api.example.org", "limit": 1, "per_ms": 86_400_000})
    server.submit(sleep(HOUR_MS), headers={"Idempotency_Key": "order-4711"}, expires_at="2126-01-01T00:00:00Z")
    server.submit(sleep(HOUR_MS), executor="threads", unique={"within_ms": HOUR_MS})
    for _ in range(3):
        server.submit({"type": "primes", "below": 2_000_000_000}, "cpu")
    server.submit(sleep(HOUR_MS), retry={"attempts": 1, "on": ["error"]}, isolated=True, routing="measured")


def keys(server):
    _, admin = server.ask("POST", "/keys", {"name": "admin", "scopes": ["admin"]})
    server.key = admin["key"]
    wanted = {"name": "ci", "scopes": ["submit", "read"], "quota": {"queued": 1000, "running": 1}}
    _, other = server.ask("POST", "/keys", wanted)
    server.ask("POST", f"/keys/{other['id']}/rotate", {"grace_seconds": 3600})
    _, gone = server.ask("POST", "/keys", {"name": "gone", "scopes": ["read"], "expires_at": "2126-01-01T00:00:00Z"})
    server.ask("DELETE", f"/keys/{gone['id']}")
    server.key = other["key"]
    for _ in range(3):
        server.submit(sleep(HOUR_MS))
    owned = server.submit({"type": "http", "url": "http://127.0.0.1:1/"})
    server.key = admin["key"]
    server.state(owned, "queued")


def main(program):
    server = Server(program, "--max-losses", "1")
    lost = server.submit(sleep(HOUR_MS))
    server.state(lost, "running")
    server.crash()
    server = Server(program, "--max-losses", "1")
    server.ended(lost)
    endings(server)
    functions(server)
    schedules(server)
    waiting(server)
    comparisons(server)
    keys(server)
    # Rollups and profiles are written once a second.
    time.sleep(2.5)
    # What comes right after that stands apart from them.
    for _ in range(3):
        server.ended(server.submit(sleep()))
    server.crash()
    database = sqlite3.connect(folder / "trine.db")
    print("-- Made by make.py. Every kind of row, as this schema has it.")
    for line in database.iterdump():
        print(line)


main(*sys.argv[1:])

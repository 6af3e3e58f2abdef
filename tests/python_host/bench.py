"""What a host adds to a call, beside what the standard library adds. Prints figures, asserts nothing: `python3 bench.py`."""

import asyncio
import concurrent.futures
import hashlib
import json
import multiprocessing
import selectors
import socket
import statistics
import struct
import threading
import time

from harness import Host

CALLS = 2_000
WORK = """
import time

def nothing():
    pass

def spin():
    end = time.perf_counter() + 0.001
    while time.perf_counter() < end:
        pass
"""
FETCH = """
import asyncio

async def fetch(port):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"x")
    answer = await reader.read(1)
    writer.close()
    return len(answer)
"""
exec(WORK)
exec(FETCH)


def framed(message):
    data = json.dumps(message).encode()
    return struct.pack(">I", len(data)) + data


def run(source, entrypoint, number, args=()):
    sha = hashlib.sha256(source.encode()).hexdigest()
    code = {"sha": sha, "source": None, "zip": None, "entrypoint": entrypoint}
    return framed(
        {"run": {"id": number, "code": code, "args": args, "kwargs": {}, "pickle": None, "attempt": 1, "job": "00000000"}}
    )


def through_hosts(hosts, entrypoint, calls=CALLS, depth=2):
    """Calls a second through these hosts, each with so many jobs ahead."""
    selector = selectors.DefaultSelector()
    frames = [run(WORK, entrypoint, 1_000_000 + number) for number in range(calls)]
    began = time.perf_counter()
    for host in hosts:
        selector.register(host.socket, selectors.EVENT_READ, host)
        for _ in range(depth):
            host.socket.sendall(frames.pop())
    left = calls
    while left:
        for key, _ in selector.select():
            host = key.data
            host.buffer += host.socket.recv(1 << 16)
            while len(host.buffer) >= 4 and len(host.buffer) >= (end := 4 + struct.unpack_from(">I", host.buffer)[0]):
                assert b'"output"' in host.buffer[:end], host.buffer[:end]
                del host.buffer[:end]
                left -= 1
                if frames:
                    host.socket.sendall(frames.pop())
    took = time.perf_counter() - began
    selector.close()
    return calls / took


def through_pool(pool, function, calls=CALLS):
    began = time.perf_counter()
    for future in [pool.submit(function) for _ in range(calls)]:
        future.result()
    return calls / (time.perf_counter() - began)


def calls():
    hosts = [Host("processes") for _ in range(2)]
    for host in hosts:
        host.call(WORK, entrypoint="nothing")
    with concurrent.futures.ProcessPoolExecutor(2) as pool:
        through_pool(pool, nothing, 10)  # noqa: F821
        for function in (nothing, spin):  # noqa: F821
            ours, theirs = [], []
            for _ in range(5):
                ours.append(through_hosts(hosts, function.__name__))
                theirs.append(through_pool(pool, function))
            print(
                f"{function.__name__:8} on 2 processes: host {statistics.median(ours):7.0f} calls/s, "
                f"ProcessPoolExecutor {statistics.median(theirs):7.0f}"
            )
    for host in hosts:
        host.close()


def slow_server(port):
    """Answers each connection's first byte after 100 ms."""

    async def answer(reader, writer):
        await reader.read(1)
        await asyncio.sleep(0.1)
        writer.write(b"y")
        await writer.drain()
        writer.close()

    async def main():
        listener = socket.create_server(("127.0.0.1", 0), backlog=2_000)
        port.send(listener.getsockname()[1])
        async with await asyncio.start_server(answer, sock=listener, backlog=2_000) as server:
            await server.serve_forever()

    asyncio.run(main())


def fetches(count=1_000):
    port, theirs = multiprocessing.Pipe(duplex=False)
    multiprocessing.Process(target=slow_server, args=(theirs,), daemon=True).start()
    port = port.recv()

    async def plain():
        await asyncio.gather(*(fetch(port) for _ in range(count)))  # noqa: F821

    host = Host("async")
    host.call(FETCH, port, entrypoint="fetch")
    ours, theirs = [], []
    for _ in range(5):
        began = time.perf_counter()
        asyncio.run(plain())
        theirs.append(time.perf_counter() - began)
        began = time.perf_counter()
        host.done.clear()
        threading.Thread(
            target=host.socket.sendall, args=(b"".join(run(FETCH, "fetch", n, [port]) for n in range(count)),)
        ).start()
        host.until(lambda: len(host.done) == count)
        ours.append(time.perf_counter() - began)
    host.close()
    print(
        f"{count} fetches of 100 ms on one loop: host {statistics.median(ours):.3f} s, plain asyncio {statistics.median(theirs):.3f} s"
    )


if __name__ == "__main__":
    calls()
    fetches()

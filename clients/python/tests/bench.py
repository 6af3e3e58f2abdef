"""Calls of a 1 ms function a second: through trine.Executor on processes, and through ProcessPoolExecutor with chunksize 1.

TRINE_BIN=target/release/trine python3 clients/python/tests/bench.py [--calls 2000] [--rounds 5]
"""

import argparse
import concurrent.futures
import os
import statistics
import time

import harness

import trine


def one_ms():
    """Computes for a millisecond."""
    end = time.perf_counter() + 0.001
    while time.perf_counter() < end:
        pass


def measured(executor, calls):
    """Calls a second, and this process's CPU time a call in microseconds."""
    cpu, begin = time.process_time(), time.perf_counter()
    for future in [executor.submit(one_ms) for _ in range(calls)]:
        future.result()
    took = time.perf_counter() - begin
    return calls / took, (time.process_time() - cpu) / calls * 1e6


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    server = harness.Server("--python-processes", str(cores))
    figures = {"trine.Executor": [], "ProcessPoolExecutor": []}
    try:
        with trine.Executor(server.url, executor="processes") as ours, concurrent.futures.ProcessPoolExecutor(cores) as theirs:
            measured(ours, 100), measured(theirs, 100)  # all workers have started
            for _ in range(arguments.rounds):
                figures["trine.Executor"].append(measured(ours, arguments.calls))
                figures["ProcessPoolExecutor"].append(measured(theirs, arguments.calls))
    finally:
        server.close()
    for name, rounds in figures.items():
        rates, cpu = zip(*rounds)
        spread, cost = f"{min(rates):.0f} to {max(rates):.0f}", statistics.median(cpu)
        print(f"{name:20} {statistics.median(rates):6.0f} calls/s ({spread}), {cost:.0f} us CPU a call here")


if __name__ == "__main__":
    main()

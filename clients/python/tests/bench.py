"""Calls of a millisecond: through trine.Executor on processes, and through ProcessPoolExecutor with chunksize 1, in turns.

    TRINE_BIN=target/release/trine python3 clients/python/tests/bench.py [--calls 2000] [--rounds 7] [--processes 2]

Both have as many worker processes. Shown are calls a second, their ratio round by round, and where the CPU time of a call went:
in this process, in the threads of the server, and in the workers.
"""

import argparse
import collections
import concurrent.futures
import os
import pathlib
import statistics
import time

import harness

import trine

BAR = 1.0
CALL_US = 1000


def primes(below):
    """The number of primes below that, by trial division: nothing but computing."""
    count = 1 if below > 2 else 0
    number = 3
    while number < below:
        divisor = 3
        while divisor * divisor <= number:
            if number % divisor == 0:
                break
            divisor += 2
        else:
            count += 1
        number += 2
    return count


def cpu_us(pid, ours=str):
    """CPU time of a process's threads so far, in microseconds, by what `ours` makes of a thread's name."""
    spent = collections.Counter()
    for thread in pathlib.Path(f"/proc/{pid}/task").iterdir():
        try:
            name = (thread / "comm").read_text().strip()
            spent[ours(name)] += int((thread / "schedstat").read_text().split()[0]) / 1000
        except OSError:
            continue  # it has just ended
    return spent


def children(pid):
    """The ids of all processes below one."""
    found = []
    for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        found.append((int(fields[1]), int(stat.parent.name)))
    below, waiting = [], [pid]
    while waiting:
        parent = waiting.pop()
        waiting += [child for above, child in found if above == parent]
        below.append(parent)
    return below[1:]


def of_server(name):
    return "server: " + {"trine-writer": "writer", "sqlx-sqlite-wor": "SQLite"}.get(name, "API and dispatch")


class Trine:
    name = "trine.Executor"

    def __init__(self, processes):
        self.server = harness.Server("--python-processes", str(processes))
        self.executor = trine.Executor(self.server.url, executor="processes")

    def spent(self):
        spent = cpu_us(self.server.process.pid, of_server)
        for pid in children(self.server.process.pid):
            spent["workers"] += sum(cpu_us(pid).values())
        return spent

    def close(self):
        self.executor.shutdown()
        self.server.close()


class Pool:
    name = "ProcessPoolExecutor"

    def __init__(self, processes):
        self.executor = concurrent.futures.ProcessPoolExecutor(processes)

    def spent(self):
        return collections.Counter({"workers": sum(sum(cpu_us(pid).values()) for pid in self.executor._processes)})

    def close(self):
        self.executor.shutdown()


def measured(side, calls, below):
    """Calls a second, and the CPU time of a call in microseconds by where it was spent."""
    count = primes(below)
    before, client, begin = side.spent(), time.process_time(), time.perf_counter()
    for future in [side.executor.submit(primes, below) for _ in range(calls)]:
        assert future.result() == count
    took, client = time.perf_counter() - begin, time.process_time() - client
    spent = side.spent()
    spent.subtract(before)
    return calls / took, {"client": client / calls * 1e6, **{where: us / calls for where, us in sorted(spent.items())}}


def alone(below):
    """What a call costs that is just made, in microseconds."""
    begin = time.process_time()
    for _ in range(300):
        primes(below)
    return (time.process_time() - begin) / 300 * 1e6


def of_a_millisecond():
    """Below which number to count primes on this machine, and how long a call then takes alone."""
    below = 1000
    while (took := alone(below)) < CALL_US:
        below += below // 10
    return below, took


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)))
    arguments = parser.parse_args()
    below, took = of_a_millisecond()
    # The pool first: it forks, and Trine's executor has threads.
    sides = []
    try:
        for make in (Pool, Trine):
            sides.append(make(arguments.processes))
            measured(sides[-1], 200, below)  # all workers have started and know the function
        theirs, ours = sides
        rounds = []
        for number in range(arguments.rounds):
            # Who begins takes turns, too.
            order = sides if number % 2 else sides[::-1]
            rounds.append({side.name: measured(side, arguments.calls, below) for side in order})
    finally:
        for side in sides:
            side.close()
    print(f"{arguments.calls} calls, {arguments.processes} processes; a call alone takes {took:.0f} us")
    for side in sides:
        rates = [each[side.name][0] for each in rounds]
        print(
            f"\n{side.name}: {statistics.median(rates):.0f} calls/s ({min(rates):.0f} to {max(rates):.0f}); CPU of a call in us:"
        )
        costs = [each[side.name][1] for each in rounds]
        for where in costs[0]:
            print(f"  {where:28} {statistics.median(cost[where] for cost in costs):6.0f}")
        print(f"  {'all':28} {statistics.median(sum(cost.values()) for cost in costs):6.0f}")
    ratios = [each[ours.name][0] / each[theirs.name][0] for each in rounds]
    ratio = statistics.median(ratios)
    verdict = "reached" if ratio >= BAR else "MISSED"
    print(f"\nratio {ratio:.2f}, bar >= {BAR:.1f}: {verdict}; rounds {' '.join(f'{each:.2f}' for each in ratios)}")


if __name__ == "__main__":
    main()

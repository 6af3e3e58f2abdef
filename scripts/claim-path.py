#!/usr/bin/env python3
"""What many nodes can do with one PostgreSQL: a model of the turns that they take at the row that all go by.

    scripts/claim-path.py                                    the table of docs/capacity.md
    scripts/claim-path.py --nodes 30 --offered 2000          one cluster, and so many jobs a second
    scripts/claim-path.py --nodes 1 --clients 64 --measured 4300    the load of a measurement, and how far the model is from it

What is modelled is src/store/postgres/writer: a node takes all that has come to it by then into one transaction, which has the lock of the row from
its first message to the end of its commit; who waits for the lock gets it in the order of asking. Jobs are claimed by the transaction that
accepts them if the node has room and nothing waits, otherwise by whichever node comes next, which then learns of it by a hint or by looking.
Not modelled: readers, vacuum, checkpoints, the limits of the database's cores and disk beyond the times given, nodes that fail.

The same arguments give the same figures: chance has a seed. Times are in microseconds.
"""

import argparse
import heapq
import random
from collections import deque
from dataclasses import dataclass, field, replace

# Of src/store/postgres/writer/run.rs and claim.rs, hints.rs, and src/dispatch/serve_queue.rs: so many jobs a node's loops ask for at once.
MOST_COMMANDS = 1_024
MOST_CLAIMED = 1_024
MOST_WANTED = 4 * 2_048
LOOK = 200_000
HINTS_APART = 50_000


@dataclass(frozen=True)
class Setup:
    """A cluster and its load. The times are assumptions until they are measured where it is to run."""

    nodes: int = 3
    # To the database and back: 100 within a machine room, 500 between zones of a region, some 10,000 between regions.
    rtt: float = 300
    # Of the database's log: 100 for a disk with a protected cache, 1,000 for a good one on a network, 4,000 for a slow one. A synchronous
    # standby adds its round trip and its own sync.
    fsync: float = 1_000
    # What a statement costs the database and the node, whatever its rows; and what each job adds in each of three steps. These are what
    # PostgreSQL 15 takes under load, and a little for the node.
    statement: float = 150
    accept: float = 8
    claim: float = 8
    settle: float = 8
    # From the end of one turn to the beginning of the next, if somebody waits.
    handover: float = 30
    # How long a job runs, and how many run at once on each node.
    work: float = 200
    slots: int = 16_384
    # Jobs of a submission.
    batch: int = 1
    # Either so many jobs a second in all, or so many clients in all, each of which submits again as soon as it was answered.
    offered: float = 0
    clients: int = 0
    # From an answer to the client's next submission.
    client: float = 300
    seconds: float = 60
    seed: int = 1

    def statements(self, accepted, settled, claims):
        """Those of a transaction between the lock and the commit."""
        # INSERT of jobs and of work; DELETE of what has ended, with the INSERT of its results; SELECT of what is next, and UPDATE of what is
        # claimed.
        return (accepted > 0) + (settled > 0) + 2 * claims

    def hold(self, accepted, settled, claimed, claims):
        """How long the lock is held, without the sync."""
        # The UPDATE of the row goes with the commit.
        trips = self.statements(accepted, settled, claims) + 1
        rows = accepted * self.accept + settled * self.settle + claimed * self.claim
        return trips * (self.rtt + self.statement) + rows


@dataclass
class Node:
    free: int
    # When submissions came that are in no transaction yet, and how many jobs have ended.
    inbox: deque = field(default_factory=deque)
    ended: int = 0
    # As far as the node knows.
    queued: int = 0
    busy: bool = False


class Figures:
    def __init__(self):
        self.answers, self.starts, self.waits, self.turns = [], [], [], []
        self.done = self.jobs = self.idle = 0


def quantile(values, q):
    values = sorted(values)
    return values[min(len(values) - 1, int(len(values) * q))] if values else float("nan")


class Model:
    def __init__(self, setup):
        self.setup, self.random = setup, random.Random(setup.seed)
        self.nodes = [Node(free=setup.slots) for _ in range(setup.nodes)]
        self.events, self.order = [], 0
        self.now, self.warm = 0.0, setup.seconds * 1e6 / 2
        self.end = setup.seconds * 1e6 + self.warm
        # When the jobs came that wait in the database.
        self.queue = deque()
        self.waiting, self.locked = deque(), False
        self.hinted_at = -HINTS_APART
        self.figures = Figures()

    def at(self, time, event, *what):
        self.order += 1
        heapq.heappush(self.events, (time, self.order, event, what))

    def run(self):
        setup = self.setup
        for client in range(setup.clients):
            self.at(self.random.random() * 10_000, self.arrive, client % setup.nodes)
        if setup.offered:
            for node in range(setup.nodes):
                self.at(self.gap(), self.arrive, node)
        for node in range(setup.nodes):
            self.at(self.random.random() * LOOK, self.look, node)
        while self.events and self.events[0][0] < self.end:
            self.now, _, event, what = heapq.heappop(self.events)
            event(*what)
        return self.figures

    def gap(self):
        return self.random.expovariate(self.setup.offered / self.setup.batch / self.setup.nodes) * 1e6

    def counts(self):
        return self.now >= self.warm

    def arrive(self, at):
        self.nodes[at].inbox.append(self.now)
        if self.setup.offered:
            self.at(self.now + self.gap(), self.arrive, at)
        self.begin(at)

    def look(self, at):
        """A node that has nothing to do looks what others have left."""
        node = self.nodes[at]
        if not node.busy:
            node.queued = len(self.queue)
            self.begin(at)
        self.at(self.now + LOOK * (0.75 + self.random.random() / 2), self.look, at)

    def hear(self, at):
        node = self.nodes[at]
        if not node.busy:
            node.queued = len(self.queue)
            self.begin(at)

    def begin(self, at):
        """Asks for the lock if there is something to do, in the message that begins the transaction."""
        node = self.nodes[at]
        if node.busy or not (node.inbox or node.ended or (node.free and node.queued)):
            return
        node.busy = True
        self.at(self.now + 0.5 * self.setup.rtt, self.ask, at)

    def ask(self, at):
        self.waiting.append((self.now, at))
        if not self.locked:
            self.grant()

    def grant(self):
        asked_at, at = self.waiting.popleft()
        self.locked = True
        node, setup = self.nodes[at], self.setup
        # Whatever has come meanwhile goes along.
        settled = min(node.ended, MOST_COMMANDS)
        submissions = [node.inbox.popleft() for _ in range(min(len(node.inbox), MOST_COMMANDS - settled))]
        node.ended -= settled
        accepted = len(submissions) * setup.batch
        came = [arrival for arrival in submissions for _ in range(setup.batch)]
        before = len(self.queue)
        started, room = [], min(node.free, MOST_WANTED)
        if not self.queue:
            started, came = came[:room], came[room:]
        self.queue.extend(came)
        wanted = min(room - len(started), MOST_CLAIMED)
        claims = wanted > 0 and bool(self.queue)
        claimed = [self.queue.popleft() for _ in range(min(wanted, len(self.queue)))]
        node.free -= len(started) + len(claimed)
        hold = setup.hold(accepted, settled, len(claimed), claims)
        if self.counts():
            self.figures.waits.append(self.now - asked_at)
            self.figures.jobs += accepted
            self.figures.idle += not (accepted or settled or claimed)
        # Where there are others, the lock is given back before the commit is on the disk, and the answer waits for that without it.
        apart = setup.nodes > 1
        released_at = self.now + hold + (0 if apart else setup.fsync)
        # Syncs that others wait for, too: on the average half of one is under way.
        heard_at = released_at + setup.rtt / 2 + (1.5 * setup.fsync if apart else 0)
        if self.counts():
            self.figures.turns.append(released_at - self.now)
        # What it can't take itself, others should hear of.
        self.at(released_at, self.release, len(self.queue) > before and not node.free)
        self.at(heard_at, self.heard, at, submissions, started + claimed, settled, len(self.queue))

    def release(self, tell):
        self.locked = False
        if self.waiting:
            self.locked = True
            self.at(self.now + self.setup.handover, self.grant)
        if tell and self.now - self.hinted_at >= HINTS_APART:
            self.hinted_at = self.now
            for at in range(len(self.nodes)):
                self.at(self.now + 2.5 * self.setup.rtt, self.hear, at)

    def heard(self, at, submissions, started, settled, queued):
        node, setup = self.nodes[at], self.setup
        if self.counts():
            self.figures.answers.extend(self.now - arrival for arrival in submissions)
            self.figures.starts.extend(self.now - arrival for arrival in started)
            self.figures.done += settled
        if setup.clients:
            for _ in submissions:
                self.at(self.now + setup.client, self.arrive, at)
        if started:
            self.at(self.now + setup.work, self.ended, at, len(started))
        node.busy, node.queued = False, queued
        self.begin(at)

    def ended(self, at, count):
        node = self.nodes[at]
        node.free += count
        node.ended += count
        self.begin(at)


HEADS = ("nodes", "load", "done/s", "turns/s", "jobs/turn", "turn ms", "wait ms p50", "p99", "answer ms p50", "p99", "start ms p50", "p99")


def row(setup, figures):
    turns = len(figures.turns)
    load = f"{setup.offered:.0f} jobs/s" if setup.offered else f"{setup.clients} clients"
    times = [f"{quantile(values, q) / 1e3:.1f}" for values in (figures.waits, figures.answers, figures.starts) for q in (0.5, 0.99)]
    mean = sum(figures.turns) / turns / 1e3 if turns else 0
    first = (setup.nodes, load, f"{figures.done / setup.seconds:.0f}", f"{turns / setup.seconds:.0f}")
    return (*first, f"{figures.jobs / max(turns, 1):.1f}", f"{mean:.1f}", *times)


def show(rows):
    rows = [HEADS, *rows]
    widths = [max(len(str(row[column])) for row in rows) for column in range(len(HEADS))]
    for line in rows:
        print(" | ".join(str(cell).rjust(width) for cell, width in zip(line, widths)))


def table(setup):
    """Each size under each load: the same for all."""
    rows = []
    for nodes in (3, 30, 300):
        for offered in (300, 3_000, 12_000):
            loaded = replace(setup, nodes=nodes, offered=offered)
            rows.append(row(loaded, Model(loaded).run()))
    show(rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in vars(Setup()).items():
        parser.add_argument(f"--{name}", type=type(default), default=default)
    parser.add_argument("--measured", type=float, help="jobs a second that were measured under this load")
    arguments = vars(parser.parse_args())
    measured = arguments.pop("measured")
    setup = Setup(**arguments)
    if not (setup.offered or setup.clients):
        return table(setup)
    figures = Model(setup).run()
    show([row(setup, figures)])
    if measured:
        modelled = figures.done / setup.seconds
        print(f"the model says {modelled:.0f} jobs a second, {modelled / measured:.2f} of the {measured:.0f} that were measured")


if __name__ == "__main__":
    main()

"""The event loop's selector does what Python's own does."""

import importlib.util
import os
import random
import selectors
import socket
import unittest

from harness import HOST

BOTH = selectors.EVENT_READ | selectors.EVENT_WRITE


def load():
    spec = importlib.util.spec_from_file_location("selector", os.path.join(HOST, "selector.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Selector


def told(act, *args):
    """What comes of it, in a form that can be compared."""
    try:
        given = act(*args)
    except Exception as error:
        return type(error)
    return sorted(given, key=lambda pair: pair[0].fd) if type(given) is list else given


class Selector(unittest.TestCase):
    def setUp(self):
        self.ours, self.own = load()(), selectors.EpollSelector()
        self.addCleanup(self.ours.close)
        self.addCleanup(self.own.close)

    def same(self, what, *args):
        """Asks both; and what ours says."""
        ours, own = (told(getattr(each, what), *args) for each in (self.ours, self.own))
        self.assertEqual(ours, own, (what, args))
        self.assertEqual(dict(self.ours.get_map()), dict(self.own.get_map()))
        return ours

    def test_it_tells_the_same_whatever_it_is_asked(self):
        for seed in range(20):
            rng = random.Random(seed)
            pairs = [socket.socketpair() for _ in range(4)]
            ends = [end for pair in pairs for end in pair]
            for end in ends:
                end.setblocking(False)
            for _ in range(300):
                end = rng.choice(ends)
                named = rng.choice([end, end.fileno(), end.fileno(), -1, 4_000, "nothing"])
                events = rng.choice([1, 2, 3, 0, 4])
                ask = rng.choice(["register", "unregister", "modify", "get_key", "select", "send", "receive"])
                if ask in ("register", "modify"):
                    self.same(ask, named, events, "data")
                elif ask in ("unregister", "get_key"):
                    self.same(ask, named)
                elif ask == "select":
                    self.same(ask, 0)
                elif ask == "send":
                    told(end.send, b"x" * rng.choice([1, 1_000_000]))
                else:
                    told(end.recv, 1_000_000)
            for named in list(self.own.get_map()):
                self.same("unregister", named)
            for end in ends:
                end.close()

    def test_what_was_closed_can_be_taken_out(self):
        one, other = socket.socketpair()
        self.addCleanup(other.close)
        self.same("register", one, selectors.EVENT_READ)
        self.same("register", other.fileno(), BOTH)
        one.close()
        self.assertIsInstance(self.same("unregister", one), selectors.SelectorKey)
        descriptor = other.detach()
        os.close(descriptor)
        self.assertIsInstance(self.same("unregister", descriptor), selectors.SelectorKey)

    def test_it_waits_as_long_as_it_is_told_or_until_something_is_ready(self):
        one, other = socket.socketpair()
        for end in (one, other):
            self.addCleanup(end.close)
        self.same("register", one.fileno(), selectors.EVENT_READ, "data")
        for timeout in (-1, 0, 0.0001, 0.01):
            self.assertEqual(self.same("select", timeout), [])
        other.send(b"x")
        for timeout in (None, -1, 0, 10):
            self.assertEqual(self.same("select", timeout), [(self.own.get_key(one), selectors.EVENT_READ)])

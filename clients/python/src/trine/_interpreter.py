"""What the end of the interpreter, and a copy of its process, mean for the engines in it."""

from __future__ import annotations

import atexit
import os
import threading
import weakref
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._engine import Engine

engines: weakref.WeakSet[Engine] = weakref.WeakSet()
_exiting = False


def is_exiting() -> bool:
    return _exiting


def _at_exit() -> None:
    """Like the executors of the standard library: what was submitted is still carried out."""
    global _exiting
    _exiting = True
    for engine in list(engines):
        engine.close("interpreter shutdown")
    for engine in list(engines):
        engine.join()


def _after_fork() -> None:
    for engine in list(engines):
        engine.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)

# The hook that the standard library's executors use: `atexit` comes after threads can no longer be started.
getattr(threading, "_register_atexit", atexit.register)(_at_exit)

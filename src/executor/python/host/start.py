"""Makes this process a host."""

import faulthandler
import fcntl
import os
import socket
import sys
import types

from . import running, trine


def main(mode):
    # Users' code finds nothing on its standard input, and only what `Capture` reads goes to its outputs.
    sock = socket.socket(fileno=fcntl.fcntl(0, fcntl.F_DUPFD_CLOEXEC, 100))
    # Where a crash was is told to the server: in which thread, and nothing of those of other jobs.
    faulthandler.enable(fcntl.fcntl(2, fcntl.F_DUPFD_CLOEXEC, 100), all_threads=False)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)

    def after_fork():
        running.alone, running.forked = None, True
        sock.close()

    os.register_at_fork(after_in_child=after_fork)
    trine.provide()
    running.hand_down()
    # What a client pickled by reference to its own `__main__` must not find what started this program.
    sys.modules["__main__"] = types.ModuleType("__main__")
    host_of(mode)(sock).main()


def host_of(mode):
    """The class for a mode. The modules of the other modes are not loaded: a host is to start soon."""
    if mode == "async":
        from .loop import Async

        return Async
    if mode == "threads":
        from .threads import Threads

        return Threads
    from .processes import Processes

    return Processes

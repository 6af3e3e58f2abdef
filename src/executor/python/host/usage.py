"""What the kernel and the interpreter tell of this thread and this process."""

import os
import resource
import sys
import threading
import time


def thread_usage():
    """CPU time in ns, of it system time in s, voluntary and involuntary context switches: of this thread since it started."""
    # The thread's clock is exact, and reading it first makes the kernel bring up to date what getrusage tells.
    cpu_ns = time.thread_time_ns()
    usage = resource.getrusage(resource.RUSAGE_THREAD)
    return cpu_ns, usage[1], usage[14], usage[15]


def process_usage():
    """The same of all threads of this process, and of those of its children that it has waited for; then its peak memory in KiB."""
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    system = own[1] + children[1]
    return round((own[0] + children[0] + system) * 1e9), system, own[14] + children[14], own[15] + children[15], own[2]


class Delay:
    """How long this thread has been ready to run without a core, in ns since it started. None where /proc does not tell."""

    kept = threading.local()  # the file stays open as long as the thread lives

    @classmethod
    def of_thread(cls):
        try:
            file = cls.kept.__dict__.get("file")
            if file is None:
                file = cls.kept.file = open("/proc/thread-self/schedstat", "rb", 0)
            return int(os.pread(file.fileno(), 64, 0).split()[1])
        except (OSError, IndexError):
            return None


class Memory:
    """The peak of this process's resident memory, counted afresh for each job. None where /proc does not tell."""

    def __init__(self):
        try:
            self.reset = os.open("/proc/self/clear_refs", os.O_WRONLY | os.O_CLOEXEC)
            self.status = os.open("/proc/self/status", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            self.reset = None
            return
        self.begin()
        # What getrusage tells never falls below the peak of whatever program this process was before. If that is no more than this one
        # begins with, it is the same figure for nothing: to read it takes longer than many a job.
        self.in_usage = process_usage()[4] * 1024 <= self.in_status()

    def begin(self):
        if self.reset is not None:
            os.pwrite(self.reset, b"5", 0)

    def peak_bytes(self, usage):
        if self.reset is None:
            return None
        return usage[4] * 1024 if self.in_usage else self.in_status()

    def in_status(self):
        status = os.pread(self.status, 4096, 0)
        at = status.find(b"VmHWM:")
        return int(status[at + 6 : status.index(b"kB", at)]) * 1024 if at >= 0 else 0


def gil_enabled():
    """Whether the GIL is on now: importing an extension can bring it back. None if this interpreter does not tell."""
    if hasattr(sys, "_is_gil_enabled"):
        return sys._is_gil_enabled()
    return True if sys.implementation.name == "cpython" else None

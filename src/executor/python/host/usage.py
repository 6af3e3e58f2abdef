"""What the kernel and the interpreter tell of this thread and this process."""

import os
import resource
import sys
import threading
import time


def thread_usage(clock=time.thread_time_ns):
    """CPU time in ns, of it system time in s, voluntary and involuntary context switches: of this thread since it started."""
    # The thread's clock is exact, and reading it first makes the kernel bring up to date what getrusage tells.
    cpu_ns = clock()
    usage = resource.getrusage(resource.RUSAGE_THREAD)
    return cpu_ns, usage[1], usage[14], usage[15]


def process_usage():
    """The same of all threads of this process, and of those of its children that it has waited for; then its own page faults."""
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    system = own[1] + children[1]
    cpu_ns = round((own[0] + children[0] + system) * 1e9)
    return cpu_ns, system, own[14] + children[14], own[15] + children[15], own[6] + own[7]


class Delay(threading.local):
    """How long the thread that asks has been ready to run without a core."""

    def __init__(self):
        try:
            self.file = open("/proc/thread-self/schedstat", "rb", 0)  # it stays open as long as the thread lives
            self.descriptor = self.file.fileno()
        except OSError:
            self.descriptor = -1
        self.before = 0

    def ns(self):
        """Since the thread started. None where /proc does not tell, or a job has closed the file: its descriptor may be another's since."""
        try:
            return int(os.pread(self.descriptor, 64, 0).split()[1])
        except (OSError, IndexError, ValueError):
            return None

    def further_ns(self):
        """Since this was asked the last time in this thread, or since that started."""
        now = self.ns() or 0
        before, self.before = self.before, now
        return now - before


DELAY = Delay()


class Memory:
    """The peak of this process's resident memory, counted afresh for each job. None where /proc does not tell.

    To read the peak takes longer than many a job, and what getrusage tells of it begins with the peak of the program that this process
    was before. But nothing becomes resident without a page fault: a job that had none has its peak at its beginning.
    """

    def __init__(self):
        self.page_bytes = os.sysconf("SC_PAGE_SIZE")
        try:
            self.reset = os.open("/proc/self/clear_refs", os.O_WRONLY | os.O_CLOEXEC)
            self.resident = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)
            self.status = os.open("/proc/self/status", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            self.reset = None

    def begin(self):
        if self.reset is not None:
            os.pwrite(self.reset, b"5", 0)
            self.first = os.pread(self.resident, 128, 0)

    def peak_bytes(self, faults):
        """The peak since `begin`, after so many page faults."""
        if self.reset is None:
            return None
        return self.in_status() if faults else int(self.first.split(None, 2)[1]) * self.page_bytes

    def in_status(self):
        status = os.pread(self.status, 4096, 0)
        at = status.find(b"VmHWM:")
        return int(status[at + 6 : status.index(b"kB", at)]) * 1024 if at >= 0 else 0


# Whether the GIL is on now: importing an extension can bring it back. None if this interpreter does not tell.
gil_enabled = getattr(sys, "_is_gil_enabled", lambda: True if sys.implementation.name == "cpython" else None)

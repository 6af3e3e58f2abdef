"""Users' module `trine`: what a function can ask of Trine while it runs, and Trine's client if the interpreter has it."""

import os
import sys
import threading
import types

from . import running
from .exceptions import Stopped
from .running import current


def here():
    job = None if running.forked else current()
    if job is None:
        raise RuntimeError("no job runs here (a child process does not count)")
    return job


def progress(value):
    """Reports anything that JSON can write as the job's progress. On threads, it ends a job that was asked to stop."""
    here().progress(value)


def stopped():
    """Whether the job was asked to stop."""
    return here().stopped


def job_id():
    """The job's id, a UUID."""
    return here().uuid


def attempt():
    """The number of this attempt at the job, from 1."""
    return here().attempt


def artifacts():
    """The job's own folder for files that are to be kept when it ends, as a path; made by the first call."""
    from pathlib import Path

    job = here()
    folder = os.path.join(job.host.artifacts, str(job.id))
    os.makedirs(folder, exist_ok=True)
    job.has_artifacts = True
    return Path(folder)


def load_client():
    """Loads the installed package `trine`, if there is one. It takes what a function can ask from here, not from its `_worker`."""
    import importlib.machinery
    import importlib.util

    global client
    module = sys.modules["trine"]
    spec = importlib.machinery.PathFinder.find_spec("trine")
    if spec is None or spec.loader is None:
        return
    module.__path__ = spec.submodule_search_locations
    sys.modules["trine._worker"] = module
    package = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(package)
    client = package


def of_client(name):
    """The module's `__getattr__`. The client is loaded by whoever asks for a name of it: most never do, and it takes long."""
    if not name.startswith("_"):
        with loading:
            if client is None:
                load_client()
        if hasattr(client, name):
            return getattr(client, name)
    raise AttributeError(f"module 'trine' has no attribute {name!r}: it is {WHAT}")


WHAT = f"what a function can ask of Trine while it runs, and the client as far as that is installed for {sys.executable}"
loading = threading.RLock()
client = None


def provide():
    """Makes the module, for users' code to import."""
    module = sys.modules["trine"] = types.ModuleType("trine", "What a function can ask of Trine while it runs.")
    module.__file__ = f"<{WHAT}>"  # which is what an import of a name that is not there is told
    for member in (progress, stopped, job_id, attempt, artifacts, Stopped):
        member.__module__ = "trine"
        setattr(module, member.__name__, member)
    module.__getattr__ = of_client

"""Users' code that came as a zip."""

import builtins
import importlib
import importlib.machinery
import importlib.util
import os
import sys
import threading
import types

from .code import Code
from .exceptions import Invalid
from .running import current


class Archive(Code):
    """A zip with several modules, under the names that they have in it: so two versions, or two functions, may want the same names.

    Therefore `sys.modules` holds the modules of at most one zip, the active one; those of the others wait in their `modules`. When a
    job imports a name of its own zip, that becomes the active one first; when another job imports a name of the active zip, none is.
    Modules refer to each other directly, so what was loaded goes on as it was. No zip is on `sys.path`: `find_spec`, on
    `sys.meta_path`, shows each job its own.

    A module of a name that the interpreter has too is for the zip's own code alone: libraries are loaded once for all jobs, and would give
    it to others. It is loaded under another name, in a package that is called as the zip's `name`.
    """

    active = None
    importing = threading.RLock()

    def __init__(self, sha, path):
        super().__init__(sha)
        self.path = path
        self.folder = path + os.sep
        self.modules = {}
        self.tops = self.folders = self.apart = ()
        if Archive not in sys.meta_path:
            self.isolate()

    def find(self, name):
        import zipfile

        module, colon, path = name.partition(":")
        if not colon:
            raise Invalid(f"the entry point of a zip is written 'module:function', not {name!r}")
        if not self.tops:
            with zipfile.ZipFile(self.path) as content:
                self.look_through(content.namelist())
        whole = f"{self.name}.{module}" if module.partition(".")[0] in self.apart else module
        return self.attribute(importlib.import_module(whole), path, module)

    def look_through(self, entries):
        self.folders = {entry[:at] for entry in entries for at, letter in enumerate(entry) if letter == "/"}
        modules = {entry.rpartition(".")[0] for entry in entries if entry.endswith((".py", ".pyc"))}
        tops = {module.removesuffix("/__init__") for module in modules}
        self.apart = {top for top in tops if "/" not in top and self.is_elsewhere(top)}
        # Not those of other files, such as `logging.ini`: whoever imports a name of its zip waits for those who load modules of any.
        self.tops = self.folders.union(modules, (self.name,)) - self.apart
        package = sys.modules[self.name] = types.ModuleType(self.name)
        package.__path__ = [self.path]

    @staticmethod
    def is_elsewhere(top):
        """Whether the interpreter has such a module. `trine` is the host's for all."""
        spec = None if top == "trine" else importlib.machinery.PathFinder.find_spec(top)
        return top in sys.builtin_module_names or (spec is not None and spec.loader is not None)

    def forget(self):
        with self.importing:
            if Archive.active is self:
                self.activate(None)
            for name in list(sys.modules):
                if name.partition(".")[0] == self.name:
                    self.modules[name] = sys.modules.pop(name)  # for jobs that still run its code
        sys.path_importer_cache.pop(self.path, None)

    def has(self, module):
        known = getattr(module, "__dict__", {})
        return self.holds((known.get("__file__"), *(known.get("__path__") or ())))

    def holds(self, places):
        return any(isinstance(place, str) and place.startswith(self.folder) for place in places)

    @staticmethod
    def activate(archive):
        before, Archive.active = Archive.active, archive
        if before is not None:
            before.modules = {
                name: module
                for name, module in list(sys.modules.items())
                if before.has(module) and not name.startswith(before.name + ".")
            }
            for name in before.modules:
                del sys.modules[name]
        if archive is not None:
            sys.modules.update(archive.modules)

    @staticmethod
    def of_job():
        job = current()
        return job.code if job is not None and isinstance(job.code, Archive) else None

    @staticmethod
    def apart_for(name, globals=None):
        """The job's zip, if code of it is to have the zip's module of a name that the interpreter has too: code that has these globals, or that
        has called what calls this."""
        own = Archive.of_job()
        if own is None or name.partition(".")[0] not in own.apart:
            return None
        if not globals:
            caller = sys._getframe().f_back.f_back
            globals = {} if caller is None else caller.f_globals
        return own if own.holds((globals.get("__file__"),)) else None

    @staticmethod
    def importing_as(name, importer, *args):
        """`importer(*args)`, which imports the module `name`, with the right zip active meanwhile."""
        own, active, top = Archive.of_job(), Archive.active, name.partition(".")[0]
        if own is not None and top in own.tops:
            wanted = own
        elif active is not None and active is not own and active.has(sys.modules.get(top)):
            # It waits here only if it must: those who load modules of the active zip may wait for what this thread is loading.
            wanted = None
        else:
            return importer(*args)
        with Archive.importing:
            if Archive.active is not wanted:
                Archive.activate(wanted)
            return importer(*args)

    @staticmethod
    def isolate():
        statement, function = builtins.__import__, importlib.import_module

        def import_(name, globals=None, locals=None, fromlist=(), level=0):
            own = None if level else Archive.apart_for(name, globals)
            if own is None:
                whole = (globals or {}).get("__package__") or "" if level else name
                return Archive.importing_as(whole, statement, name, globals, locals, fromlist, level)
            whole = f"{own.name}.{name}"
            found = Archive.importing_as(whole, statement, whole, globals, locals, fromlist)
            return found if fromlist else sys.modules[f"{own.name}.{name.partition('.')[0]}"]

        def import_module(name, package=None):
            whole = importlib.util.resolve_name(name, package) if name.startswith(".") and package else name
            own = Archive.apart_for(whole)
            if own is not None:
                name = f"{own.name}.{whole}"
            whole = package or "" if name.startswith(".") else name
            return Archive.importing_as(whole, function, name, package)

        builtins.__import__, importlib.import_module = import_, import_module
        sys.meta_path.insert(0, Archive)
        sys.meta_path.append(Folders)

    @staticmethod
    def find_spec(name, path=None, target=None):
        own = Archive.of_job() if path is None else None
        spec = None if own is None or name in own.apart else importlib.machinery.PathFinder.find_spec(name, [own.path])
        return None if spec is None or spec.loader is None else spec


class Folders:
    """The last to be asked for a module. A folder without `__init__.py` is a package too, where nothing else has its name. Python itself finds
    it only if the zip has an entry of it, which many lack."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        own = Archive.of_job()
        folder = "" if own is None else name.removeprefix(own.name + ".").replace(".", "/")
        if own is None or folder not in own.folders or not (path is None or own.holds(path)):
            return None
        spec = importlib.machinery.ModuleSpec(name, None, is_package=True)
        spec.submodule_search_locations.append(own.folder + folder)
        return spec

"""Users' code: what all kinds of it have in common, and the kind that is one file."""

import linecache
import sys
import threading
import types

from .exceptions import Invalid


class Code:
    """A function's code, known by the hash of its content. What an entry point leads to is looked up once."""

    def __init__(self, sha):
        self.sha = sha
        self.name = f"trine_{sha[:16]}"
        self.entries = {}
        self.loading = threading.RLock()

    def entry(self, name):
        found = self.entries.get(name)
        if found is None:
            with self.loading:
                found = self.entries[name] = self.find(name)
        return found

    def tidy(self, text):
        return text.replace(self.folder, "").replace(self.name + ".", "")

    @staticmethod
    def attribute(module, path, where):
        target = module
        for name in path.split("."):
            if not hasattr(target, name):
                raise Invalid(f"{where} has no {path!r}", "AttributeError")
            target = getattr(target, name)
        if not callable(target):
            raise Invalid(f"{path!r} in {where} can't be called: it is of type {type(target).__name__}", "TypeError")
        return target


class Source(Code):
    """One file, as a module of its own name. `linecache` has its text, so that tracebacks show its lines."""

    def __init__(self, sha, text):
        super().__init__(sha)
        self.text = text.removeprefix("\ufeff")  # as Python does with a file's
        self.module = None
        self.folder = f"<{self.name}>/"

    def find(self, name):
        if self.module is None:
            self.module = self.load()
        return self.attribute(self.module, name, "main.py")

    def load(self):
        module = types.ModuleType(self.name)
        module.__file__ = self.folder + "main.py"
        # Without a modification time linecache keeps it and looks for no file.
        linecache.cache[module.__file__] = (len(self.text), None, self.text.splitlines(True), module.__file__)
        code = compile(self.text, module.__file__, "exec", dont_inherit=True)
        # Pickle, dataclasses and typing find a module by its name.
        sys.modules[self.name] = module
        try:
            exec(code, module.__dict__)
        except BaseException:
            sys.modules.pop(self.name, None)
            raise
        return module

    def forget(self):
        sys.modules.pop(self.name, None)
        linecache.cache.pop(self.folder + "main.py", None)

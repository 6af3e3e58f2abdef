"""Functions of several modules, in a zip."""

import os
import tempfile
import textwrap
import zipfile

from harness import HOST, HostTest, in_each


class Archives(HostTest):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name

    def archive(self, name, **files):
        path = os.path.join(self.folder, f"{name}.zip")
        with zipfile.ZipFile(path, "w") as file:
            for module, source in files.items():
                file.writestr(module.replace("__", "/", 1) + ".py", source)
        return path

    def version(self, word, **files):
        """All the ways in which a module can refer to another."""
        return self.archive(
            word,
            pkg____init__="",
            pkg__mod="""
import pkg.other, asyncio, importlib, pickle, top
from . import other
from .other import WORD, Thing
async def main(pause=0):
    before = [other.WORD, WORD, pkg.other.WORD, top.WORD]
    await asyncio.sleep(pause)
    import pkg.late as module
    from .late import WORD as late
    from top import WORD as upper
    thing = pickle.loads(pickle.dumps(Thing()))
    return before + [late, module.WORD, importlib.import_module("pkg.later").WORD, upper, thing.WORD]
def fails(): other.fails()
""",
            pkg__other=f"WORD = '{word}'\nclass Thing:\n    WORD = WORD\ndef fails():\n    raise ValueError(WORD)\n",
            pkg__late=f"WORD = '{word}'",
            pkg__later=f"WORD = '{word}'",
            top=f"WORD = '{word}'",
            **files,
        )

    @in_each()
    def test_modules_may_be_called_as_those_of_the_host(self, host):
        names = [name[:-3] for name in os.listdir(HOST) if name.endswith(".py") and name not in ("__main__.py", "trine.py")]
        main = f"def main(): return [__import__(name).MINE for name in {names}]"
        done = host.call(archive=self.archive("names", entry=main, **dict.fromkeys(names, "MINE = 1")), entrypoint="entry:main")
        self.assertEqual(done.get("output", done), [1] * len(names))

    @in_each()
    def test_modules_of_the_host_are_out_of_the_way(self, host):
        source = """
            import sys
            def main(folder):
                try:
                    import messages
                except ImportError:
                    return [folder in sys.path, [name for name in vars(sys.modules["__main__"]) if not name.startswith("__")]]
        """
        done = host.call(source, HOST)
        self.assertEqual(done.get("output", done), [False, []])

    @in_each()
    def test_versions_do_not_meet(self, host):
        old, new = self.version("old"), self.version("new", extra="")
        for path, word in ((old, "old"), (new, "new"), (old, "old"), (new, "new")):
            done = host.call(archive=path, entrypoint="pkg.mod:main")
            self.assertEqual(done.get("output", done), [word] * 9)

    @in_each("async", "threads")
    def test_versions_do_not_meet_when_both_run(self, host):
        paths = {word: self.version(word) for word in ("one", "two", "three")}
        jobs = [
            (word, host.submit(None, 0.05, archive=path, entrypoint="pkg.mod:main")) for word, path in list(paths.items()) * 3
        ]
        for word, job in jobs:
            done = host.wait(job)
            self.assertEqual(done.get("output", done), [word] * 9)

    @in_each()
    def test_a_file_does_not_see_what_is_in_a_zip(self, host):
        host.call(archive=self.version("old"), entrypoint="pkg.mod:main")
        for source in (
            "import pkg.mod\ndef main(): pass",
            "def main():\n    import top",
            "def main():\n    from pkg.mod import fails",
        ):
            self.assertEqual(host.call(source)["error"]["type"], "ModuleNotFoundError")
        self.assertNotIn("error", host.call(archive=self.version("old"), entrypoint="pkg.mod:main"))

    @in_each()
    def test_threads_see_the_modules_of_their_job(self, host):
        source = """
import importlib, pickle
from concurrent.futures import ThreadPoolExecutor
from pkg.other import Thing
def step():
    import pkg.late
    return [pkg.late.WORD, importlib.import_module("pkg.later").WORD, pickle.loads(pickle.dumps(Thing())).WORD]
def main():
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(step).result()
"""
        paths = {word: self.version(word, entry=source) for word in ("one", "two")}
        for word, path in [*paths.items()] * 2:
            done = host.call(archive=path, entrypoint="entry:main")
            self.assertEqual(done.get("output", done), [word] * 3)

    @in_each()
    def test_a_folder_without_init_is_a_package(self, host):
        source = """
import colorsys, spaced.deep.mod, pkg.within.mod
def main(): return [spaced.deep.mod.WORD, pkg.within.mod.WORD, colorsys.rgb_to_hsv(0, 0, 0)[0]]
"""
        word = "WORD = 'found'"
        files = {"spaced/deep/mod": word, "pkg/__init__": "", "pkg/within/mod": word, "colorsys/mod": word}
        for folders in ((), ("spaced/", "spaced/deep/", "pkg/", "pkg/within/", "colorsys/")):
            path = self.archive(f"spaced{len(folders)}", entry=source, **files)
            with zipfile.ZipFile(path, "a") as file:
                for folder in folders:
                    file.writestr(folder, "")
            done = host.call(archive=path, entrypoint="entry:main")
            self.assertEqual(done.get("output", done), ["found", "found", 0])

    @in_each()
    def test_a_zip_has_its_own_modules_whatever_the_interpreter_has_and_alone(self, host):
        source = """
import calendar, importlib, json, pickle, wsgiref.util
from calendar import Odd
from wsgiref import WORD, handlers
async def main():
    import http.cookiejar
    found = [calendar.WORD, json.WORD, wsgiref.util.WORD, WORD, handlers.WORD, __import__("json").WORD]
    return [*found, importlib.import_module("wsgiref.util").WORD, pickle.loads(pickle.dumps(Odd(calendar.WORD))).args[0]]
"""
        package = "from . import util\nimport wsgiref.util as whole\nfrom wsgiref.util import WORD\nassert util is whole"
        others = """
            import calendar, http.cookiejar, json, wsgiref.util
            def main(): return [http.cookiejar.timegm is calendar.timegm, json.loads("1"), wsgiref.util.is_hop_by_hop("")]
        """
        for word in ("one", "two"):
            path = self.archive(
                word,
                entry=source,
                calendar=f"import json\nWORD = json.WORD\nclass Odd(Exception): pass\ndef main(): raise Odd('{word}')",
                json=f"WORD = '{word}'",
                wsgiref____init__=package,
                wsgiref__util=f"WORD = '{word}'",
                wsgiref__handlers="from .util import WORD",
            )
            done = host.call(archive=path, entrypoint="entry:main")
            self.assertEqual(done.get("output", done), [word] * 8)
            error = host.call(archive=path, entrypoint="calendar:main")["error"]
            self.assertEqual((error["type"], error["message"]), ("calendar.Odd", word))
            frames = [(frame["file"], frame["code"]) for frame in error["frames"]]
            self.assertEqual(frames, [("calendar.py", f"def main(): raise Odd('{word}')")])
            done = host.call(others)
            self.assertEqual(done.get("output", done), [True, 1, False])

    @in_each("threads")
    def test_jobs_do_not_wait_for_each_other_s_modules_for_ever(self, host):
        go = os.path.join(self.folder, "go")
        lines = ["import os, time", "print('loading')", f"while not os.path.exists({go!r}): time.sleep(0.01)", "import logging, colorsys, threading"]
        with open(os.path.join(self.folder, "slow_library.py"), "w") as file:
            file.write("\n".join([*lines, "LOADED = 1"]))
        source = f"import sys\nsys.path.append({self.folder!r})\ndef main():\n    import slow_library\n    return slow_library.LOADED"
        first = host.submit(source)
        host.until(lambda: host.logs[first])
        # It holds up those that import from zips while it waits for what the first one loads.
        path = self.archive("entry", entry="print('begun')\nfrom slow_library import LOADED\ndef main(): return LOADED")
        with zipfile.ZipFile(path, "a") as file:
            file.writestr("threading/defaults.ini", "")
            file.writestr("colorsys.py", "")
            file.writestr("logging.ini", "")
        second = host.submit(archive=path, entrypoint="entry:main")
        host.until(lambda: host.logs[second])
        open(go, "w").close()
        for job in (first, second):
            done = host.wait(job)
            self.assertEqual(done.get("output", done), 1)

    @in_each("threads", threads=2)
    def test_a_zip_that_others_push_out_goes_on_and_comes_back(self, host):
        source = """
            import os, time
            def main(path=None):
                while path is not None and not os.path.exists(path):
                    time.sleep(0.01)
                import colorsys, helper
                return colorsys.WORD, helper.WORD
        """
        first, second = (
            self.archive(word, entry=textwrap.dedent(source), colorsys=f"WORD = '{word}'", helper=f"WORD = '{word}'") for word in ("one", "two")
        )
        go = os.path.join(self.folder, "go")
        running = host.submit(None, go, archive=first, entrypoint="entry:main")
        for n in range(260):
            self.assertEqual(host.call(f"def main(): return {n}")["output"], n)
        with open(go, "w"):
            pass
        done = host.wait(running)
        self.assertEqual(done.get("output", done), ["one", "one"])
        for archive, word in ((first, "one"), (second, "two")):
            done = host.call(archive=archive, entrypoint="entry:main")
            self.assertEqual(done.get("output", done), [word, word])

    @in_each()
    def test_frames_name_files_as_in_the_zip(self, host):
        error = host.call(archive=self.version("old"), entrypoint="pkg.mod:fails")["error"]
        places = [(frame["file"], frame["line"], frame["code"]) for frame in error["frames"]]
        self.assertEqual(
            places, [("pkg/mod.py", 13, "def fails(): other.fails()"), ("pkg/other.py", 5, "raise ValueError(WORD)")]
        )
        self.assertIn('File "pkg/other.py", line 5, in fails\n    raise ValueError(WORD)', error["traceback"])

    @in_each()
    def test_a_module_that_fails_to_load_tells_where(self, host):
        path = self.archive("broken", broken="import json\nimport deeper\n", deeper="\nraise ValueError('no')\n")
        error = host.call(archive=path, entrypoint="broken:main")["error"]
        self.assertEqual(error["message"], "no")
        self.assertEqual([(frame["file"], frame["line"]) for frame in error["frames"][:1]], [("broken.py", 2)])
        self.assertEqual([(frame["file"], frame["line"]) for frame in error["frames"][-1:]], [("deeper.py", 2)])

    @in_each()
    def test_bad_entry_points(self, host):
        path = self.version("old")
        for entrypoint, kind, words in (
            ("main", "invalid", "the entry point of a zip is written 'module:function', not 'main'"),
            ("pkg.mod:absent", "invalid", "pkg.mod has no 'absent'"),
            ("pkg.absent:main", "error", "No module named 'pkg.absent'"),
            ("absent:main", "error", "No module named 'absent'"),
        ):
            error = host.call(archive=path, entrypoint=entrypoint)["error"]
            self.assertEqual((error["kind"], error["message"]), (kind, words))

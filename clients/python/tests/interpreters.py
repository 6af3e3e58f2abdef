"""Finds an interpreter that has CPython's own tests of concurrent.futures. As a program: names it, and fails if there is none."""

import glob
import pathlib
import shutil
import subprocess
import sys

PACKAGE = "test.test_concurrent_futures"


def has_tests(python):
    done = subprocess.run([python, "-c", f"import {PACKAGE}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return done.returncode == 0


def others():
    """Other interpreters, the newest first: those on the path, the system's, and those installed beside this one."""
    beside = pathlib.Path(sys.base_prefix).resolve().parent
    names = [f"python3.{minor}" for minor in range(19, 8, -1)]
    found = [path for name in names for path in (shutil.which(name), f"/usr/bin/{name}", *glob.glob(f"{beside}/*/bin/{name}"))]
    return list(dict.fromkeys(path for path in found if path and pathlib.Path(path).exists()))


def with_tests():
    """This interpreter if it has them, or else another; None if none has."""
    return next((python for python in (sys.executable, *others()) if has_tests(python)), None)


if __name__ == "__main__":
    found = with_tests()
    print(found or f"no interpreter here has {PACKAGE}")
    sys.exit(found is None)

"""What a function refers to: the names of its module that it uses, and what its closure holds."""

from __future__ import annotations

import builtins
import dis
import functools
import logging
import operator
import site
import sys
import sysconfig
import weakref
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType
from typing import Any, Callable, Optional

# How code loads global names; the last one is for annotations in a class, from Python 3.14 on.
LOADS = ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS")
ATOMS = (type(None), bool, int, float, complex, str, bytes)


def installed(module_name: Optional[str]) -> bool:
    """Whether a module belongs to Python or to an installed package, so that the server may have it as well.

    A user's own modules do not, and neither does `__main__`: what is in them has to travel by value.
    """
    if module_name is None or module_name in ("__main__", "__mp_main__"):
        return False
    if module_name == "trine" or module_name.partition(".")[0] == "cloudpickle":
        return True  # the server has a `trine` for functions that run there; without the other, nothing arrives by value
    if module_name.startswith("trine."):
        return False
    module = sys.modules.get(module_name)
    return module is not None and _installed(module_name, getattr(module, "__file__", None))


@functools.lru_cache(maxsize=4096)
def _installed(module_name: str, file: Optional[str]) -> bool:
    return file is None or file.startswith(_folders())


@functools.lru_cache(maxsize=1)
def _folders() -> tuple[str, ...]:
    paths = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    paths += [*site.getsitepackages(), site.getusersitepackages()]
    return tuple(path.rstrip("/\\") + ("\\" if "\\" in path else "/") for path in paths if path)


def by_name(value: Any) -> bool:
    """Whether a function or class is found by its name in an installed module."""
    found: Any = sys.modules.get(getattr(value, "__module__", None) or "")
    if found is None or not installed(value.__module__):
        return False
    for name in value.__qualname__.split("."):
        found = getattr(found, name, None)
    return found is value


def is_logger(value: Any) -> bool:
    """Whether a value is what `logging` has under its name, there as here."""
    return isinstance(value, logging.Logger) and logging.getLogger(value.name) is value


def global_names(code: CodeType) -> dict[str, bool]:
    """The global names that a function's code uses, also within its inner functions; and whether each has to be somewhere.

    It need not be if only bodies of classes use it that store it themselves. Whether they have by then is not known, so that
    what the module has under that name counts as used all the same.
    """
    steps = [(step.opname, step.argval) for step in dis.get_instructions(code)]
    stored = {name for kind, name in steps if kind == "STORE_NAME"}
    annotated = any(kind == "SETUP_ANNOTATIONS" for kind, _ in steps)
    names: dict[str, bool] = {}
    for (kind, name), following in zip(steps, steps[1:]):
        in_class = kind == "LOAD_NAME"
        # A body begins with its module's name, which there is wherever a class is made; and its annotations are its own.
        begins = name == "__name__" and following == ("STORE_NAME", "__module__")
        if kind in LOADS and not (in_class and (begins or (annotated and name == "__annotations__"))):
            names[name] = names.get(name, False) or not in_class or name not in stored
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            for name, needed in global_names(constant).items():
                names[name] = names.get(name, False) or needed
    return names


def globals_of(function: FunctionType) -> tuple[dict[str, Any], list[str]]:
    """The names of its module that a function uses, with their values; and the names that are nowhere."""
    found, missing = {}, []
    for name, needed in sorted(global_names(function.__code__).items()):
        if name in function.__globals__:
            found[name] = function.__globals__[name]
        elif needed and not hasattr(builtins, name):
            missing.append(name)
    return found, missing


def immutable(value: Any) -> bool:
    """Whether a value is one that can't change, of the kinds that a function may have for a constant."""
    return type(value) in ATOMS or (type(value) in (tuple, frozenset) and all(map(immutable, value)))


class Snapshot:
    """What a function refers to now, all the way down; `holds` as long as none of it is anything else.

    While it does, the function means the same as before, and what was made of it can be used again. There is none for a function
    that refers to what can change by itself, such as a list. It keeps no function alive.
    """

    def __init__(self, function: Any) -> None:
        self.functions: list[Seen] = []

        seen = set()
        waiting = [function]
        while waiting:
            each = waiting.pop()
            if id(each) in seen or isinstance(each, ModuleType) or immutable(each) or is_logger(each):
                continue
            seen.add(id(each))
            if isinstance(each, (FunctionType, BuiltinFunctionType, type)) and by_name(each):
                continue
            if not isinstance(each, FunctionType) or each.__kwdefaults__ or each.__dict__:
                raise Changeable
            self.functions.append(Seen(each))
            waiting += [each.__defaults__, *globals_of(each)[0].values(), *_held(each)]

    def holds(self) -> bool:
        try:
            return all(function.holds() for function in self.functions)
        except Changeable:
            return False


class Seen:
    """One function of a snapshot, and what it refers to itself. Of functions only weak references are kept."""

    def __init__(self, function: FunctionType) -> None:
        self.function = weakref.ref(function)
        self.parts = function.__code__, function.__defaults__
        found = globals_of(function)[0]
        self.names = [(name, _reference(value)) for name, value in found.items()]
        self.absent = global_names(function.__code__).keys() - found  # built in, or nowhere, unless the module gets one
        self.held = [_reference(value) for value in _held(function)]

    def holds(self) -> bool:
        function = self.function()
        if function is None or function.__code__ is not self.parts[0] or function.__defaults__ is not self.parts[1]:
            return False
        space = function.__globals__
        if function.__kwdefaults__ or function.__dict__ or not space.keys().isdisjoint(self.absent):
            return False
        for name, value in self.names:  # each call of a function asks, and `all` of a generator would take twice as long
            if space.get(name, self) is not value():
                return False
        return not self.held or all(map(operator.is_, _held(function), [value() for value in self.held]))


def _held(function: FunctionType) -> list[Any]:
    """What the closure of a function holds."""
    try:
        return [cell.cell_contents for cell in function.__closure__ or ()]
    except ValueError:  # nothing yet
        raise Changeable from None


def _reference(value: Any) -> Callable[[], Any]:
    """What gives a value."""
    return weakref.ref(value) if isinstance(value, FunctionType) else lambda: value


class Changeable(Exception):
    """A function refers to something that can change by itself."""


def name_of(function: Any) -> str:
    """How a function is called in messages."""
    return str(getattr(function, "__qualname__", None) or repr(function))

"""How calls travel to the server and their values back: by pickle, or by source and JSON."""

from __future__ import annotations

import binascii
import contextlib
import copyreg
import functools
import inspect
import io
import json
import os
import pickle
import re
import sys
import threading
import typing
import weakref
from collections.abc import Mapping, Sequence
from enum import Enum, Flag
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType
from typing import Any, Callable, Generic, NamedTuple, Optional, Protocol, TypeVar

import cloudpickle  # type: ignore[import-untyped]

from ._references import Changeable, Snapshot, by_name, globals_of, immutable, installed, name_of
from ._source import Source, source_of
from .errors import CannotTravel

T = TypeVar("T")

PROTOCOL = 5


class Way(Protocol):
    """A way to travel."""

    otherwise: str  # added to its refusals where there is no other

    def workload(self, function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> bytes:
        """The workload that makes this call, as JSON. Raises what says that it can't travel."""

    def value(self, output: Any) -> Any:
        """What the call returned, from the job's output."""


def travelling(
    ways: Sequence[Way], function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> tuple[Way, bytes]:
    """The first of these ways on which a call can travel, and its workload there. Raises what speaks against all of them."""
    refusals, cause = [], None
    for way in ways:
        try:
            return way, way.workload(function, args, kwargs)
        except CannotTravel as refusal:
            refusals.append(f"{refusal}{way.otherwise}" if len(ways) == 1 else str(refusal))
            cause = refusal.__cause__ if len(ways) == 1 else None
    # Not where they are caught: as the context of this they would hold the arguments.
    raise CannotTravel("; ".join(reversed(refusals))) from cause


class Each:
    """A function that is called with each of many arguments in one job; for `map` with a chunk size."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.__qualname__ = name_of(function)

    def __call__(self, calls: Sequence[Sequence[Any]]) -> list[Any]:
        return _each(self.function, calls)

    def __reduce__(self) -> tuple[Any, ...]:
        return functools.partial, (_each, self.function)


def _each(function: Callable[..., Any], calls: Sequence[Sequence[Any]]) -> list[Any]:
    return [function(*args) for args in calls]


def in_chunks(function: Callable[..., Any]) -> Optional[Each]:
    """`Each` of a function; None for one whose calls only begin when they are awaited or iterated over."""
    waits = (inspect.iscoroutinefunction, inspect.isasyncgenfunction, inspect.isgeneratorfunction)
    return None if any(check(function) for check in waits) else Each(function)


class Remembered(Generic[T]):
    """What was made of functions, for as long as they are the same and mean the same."""

    def __init__(self, make: Callable[[Any], T]) -> None:
        self._make = make
        self._known: weakref.WeakKeyDictionary[Any, tuple[Snapshot, T]] = weakref.WeakKeyDictionary()

    def of(self, function: Any) -> T:
        single = function.function if isinstance(function, Each) else function
        if not isinstance(single, (FunctionType, BuiltinFunctionType)):
            return self._make(function)  # methods and the like are new objects each time
        known = self._known.get(function)
        if known is not None and known[0].holds():
            return known[1]
        snapshot = None
        with contextlib.suppress(Changeable):
            snapshot = Snapshot(single)
        made = self._make(function)
        if snapshot is not None:
            self._known[function] = snapshot, made
        return made


# ---- By pickle -----------------------------------------------------------------------------------------------------------------


class Pickler(cloudpickle.CloudPickler):  # type: ignore[misc]
    """Takes functions and classes of modules that are not installed by value, as cloudpickle does with those of `__main__`."""

    def reducer_override(self, obj: Any) -> Any:
        if obj is os.environ:
            return "environ"  # by its name: what this process was told in confidence stays here, and it means the one there
        if obj is getattr(os, "environb", None):
            return "environb"
        if isinstance(obj, CodeType):
            # Newer versions leave out in which file code is, without which a traceback has no lines.
            make, parts = self.dispatch_table[CodeType](obj)
            return make, tuple(obj.co_filename if part == "<dynamic-code>" else part for part in parts)
        if isinstance(obj, functools._lru_cache_wrapper):
            # By its name it may not be found there.
            kept = obj.cache_parameters()
            parts = obj.__wrapped__, kept["maxsize"], kept["typed"], functools._CacheInfo
            state = {**vars(obj), "cache_parameters": functools.partial(dict, **kept)}
            return super().reducer_override(obj) if by_name(obj) else (functools._lru_cache_wrapper, parts, state)
        if isinstance(obj, (FunctionType, type)):
            reduced = self._by_value(obj, super().reducer_override)
            if isinstance(obj, type) and isinstance(reduced, tuple):
                _gone.add(obj)
                return _with_members(obj, reduced) if issubclass(obj, Enum) else _with_slots(obj, reduced)
            return reduced
        if isinstance(obj, TypeVar):
            return self._by_value(obj, self.dispatch_table[TypeVar])
        parts = PARTS.get(type(obj))
        if parts is not None and not installed(getattr(obj, "__module__", None)):
            return type(obj), tuple(getattr(obj, part) for part in parts)
        if type(obj) is functools.cached_property:  # until Python 3.12 it has a lock
            return type(obj), (obj.func,), {"attrname": obj.attrname}
        return super().reducer_override(obj)

    @staticmethod
    def _by_value(obj: Any, reduce: Callable[[Any], Any]) -> Any:
        name = obj.__module__
        module = None if name in (None, "__main__") or installed(name) else sys.modules.get(name)
        if module is None:
            return reduce(obj)
        with _registering:
            if name in cloudpickle.list_registry_pickle_by_value():
                return reduce(obj)
            cloudpickle.register_pickle_by_value(module)
            try:
                return reduce(obj)
            finally:
                cloudpickle.unregister_pickle_by_value(module)


# What `typing` makes besides, and pickle would take by its name alone, and the attributes that it is made of.
PARTS = {
    kind: parts
    for name, parts in {
        "NewType": ("__name__", "__supertype__"),
        "ParamSpec": ("__name__",),
        "TypeVarTuple": ("__name__",),
        "TypeAliasType": ("__name__", "__value__"),
    }.items()
    if isinstance(kind := getattr(typing, name, None), type)
}


def _with_slots(made: type, reduced: tuple[Any, ...]) -> tuple[Any, ...]:
    """Newer cloudpickles leave out `__slots__`: objects there have a `__dict__`, which those of the class here lack."""
    named_tuple = typing.NamedTuple in vars(made).get("__orig_bases__", ())  # which makes them itself
    if "__slots__" not in vars(made) or named_tuple:
        return reduced
    make, (kind, name, bases, namespace, *more), *state = reduced
    return make, (kind, name, bases, {**namespace, "__slots__": vars(made)["__slots__"]}, *more), *state


def _with_members(made: type[Enum], reduced: tuple[Any, ...]) -> tuple[Any, ...]:
    """cloudpickle makes the members of an enum anew of their values, without what `__new__` and `__init__` have made of them."""
    make, (bases, name, qualname, _, module, tracked, *more), (namespace, slots), _, _, set_state = reduced
    _enums[tracked] = made
    own = {each: {key: vars(member)[key] for key in vars(member).keys() - OF_ENUMS} for each, member in made.__members__.items()}
    # Since Python 3.11, flags that are several others have names, and are no members to begin with.
    members: dict[str, Any] = {str(each.name): each for each in made} if issubclass(made, Flag) else dict(made.__members__)
    if not members:
        return reduced  # it is a base of other enums
    own_init = isinstance(made.__init__, FunctionType) and made.__init__ is not Enum.__init__
    usual = not own_init and not hasattr(made, "__new_member__") and not any(own.values())
    try:
        parts = {each: (member._value_, _plain(member)) for each, member in members.items()}
    except pickle.PicklingError:
        if usual:
            return reduced  # of the values alone it may be made, as by cloudpickle alone
        raise
    if usual and len(members) == len(made) and all(plain in ((), (value,)) for value, plain in parts.values()):
        return reduced  # which is shorter
    # What needs no other object is there from the beginning: whoever looks at the class as it is made may ask for it.
    first = {each: {key: value for key, value in attributes.items() if immutable(value)} for each, attributes in own.items()}
    state = set_state, ({key: value for key, value in namespace.items() if key not in members}, slots), own
    anew = {"__new__": _member, "__init__": _as_it_is, **{each: (*part, first.get(each, {})) for each, part in parts.items()}}
    return make, (bases, name, qualname, anew, module, tracked, *more), state, None, None, _set_members


OF_ENUMS = {"_name_", "_value_", "__objclass__", "_sort_order_", "_inverted_"}  # what `enum` itself keeps of each member


def _plain(member: Enum) -> tuple[Any, ...]:
    """What a member is beside its attributes: the arguments for the `__new__` of the built-in class below it, such as `int`."""
    kind, below = type(member), _below(type(member))
    reduced: Any = object.__reduce_ex__(member, 2)
    make, args, state, *items = reduced if len(reduced) > 2 else (*reduced, None)
    if make is copyreg.__newobj__ and state == vars(member) and not any(items):  # type: ignore[attr-defined]
        return tuple(below.__getnewargs__(member)) if hasattr(below, "__getnewargs__") else ()
    if make is kind and state in (None, vars(member)) and below is not object and not any(items):
        return tuple(args)
    raise pickle.PicklingError(f"members of the enum {kind.__qualname__} are more than attributes and a built-in value")


def _below(kind: type) -> Any:
    """The built-in class below a class, which makes its objects."""
    return next(base for base in kind.__mro__ if isinstance(vars(base).get("__new__"), BuiltinFunctionType))


# These three travel along, and make members there what they are here.


def _member(kind: Any, *parts: Any) -> Any:
    value, plain, attributes = parts[0] if kind._member_type_ is tuple else parts
    made = _below(kind).__new__(kind, *plain)
    made._value_ = value
    vars(made).update(attributes)
    return made


def _as_it_is(member: Any, *parts: Any) -> None:
    pass


def _set_members(made: Any, state: Any) -> None:
    set_state, of_class, own = state
    set_state(made, of_class)
    for name, attributes in own.items():
        vars(getattr(made, name)).update(attributes)


_registering = threading.RLock()

if hasattr(os, "register_at_fork"):
    # A new process has what another thread had registered, and not the thread that would take it back.
    os.register_at_fork(before=_registering.acquire, after_in_parent=_registering.release, after_in_child=_registering.release)


def dumps(value: Any) -> bytes:
    file = io.BytesIO()
    Pickler(file, PROTOCOL).dump(value)
    return file.getvalue()


class Pickled(NamedTuple):
    """A function as the beginning of the pickle of a call, and the end of the workload with it."""

    beginning: bytes
    end: bytes


class ByPickle:
    """Each function is pickled once. A call's pickle is `concat((loads(function),), (args, kwargs))`, put together by hand."""

    otherwise = ""

    def __init__(self, options: bytes, unread: Optional[str] = None) -> None:
        self._options = options  # further fields of the workload, each with a comma before it
        self._unread = unread  # why the server can read only what needs no cloudpickle
        self._functions = Remembered(self._pickled)

    def _pickled(self, function: Any) -> Pickled:
        data = dumps(function)
        beginning = b"\x80\x05coperator\nconcat\ncpickle\nloads\nB" + len(data).to_bytes(4, "little") + data + b"\x85R\x85"
        form = b',"form":"async"' if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function) else b""
        return Pickled(beginning, b'"' + form + self._options + b"}")

    def workload(self, function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> bytes:
        try:
            pickled = self._functions.of(function)
            data = pickled.beginning + _arguments(args, kwargs)[:-1] + b"\x86R."
        except Exception as error:
            raise CannotTravel(_culprit(function, args, kwargs, error)) from error
        if self._unread is not None and b"cloudpickle" in data:
            raise CannotTravel(f"{name_of(function)} and its arguments can't travel by value in a pickle: {self._unread}")
        return b'{"type":"python","pickle":"' + binascii.b2a_base64(data, newline=False) + pickled.end

    def value(self, output: Any) -> Any:
        return unpickled(output["pickle"])


def why_unread(interpreter: Mapping[str, Any]) -> Optional[str]:
    """Why an interpreter, as the server tells of it, can't read what cloudpickle makes here; None if it can."""
    name = f"the server's interpreter {interpreter['name']}"
    here, there = cloudpickle.__version__, interpreter.get("cloudpickle", "")  # a server that does not tell may have it
    if _number(interpreter["version"], 2) != sys.version_info[:2]:
        return f"{name} is Python {interpreter['version']}, and this is {sys.version.split()[0]}"
    if there is None:
        return f"{name} has no cloudpickle, which has to be installed for it"
    # Names that pickles go by come with major versions: what the older one makes the newer one reads, and values come back.
    if there and _number(there, 1) != _number(here, 1):
        return f"{name} has cloudpickle {there}, and this is {here}"
    return None


def _number(version: str, parts: int) -> tuple[int, ...]:
    """The first parts of a version."""
    return tuple(int(part) for part in re.findall("[0-9]+", version)[:parts])


def _arguments(args: Sequence[Any], kwargs: Mapping[str, Any]) -> bytes:
    # Most arguments need no more than what the standard library does, which is quicker by far.
    plain = all(map(immutable, args)) and all(map(immutable, kwargs.values()))
    return pickle.dumps((args, kwargs), PROTOCOL) if plain else dumps((args, kwargs))


def _culprit(function: Any, args: Sequence[Any], kwargs: Mapping[str, Any], error: Exception) -> str:
    """Which part of a call can't be pickled."""
    for what, part in _parts(function, args, kwargs):
        try:
            dumps(part)
        except Exception as found:
            return f"{name_of(function)}: {what} can't be pickled: {_reason(part, found, [])}"
    return f"{name_of(function)} and its arguments can't be pickled: {error}"


def bulk(function: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
    """Which part takes more than half of a call; of a function, which of the things that it refers to. Empty if none does."""
    found = _bulk(_parts(function, args, kwargs), _size((function, args, kwargs)) // 2, [])
    return found and f"{name_of(function)}: {found.removeprefix('itself: ')}"


def _bulk(parts: list[tuple[str, Any]], half: int, seen: list[Any]) -> str:
    for what, part in parts:
        value = _single(part)
        if any(value is each for each in seen) or _size(part) <= half:
            continue
        is_first = not seen
        seen.append(value)
        within = [("its object", part.__self__)] if isinstance(part, MethodType) else []
        inner = _bulk(within + (_references(value) if isinstance(value, FunctionType) else []), half, seen)
        if inner or is_first or not isinstance(value, FunctionType):  # functions may share what makes each of them large
            return f"{what}: {inner}" if inner else what
    return ""


def _size(value: Any) -> int:
    try:
        return len(dumps(value))
    except Exception:
        return 0  # it goes by source


def _parts(function: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """The parts of a call."""
    parts = [("itself", function)]
    parts += [(f"argument {place}", value) for place, value in enumerate(args, 1)]
    return parts + [(f"argument {name!r}", value) for name, value in kwargs.items()]


def _single(value: Any) -> Any:
    """The function that there is in what calls one."""
    return value.function if type(value) is Each else value.__func__ if type(value) is MethodType else value


def _reason(value: Any, error: Exception, outer: list[Any]) -> str:
    """Why something can't be pickled; of a function, because of which of the things that it refers to."""
    value = _single(value)
    outer = [*outer, value]
    for what, part in _references(value) if isinstance(value, FunctionType) else ():
        if any(part is each for each in outer):
            continue
        try:
            dumps(part)
        except Exception as found:
            return f"{what}: {_reason(part, found, outer)}"
    return str(error)


def _references(function: FunctionType) -> list[tuple[str, Any]]:
    """What a function refers to, functions after the rest: they may refer to this one in turn."""
    names = function.__code__.co_varnames[: function.__code__.co_argcount]
    defaults = dict(zip(reversed(names), reversed(function.__defaults__ or ())))
    found = [(f"the default of {name!r}", value) for name, value in {**defaults, **(function.__kwdefaults__ or {})}.items()]
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or ()):
        with contextlib.suppress(ValueError):  # nothing yet
            found.append((f"the variable {name!r} around it", cell.cell_contents))
    found += [(f"its global {name!r}", value) for name, value in globals_of(function)[0].items()]
    found.sort(key=lambda each: isinstance(each[1], FunctionType))
    return found + [(f"its attribute {name!r}", value) for name, value in vars(function).items()]


def unpickled(text: str) -> Any:
    data = binascii.a2b_base64(text)
    return Unpickler(io.BytesIO(data)).load() if b"cloudpickle" in data else pickle.loads(data)


class Unpickler(pickle.Unpickler):
    """Leaves classes that have gone from here as they are: a value of one brings along what its class was there."""

    def find_class(self, module: str, name: str) -> Any:
        found = super().find_class(module, name)
        if not module.startswith("cloudpickle."):
            return found
        if name == "_make_skeleton_enum":
            return lambda *parts: _enums.get(parts[5]) or found(*parts)
        if name == "_class_setstate":
            return lambda made, state: made if made in _gone else found(made, state)
        return found


_gone: weakref.WeakSet[type] = weakref.WeakSet()
_enums: weakref.WeakValueDictionary[str, type[Enum]] = (
    weakref.WeakValueDictionary()
)  # that have gone, by cloudpickle's ids of them


# ---- By source -----------------------------------------------------------------------------------------------------------------


class BySource:
    """The source of a function goes with each call; the server keeps it compiled. Arguments and values are JSON."""

    otherwise = "; by pickle, where the server allows it (its setting python_pickles), nearly all can"

    def __init__(self, options: bytes) -> None:
        self._options = options
        self._functions = Remembered(self._beginning)

    def _beginning(self, function: Any) -> bytes:
        each = isinstance(function, Each)
        source: Source = source_of(function.function if isinstance(function, Each) else function)
        text, entrypoint = source.text, source.entrypoint
        if each:
            # In names that nothing else has: the function may be called `calls`.
            text += f"\n\ndef _trine_each(_trine_calls):\n    return [{entrypoint}(*_trine_one) for _trine_one in _trine_calls]\n"
            entrypoint = "_trine_each"
        told = json.dumps({"type": "python", "source": text, "entrypoint": entrypoint}, ensure_ascii=False)
        return told[:-1].encode() + self._options

    def workload(self, function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> bytes:
        what = name_of(function)
        if "$output" in kwargs:
            raise CannotTravel(f"{what} has an argument {OUTPUT}")
        beginning = self._functions.of(function)
        values = [_json(value, f"argument {place} of {what}") for place, value in enumerate(args, 1)]
        named = [
            _json(name, f"a name of an argument of {what}") + b":" + _json(value, f"argument {name!r} of {what}")
            for name, value in kwargs.items()
        ]
        return b'%s,"args":[%s],"kwargs":{%s}}' % (beginning, b",".join(values), b",".join(named))

    def value(self, output: Any) -> Any:
        return output


OUTPUT = "'$output', which stands for another job's output there"


def _json(value: Any, what: str) -> bytes:
    try:
        _check_json(value, what)
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    except (ValueError, RecursionError) as error:  # half a character, a number with too many digits, a list that holds itself
        raise CannotTravel(f"{what} can't be written as JSON: {error}") from error


def _check_json(value: Any, what: str) -> None:
    """Refuses what JSON would change, but for a tuple, which arrives as a list."""
    kind = type(value)
    if value is None or kind in (bool, int, str):
        return
    if kind is float:
        if value - value != 0:
            raise CannotTravel(f"{what} has {value!r}, which JSON can't carry")
    elif kind in (list, tuple):
        for each in value:
            _check_json(each, what)
    elif kind is dict:
        for name, each in value.items():
            if type(name) is not str:
                raise CannotTravel(f"{what} has a dictionary with the key {name!r}; in JSON keys are strings")
            if name == "$output":
                raise CannotTravel(f"{what} has a dictionary with the key {OUTPUT}")
            _check_json(each, what)
    else:
        raise CannotTravel(f"{what} has a value of type {kind.__qualname__}, which JSON can't carry")

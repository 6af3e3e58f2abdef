"""How calls travel to the server and their values back: by pickle, or by source and JSON."""

from __future__ import annotations

import binascii
import contextlib
import inspect
import json
import pickle
import re
import sys
import weakref
from collections.abc import Mapping, Sequence
from types import BuiltinFunctionType, FunctionType
from typing import Any, Callable, Generic, NamedTuple, Optional, Protocol, TypeVar

import cloudpickle  # type: ignore[import-untyped]

from ._blame import culprit
from ._chunks import Each
from ._pickler import PROTOCOL, dumps, unpickled
from ._references import Changeable, Snapshot, immutable, name_of
from ._source import Source, source_of
from .errors import CannotTravel

T = TypeVar("T")


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
            raise CannotTravel(culprit(function, args, kwargs, error)) from error
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

"""Which part of a call is to blame where it can't be pickled, or is too long."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from types import FunctionType, MethodType
from typing import Any

from ._chunks import Each
from ._pickler import dumps
from ._references import globals_of, name_of


def culprit(function: Any, args: Sequence[Any], kwargs: Mapping[str, Any], error: Exception) -> str:
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

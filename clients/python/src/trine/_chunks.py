"""Calls of a function with many arguments in one job."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Sequence
from typing import Any, Callable, Optional

from ._references import name_of


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

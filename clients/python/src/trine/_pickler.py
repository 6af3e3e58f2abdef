"""Pickles of what cloudpickle takes, and of what it would leave out or get wrong."""

from __future__ import annotations

import binascii
import copyreg
import functools
import io
import os
import pickle
import sys
import threading
import typing
import weakref
from enum import Enum, Flag
from types import BuiltinFunctionType, CodeType, FunctionType
from typing import Any, Callable, TypeVar

import cloudpickle  # type: ignore[import-untyped]

from ._references import by_name, immutable, installed

PROTOCOL = 5


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

"""Functions, arguments, values and exceptions that travel by pickle."""

import binascii
import contextlib
import copyreg
import io
import sys
import types

from .exceptions import Invalid
from .messages import LENGTH, fits


class Functions:
    """Functions that came by pickle. Calls of one function begin with the same bytes: it is unpickled once, the arguments each time.

    As with a module's, what such a function keeps in its globals lives on. What carries a state of its own is unpickled each time.
    """

    CAPACITY = 64
    LONGEST = 1 << 18  # bytes of a function that is kept: so the memory that this takes up has a bound

    # A pickle of Trine's client is `concat((loads(function),), (args, kwargs))`: this, four bytes of length, the function, `CALLED`, the
    # arguments' pickle without its end, `JOINED`.
    BEGINNING = b"\x80\x05coperator\nconcat\ncpickle\nloads\nB"
    CALLED = b"\x85R\x85"
    JOINED = b"\x86R."

    def __init__(self):
        self.known = {}
        self.is_ready = False

    def prepare(self):
        """Loads what most pickles need, once and before a job's time begins: or the first one would seem to compute."""
        if not self.is_ready:
            self.is_ready = True
            import pickle  # noqa: F401

            # What is wrong with it is told by the first job that needs it.
            with contextlib.suppress(Exception):
                import cloudpickle  # noqa: F401

                take_apart()

    def call(self, text):
        """The function and its arguments, from any pickle of the three."""
        data = binascii.a2b_base64(text)
        start = len(self.BEGINNING) + LENGTH.size
        if data.startswith(self.BEGINNING) and data.endswith(self.JOINED):
            end = start + int.from_bytes(data[start - LENGTH.size : start], "little")
            if end - start <= self.LONGEST and data.startswith(self.CALLED, end):
                arguments = data[end + len(self.CALLED) : -len(self.JOINED)] + b"."
                return self.function(data[start:end]), *unpickled(arguments)
        return unpickled(data)

    def function(self, data):
        # Two threads may unpickle it at once: then the one that comes later has its own, once.
        found = self.known.pop(data, None)
        if found is None:
            found = unpickled(data)
            if not isinstance(found, types.FunctionType) or found.__closure__ is not None:
                return found
            if len(self.known) >= self.CAPACITY:
                self.known.pop(next(iter(self.known)), None)
        self.known[data] = found
        return found


def take_apart():
    """Has what pickle takes by its name alone travel by what it is made of, as it came: here, nothing has that name."""
    import functools
    import typing

    for name, parts in (
        ("NewType", ("__name__", "__supertype__")),
        ("ParamSpec", ("__name__",)),
        ("TypeVarTuple", ("__name__",)),
        ("TypeAliasType", ("__name__", "__value__")),
    ):
        kind = getattr(typing, name, None)
        if isinstance(kind, type):
            copyreg.pickle(kind, functools.partial(by_name_or_parts, parts))
    copyreg.pickle(functools._lru_cache_wrapper, by_name_or_function)
    # Until Python 3.12 it has a lock.
    copyreg.pickle(functools.cached_property, lambda value: (type(value), (value.func,), {"attrname": value.attrname}))


def by_name_or_function(value):
    """A function with a cache, such as a generic named tuple has one of that can't be found by its name."""
    import functools
    import operator

    with contextlib.suppress(AttributeError, KeyError):
        if operator.attrgetter(value.__qualname__)(sys.modules[value.__module__]) is value:
            return value.__qualname__
    kept = value.cache_parameters()
    state = {**vars(value), "cache_parameters": functools.partial(dict, **kept)}
    return type(value), (value.__wrapped__, kept["maxsize"], kept["typed"], functools._CacheInfo), state


def by_name_or_parts(parts, value):
    name = value.__name__
    if getattr(sys.modules.get(getattr(value, "__module__", None)), name, None) is value:
        return name
    return type(value), tuple(getattr(value, part) for part in parts)


def unpickled(data):
    import pickle

    try:
        return pickle.loads(data)
    except ModuleNotFoundError as error:
        here = f"the server's interpreter {sys.executable} (Python {sys.version.split()[0]})"
        if (error.name or "").partition(".")[0] == "cloudpickle":
            reason = f"this function came by cloudpickle, which is not installed for {here}"
        else:
            reason = f"{error}, for {here}: functions and classes of modules that it lacks travel along if they are imported by name"
        raise Invalid(reason, "ModuleNotFoundError") from None
    except AttributeError as error:
        here = getattr(sys.modules.get("cloudpickle"), "__version__", None)
        if here is None or "cloudpickle" not in str(error):
            raise
        reason = f"this function came by another cloudpickle than the server's interpreter {sys.executable} has, {here}"
        raise Invalid(f"{reason}: {error}", "AttributeError") from None


def as_pickle(value, what, most):
    """A user's value in Base64 of at most `most` bytes of pickle; what is raised says what is wrong with `what`."""
    try:
        data = pickled(value)
    except Exception as error:
        raise Invalid(f"{what} can't be pickled: {error}", type(error).__name__) from None
    return binascii.b2a_base64(fits(data, what, most), newline=False)


def pickled(value):
    """By plain pickle, which is quick, or else by cloudpickle if it is here: that takes functions and classes by value."""
    import pickle

    try:
        return pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
    except Exception:
        try:
            import cloudpickle
        except ImportError:
            pass
        else:
            return cloudpickle.dumps(value, pickle.HIGHEST_PROTOCOL)
        raise


def pickled_error(error):
    """An exception in a way in which it can be unpickled; None if there is none. Python's own way calls its class with `args`, which is not
    what every class takes; without that call, `args` and its attributes are put back. That will do if nothing else was lost."""
    import pickle

    def rebuilt():
        class Pickler(getattr(sys.modules.get("cloudpickle"), "CloudPickler", pickle.Pickler)):
            def reducer_override(self, value):
                if isinstance(value, BaseException):  # it, or one of its group
                    return copyreg.__newobj__, (type(value), *value.args), {**value.__dict__, "args": value.args}
                above = getattr(super(), "reducer_override", None)
                return NotImplemented if above is None else above(value)

        file = io.BytesIO()
        Pickler(file, pickle.HIGHEST_PROTOCOL).dump(error)
        return file.getvalue()

    usual = None
    with contextlib.suppress(BaseException):  # such as users' own methods may raise
        data = pickled(error)
        copy = unpickled(data)
        if copy.args == error.args or str(copy) == str(error):
            return data
        usual = data
    with contextlib.suppress(BaseException):
        data = rebuilt()
        copy = unpickled(data)
        same = copy.args == error.args or repr(copy.args) == repr(error.args)  # no two exceptions of a group are equal
        if same and str(copy) == str(error):
            return data
    return usual

"""A function as source that stands on its own."""

from __future__ import annotations

import ast
import builtins
import cmath
import inspect
import sys
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any, NamedTuple, Optional

from ._references import by_name, global_names, globals_of, immutable, installed, is_logger, name_of
from .errors import CannotTravel

BUILTINS = "__import__('builtins')"  # whatever a module has under their names


class Source(NamedTuple):
    """A file, and the name in it that is to be called."""

    text: str
    entrypoint: str


def source_of(function: Any) -> Source:
    """The source of a function with what it needs: imports, constants, and functions of its own module."""
    if isinstance(function, (FunctionType, BuiltinFunctionType, type)) and by_name(function):
        module, name = function.__module__, function.__qualname__
        return Source(f"from {module} import {name.partition('.')[0]}\n", name)
    if not isinstance(function, FunctionType):
        kind = type(function).__qualname__
        raise CannotTravel(f"by source, only functions can travel: {name_of(function)} is of the type {kind}")
    parts = Parts()
    parts.add(function, function.__name__)
    return Source(parts.text(), function.__name__)


class Parts:
    """The parts of a file, collected from one function and what it refers to."""

    def __init__(self) -> None:
        self.imports: set[str] = set()
        self.constants: dict[str, str] = {}
        self.definitions: list[str] = []
        self.annotated_by_text = False  # a module of theirs says so
        self.meanings: dict[str, Any] = {}  # of all names; a constant's is its text

    def text(self) -> str:
        constants = [f"{name} = {value}" for name, value in self.constants.items()]
        future = ["from __future__ import annotations"] if self.annotated_by_text else []
        head = [*future, *sorted(self.imports), *constants]
        return "\n\n\n".join(["\n".join(head), *self.definitions]) + "\n"

    def add(self, function: FunctionType, name: str) -> None:
        what = name_of(function)
        if self.meanings.get(name) is function:
            return
        self._mean(name, function, what)
        if function.__code__.co_freevars:
            names = ", ".join(function.__code__.co_freevars)
            raise CannotTravel(f"{what} can't travel by source: it uses variables of the function around it ({names})")
        definition = _definition(function, what)
        if definition.name != name:
            raise CannotTravel(f"{what} can't travel by source: it is called {name!r} where it is used")
        self.annotated_by_text |= bool(function.__code__.co_flags & annotations.compiler_flag)
        used, missing = globals_of(function)
        _take_defaults(function, definition, used, what)
        if missing:
            raise CannotTravel(f"{what} can't travel by source: it uses {missing[0]!r}, which is not defined")
        for each in global_names(function.__code__).keys() - used:
            if hasattr(builtins, each):  # or a class inside has it for itself
                self._mean(each, getattr(builtins, each), what)
        for each, value in used.items():
            self._add_global(each, value, what)
            if isinstance(value, ModuleType):
                for module in _modules_below(value, each, definition):
                    top = module.partition(".")[0]
                    self._mean(top, sys.modules[top], what)
                    self.imports.add(f"import {module}")
        self.definitions.append(ast.unparse(definition))

    def _mean(self, name: str, meaning: Any, what: str) -> None:
        """In one file a name means one thing, and what is needed may be from several modules."""
        if self.meanings.setdefault(name, meaning) != meaning:
            raise CannotTravel(f"{what} can't travel by source: two things that it needs have the name {name!r}")

    def _add_constant(self, name: str, text: str, what: str) -> None:
        self._mean(name, text, what)
        self.constants[name] = text

    def _add_global(self, name: str, value: Any, what: str) -> None:
        if isinstance(value, ModuleType):
            if not installed(value.__name__):
                raise CannotTravel(f"{what} can't travel by source: it uses the module {value.__name__}, which is not installed")
            self._mean(name, value, what)
            self.imports.add(f"import {value.__name__}" if name == value.__name__ else f"import {value.__name__} as {name}")
        elif isinstance(value, (FunctionType, BuiltinFunctionType, type)) and by_name(value) and "." not in value.__qualname__:
            self._mean(name, value, what)
            alias = "" if name == value.__qualname__ else f" as {name}"
            self.imports.add(f"from {value.__module__} import {value.__qualname__}{alias}")
        elif isinstance(value, FunctionType):
            self.add(value, name)
        elif (text := _constant(value)) is not None:
            self._add_constant(name, text, what)
        elif is_logger(value):
            self._add_constant(name, f"__import__('logging').getLogger({value.name!r})", what)
        else:
            kind = "the class" if isinstance(value, type) else f"the {type(value).__qualname__}"
            raise CannotTravel(f"{what} can't travel by source: it uses {kind} {name!r} of its module. {ONLY}")


def _modules_below(module: ModuleType, name: str, definition: ast.AST) -> set[str]:
    """The modules that a function reaches as attributes of one that it calls `name`: who imports only that may not have them."""
    found = set()
    for node in ast.walk(definition):
        path: list[str] = []
        while isinstance(node, ast.Attribute):
            path.insert(0, node.attr)
            node = node.value
        if isinstance(node, ast.Name) and node.id == name:
            full = [".".join([module.__name__, *path[:end]]) for end in range(1, len(path) + 1)]
            found |= {each for each in full if each in sys.modules}
    return found


ONLY = "Only installed modules, plain functions, loggers and constants travel along"


def _constant(value: Any) -> Optional[str]:
    """An expression for a constant, which gives it whatever names there are around; None for anything else."""
    kind = type(value)
    parts = (value.start, value.stop, value.step) if kind is slice else value if kind in (tuple, frozenset) else ()
    texts = [text for each in parts if (text := _constant(each)) is not None]
    if len(texts) < len(parts):
        return None
    if kind is tuple:
        return f"({', '.join(texts)}{',' * (len(texts) == 1)})"
    if kind is slice:
        return f"{BUILTINS}.slice({', '.join(texts)})"
    if kind is frozenset:
        return f"{BUILTINS}.frozenset([{', '.join(sorted(texts))}])"  # by itself their order is another in each process
    if kind is range:
        return f"{BUILTINS}.{value!r}"
    if kind in (float, complex) and not cmath.isfinite(value):
        return f"{BUILTINS}.{kind.__name__}({repr(value)!r})"
    try:
        return repr(value) if immutable(value) else None
    except ValueError:
        return None  # a number that is too long for Python to write


def _take_defaults(function: FunctionType, definition: Any, used: dict[str, Any], what: str) -> None:
    """Has a definition give the default values that its function has: the expressions for them may give others by now."""
    arguments, values, named = definition.args, function.__defaults__ or (), function.__kwdefaults__ or {}
    known = {**vars(builtins), **function.__globals__}

    def taken(value: Any, expression: Any) -> Any:
        if (text := _constant(value)) is not None:
            return ast.parse(text, mode="eval").body
        if expression is None or not _gives(expression, value, known):
            kind = type(value).__qualname__
            raise CannotTravel(f"{what} can't travel by source: it has a default value of the type {kind}. {ONLY}")
        used.update({node.id: known[node.id] for node in ast.walk(expression) if isinstance(node, ast.Name)})
        return expression

    expressions = [*[None] * len(values), *arguments.defaults][-len(values) :]
    arguments.defaults = list(map(taken, values, expressions))
    places = zip(arguments.kwonlyargs, arguments.kw_defaults)
    arguments.kw_defaults = [taken(named[each.arg], default) if each.arg in named else None for each, default in places]


def _gives(expression: ast.expr, value: Any, known: dict[str, Any]) -> bool:
    """Whether an expression gives a value there as well: by a name of what travels or is installed, or as it is written."""
    if isinstance(expression, ast.Name):
        return known.get(expression.id) is value
    if isinstance(expression, ast.Attribute):
        same = isinstance(value, ModuleType) or immutable(value)
        same = same or (isinstance(value, (FunctionType, BuiltinFunctionType, type)) and by_name(value))
        return same and _named(expression, known) is value
    try:
        written = ast.literal_eval(expression)
    except ValueError:
        return False
    return type(written) is type(value) and bool(written == value)


def _named(expression: ast.expr, known: dict[str, Any]) -> Any:
    if isinstance(expression, ast.Attribute):
        return getattr(_named(expression.value, known), expression.attr, None)
    return known.get(expression.id) if isinstance(expression, ast.Name) else None


def _definition(function: FunctionType, what: str) -> Any:
    """The statement that defines a function."""
    if function.__name__ == "<lambda>":
        raise CannotTravel(f"{what} can't travel by source: it has no def statement of its own")
    try:
        source = inspect.getsource(function.__code__)  # not that of what it is a wrapper of
        # What is indented stays so: texts of several lines would be others without.
        inner = source[:1].isspace()
        statements: Any = ast.parse("if True:\n" + source if inner else source).body
        if inner:
            statements = statements[0].body
    except (OSError, SyntaxError, TypeError) as error:
        raise CannotTravel(f"{what} can't travel by source: its source can't be read ({error})") from None
    definition = statements[0] if len(statements) == 1 else None
    if not isinstance(definition, (ast.FunctionDef, ast.AsyncFunctionDef)):
        raise CannotTravel(f"{what} can't travel by source: it has no def statement of its own")
    if definition.decorator_list:
        raise CannotTravel(f"{what} can't travel by source: it has decorators")
    # Those of functions inside are part of what it does. Its own would be evaluated, and what they name need not travel.
    definition.returns = None
    for node in ast.walk(definition.args):
        if isinstance(node, ast.arg):
            node.annotation = None
    return definition

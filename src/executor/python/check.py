"""Looks at the source of a function before it is kept. Nothing of it is run."""

import ast

DYNAMIC = {"eval", "exec", "globals", "locals", "setattr", "vars"}


def check(source, entrypoint):
    """What is wrong with it, and where; None if nothing is."""
    source = source.removeprefix("\ufeff")  # as a host does
    try:
        tree = compile(source, "main.py", "exec", ast.PyCF_ONLY_AST, True)
        compile(source, "main.py", "exec", 0, True)  # finds more, such as a `return` outside of a function
    except SyntaxError as error:
        return {"line": error.lineno, "column": error.offset, "message": error.msg}
    except (ValueError, RecursionError, MemoryError, OverflowError) as error:
        return {"message": str(error) or f"Python can't compile it: {type(error).__name__}"}
    name = entrypoint.partition(".")[0]
    names = bound(tree)
    if names.isdisjoint((name, "__getattr__")) and not any(map(unforeseen, ast.walk(tree))):
        return {"message": f"the module defines no {name!r}, which is to be called"}
    return None


def bound(tree):
    """The names that a module's own statements bind, also within `if`, `try`, `with` and loops."""
    names, waiting = set(), list(tree.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            names.update(alias.asname or alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.Name):
            names.add(node.id)
        elif not isinstance(node, ast.Lambda):
            # What `except` and `match` bind stands there as plain text.
            names.update(filter(None, (getattr(node, "name", None), getattr(node, "rest", None))))
            waiting += ast.iter_child_nodes(node)
    return names


def unforeseen(node):
    """Whether this may bind names that only running the module would tell."""
    if isinstance(node, ast.ImportFrom):
        return any(alias.name == "*" for alias in node.names)
    return isinstance(node, ast.Global) or (isinstance(node, ast.Name) and node.id in DYNAMIC)

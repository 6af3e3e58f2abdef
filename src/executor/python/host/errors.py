"""Exceptions as the server is told of them."""

import errno
import os
import socket
import sys
import traceback

from .messages import cut, from_text, name_of, to_text

HOST = os.path.dirname(__file__) + os.sep  # the files of this program, as frames name them
LIBRARY = os.path.dirname(os.__file__) + os.sep
MACHINERY = (HOST, "<frozen ", LIBRARY + "asyncio" + os.sep, LIBRARY + "importlib" + os.sep)
LONGEST_TEXT = 262_144  # characters of a message or a traceback
LONGEST_PART = 1_000  # characters of a line of code or a name
MOST_FRAMES = 100  # of a traceback, innermost last
MOST_CAUSES = 8
MOST_DEPTH = 16  # of lists and dictionaries in what an exception is made of
PLAIN = (type(None), bool, int, float, str)  # what JSON brings as it is

REFUSED = (
    "If the sandbox refused this: a job opens files of its own folder, its interpreter and the system alone, starts no programs, signals nobody else, "
    'and has no network without "network": true.'
)
NOT_HERE = (
    "A relative path is in the folder of the process that runs the job, and no files of yours are there: what is in one has to come as an argument, "
    "or be read from the function's zip by importlib.resources."
)
LACKING = (
    f"This was {sys.executable} (Python {sys.version.split()[0]}): what a function imports has to be installed for it, or be in the function's zip. "
    "With a call of Trine's client, functions and classes of modules that are not installed travel along if these are imported by name outside of it."
)
NO_NETWORK = 'The sandbox lets this job resolve no names: it has no network, since it was submitted without "network": true.'


def visible(stack):
    """Without the host's frames, and without those of the machinery that led from them to the user's first."""
    first = next((at for at, frame in enumerate(stack) if not frame.filename.startswith(MACHINERY)), len(stack))
    return [frame for frame in stack[first:] if not frame.filename.startswith(HOST)]


def described(error, tidy, setup):
    """An exception as the object that goes to the server. `tidy` shortens the names of users' files and modules; `setup` says how this process
    is confined."""
    try:
        if issubclass(type(error), MemoryError):
            traceback.clear_frames(error.__traceback__)
        return in_full(error, tidy, hints(error, setup))
    except BaseException as trouble:
        # An exception is code of users: whatever is asked of it may fail, but for the name that the interpreter has for its class.
        name, reason = (type.__repr__(type(each))[8:-2] for each in (error, trouble))
        return no_frames("error", cut(tidy(name), LONGEST_PART), f"it can't be described: {cut(tidy(reason), LONGEST_PART)} is raised meanwhile")


def hints(error, setup):
    """What a user has to know where an error may come of this being another place, or of the sandbox: it looks as it would without one."""
    confined, is_caused = setup.get("confined"), True
    for _ in range(MOST_CAUSES):
        if error is None:
            break
        if confined and isinstance(error, socket.gaierror) and not setup.get("network"):
            return [NO_NETWORK]
        if confined and isinstance(error, PermissionError) and error.errno in (errno.EPERM, errno.EACCES):
            return [REFUSED]
        # Programs that look whether something is there expect these, and go on.
        if confined and is_caused and isinstance(error, FileNotFoundError) and is_relative(error.filename):
            return [NOT_HERE]
        if is_caused and isinstance(error, ModuleNotFoundError) and error.name:
            return [LACKING]
        is_caused = is_caused and error.__cause__ is not None
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return []


def is_relative(path):
    return isinstance(path, (str, bytes, os.PathLike)) and not os.path.isabs(path)


def in_full(error, tidy, notes):
    told = traceback.TracebackException.from_exception(error)
    chain = [told]
    for link in chain:
        link.stack[:] = visible(link.stack)
        chain += filter(None, (link.__cause__, link.__context__, *(getattr(link, "exceptions", None) or ())))
    text = tidy("".join(told.format()))
    body = {**structured(error, told, tidy, MOST_CAUSES), **remaking(error, told, tidy, MOST_CAUSES)}
    if notes:
        text += "".join(f"{note}\n" for note in notes)
        body["notes"] = [*body.get("notes", ()), *notes]
    return {"kind": "error", **body, "traceback": cut(text, LONGEST_TEXT)}


def no_frames(kind, type_name, reason):
    """An error that is not the function's own, in the same form."""
    return {"kind": kind, "type": type_name, "message": cut(reason, LONGEST_TEXT), "traceback": "", "frames": []}


def structured(error, told, tidy, most_causes):
    try:
        text = str(error)
    except BaseException:
        text = "its message can't be had: str() of it fails"
    frames = [frame_of(tidy(frame.filename), frame.lineno, frame.name, frame.line) for frame in told.stack[-MOST_FRAMES:]]
    if isinstance(error, SyntaxError) and error.filename:
        # Who raises it themselves may put in what they like.
        line = error.lineno if isinstance(error.lineno, int) else None
        frames.append(frame_of(tidy(str(error.filename)), line, "<module>", str(error.text or "").strip()))
    body = {
        "type": cut(tidy(name_of(type(error))), LONGEST_PART),
        "message": cut(tidy(text), LONGEST_TEXT),
        "frames": frames,
    }
    if error.__cause__ is not None or error.__suppress_context__:
        cause, cause_told = error.__cause__, told.__cause__
    else:
        cause, cause_told = error.__context__, told.__context__
    if cause is not None and cause_told is not None and most_causes > 0:
        body["cause"] = structured(cause, cause_told, tidy, most_causes - 1)
    return body


def remaking(error, told, tidy, most_depth):
    """What else an exception is made of, for a client that makes it anew: as far as JSON brings it as it is, and it is not too long.
    `args` are absent if they are its message alone, or none, and None if they can't be brought."""
    parts = {"notes": [note for note in getattr(error, "__notes__", None) or () if type(note) is str]}
    if type(error).__module__ == "builtins":  # others the client does not have
        _, args, *state = error.__reduce__()
        members = getattr(told, "exceptions", None)
        if members and most_depth > 0:
            pairs = zip(error.exceptions, members)
            parts["exceptions"] = [{**structured(*each, tidy, 0), **remaking(*each, tidy, most_depth - 1)} for each in pairs]
        elif args and args != (str(error),):
            parts["args"] = list(args) if is_plain(list(args)) else None
        attributes = {**state[0]} if state and isinstance(state[0], dict) else {}
        attributes.pop("__notes__", None)
        parts["attributes"] = {name: value for name, value in attributes.items() if type(name) is str and is_plain(value)}
    brought = {name: copied(part) for name, part in parts.items() if part or name == "args"}
    return {name: part for name, part in brought.items() if part is not None or name == "args"}


def is_plain(value):
    """Whether JSON brings it as it is. Not if it is long or deep, as what holds itself is."""
    room, inside = LONGEST_TEXT, [value]
    for _ in range(MOST_DEPTH):
        values, inside = inside, []
        for each in values:
            room -= len(each) if type(each) in (str, list, dict) else 1
            if room < 0:
                return False
            if type(each) is list:
                inside += each
            elif type(each) is dict and set(map(type, each)) <= {str}:
                inside += each.values()
            elif type(each) not in PLAIN:
                return False
        if not inside:
            return True
    return False


def copied(part):
    """What a user's objects are now, who may go on changing them; None if they are too long."""
    try:
        text = to_text(part)
    except Exception:  # infinity, a number with too many digits, or another thread has put in what it likes
        return None
    return from_text(text)[0] if len(text) <= LONGEST_TEXT else None


def frame_of(file, line, function, code):
    """A frame. Each part may be as long as users make it."""
    file, function, code = (cut(part, LONGEST_PART) for part in (file, function, code or ""))
    return {"file": file, "line": line, "function": function, "code": code or None}

"""Messages as bytes: JSON in frames."""

import json
import re
import struct

LENGTH = struct.Struct(">I")


def name_of(kind):
    """A type's name, as tracebacks show it."""
    return kind.__qualname__ if kind.__module__ in ("builtins", "__main__") else f"{kind.__module__}.{kind.__qualname__}"


def unwritable(value):
    raise TypeError(f"JSON has no form for a value of type {name_of(type(value))}")


from_text = json.JSONDecoder().raw_decode  # a message has nothing before or behind it
to_text = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=unwritable).encode


def as_json(value, what, most):
    """A user's value in at most `most` bytes of JSON; a TypeError or ValueError says what is wrong with `what`."""
    try:
        data = to_text(value).encode()
    except Exception as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"{what} can't be written as JSON: {error}") from None
    return fits(data, what, most)


def fits(data, what, most):
    if len(data) > most:
        raise ValueError(f"{what} takes {len(data)} bytes; the most is {most}")
    return data


def framed(*parts):
    return b"".join((LENGTH.pack(sum(map(len, parts))), *parts))


def message(kind, body):
    return framed(b'{"%s":' % kind.encode(), plain(body), b"}")


def plain(body):
    """JSON of our own making. A lone surrogate in a text, which UTF-8 can't carry, becomes a question mark."""
    return to_text(body).encode(errors="replace")


def cut(text, most):
    return text if len(text) <= most else text[:most] + " … (cut)"


class Frames:
    """Takes bytes in where `space` says, and gives whole messages out. A long frame gets a buffer of its size: its bytes move once."""

    SPARE = 1 << 16

    def __init__(self):
        self.view = memoryview(bytearray(self.SPARE))
        self.start = self.end = 0

    def space(self):
        """Room for more, once `take` has given all that is here."""
        waiting = self.end - self.start
        needed = LENGTH.size
        if waiting >= LENGTH.size:
            needed += LENGTH.unpack_from(self.view, self.start)[0]
        if waiting == 0 and len(self.view) == self.SPARE:
            self.start = self.end = 0
        elif waiting == 0 or self.start + needed > len(self.view):
            view = memoryview(bytearray(max(needed, self.SPARE)))
            view[:waiting] = self.view[self.start : self.end]
            self.view, self.start, self.end = view, 0, waiting
        return self.view[self.end :]

    def take(self):
        """The next message as its kind and its body; None if it is not all here."""
        begin = self.start + LENGTH.size
        if self.end < begin:
            return None
        end = begin + LENGTH.unpack_from(self.view, self.start)[0]
        if self.end < end:
            return None
        text = str(self.view[begin:end], "utf-8")
        self.start = end
        try:
            return next(iter(from_text(text)[0].items()))
        except (RecursionError, ValueError) as error:
            # What is JSON can still be too deep for Python, or a number too long: trouble of one job, not of the host.
            found = re.match(r'\s*{\s*"run"\s*:\s*{\s*"id"\s*:\s*(\d+)', text)
            if found is None:
                raise
            return "unreadable", {"id": int(found[1]), "reason": f"Python can't read the arguments: {error}"}

"""Server-sent events, from bytes."""

from __future__ import annotations

from typing import NamedTuple


class Message(NamedTuple):
    """One event: its number, its kind, and a line of JSON. Without the last it only says where the stream is."""

    id: int
    kind: str
    data: bytes


class Decoder:
    """Takes in a stream in whatever pieces, and gives whole events. What is cut off at the end is none."""

    def __init__(self) -> None:
        self._rest = bytearray()  # of an event whose end has not come

    def feed(self, data: bytes) -> list[Message]:
        if b"\n\n" not in self._rest[-1:] + data[:1] and b"\n\n" not in data:
            self._rest += data  # long events come in many pieces, and are looked at once
            return []
        *blocks, rest = bytes(self._rest + data).split(b"\n\n")
        self._rest = bytearray(rest)
        messages = []
        for block in blocks:
            number, kind, text = 0, b"message", []
            for line in block.split(b"\n"):
                name, _, value = line.partition(b":")
                value = value[1:] if value[:1] == b" " else value
                if name == b"data":
                    text.append(value)
                elif name == b"event":
                    kind = value
                elif name == b"id" and value.isdigit():
                    number = int(value)
            if text or number:
                messages.append(Message(number, kind.decode(), b"\n".join(text)))
        return messages

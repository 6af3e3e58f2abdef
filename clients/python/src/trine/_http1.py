"""HTTP/1.1 as a client needs it for one server, without any input or output: bytes to send, and bytes that came.

Both the blocking and the asyncio connections are made of this. It is small because it can be: no redirects, proxies or trailers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Optional, Union
from urllib.parse import urlencode

from ._server import Server, Unshown
from .errors import Malformed, problem_of

LONGEST_HEAD = 1 << 16  # bytes

Query = Mapping[str, Any]


@dataclass(frozen=True)
class Request:
    """A request. It may be sent again after a broken connection if it `repeats`: if twice is the same as once."""

    method: str
    path: str
    query: Query = field(default_factory=dict)
    body: Union[bytes, bytearray, None] = None
    headers: Mapping[str, str] = field(default_factory=dict)
    patience: float = 0.0  # seconds that the server may take to answer, beyond the usual

    @property
    def repeats(self) -> bool:
        return self.method != "POST" or "Idempotency-Key" in self.headers

    def encoded(self, server: Server) -> Unshown:
        """All of it, for the wire."""
        target = server.prefix + self.path
        pairs = urlencode([(name, _text(value)) for name, value in _flat(self.query)])
        if pairs:
            target += "?" + pairs
        own = "".join(f"{name}: {value}\r\n" for name, value in self.headers.items())
        if self.body is not None:
            own += f"Content-Length: {len(self.body)}\r\n"
            if "Content-Type" not in self.headers:
                own += "Content-Type: application/json\r\n"
        head = server.headers if "Accept" not in self.headers else _without_accept(server.headers)
        return Unshown(
            b"%s %s HTTP/1.1\r\n%s%s\r\n%s"
            % (
                self.method.encode(),
                target.encode(),
                head,
                own.encode("latin-1"),
                self.body or b"",
            )
        )


def _without_accept(headers: Unshown) -> Unshown:
    return Unshown(b"".join(line for line in headers.splitlines(True) if not line.lower().startswith(b"accept:")))


def _flat(query: Query) -> list[tuple[str, Any]]:
    """One pair for each value that there is; a list has several."""
    pairs: list[tuple[str, Any]] = []
    for name, value in query.items():
        if isinstance(value, (list, tuple)):
            pairs.extend((name, each) for each in value)
        elif value is not None:
            pairs.append((name, value))
    return pairs


def _text(value: Any) -> str:
    return ("true" if value else "false") if isinstance(value, bool) else str(value)


class Response:
    """An answer that takes in bytes until it is whole; of an endless one, `take` gives what has come so far."""

    def __init__(self, method: str) -> None:
        self.method = method
        self.status = 0  # until the head has come
        self.headers: dict[str, str] = {}
        self.complete = False
        self.reusable = False  # whether the connection can carry another request afterwards
        self._head = bytearray()
        self._body = bytearray()
        self._left: Optional[int] = None  # bytes of the body, or of this chunk; None until the end of the connection
        self._chunked = False
        self._pending = b""  # the beginning of a line between chunks

    def feed(self, data: bytes) -> None:
        """Takes in bytes; none at all mean that the server has hung up."""
        if not data:
            if self.status and self._left is None and not self._chunked:
                self.complete = True
            return
        if self.status:
            self._feed_body(data)
            return
        self._head += data
        end = self._head.find(b"\r\n\r\n")
        if end < 0:
            if len(self._head) > LONGEST_HEAD:
                raise Malformed("the head of the answer has no end")
            return
        rest = bytes(self._head[end + 4 :])
        self._read_head(bytes(self._head[:end]))
        self._head.clear()
        if rest:
            self.feed(rest)

    def _read_head(self, head: bytes) -> None:
        first, *lines = head.decode("latin-1").split("\r\n")
        version, _, status = first.partition(" ")
        if not version.startswith("HTTP/1.") or not re.fullmatch("[1-9][0-9]{2}", status[:3]):
            raise Malformed(f"the answer is not HTTP/1.1: {first[:80]!r}")
        code = int(status[:3])
        if 100 <= code < 200:
            return  # an interim answer; the head of the real one follows
        self.status = code
        for line in lines:
            name, _, value = line.partition(":")
            self.headers[name.strip().lower()] = value.strip()
        self.reusable = version == "HTTP/1.1" and self.headers.get("connection", "").lower() != "close"
        if self.method == "HEAD" or code in (204, 304):
            self.complete = True
        elif self.headers.get("transfer-encoding", "").lower() == "chunked":
            self._chunked, self._left = True, 0
        elif "content-length" in self.headers:
            length = self.headers["content-length"]
            if not re.fullmatch("[0-9]{1,18}", length):
                raise Malformed(f"{length[:40]!r} is not the length of an answer")
            self._left = int(length)
            self.complete = self._left == 0
        else:
            self.reusable = False

    def _feed_body(self, data: bytes) -> None:
        if self._chunked:
            self._feed_chunks(data)
            return
        self._body += data
        if self._left is not None:
            self._left -= len(data)
            if self._left < 0:
                raise Malformed("the answer is longer than it said")
            self.complete = self._left == 0

    def _feed_chunks(self, data: bytes) -> None:
        """A chunk is its length in hexadecimal on a line, that many bytes, and a line break; the last one has none of them."""
        if self._pending:
            data, self._pending = self._pending + data, b""
        at, end, body = 0, len(data), self._body
        while at < end:
            left = self._left
            if left:
                take = min(left, end - at)
                body += data[at : at + take]
                at += take
                self._left = left - take
                continue
            # The line break after the bytes of a chunk stands before the length of the next.
            start = at + 2 if data.startswith(b"\r\n", at) else at
            stop = data.find(b"\r\n", start)
            if stop < 0:
                self._pending = data[at:]
                if len(self._pending) > LONGEST_HEAD:
                    raise Malformed("the length of a chunk has no end")
                return
            length = data[start:stop].partition(b";")[0].strip()
            if not re.fullmatch(b"[0-9A-Fa-f]+", length):
                raise Malformed(f"{data[start:stop][:40]!r} is not the length of a chunk")
            self._left = int(length, 16)
            if self._left == 0:
                # What is left of it would be taken for the beginning of the next answer.
                self.complete = data.startswith(b"\r\n", stop + 2)
                self._pending = b"" if self.complete else data[at:]
                return
            at = stop + 2

    def take(self) -> bytes:
        """What has come of the body since the last time."""
        body = bytes(self._body)
        self._body.clear()
        return body

    def result(self) -> Any:
        """The whole body: from JSON, as text, or as bytes if it is neither. Raises what the server has to complain."""
        body = self.take()
        kind = self.headers.get("content-type", "").partition(";")[0]
        value: Any = None
        if kind == "application/json" or kind.endswith("+json"):
            try:
                value = json.loads(body) if body else None
            except (ValueError, RecursionError) as error:
                raise Malformed(f"the answer is not JSON that can be read: {error}") from None
        elif kind.startswith(("application/", "image/")):
            value = body
        elif body:
            value = body.decode("utf-8", "replace")
        if self.status >= 300:
            where = self.headers.get("location") if self.status < 400 else None
            raise problem_of(self.status, f"it refers to {where}" if where else value, self.retry_after)
        return value

    @property
    def retry_after(self) -> Optional[float]:
        """Seconds to wait before the next try, if the server says so."""
        value = self.headers.get("retry-after", "")
        return float(value) if re.fullmatch("[0-9]{1,9}", value) else None

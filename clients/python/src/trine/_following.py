"""How a stream of events is followed over broken connections, without any input or output."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Optional

from . import _calls
from ._http1 import Request, Response
from ._sse import Decoder, Message


class Follower:
    """Where one reader is in a stream. Each event is given once, however often the connection breaks."""

    def __init__(
        self,
        job: Optional[str],
        query: Mapping[str, Any],
        kinds: Optional[Sequence[str]],
        after: Optional[int] = None,
    ) -> None:
        kinds = (kinds,) if isinstance(kinds, str) else kinds
        self.job = job
        self.query = query
        # A job's stream ends with `finished`, so that is always asked for.
        self.kinds = [*kinds, "finished"] if kinds and job is not None and "finished" not in kinds else kinds
        self._wanted = kinds
        self.after = after
        self.ended = False
        self._decoder = Decoder()

    def request(self) -> Request:
        """The request that goes on with the stream."""
        return _calls.events(self.job, self.query, self.kinds, self.after)

    def opened(self, response: Response) -> None:
        self._decoder = Decoder()
        self.ended = response.status == 204

    def decode(self, data: bytes) -> Iterator[Message]:
        """The events that these bytes complete. A stream of all jobs first says where it begins, in case it breaks before one."""
        for message in self._decoder.feed(data):
            if message.id > (self.after or 0):
                self.after = message.id
                self.ended = self.job is not None and message.kind == "finished"
                if message.data and (not self._wanted or message.kind in self._wanted):
                    yield message

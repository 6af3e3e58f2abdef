"""How a stream of events is followed over broken connections, without any input or output."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Optional

from . import _calls
from ._http1 import Request, Response
from ._sse import Decoder, Message
from .errors import ProblemError, ServerUnreachable, TrineError

LOGGER = logging.getLogger("trine")

FIRST_WAIT = 0.01  # seconds
LONGEST_WAIT = 2.0

FOR_NOW = (429, 502, 503, 504)  # the statuses of what may go another time


class Patience:
    """Until when, and how often, it is tried again what a server refuses for now or can't be reached for."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds  # that failures may last before they are given up
        self._since: Optional[float] = None
        self._wait = FIRST_WAIT

    def worked(self) -> None:
        self._since, self._wait = None, FIRST_WAIT

    def failed(self, error: TrineError) -> float:
        """How many seconds to wait before the next try; raises the error if there should be none."""
        now = time.monotonic()
        if isinstance(error, ProblemError):
            if error.status not in FOR_NOW:
                raise error
            if error.status == 429:  # it is well and busy
                return error.retry_after or LONGEST_WAIT
        elif not isinstance(error, ServerUnreachable):
            raise error
        if self._since is None:
            self._since = now
            LOGGER.warning("tried again for up to %g s: %s", self.seconds, error)
        elif now - self._since > self.seconds:
            raise error
        wait, self._wait = self._wait, min(2 * self._wait, LONGEST_WAIT)
        return min(getattr(error, "retry_after", None) or wait, LONGEST_WAIT)


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

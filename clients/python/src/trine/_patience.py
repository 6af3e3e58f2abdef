"""How long it is put up with that a server refuses for now, or is out of reach."""

from __future__ import annotations

import logging
import time
from typing import Optional

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

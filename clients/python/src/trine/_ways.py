"""The ways on which the calls of an executor travel, and what turns out of the server while they do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Callable

from . import _calls
from ._blame import bulk
from ._future import Call
from ._patience import LOGGER
from ._travel import ByPickle, BySource, Way, travelling, why_unread
from .errors import ProblemError, TrineError

BY_SOURCE = "functions travel by source here, and values as JSON, which has no tuples"
LONGEST = 12 << 20  # bytes of a call that the server takes; of a longer one it is told what is so long


class Ways:
    """By pickle or by source, or first by pickle and by source if that turns out to be none.

    Only the thread that sends changes them; the others read all that there is of them at once.
    """

    def __init__(self, how: str, options: Mapping[str, Any]) -> None:
        more = _calls.to_json(options)[1:-1]
        self._options = b"," + more if more else b""
        self._interpreter = options.get("interpreter")
        first: Way = BySource(self._options) if how == "source" else ByPickle(self._options)
        self._now: tuple[Sequence[Way], bool] = (first,), how == "auto"  # the best first, and whether others may turn out

    @property
    def are_undecided(self) -> bool:
        return self._now[1]

    def carry(self, call: Call, function: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> None:
        """Gives a call its workload. Raises what says that it can't travel."""
        ways, undecided = self._now
        call.way, call.workload = travelling(ways, function, args, kwargs)
        call.arguments = (function, args, kwargs) if undecided or len(call.workload) > LONGEST else None

    def carry_anew(self, call: Call) -> None:
        """The same, if its way has turned out to be none."""
        ways = self._now[0]
        if call.arguments and call.way not in ways:
            call.way, call.workload = travelling(ways, *call.arguments)

    def look_at(self, interpreters: Iterable[Mapping[str, Any]]) -> None:
        """Has calls whose pickles the server could not read go by source. What it does not tell shows by what becomes of them."""
        told = list(interpreters)
        named = [each for each in told if self._interpreter in (None, each["name"])]
        unread = why_unread(named[0]) if named else None
        if unread is not None:
            others = [each["name"] for each in told if why_unread(each) is None]
            unread += f"; interpreter={others[0]!r} names one that suits" if others else ""
            LOGGER.warning("%s: %s", BY_SOURCE, unread)
            self._now = (ByPickle(self._options, unread), BySource(self._options)), True

    def are_others(self, problem: ProblemError, calls: Iterable[Call]) -> bool:
        """Whether these calls were refused because functions may not come by pickle, and some of them can go by source."""
        by_pickle = any((fault.pointer or "").endswith("/workload/pickle") for fault in problem.errors)
        if not by_pickle and not problem.names("pickles-not-allowed"):
            return False
        if self.are_undecided:
            LOGGER.warning("%s: the server takes no pickles (its setting python_pickles)", BY_SOURCE)
            self._now = (BySource(self._options),), False
        ways = self._now[0]
        return any(call.arguments and call.way not in ways for call in calls)

    @staticmethod
    def refusal(call: Call, problem: ProblemError, item: int) -> TrineError:
        """What a call's future is told if the server has refused it, as this item of a batch."""
        arguments = call.arguments
        return problem.alone(item, len(call.workload), bulk(*arguments) if problem.status == 413 and arguments else "")

    def arrived(self, calls: Iterable[Call]) -> None:
        """The server has accepted these calls."""
        if any(isinstance(call.way, ByPickle) for call in calls):
            self._now = self._now[0], False

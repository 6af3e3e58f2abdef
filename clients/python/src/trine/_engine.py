"""What is behind the executors: one thread sends whatever calls have come meanwhile as one batch, one reads how they went.
A third lets go of what the collector finds that nobody asks for.

A call is `queued` here, then `sending`, then `accepted` by the server under an id. Meanwhile its future is pending, until the
job has ended, or until somebody asks whether it runs and it does. Whoever changes a call's phase, under the lock, is the only
one to tell its future.
"""

from __future__ import annotations

import contextlib
import itertools
import queue
import threading
import weakref
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Callable, Optional, TypeVar

from . import _calls
from ._connections import Connections, Stream
from ._future import ACCEPTED, CANCELLED, ENDED, PENDING, QUEUED, RUNNING, SENDING, Batch, Call, JobFuture
from ._interpreter import engines, is_exiting
from ._jobs import WAITING, Beginning, Jobs
from ._outcome import NEVER_RAN, ended_job, never_ran, outcome
from ._patience import FIRST_WAIT, FOR_NOW, LOGGER, Patience
from ._sse import Message
from ._ways import Ways
from .errors import CannotTravel, JobLost, NoConnection, ProblemError, ServerGone, TrineError

if TYPE_CHECKING:
    from ._part import Part

MOST_IN_BATCH = 1_000  # calls
LONGEST_BATCH = 8 << 20  # bytes, unless a single call is longer
MANY = 128  # calls, for which whoever submits them lets the sender go first
HAND_OVER = 0.005  # seconds for that at the most
FIRST_CALLS_WAIT = 1.0  # seconds
LATER = 0.1  # seconds until it is looked again whether a call of another executor, which does not tell, has an id
HELPERS = 8  # threads for what must not hold up the two: cancelling, looking after a break

T = TypeVar("T")


class Engine:
    """Makes calls on one server. It stops when it is closed and every call has ended."""

    def __init__(
        self,
        connections: Connections,
        submission: Mapping[str, Any],
        options: dict[str, Any],
        how: str,
        most_in_flight: int,
        patience: float,
    ) -> None:
        self._connections = connections
        self._jobs = Jobs(connections)
        self._patience = patience
        self._connecting = Patience(patience)  # of the sender, over all that it tries to send
        self._most = most_in_flight
        self.before = Beginning(submission)
        self._ways = Ways(how, options)

        self._make_locks()
        self._queue: deque[Call] = deque()
        self._calls: dict[str, Call] = {}  # accepted ones, by id
        self._early: dict[str, list[Message]] = {}  # events of jobs whose ids the answer to a batch has yet to tell
        self._sending: list[Call] = []
        self._unfinished = 0  # calls whose futures are not done, here and there
        self._in_flight = 0  # of them, those that were sent
        self._at_once = MOST_IN_BATCH  # calls that the server may have room for
        self._told_full = False  # whether the log was told that it had none
        self._latest = ""  # the greatest id so far
        self._waiting = False  # the sender waits for work
        self._closed: Optional[str] = None  # why nothing more is taken
        self._broken: Optional[ServerGone] = None
        self._refusals: set[str] = set()  # to cancel, of which the log has been told since the last time that it worked
        self._stream: Optional[Stream] = None
        self._threads: list[threading.Thread] = []
        self._helpers: Optional[ThreadPoolExecutor] = None
        self.parts: weakref.WeakSet[Part] = weakref.WeakSet()
        engines.add(self)

    def _make_locks(self) -> None:
        self._lock = threading.Lock()
        self._work = threading.Condition(self._lock)  # for the sender: there is work, there is room, or the end has come
        self._answers = threading.Condition(self._lock)  # for `cancel`: a batch was answered, or another `cancel`
        self._over = threading.Event()
        self._opened = threading.Event()  # the stream of events has said where it begins
        self._unwanted: queue.SimpleQueue[Optional[Iterable[Call]]] = queue.SimpleQueue()  # for the third thread; None at the end

    # ---- Taking calls ----

    def submit(
        self, function: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any], before: Optional[Beginning] = None
    ) -> JobFuture[Any]:
        with self._lock:
            self._check_open()
        future: JobFuture[Any] = JobFuture(self)
        call = future._call = Call(future, before or self.before)
        try:
            self._ways.carry(call, function, args, kwargs)
        except CannotTravel as error:
            # Its traceback would hold this frame, and that the future and the arguments.
            call.end(ENDED).set_exception(error.with_traceback(None))
            return future
        with self._lock:
            if len(self._queue) == MANY and self._could_send() and threading.current_thread() not in self._threads[:1]:
                # Whoever goes on would keep the interpreter's lock from the sender, and the server without work.
                self._answers.wait(HAND_OVER)
            self._check_open()
            self._start()
            self._unfinished += 1
            self._queue.append(call)
            if self._waiting:
                self._waiting = False
                self._work.notify()
        return future

    def _could_send(self) -> bool:
        """Whether the sender would take calls if it came to that. The lock is held."""
        return self._opened.is_set() and not self._sending and self._in_flight < self._most

    def _check_open(self) -> None:
        if self._broken is not None:
            raise ServerGone(*self._broken.args)
        if self._closed is not None or is_exiting():
            raise RuntimeError(f"cannot schedule new futures after {self._closed or 'interpreter shutdown'}")

    def _start(self) -> None:
        """Starts the threads that are missing: one may have found no room. The lock is held."""
        for target in (self._send_all, self._read_all, self._let_go_all)[len(self._threads) :]:
            thread = threading.Thread(target=target, name=f"trine-{target.__name__.strip('_')}", daemon=True)
            self._threads.append(thread)
            try:
                thread.start()
            except Exception:
                self._threads.pop()
                raise

    def _help(self, task: Callable[..., Any], *args: Any) -> Future[Any]:
        with self._lock:
            if self._helpers is None:
                self._helpers = ThreadPoolExecutor(HELPERS, "trine-helper")
            helpers = self._helpers
        try:
            return helpers.submit(task, *args)
        except RuntimeError:  # the end of the executor, or of the interpreter, has come
            done: Future[Any] = Future()
        done.set_result(task(*args))
        return done

    # ---- Asking ----

    def _patiently(self, ask: Callable[..., T], *args: Any) -> T:
        """Asks something of the server, again as long as it is out of reach. Raises what it refuses, or that it is gone."""
        patience = Patience(self._patience)
        while True:
            try:
                return ask(*args)
            except TrineError as error:
                if self._over.wait(patience.failed(error)):
                    raise

    # ---- Sending ----

    def _send_all(self) -> None:
        """The first thread. While one batch is on its way, the next one gathers."""
        self._opened.wait()
        if self._ways.are_undecided:
            with contextlib.suppress(TrineError, LookupError, TypeError):
                self._ways.look_at(self._patiently(self._jobs.interpreters))
        while (batch := self._next_batch()) is not None:
            try:
                self._send(batch)
            except BaseException as error:
                self._break(error)
            del batch

    def _next_batch(self) -> Optional[list[Call]]:
        with self._work:
            while True:
                if self._over.is_set():
                    return None
                size, room = 0, min(self._most - self._in_flight, self._at_once)
                batch: list[Call] = []
                later: list[Call] = []  # what comes after jobs whose ids are not known yet, such as those of this batch
                while self._queue and ((len(batch) < room and size < LONGEST_BATCH) or _belongs(self._queue[0], batch)):
                    call = self._queue.popleft()
                    if call.phase == PENDING and not call.is_ready():
                        later.append(call)
                    elif call.phase == PENDING:
                        call.place = SENDING
                        size += len(call.workload)
                        batch.append(call)
                self._queue.extendleft(reversed(later))
                if batch:
                    self._in_flight += len(batch)
                    self._sending = batch.copy()
                    self._answers.notify_all()
                    return batch
                self._connecting.worked()
                self._waiting = True
                self._work.wait(LATER if later else None)
                self._waiting = False

    def _send(self, calls: list[Call]) -> None:
        """Has the server accept these calls, or fails those that it never will.

        What has ended is told when no call is on its way any more: a callback may cancel one, which waits until that has arrived.
        """
        patience, pause = Patience(self._patience), 0.0
        ended: list[tuple[Call, Any]] = []
        batches = _batches([call for call in calls if call.batch is not None or self._goes(call, ended)])
        early: list[Message] = []
        while batches and not self._over.is_set():
            batch = batches.pop()
            try:
                ids = self._jobs.submit(batch)
            except TrineError as error:
                if not isinstance(error, NoConnection):
                    self._connecting.worked()
                status = error.status if isinstance(error, ProblemError) else None
                if isinstance(error, ProblemError) and status not in FOR_NOW:
                    batches += self._refused(batch, error, ended)
                    continue
                batches.append(batch)
                if isinstance(error, NoConnection) and not batch.in_doubt:
                    pause = self._connecting.failed(error)
                    break
                wait = patience.failed(error)
                if status == 429:
                    pause = self._no_room(batch, error, wait)
                    break
                batch.in_doubt = True
                self._over.wait(wait)
                ids = self._look_for(batch.calls, patience)
                if not ids:
                    continue
                batches.pop()
            self._connecting.worked()
            self._at_once = min(2 * self._at_once, MOST_IN_BATCH)
            early += self._accepted(batch.calls, ids, ended)
            if batch.in_doubt:  # they may have been accepted long ago, and their ends been told when nobody knew them
                self._help(self._look_after_all)
        self._sent(batches)
        self._finish_all(ended)
        if early:
            self._handle(early)
        self._over.wait(pause)

    def _no_room(self, batch: Batch, error: TrineError, wait: float) -> float:
        """How many seconds to wait after the server had no room for a batch: there may be some for half of it right now."""
        if not self._told_full:
            self._told_full = True
            LOGGER.warning("the server has no room for more calls, which wait here until it has: %s", error)
        self._at_once = max(1, len(batch.calls) // 2)
        return wait if batch.in_doubt or len(batch.calls) == 1 else 0.0

    def _look_for(self, calls: list[Call], patience: Patience) -> list[str]:
        """The ids of calls that were accepted although the answer, which may be long, did not arrive: all that were not known."""
        found: list[str] = []
        cursor = None
        while not self._over.is_set():
            try:
                page = self._jobs.page(cursor=cursor)
            except TrineError as error:
                self._over.wait(patience.failed(error))
                continue
            later = [item["id"] for item in page["items"] if item["id"] > self._latest]
            found += later
            cursor = page.get("next_cursor")
            if cursor is None or len(later) < len(page["items"]):
                break
        return sorted(found) if len(found) == len(calls) else []

    def _refused(self, batch: Batch, problem: ProblemError, ended: list[tuple[Call, Any]]) -> list[Batch]:
        """What is left of a batch that the server refused, to be sent anew."""
        calls = batch.calls
        at_fault = {fault.item for fault in problem.errors}.intersection(range(len(calls)))
        if self._ways.are_others(problem, calls):
            calls = [call for call in calls if self._goes(call, ended)]
        elif at_fault:
            ended += [(call, self._ways.refusal(call, problem, item)) for item, call in enumerate(calls) if item in at_fault]
            calls = [call for item, call in enumerate(calls) if item not in at_fault]
        elif problem.status == 408 and not batch.was_slow and (batch.in_doubt or len(calls) == 1):
            batch.was_slow = True
            return [batch]
        elif len(calls) > 1 and (problem.status == 413 or (problem.status == 408 and not batch.in_doubt)):
            half = len(calls) // 2
            return [Batch(calls[half:]), Batch(calls[:half])]
        else:
            ended += [(call, self._ways.refusal(call, problem, 0)) for call in calls]
            calls = []
        return [Batch(calls)] if calls else []

    def _goes(self, call: Call, ended: list[tuple[Call, Any]]) -> bool:
        """Whether a call can be sent, by another way if its own has turned out to be none; if it can't, that is how it ends."""
        try:
            call.beginning()
            self._ways.carry_anew(call)
        except CancelledError:
            ended.append((call, NEVER_RAN))
            return False
        except Exception as error:
            ended.append((call, error.with_traceback(None)))
            return False
        return True

    def _accepted(self, calls: list[Call], ids: list[str], ended: list[tuple[Call, Any]]) -> list[Message]:
        """Notes the ids of calls. Gives what has already been told of them."""
        if len(ids) != len(calls):  # it was sent again, and the server has since removed some of its jobs
            ended += [(call, JobLost("lost", "the server no longer knows all jobs that came with it")) for call in calls]
            return []
        early: list[Message] = []
        self._ways.arrived(calls)
        with self._lock:
            self._latest = max(self._latest, ids[-1])
            stop = []
            for call, job in zip(calls, ids):
                call.id, call.place = job, ACCEPTED
                call.sent()
                self._calls[job] = call
                early += self._early.pop(job, ())
                if call.stop:
                    stop.append(job)
            self._answers.notify_all()
        for job in stop:
            self._help(self._stop, job)
        return early

    def _sent(self, back: list[Batch]) -> None:
        """Nothing is on its way any more. What the server has refused for now, or was not reached for, waits here again, where it
        can be cancelled.
        """
        calls = [call for batch in reversed(back) for call in batch.calls]
        with self._lock:
            if self._broken is not None:
                return  # the calls have ended meanwhile
            for batch in back:
                for call in batch.calls:
                    call.place, call.batch = QUEUED, batch if batch.in_doubt else None
            self._queue.extendleft(reversed(calls))
            self._in_flight -= len(calls)
            self._sending = []
            self._early.clear()
            self._answers.notify_all()
        for call in calls:
            if call.stop:
                self._cancel_here(call)

    # ---- Reading ----

    def _read_all(self) -> None:
        """The second thread."""
        follower = self._jobs.ends()
        patience = Patience(self._patience)
        while not self._is_over():
            try:
                with self._connections.stream(follower.request(), _calls.SILENCE) as stream:
                    follower.opened(stream.response)
                    self._set_stream(stream)
                    while data := stream.read():
                        patience.worked()  # not before: a proxy may open a stream, and keep what comes
                        self._handle(follower.decode(data))
                        self._opened.set()
                self._over.wait(FIRST_WAIT)
            except TrineError as error:
                if not self._is_over():
                    try:
                        self._over.wait(patience.failed(error))
                    except TrineError as last:
                        self._break(last)
            except BaseException as error:
                self._break(error)

    def _set_stream(self, stream: Stream) -> None:
        with self._lock:
            again, self._stream = self._opened.is_set(), stream
            self._end_if_done()
        if again and not self._over.is_set():
            self._help(self._look_after_all)

    def _look_after(self) -> None:
        """After a break: ends the calls whose jobs have ended or are gone, which the stream may never tell."""
        with self._lock:
            known = list(self._calls)
        unfinished = self._jobs.ids(*WAITING, "running")
        for job in known:
            if job in self._calls and job not in unfinished:
                told = self._jobs.look_at(job)
                if isinstance(told, TrineError) or told["state"] not in (*WAITING, "running"):
                    self._finish_jobs([(job, told)])

    def _look_after_all(self) -> None:
        """The same, or gives up: whoever waits for an end that is never told would wait for ever."""
        try:
            self._patiently(self._look_after)
        except TrineError as error:
            self._break(error)

    def _handle(self, messages: Iterable[Message]) -> None:
        """Takes in what happened."""
        finished = [(message, *ended_job(message.data)) for message in messages if message.kind == "finished"]
        known = []
        with self._lock:
            for message, job, told in finished:
                if job in self._calls:
                    known.append((job, told))
                elif self._sending:
                    self._early.setdefault(job, []).append(message)
        if known:
            self._finish_jobs(known)

    def has_begun(self, call: Call) -> bool:
        """Whether a call runs."""
        if call.phase == PENDING and call.place == ACCEPTED and self._jobs.runs(call.id or ""):
            self._begin(call)
        return call.phase == RUNNING

    def _begin(self, call: Call) -> None:
        """Tells a future that its call runs."""
        with self._lock:
            if call.phase == PENDING and not call.cancelling and call.future is not None:
                call.phase = RUNNING
                call.future.set_running_or_notify_cancel()

    def _finish_jobs(self, finished: list[tuple[str, Any]]) -> None:
        with self._lock:
            ended = [(call, told) for job, told in finished if (call := self._calls.pop(job, None)) is not None]
        if ended:
            self._finish_all(ended)

    # ---- Ending calls ----

    def _finish_all(self, ended: list[tuple[Call, Any]]) -> None:
        """Tells the futures how it ended: by what the server told of the job, or by an exception.

        The calls are counted before: a callback may wait for the end of the executor, or raise whatever it likes.
        """
        sent = 0
        telling: list[tuple[JobFuture[Any], Call, Any, bool]] = []
        with self._lock:
            for call, told in ended:
                if call.phase in (ENDED, CANCELLED):
                    continue
                cancelled = call.phase == PENDING and never_ran(told)
                telling.append((call.end(CANCELLED if cancelled else ENDED), call, told, cancelled))
                sent += call.place != QUEUED
            self._unfinished -= len(telling)
            self._in_flight -= sent
            self._ended()
        for future, call, told, cancelled in telling:
            try:
                if cancelled:
                    future._cancelled()
                else:
                    _tell(future, call, told)
            except BaseException:  # of a callback: it must not keep the others from being told
                LOGGER.exception("exception calling a callback of %r", future)

    def _ended(self) -> None:
        """Calls have ended, and were counted. The lock is held."""
        self._answers.notify_all()
        if self._waiting and self._queue:
            self._waiting = False
            self._work.notify()
        self._end_if_done()

    def _end_if_done(self) -> None:
        """Makes the threads end if nothing is left for them. The lock is held."""
        if (self._closed is not None and self._unfinished == 0) or self._broken is not None:
            self._over.set()
            self._opened.set()
            self._work.notify_all()
            self._unwanted.put(None)
            if self._stream is not None:
                self._stream.abort()

    def _is_over(self) -> bool:
        """Whether nothing is left to be read; for the thread that reads, which `abandon` leaves the end to."""
        with self._lock:
            self._end_if_done()
            return self._over.is_set()

    def _break(self, error: BaseException) -> None:
        """Gives up. The calls that have not ended end with this error."""
        with self._lock:
            if self._broken is not None or self._over.is_set():
                return
            self._broken = ServerGone(f"the executor has given up its server: {error}")
            self._broken.__cause__ = error
            calls = [*self._sending, *self._queue, *self._calls.values()]
            self._queue.clear()
            self._calls.clear()
            self._sending = []  # whatever comes of them: nobody is to wait for that
            self._end_if_done()
        self._finish_all([(call, self._broken) for call in calls])

    # ---- Cancelling ----

    def cancel(self, call: Call, patiently: bool = False) -> bool:
        """Cancels a call that does not run yet; False if it is too late, or the server is away: for long, if `patiently`."""
        while not self._cancel_here(call):
            with self._answers:
                while call.phase == PENDING and (call.cancelling or self._must_arrive(call)):
                    self._answers.wait()
                if call.phase != PENDING:
                    return call.phase == CANCELLED
                accepted = call.cancelling = call.place == ACCEPTED
            if accepted:
                return self._cancel_there(call, patiently)
        return True

    def _cancel_here(self, call: Call) -> bool:
        """Cancels a call if it waits to be sent."""
        # The lock is let go of before they are told: also if this is interrupted, and all of them, whatever a callback raises.
        with contextlib.ExitStack() as telling, self._lock:
            if call.phase == PENDING and call.place == QUEUED:
                call.unwanted = True
                for each in self._cancelled_with(call):
                    telling.callback(each.end(CANCELLED)._cancelled)
                    self._unfinished -= 1
                self._ended()
        return call.phase == CANCELLED

    def _cancelled_with(self, call: Call) -> list[Call]:
        """What is cancelled here if this call is; nothing if it has to arrive first. The lock is held.

        A batch in doubt is sent again whole or not at all: under another key, what is left of it could be made twice.
        """
        if call.batch is None or threading.current_thread() in self._threads[:1]:  # the sender can't wait for itself
            return [call]
        calls = [each for each in call.batch.calls if each.phase == PENDING and each.place == QUEUED]
        return calls if all(each.unwanted for each in calls) else []

    def _must_arrive(self, call: Call) -> bool:
        """Whether a call can't be cancelled before the server has answered. The lock is held."""
        return call.place == SENDING or (call.place == QUEUED and not self._cancelled_with(call))

    def _cancel_there(self, call: Call, patiently: bool) -> bool:
        """Has the server cancel a call that still waits there. Whoever is interrupted meanwhile keeps nobody else from trying."""
        job, cancelled, runs, future = call.id or "", False, False, None
        try:
            if patiently:
                self._patiently(self._jobs.cancel, job, WAITING)
            else:
                self._jobs.cancel(job, WAITING)
            cancelled = True
            self._refusals.clear()
        except TrineError as error:
            runs = isinstance(error, ProblemError) and error.names("in-another-state")
            self._not_cancelled(error)
        finally:
            with self._lock:
                call.cancelling = False
                self._answers.notify_all()
                if cancelled and call.phase == PENDING:
                    future = call.end(CANCELLED)
                    self._calls.pop(job, None)
                    self._unfinished -= 1
                    self._in_flight -= 1
                    self._ended()
        if future is not None:
            future._cancelled()
        if runs:
            self._begin(call)
        return call.phase == CANCELLED

    def _not_cancelled(self, error: TrineError) -> None:
        """Says in the log why nothing is cancelled, unless it was too late: futures can only say that it is not."""
        if isinstance(error, ProblemError) and error.status in (404, 409, 412):
            return
        kind = error.type if isinstance(error, ProblemError) else type(error).__name__
        if kind not in self._refusals:  # what keeps one call from being cancelled keeps many
            self._refusals.add(kind)
            LOGGER.warning("the server has not cancelled what it was asked to cancel: %s", error)

    def cancel_all(self, calls: Iterable[Call]) -> None:
        """Cancels many: those that were not sent at once, the others several at a time."""
        for cancelled in self._cancel_all_there([call for call in calls if not self._cancel_here(call)]):
            cancelled.result()

    def let_go(self, calls: Iterable[Call]) -> None:
        """Cancels what nobody asks for any more. The server is given the time that it takes, and not waited for."""
        sent = [call for call in calls if not self._cancel_here(call) and call.phase == PENDING]
        if sent:
            self._help(self._cancel_all_there, sent)

    def let_go_later(self, calls: Iterable[Call]) -> None:
        """As `let_go`, for the collector: it calls this in the midst of anything, so it takes no lock."""
        self._unwanted.put(calls)

    def _let_go_all(self) -> None:
        """The third thread. Callbacks are left to the helpers: they may take long, or raise what ends a thread."""
        while (calls := self._unwanted.get()) is not None:
            self._help(self.let_go, calls)

    def _cancel_all_there(self, calls: list[Call]) -> list[Future[bool]]:
        """Begins to cancel calls that were sent."""
        with self._answers:
            while any(call.phase == PENDING and self._must_arrive(call) for call in calls):
                self._answers.wait()
        if all(call.phase != PENDING for call in calls):
            return []
        return [self._help(self.cancel, call, True) for call in calls if call.phase == PENDING]

    def stop(self, call: Call) -> None:
        """Cancels a call also if it runs, and does not wait for that."""
        with self._lock:
            job, call.stop = call.id, True
            if call.phase in (ENDED, CANCELLED):
                return
        if not self._cancel_here(call) and job is not None:
            self._help(self._stop, job)

    def _stop(self, job: str) -> None:
        """Cancels a job also if it runs, as far as that can be done."""
        try:
            self._patiently(self._jobs.cancel, job)
        except TrineError as error:
            self._not_cancelled(error)

    # ---- Closing ----

    def close(self, why: str = "shutdown") -> None:
        """Takes no more calls; those that it has go on."""
        with self._lock:
            self._closed = self._closed or why
            self._end_if_done()

    def abandon(self) -> None:
        """Closes it because nobody has it any more. The collector calls this in the midst of anything, so it takes no lock."""
        self._closed = self._closed or "shutdown"
        if self._unfinished == 0 and self._stream is not None:
            self._stream.abort()  # wakes the thread that reads it

    def cancel_pending(self) -> None:
        """Cancels what does not run yet; the stream tells what had been accepted.

        The first calls are given the time to be sent: a pool's workers take theirs at once.
        """
        with self._answers:
            self._answers.wait_for(lambda: self._in_flight or not self._unfinished, FIRST_CALLS_WAIT)
        self._cancel_queued()
        if self._calls:
            try:
                for state in WAITING:
                    self._patiently(self._jobs.cancel_all_in, state)
            except TrineError as error:  # what can't be cancelled goes on
                self._not_cancelled(error)

    def _cancel_queued(self) -> None:
        """Cancels what was not sent. What is on its way arrives meanwhile, or waits here again.

        Each call stays in the queue until it is cancelled, so that none is lost if this is interrupted.
        """
        while (call := self._last_queued()) is not None:
            for each in call.batch.calls if call.batch else ():
                each.unwanted = True
            self._cancel_here(call)

    def _last_queued(self) -> Optional[Call]:
        """The call that would be sent last; None if there is none, and nothing on its way."""
        with self._answers:
            while True:
                while self._queue and self._queue[-1].phase != PENDING:
                    self._queue.pop()
                if self._queue or not self._sending:
                    return self._queue[-1] if self._queue else None
                self._answers.wait()

    def join(self) -> None:
        """Waits until every call has ended; to be called after `close`."""
        self.check_waits()
        for thread in self._threads:
            thread.join()
        self._threads = []
        helpers = self._helpers
        if helpers is not None:
            helpers.shutdown()
        self._connections.close()

    def check_waits(self) -> None:
        """Refuses that a callback waits for calls whose ends are told by its own thread, as the pools do."""
        if threading.current_thread() in self._threads:
            raise RuntimeError("cannot join current thread")

    def forked(self) -> None:
        """In a new process: what has begun goes on in the old one, whose threads, connections and jobs these are."""
        self._make_locks()  # somebody there may have held them
        if not self._threads:
            self._jobs.rename()  # the two are no longer one executor
            return
        self._closed = self._closed or "a fork: make an executor in the new process"
        for call in (*self._queue, *self._sending, *self._calls.values()):
            call.phase, call.future = ENDED, None
        for part in list(self.parts):
            part.forked()
        self._queue.clear()
        self._calls.clear()
        self._sending, self._unfinished = [], 0
        self._threads, self._helpers = [], None
        if self._stream is not None:
            self._stream.connection.close()
            self._stream = None


def _belongs(call: Call, calls: list[Call]) -> bool:
    """Whether a call was in a batch, which is in doubt, with the last of these: that is sent again whole."""
    return bool(calls) and call.batch is not None and call.batch is calls[-1].batch


def _batches(calls: list[Call]) -> list[Batch]:
    """Calls to be sent, the last ones first. A batch in doubt is what it was, or else a new one of what is left of it."""
    groups = [(batch, list(group)) for batch, group in itertools.groupby(calls, lambda call: call.batch)]
    return [batch if batch is not None and batch.calls == group else Batch(group) for batch, group in reversed(groups)]


def _tell(future: JobFuture[Any], call: Call, told: Any) -> None:
    """Gives a future its value or its exception."""
    if isinstance(told, dict):
        future._told = {"timing": told.get("timing")}
    value, error = outcome(told, call.way, call.id or "")
    if error is None:
        future.set_result(value)
    else:
        future.set_exception(error)
